"""Energies whose exp(-energy) has no finite integral are refused, and proper ones with heavy tails are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from boltzflow.densities.energy import Energy
from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.propriety import improper, slow_axes
from boltzflow.errors import InputError
from boltzflow.interop.callback import Callback

DESIGN = np.random.default_rng(0).normal(size=(50, 6))
TIMES = np.linspace(0.0, 9.0, 40)
WAVE = np.sin(2 * TIMES + 1)
LEVEL = "directions the energy grows by less than dim·log"


def points(dim):
    return jax.random.normal(jax.random.key(1), (64, dim))


def pairs(x):
    """The differences of all coordinates, which a shift of all does not change."""
    return (x[:, None] - x) ** 2


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    ("fn", "dim", "words"),
    [
        (lambda x: x[0] ** 2 + x[2] ** 2, 3, r"does not grow towards x\[1\] = 1e\+12"),
        (lambda x: x[0] ** 2 + jnp.tanh(x[1] ** 2), 2, r"does not grow towards x\[1\]"),
        (lambda x: jax.nn.relu(x[0]) + x[1] ** 2, 2, r"does not grow towards x\[0\] = -1e\+12"),
        (lambda x: x[0] + x[1] ** 2, 2, r"does not grow towards x\[0\] = -1e\+12 \(it is -1e\+12 there\)"),
        (lambda x: jnp.sum(pairs(x)), 4, r"does not change along the direction \(0.50, 0.50, 0.50, 0.50\)"),
        (lambda x: jnp.sum((jnp.asarray(DESIGN)[:5] @ x) ** 2), 6, "does not change along the direction"),
        (lambda x: -jnp.log1p(jnp.exp(-x @ x)), 2, f"in 64 of 64 {LEVEL}"),
        (lambda x: 1 - jnp.exp(-x @ x / 2), 5, LEVEL),
        (lambda x: 1e4 + jnp.tanh(x @ x), 2, LEVEL),
        (lambda x: jnp.sum(jnp.cos(x)), 2, LEVEL),
        (
            lambda x: 50 * jnp.sum((x[0] * jnp.sin(x[1] * TIMES + x[2]) - WAVE) ** 2) + x[0] ** 2 + x[1] ** 2,
            3,
            r"repeats itself along x\[2\], as that of an angle or phase without a prior",
        ),
        (lambda x: x[0] ** 2 + 1e3 * jnp.cos(jnp.pi / 180 * x[1]), 2, r"x\[1\]"),
        (lambda x: x[0] ** 2 + 1e3 * jnp.sin(2 * jnp.pi * x[1] / 24) ** 2, 2, r"x\[1\]"),
        (lambda x: jnp.log1p(x @ x), 3, LEVEL),  # of a Student t with ν = -1
        (lambda x: -logsumexp(jnp.array([0.0, -x @ x])), 2, LEVEL),
        (lambda x: jnp.sum(jax.nn.softplus(-jnp.array([[1.0, 0.2], [0.9, -0.1]]) @ x)), 2, LEVEL),  # separable
        (lambda x: -x @ x / 2, 4, "falls outward in all of 64 directions .* is it the log-density"),
        (lambda x: -jnp.sum(jnp.log1p(x**2)), 2, "falls outward in all of 64 directions .* is it the log-density"),
        (lambda x: jnp.sum(x**3), 2, r"falls outward in \d\d of 64 directions"),
    ],
)
def test_improper_energies_are_refused_with_their_direction(fn, dim, words, x64):
    with jax.enable_x64(x64), pytest.raises(InputError, match=words) as raised:
        check_energy(Energy(fn, dim), points(dim))
    assert "\n" not in str(raised.value) and "no finite integral" in str(raised.value)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    ("fn", "dim"),
    [
        (lambda x: jnp.log1p(x @ x), 1),
        (lambda x: 5.5 * jnp.log1p(x @ x), 10),
        (lambda x: (3 + 0.3) / 2 * jnp.log1p(x @ x / 0.3), 3),
        (lambda x: jnp.sum(jnp.log1p(x**2)), 6),
        (lambda x: jnp.log1p(1e8 * x[0] ** 2) + jnp.log1p(1e-4 * x[1] ** 2), 2),
        (lambda x: x[0] ** 2 / 18 + 4.5 * x[0] + jnp.exp(-x[0]) * jnp.sum(x[1:] ** 2) / 2, 10),  # a funnel
        (lambda x: jnp.sum(jnp.log1p(jnp.exp(2 * x[:4])) - x[:4]) + x[4:] @ x[4:] / 2, 8),  # log-scales of a horseshoe
        (lambda x: jnp.sum(x + jnp.exp(-x)), 3),
        (lambda x: x[0] ** 2 + 1e3 * jnp.cos(x[1]) + jnp.log1p(x[1] ** 2), 2),  # a phase with a Cauchy prior
        (lambda x: jnp.sum(jnp.exp(x) - 0.01 * x), 3),
        (lambda x: jnp.sum(jnp.sqrt(1 + jnp.abs(x))), 4),
        (lambda x: jnp.sum((x / 1e6) ** 2), 3),
        (lambda x: jnp.sum((x / 1e-4) ** 2), 3),
        (lambda x: 1e8 * x[0] ** 2 + 0.5 * x[1] ** 2, 2),
        (lambda x: 1e6 * jnp.sum(pairs(x)) + 1e-6 * jnp.sum(x) ** 2, 4),
        (lambda x: jnp.sum((1e4 * jnp.asarray(DESIGN) @ (x - 1)) ** 2) + x @ x, 6),
        (lambda x: 1e7 + x @ x, 3),
        (lambda x: jnp.minimum(x @ x / 2, 1e4), 6),  # level far above what samples can reach
        (lambda x: 0.5 * x @ x, 300),
    ],
)
def test_proper_energies_pass(fn, dim, x64):
    with jax.enable_x64(x64):
        assert improper(Energy(fn, dim), points(dim)) == ""


def test_energies_that_may_not_end_far_out_are_left_alone():
    def newton(x):
        return jax.lax.while_loop(lambda s: jnp.abs(s) > 1, lambda s: s / 2, x[0] ** 2) + 0 * x[1]

    assert improper(Energy(newton, 2), points(2)) == ""
    outside = Callback(lambda x: (np.zeros(len(x)), np.zeros_like(x)), 2)
    assert improper(outside, points(2)) == ""


def test_coordinate_without_growth_between_two_radii_is_named():
    assert slow_axes(Energy(lambda x: x[0] ** 2 + jnp.minimum(x[1] ** 2, 50.0), 2), points(2), (10.0, 100.0)) == [1]
    assert slow_axes(Energy(lambda x: jnp.sum(jnp.log1p(x**2)), 3), points(3), (10.0, 100.0)) == []
