"""Compiled programs are forgotten before the system has no room for more."""

import jax
import jax.numpy as jnp
import pytest

from boltzflow.numerics import compiling as compilation


@pytest.mark.parametrize(("most", "times"), [("4", 2), ("1000000000", 1), ("", 1)])
def test_programs_are_forgotten_where_half_of_the_room_is_taken(monkeypatch, tmp_path, most, times):
    (tmp_path / "maps").write_text("one\ntwo\nthree\n")
    (tmp_path / "most").write_text(most)
    monkeypatch.setattr(compilation, "_MAPS", tmp_path / "maps")
    monkeypatch.setattr(compilation, "_MOST_MAPS", tmp_path / "most")
    traced = []

    @jax.jit
    def double(x):
        traced.append(1)
        return 2 * x

    double(jnp.ones(2))
    compilation.make_room()
    assert float(double(jnp.ones(2))[0]) == 2.0 and len(traced) == times


def test_a_system_without_such_a_limit_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "_MAPS", tmp_path / "none")
    compilation.make_room()
