"""Solving dx/dt = V_t(x) on a prescribed time grid: the only importer of diffrax."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


class RK4(diffrax.AbstractERK):
    """The classical fourth-order Runge–Kutta method, which the paper uses with 50 steps; diffrax has none."""

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.array([1 / 6 - 1, 1 / 3, 1 / 3, 1 / 6]),
        c=np.array([0.5, 0.5, 1.0]),
    )
    interpolation_cls: ClassVar[Callable] = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 4


SOLVERS: dict[str, tuple[Callable[[], Any], int]] = {
    "euler": (diffrax.Euler, 1),
    "heun": (diffrax.Heun, 2),
    "rk4": (RK4, 4),
    "tsit5": (diffrax.Tsit5, 5),
    "dopri8": (diffrax.Dopri8, 8),
}
"""By name: the method and its order."""


def solve(
    vector_field: Callable[[Float[Array, ""], PyTree], PyTree],
    state: PyTree,
    times: Float[Array, " num_times"],
    *,
    solver: str,
    save_steps: bool = False,
) -> PyTree:
    """Integrate d state / dt = vector_field(t, state) through `times`, which may run backward.

    Returns the final state, or with `save_steps` the states at every time, stacked along a leading axis of
    `num_times`. Every step is a diffrax solver's step. The loop over the grid is a `lax.scan` and not `diffeqsolve`:
    a grid drawn inside jit makes `diffeqsolve` insert run-time checks, which are host callbacks and switch the
    persistent compilation cache off. Reverse-mode differentiable: each step is checkpointed, so that memory holds the
    states at `times` and the inside of one step.
    """
    method = SOLVERS[solver][0]()
    terms = diffrax.ODETerm(lambda t, y, args: vector_field(jnp.asarray(t), y))

    @jax.checkpoint
    def step(carry: Any, interval: Any):
        y, solver_state = carry
        y, _, _, solver_state, _ = method.step(terms, interval[0], interval[1], y, None, solver_state, made_jump=False)
        return (y, solver_state), (y if save_steps else None)

    start = (state, method.init(terms, times[0], times[1], state, None))
    (final, _), states = jax.lax.scan(step, start, (times[:-1], times[1:]))
    if not save_steps:
        return final
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, states)
