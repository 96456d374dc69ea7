"""Parallel tempering: chains at inverse temperatures β from a Gaussian to the target, which swap points.

At β_r the energy is f_0 + β_r V, V = f - f_0. Tuning places the β such that all pairs reject swaps equally often, takes
2 Λ + 1 of them (Λ the barrier, Syed et al. 2022), and fits the Gaussian to the target's chain (Surjanovic et al. 2022).
log Z is a sum of bridges between neighbors (Bennett 1976), with s the logistic function and c = log Z_{r+1}/Z_r tuned:
    Z_{r+1} / Z_r = e^c E_r[s(-Δβ V - c)] / E_{r+1}[s(Δβ V + c)].
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics.compiling import Stopwatch, compiled
from boltzflow.studies.baselines.common import Answer, adapted, answer_of, draw, fitted_gaussian, shrunk, wide_gaussian

NUM_CHAINS = 256
NUM_TUNING_CHAINS = 64
NUM_LEAPFROG = 5
FIRST_REPLICAS = 20
WIDE_ROUNDS = 4
FITTED_ROUNDS = 3
ROUND_SWEEPS = 64
NUM_BURN_IN = 64


Points = Float[Array, "R chains dim"]  # R: the number of β
PerBeta = Float[Array, " R"]
PerPair = Float[Array, " R-1"]  # of neighbors


class Tuning(NamedTuple):
    """The adapted settings."""

    betas: PerBeta
    scale_tril: Float[Array, "R dim dim"]  # Cholesky factors of the covariances
    size: PerBeta  # leapfrog steps
    log_ratio: PerPair  # log Z_{r+1}/Z_r


class Round(NamedTuple):
    """The result of a round of sweeps."""

    x: Points
    size: PerBeta
    mean: Float[Array, "R dim"]
    covariance: Float[Array, "R dim dim"]
    acceptance: PerBeta
    rejection: Float[Array, "sweeps R-1"]  # of swaps
    upper: Float[Array, "sweeps R-1"]  # the mean in the numerator of a bridge
    lower: Float[Array, "sweeps R-1"]  # and in its denominator


def estimate_log_z(energy: Callable, dim: int, key: PRNGKeyArray, num_sweeps: int, *, std: float) -> Answer:
    """log Z = log ∫ exp(-energy(x)) dx by parallel tempering, from `num_sweeps` sweeps after tuning."""
    with Stopwatch() as watch:
        return _estimate_log_z(energy, dim, key, num_sweeps, std, watch)


def _estimate_log_z(
    energy: Callable, dim: int, key: PRNGKeyArray, num_sweeps: int, std: float, watch: Stopwatch
) -> Answer:
    start = wide_gaussian(dim, std)
    gradients = 0

    def sweep(index: int, x: Array, tuning: Tuning, num_sweeps: int, adapt: bool) -> Round:
        nonlocal gradients
        gradients += x.shape[0] * x.shape[1] * num_sweeps * (NUM_LEAPFROG + 1)
        round_key = jax.random.fold_in(key, index)
        return run_round(energy, round_key, start, x, tuning, num_sweeps=num_sweeps, adapt=adapt)

    tuning = first_tuning(start)
    x = jnp.stack([draw(start, jax.random.fold_in(key, 1000), NUM_TUNING_CHAINS)] * FIRST_REPLICAS)
    for index in range(WIDE_ROUNDS + FITTED_ROUNDS):
        found = sweep(index, x, tuning, ROUND_SWEEPS, adapt=True)
        if index == WIDE_ROUNDS - 1:
            start = fitted_gaussian(found.mean[-1], shrunk(np.asarray(found.covariance[-1], np.float64)))
        tuning, x = retune(tuning, found, resize=index == WIDE_ROUNDS)  # after one round with the fitted Gaussian
    x = jnp.tile(x, (1, NUM_CHAINS // NUM_TUNING_CHAINS, 1))  # the copies separate during the burn-in
    burnt = sweep(100, x, tuning, NUM_BURN_IN, adapt=True)
    tuning = tuning._replace(size=burnt.size, log_ratio=jnp.asarray(bridges(burnt, tuning), jnp.float32))
    found = sweep(101, burnt.x, tuning, num_sweeps, adapt=False)
    detail = {
        "temperatures": len(tuning.betas),
        "acceptance": float(found.acceptance.min()),
        "barrier": float(np.asarray(found.rejection).mean(axis=0).sum()),
    }
    log_z = float(start.log_z) + float(bridges(found, tuning).sum())
    return answer_of(watch, log_z, found.mean[-1], found.covariance[-1], detail, gradients)


def first_tuning(start: Gaussian) -> Tuning:
    """A geometric ladder of β, used before any information on the target."""
    betas = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-6, 1.0, FIRST_REPLICAS - 1)])
    scale_tril = jnp.broadcast_to(start.scale_tril, (FIRST_REPLICAS, start.dim, start.dim))
    size = jnp.full(FIRST_REPLICAS, 0.5 * start.dim**-0.25)
    return Tuning(betas, scale_tril, size, jnp.zeros(FIRST_REPLICAS - 1))


@compiled
def run_round(
    energy: Callable, key: PRNGKeyArray, start: Gaussian, x: Points, tuning: Tuning, *, num_sweeps: int, adapt: bool
) -> Round:
    """`num_sweeps` sweeps from `x`, under jit; `adapt` adapts the leapfrog steps to their acceptance.

    A sweep moves every chain, draws the chains at β = 0 anew, and swaps neighbors, even and odd pairs in turn.
    """
    step_width = jnp.diff(tuning.betas)[:, None]

    def potential(x: Array) -> Array:
        return jax.vmap(jax.vmap(lambda x: energy(x) - start.energy(x)))(x)

    def sweep(carry: tuple, index: Array) -> tuple:
        x, size, first, second = carry
        move_key, draw_key, swap_key = jax.random.split(jax.random.fold_in(key, index), 3)
        x, rate = hamiltonian_move(energy, start, tuning, move_key, x, size)
        x = x.at[0].set(draw(start, draw_key, x.shape[1]))
        x, v, rejection = swap(swap_key, index, x, potential(x), step_width)
        sums = (first + x.sum(axis=1), second + jnp.einsum("rci,rcj->rij", x, x))
        c = tuning.log_ratio[:, None]
        upper = jax.nn.sigmoid(-step_width * v[:-1] - c).mean(axis=1)
        lower = jax.nn.sigmoid(step_width * v[1:] + c).mean(axis=1)
        return (x, adapted(size, rate, gain=0.3 * adapt), *sums), (rate, rejection, upper, lower)

    num_points = num_sweeps * x.shape[1]
    carry = (x, tuning.size, jnp.zeros((x.shape[0], x.shape[2])), jnp.zeros_like(tuning.scale_tril))
    seen: Any
    (x, size, first, second), seen = jax.lax.scan(sweep, carry, jnp.arange(num_sweeps))
    rates, rejection, upper, lower = seen
    mean = first / num_points
    covariance = second / num_points - jnp.einsum("ri,rj->rij", mean, mean)
    return Round(x, size, mean, covariance, rates.mean(axis=0), rejection, upper, lower)


def hamiltonian_move(
    energy: Callable, start: Gaussian, tuning: Tuning, key: PRNGKeyArray, x: Points, size: PerBeta
) -> tuple[Points, PerBeta]:
    """Every chain after one Metropolized trajectory, and the acceptance rate at each β."""
    momentum_key, size_key, accept_key = jax.random.split(key, 3)
    step = size[:, None, None] * jax.random.uniform(size_key, (*x.shape[:2], 1), minval=0.6, maxval=1.4)

    def at_beta(beta: Array, x: Array) -> Array:
        return (1 - beta) * start.energy(x) + beta * energy(x)

    def energy_and_force(x: Array) -> tuple[Array, Array]:
        value_and_grad = jax.vmap(jax.vmap(jax.value_and_grad(at_beta, argnums=1), (None, 0)))
        value, gradient = value_and_grad(tuning.betas, x)
        return value, -jnp.einsum("rij,rci->rcj", tuning.scale_tril, gradient)

    def leap(carry: tuple, _: None) -> tuple:
        x, momentum, _, force = carry
        momentum = momentum + 0.5 * step * force
        x = x + jnp.einsum("rij,rcj->rci", tuning.scale_tril, step * momentum)
        value, force = energy_and_force(x)
        return (x, momentum + 0.5 * step * force, value, force), None

    momentum = jax.random.normal(momentum_key, x.shape)
    value, force = energy_and_force(x)
    (new_x, new_momentum, new_value, _), _ = jax.lax.scan(leap, (x, momentum, value, force), None, NUM_LEAPFROG)
    drop = value - new_value + 0.5 * jnp.sum(momentum**2 - new_momentum**2, axis=2)
    drop = jnp.where(jnp.isnan(drop), -jnp.inf, drop)
    accept = jnp.log(jax.random.uniform(accept_key, drop.shape)) < drop
    return jnp.where(accept[..., None], new_x, x), jnp.exp(jnp.minimum(drop, 0)).mean(axis=1)


def swap(
    key: PRNGKeyArray, index: Int[Array, ""], x: Points, v: Float[Array, "R chains"], step_width: Float[Array, "R-1 1"]
) -> tuple[Points, Float[Array, "R chains"], PerPair]:
    """Chains and their V after exchanges between the even (or odd) pairs of neighbors; rejection rates of all pairs."""
    log_ratio = step_width * (v[1:] - v[:-1])
    rejection = 1 - jnp.exp(jnp.minimum(log_ratio, 0)).mean(axis=1)
    due = (jnp.arange(len(log_ratio)) % 2 == index % 2)[:, None]
    accept = due & (jnp.log(jax.random.uniform(key, log_ratio.shape)) < log_ratio)
    source = jnp.arange(len(v))[:, None] + jnp.pad(accept, ((0, 1), (0, 0))) - jnp.pad(accept, ((1, 0), (0, 0)))
    return jnp.take_along_axis(x, source[..., None], axis=0), jnp.take_along_axis(v, source, axis=0), rejection


def retune(tuning: Tuning, found: Round, resize: bool) -> tuple[Tuning, Points]:
    """The tuning for the next round, and its first points: those of the nearest β of the last round."""
    betas = np.asarray(tuning.betas, np.float64)
    rejection = np.asarray(found.rejection, np.float64).mean(axis=0)
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(rejection, 1e-3))])
    num = max(math.ceil(2 * barrier[-1]) + 1, 3) if resize else len(betas)
    new = np.interp(np.linspace(0, barrier[-1], num), barrier, betas)
    new[0] = 0.0
    new[-1] = 1.0
    # log Z_β is smooth in β: interpolating the sums of the bridges predicts the bridges of the new ladder.
    log_z = np.concatenate([[0.0], np.cumsum(bridges(found, tuning))])
    new_barrier = np.interp(new, betas, barrier)
    log_ratio = np.diff(np.interp(new_barrier, barrier, log_z))
    nearest = np.abs(new_barrier[:, None] - barrier).argmin(axis=1)
    scale_tril = np.linalg.cholesky(shrunk(np.asarray(found.covariance, np.float64)[nearest]))
    arrays = (new, scale_tril, np.asarray(found.size)[nearest], log_ratio)
    return Tuning(*(jnp.asarray(array, jnp.float32) for array in arrays)), found.x[nearest]


def bridges(found: Round, tuning: Tuning) -> Float[np.ndarray, " pairs"]:
    """log Z_{r+1}/Z_r of each pair of neighbors, summed over sweeps in double precision."""
    upper, lower = (np.asarray(a, np.float64).mean(axis=0) for a in (found.upper, found.lower))
    tiny = np.finfo(np.float32).tiny
    return np.asarray(tuning.log_ratio, np.float64) + np.log(np.maximum(upper, tiny)) - np.log(np.maximum(lower, tiny))
