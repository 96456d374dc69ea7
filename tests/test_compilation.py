"""Compiled programs: dropped before the system's limit on memory maps is reached, timed, and never in TF32."""

import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from benchmarks.products import flops, num_loose, products

import boltzflow
from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics import compiling
from boltzflow.sampling import smc
from boltzflow.sampling.minima import descend


@pytest.mark.parametrize(("most", "times"), [("4", 2), ("1000000000", 1), ("", 1)])
def test_programs_are_dropped_above_half_of_map_limit(monkeypatch, tmp_path, most, times):
    (tmp_path / "maps").write_text("one\ntwo\nthree\n")
    (tmp_path / "most").write_text(most)
    monkeypatch.setattr(compiling, "_MAPS", tmp_path / "maps")
    monkeypatch.setattr(compiling, "_MOST_MAPS", tmp_path / "most")
    traced = []

    @jax.jit
    def double(x):
        traced.append(1)
        return 2 * x

    double(jnp.ones(2))
    compiling.make_room()
    assert float(double(jnp.ones(2))[0]) == 2.0 and len(traced) == times


def test_make_room_ignores_systems_without_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_MAPS", tmp_path / "none")
    compiling.make_room()


def test_stopwatch_counts_overlapping_spans_once():
    with compiling.Stopwatch() as watch:
        for start, end in [(0, 1), (2, 4), (2.5, 3), (3.5, 5)]:
            watch._listen("/jax/core/compile/backend_compile", start, end)
        watch._listen("/jax/other", 0, 100)
        assert watch.compile_seconds == 4


def test_stopwatch_keeps_compilation_apart():
    @jax.jit
    def slow_to_compile(x):
        for _ in range(300):
            x = jnp.sin(x) + 1
        return x

    with compiling.Stopwatch() as first:
        slow_to_compile(1.0).block_until_ready()
    with compiling.Stopwatch() as second:
        slow_to_compile(1.0).block_until_ready()
    assert first.compile_seconds > first.seconds >= 0
    assert second.compile_seconds == 0 < second.seconds
    seconds = second.seconds
    assert second.seconds == seconds  # it stopped


PRODUCTS = [
    lambda x: x @ jnp.eye(3) @ x,
    lambda x: jnp.einsum("i,ij,j", x, jnp.eye(3), x),
    lambda x: jnp.dot(jnp.tensordot(jnp.eye(3), x, 1), x),
    lambda x: jnp.linalg.norm(x[None] @ jnp.eye(3)) + jnp.vdot(x, x),
]


@pytest.mark.parametrize("energy", PRODUCTS, ids=["matmul", "einsum", "tensordot", "norm"])
def test_compiled_programs_have_no_product_in_tf32(energy):
    """A user's energy and its gradient keep single precision on a GPU, whose default is TF32."""
    gradient = jax.vmap(jax.value_and_grad(energy))
    bare = products(jax.jit(gradient), jnp.ones((4, 3)))
    ours = products(compiling.compiled(gradient), jnp.ones((4, 3)))
    assert num_loose(bare) == len(bare) == len(ours) > 0 == num_loose(ours)
    assert flops(ours) == flops(bare) >= 4 * 2 * 9


def test_pilot_has_no_product_in_tf32():
    """Neither the moves of an SMC run, their covariance, nor descent; for these the lattice has Fourier transforms."""
    target = boltzflow.Energy(PRODUCTS[0], 3)
    particles = smc._start(Gaussian(jnp.zeros(3), 1.0), target, jax.random.key(0), num=64)
    settings = (jnp.asarray(0.5), jnp.asarray(2))
    tempered = products(smc._temper, particles, Gaussian(jnp.zeros(3), 1.0), target, jax.random.key(1), *settings)
    descended = products(descend, target, particles.x, num_steps=2)
    assert len(tempered) > 5 and len(descended) > 1 and num_loose([*tempered, *descended]) == 0


def test_nothing_is_compiled_past_compiled():
    """`testing` compiles as a user's program does."""
    root = Path(boltzflow.__file__).parent
    allowed = {root / "numerics" / "compiling.py", *(root / "testing").iterdir()}
    past = [
        path
        for path in root.rglob("*.py")
        if path not in allowed and re.search(r"\b(filter_)?jit\b[(\n]", path.read_text("utf-8"))
    ]
    assert not past


def test_compiled_keeps_signature_and_name():
    @compiling.compiled
    def scaled(x, *, factor: int = 2):
        return factor * x

    assert scaled.__name__ == "scaled" and scaled(jnp.ones(2))[0] == 2 and scaled(jnp.ones(2), factor=3)[0] == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiling.compiled(jax.vmap(jax.grad(PRODUCTS[0])))(jnp.ones((4, 3)))
