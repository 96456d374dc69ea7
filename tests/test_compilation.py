"""Compiled programs are dropped before the system's limit on memory maps is reached."""

import jax
import jax.numpy as jnp
import pytest

from boltzflow.numerics import compiling


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
