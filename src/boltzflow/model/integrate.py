"""Solving dx/dt = V_t(x) on a prescribed time grid; the only module that imports diffrax, for its coefficients."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree


class Tableau(NamedTuple):
    """An explicit Runge–Kutta method."""

    nodes: tuple[float, ...]  # the time of each stage
    rows: tuple[tuple[float, ...], ...]  # the weights of the earlier rates in each stage
    weights: tuple[float, ...]
    order: int


def _of_diffrax(method: Any, order: int) -> Tableau:
    tableau = method.tableau
    rows = tuple(tuple(map(float, row)) for row in tableau.a_lower)
    return Tableau((0.0, *map(float, tableau.c)), ((), *rows), tuple(map(float, tableau.b_sol)), order)


SOLVERS: dict[str, Tableau] = {
    "euler": Tableau((0.0,), ((),), (1.0,), 1),
    "heun": _of_diffrax(diffrax.Heun, 2),
    "rk4": Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
    "tsit5": _of_diffrax(diffrax.Tsit5, 5),
    "dopri8": _of_diffrax(diffrax.Dopri8, 8),
}
"""The solvers by name. The paper uses "rk4", which diffrax does not have, with 50 steps."""


def solve(
    vector_field: Callable[[Float[Array, ""], PyTree], PyTree],
    state: PyTree,
    times: Float[Array, " num_times"],
    *,
    solver: str,
    save_steps: bool = False,
) -> PyTree:
    """Integrate d state / dt = vector_field(t, state) from `times[0]` to `times[-1]`, by one step of an interval.

    Returns the final state, or with `save_steps` the states at all `times`; memory holds these and one step's values.
    """

    @jax.checkpoint
    def step(y: PyTree, interval: tuple[Float[Array, ""], Float[Array, ""]]):
        y = _step(vector_field, y, *interval, SOLVERS[solver])
        return y, (y if save_steps else None)

    final, states = jax.lax.scan(step, state, (times[:-1], times[1:]))
    if not save_steps:
        return final
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)


def solve_between(
    vector_field: Callable[[Float[Array, ""], PyTree], PyTree],
    state: PyTree,
    start: Float[Array, ""],
    end: Float[Array, ""],
    num_steps: Int[Array, ""],
    *,
    solver: str,
) -> PyTree:
    """The same final state after `num_steps` equal steps, whose number is an argument of the compiled program.

    It has no reverse-mode derivative.
    """

    def step(i: Int[Array, ""], y: PyTree) -> PyTree:
        first, last = (start + (end - start) * (j.astype(start.dtype) / num_steps) for j in (i, i + 1))
        return _step(vector_field, y, first, last, SOLVERS[solver])

    return jax.lax.fori_loop(0, num_steps, step, state)


def _step(
    vector_field: Callable[[Float[Array, ""], PyTree], PyTree],
    y: PyTree,
    start: Float[Array, ""],
    end: Float[Array, ""],
    tableau: Tableau,
) -> PyTree:
    """One Runge–Kutta step."""
    length = end - start
    rates: list[PyTree] = []
    for node, row in zip(tableau.nodes, tableau.rows, strict=True):
        rates.append(vector_field(start + node * length, _advance(y, length, row, rates)))
    return _advance(y, length, tableau.weights, rates)


def _advance(y: PyTree, length: Float[Array, ""], row: Sequence[float], rates: Sequence[PyTree]) -> PyTree:
    """y + length Σ_i row_i rates_i."""
    used = [(a, rate) for a, rate in zip(row, rates, strict=True) if a]
    if not used:
        return y
    weights, trees = zip(*used, strict=True)
    return jax.tree.map(lambda y, *r: y + length * sum(map(operator.mul, weights, r)), y, *trees)
