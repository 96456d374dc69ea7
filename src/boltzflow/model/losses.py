"""The losses of training: the continuity loss (16) and, as the baseline, the reverse KL divergence (1)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError
from boltzflow.model.continuity import Transport, continuity_residual
from boltzflow.model.flow import Flow
from boltzflow.model.integrate import solve

Penalty = Callable[[Float[Array, "..."]], Float[Array, "..."]]
"""L: takes residuals, and returns a number of at least 0 for each."""

PENALTIES: dict[str, Penalty] = {
    "abs": jnp.abs,
    "square": jnp.square,
    "abs+square": lambda r: jnp.abs(r) + r**2,
    "log1p": lambda r: jnp.log1p(jnp.abs(r)),
}
"""The four functions L of the paper's footnote 1; the paper uses "abs+square"."""


def stratified_times(key: PRNGKeyArray, num_intervals: int) -> Float[Array, " num_intervals"]:
    """t_i = (i + u) / num_intervals with one u ~ U(0, 1): over many draws this coarse grid covers every time."""
    return (jnp.arange(num_intervals) + jax.random.uniform(key)) / num_intervals


def trajectory(
    transport: Transport, x0: Float[Array, "batch dim"], times: Float[Array, " num_times"], solver: str
) -> Float[Array, "num_times batch dim"]:
    """The points `x0` at t = 0, carried by the flow to each of `times` (increasing, in [0, 1])."""
    # Gradients stop before the solve and not after it: differentiation around it then costs no more than a value.
    arrays, rest = eqx.partition(transport.field, eqx.is_inexact_array)
    field = eqx.combine(jax.lax.stop_gradient(arrays), rest)
    x0, times = jax.lax.stop_gradient((x0, times))
    grid = jnp.concatenate([jnp.zeros((1,), times.dtype), times])
    return solve(jax.vmap(field.velocity, (None, 0)), x0, grid, solver=solver, save_steps=True)[1:]


def continuity_loss(
    transport: Transport, times: Float[Array, " num"], points: Float[Array, "num dim"], penalty: str | Penalty
) -> Float[Array, ""]:
    """The mean of L(|r_t(x)|) over pairs (t, x), of any law that covers the points; `penalty` is L or its name (16).

    Raises:
        InputError: L does not return a number for each residual.
    """
    # One flat batch of pairs and not a grid: the matrix products are then as large as possible.
    residual = jax.vmap(continuity_residual, (None, 0, 0))(transport, times, points)
    found = (PENALTIES[penalty] if isinstance(penalty, str) else penalty)(residual)
    if jnp.shape(found) != residual.shape:
        raise InputError(
            f"a penalty returns one number for each residual, got shape {jnp.shape(found)} for {residual.shape}"
        )
    return jnp.mean(found)


def reverse_kl_loss(flow: Flow, target: AbstractDensity, keys: Key[Array, " batch"]) -> Float[Array, ""]:
    """E_{x ~ q} [log q(x) + f(x)] = KL(q, p) - log Z, over one sample of the flow for each of `keys`."""
    x, log_prob = jax.vmap(flow.sample_and_log_prob)(keys)
    return jnp.mean(log_prob + jax.vmap(target.energy)(x))
