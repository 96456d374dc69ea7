"""Parallel tempering: chains at a ladder of temperatures between a Gaussian and the target, which exchange places.

At β_r the energy is f_0 + β_r V, V = f - f_0. A sweep moves every chain by Hamiltonian dynamics, preconditioned by the
covariance found at its temperature, draws the chains at β = 0 anew, and swaps neighbors, even and odd pairs in turn
(the non-reversible scheme). Rounds of tuning on a quarter of the chains place the temperatures so that all pairs reject
swaps equally often, choose their number by the barrier Λ between Gaussian and target (2 Λ + 1, Syed et al. 2022), fit
the Gaussian to the target's chain (a variational reference, Surjanovic et al. 2022), and adapt the steps. Then nothing
is changed any more, and log Z is a sum of bridges between neighbors (Bennett 1976, Meng & Wong 1996):

    Z_{r+1} / Z_r = e^c E_r[s(-Δβ V - c)] / E_{r+1}[s(Δβ V + c)],    s the logistic function,

exact for every c and best at c = log Z_{r+1}/Z_r, for which the tuning's estimate is taken.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.studies.baselines.start import Answer, Start
from boltzflow.studies.baselines.timing import Stopwatch

NUM_CHAINS = 256
NUM_TUNING_CHAINS = 64
NUM_LEAPFROG = 5
TARGET_ACCEPTANCE = 0.75
FIRST_REPLICAS = 20
WIDE_ROUNDS, FITTED_ROUNDS, ROUND_SWEEPS = 4, 3, 64
NUM_BURN_IN = 64
SHRINK = 1e-3


class Tuning(NamedTuple):
    """What the rounds adapt: temperatures, Cholesky factors, leapfrog steps, and log Z_{r+1}/Z_r of neighbors."""

    betas: Float[Array, " R"]
    scale_tril: Float[Array, "R dim dim"]
    size: Float[Array, " R"]
    log_ratio: Float[Array, " R-1"]


class Round(NamedTuple):
    """What a round of sweeps saw. `x` is `(R, chains, dim)`; `rejection`, `upper` and `lower` `(sweeps, R-1)`: the rate
    of rejected swaps and the two means of the bridge; `mean` and `covariance` are of each temperature's points."""

    x: Float[Array, "R chains dim"]
    size: Float[Array, " R"]
    mean: Float[Array, "R dim"]
    covariance: Float[Array, "R dim dim"]
    acceptance: Float[Array, " R"]
    rejection: Float[Array, "sweeps R-1"]
    upper: Float[Array, "sweeps R-1"]
    lower: Float[Array, "sweeps R-1"]


def estimate_log_z(energy: Callable, dim: int, key: PRNGKeyArray, num_sweeps: int, *, std: float) -> Answer:
    """log ∫ exp(-energy) from `num_sweeps` sweeps after tuning, which starts from N(0, std² I)."""
    watch, start, gradients = Stopwatch(), Start.wide(dim, std), 0
    programs: dict[tuple, Callable] = {}

    def sweep(index: int, x: Array, tuning: Tuning, num: int, adapt: bool) -> Round:
        nonlocal gradients
        arguments = (jax.random.fold_in(key, index), start, x, tuning)
        signature = (x.shape, num, adapt)
        if signature not in programs:
            programs[signature] = watch.compile(functools.partial(run_round, energy, num, adapt), *arguments)
        gradients += x.shape[0] * x.shape[1] * num * (NUM_LEAPFROG + 1)
        return watch.call(programs[signature], *arguments)

    tuning = first_tuning(start, dim)
    x = jnp.stack([start.sample(jax.random.fold_in(key, 1000), NUM_TUNING_CHAINS)] * FIRST_REPLICAS)
    for index in range(WIDE_ROUNDS + FITTED_ROUNDS):
        found = sweep(index, x, tuning, ROUND_SWEEPS, True)
        if index == WIDE_ROUNDS - 1:
            start = Start.fitted(np.asarray(found.mean[-1]), shrunk(np.asarray(found.covariance[-1:]))[0])
        tuning, x = retune(tuning, found, resize=index == WIDE_ROUNDS)  # once the fitted Gaussian has been tried
    x = jnp.tile(x, (1, NUM_CHAINS // NUM_TUNING_CHAINS, 1))  # copies part within the burn-in
    burnt = sweep(100, x, tuning, NUM_BURN_IN, True)
    tuning, x = tuning._replace(size=burnt.size, log_ratio=jnp.asarray(bridges(burnt, tuning))), burnt.x
    found = sweep(101, x, tuning, num_sweeps, False)
    log_z = start.log_z() + float(bridges(found, tuning).sum())
    detail = {
        "temperatures": len(tuning.betas),
        "acceptance": float(found.acceptance.min()),
        "barrier": float(np.asarray(found.rejection).mean(axis=0).sum()),
    }
    mean = np.asarray(found.mean[-1], np.float64)
    square = mean**2 + np.diag(np.asarray(found.covariance[-1], np.float64))
    return Answer(log_z, mean, square, watch.seconds, watch.compile_seconds, 0, gradients, detail)


def first_tuning(start: Start, dim: int) -> Tuning:
    """A geometric ladder, before anything is known of the target."""
    betas = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-6, 1.0, FIRST_REPLICAS - 1)])
    scale_tril = jnp.broadcast_to(start.scale_tril, (FIRST_REPLICAS, dim, dim))
    return Tuning(betas, scale_tril, jnp.full(FIRST_REPLICAS, 0.5 * dim**-0.25), jnp.zeros(FIRST_REPLICAS - 1))


def run_round(
    energy: Callable,
    num_sweeps: int,
    adapt: bool,
    key: PRNGKeyArray,
    start: Start,
    x: Float[Array, "R chains dim"],
    tuning: Tuning,
) -> Round:
    """`num_sweeps` sweeps from `x`, to be called under jit; `adapt` lets the leapfrog steps follow their acceptance."""
    betas, step_width = tuning.betas, jnp.diff(tuning.betas)[:, None]

    def potential(x: Array) -> Array:
        return jax.vmap(jax.vmap(lambda x: energy(x) - start.energy(x)))(x)

    def sweep(carry: tuple, index: Array) -> tuple:
        x, size, first, second = carry
        move_key, draw_key, swap_key = jax.random.split(jax.random.fold_in(key, index), 3)
        x, rate = hamiltonian_move(energy, start, tuning, move_key, x, size)
        x = x.at[0].set(start.sample(draw_key, x.shape[1]))
        v = potential(x)
        x, v, rejection = swap(swap_key, index, x, v, step_width)
        size = jnp.clip(size * jnp.exp(0.3 * adapt * (rate - TARGET_ACCEPTANCE)), 1e-4, 1.5)
        first, second = first + x.sum(axis=1), second + jnp.einsum("rci,rcj->rij", x, x)
        c = tuning.log_ratio[:, None]
        upper = jax.nn.sigmoid(-step_width * v[:-1] - c).mean(axis=1)
        lower = jax.nn.sigmoid(step_width * v[1:] + c).mean(axis=1)
        return (x, size, first, second), (rate, rejection, upper, lower)

    zeros = (jnp.zeros((len(betas), x.shape[2])), jnp.zeros_like(tuning.scale_tril))
    seen: Any
    carry: Any = (x, tuning.size, *zeros)
    carry, seen = jax.lax.scan(sweep, carry, jnp.arange(num_sweeps))
    x, size, first, second = carry
    rates, rejection, upper, lower = seen
    mean, square = first / (num_sweeps * x.shape[1]), second / (num_sweeps * x.shape[1])
    covariance = square - jnp.einsum("ri,rj->rij", mean, mean)
    return Round(x, size, mean, covariance, rates.mean(axis=0), rejection, upper, lower)


def hamiltonian_move(
    energy: Callable, start: Start, tuning: Tuning, key: PRNGKeyArray, x: Array, size: Array
) -> tuple[Array, Array]:
    """Every chain `(R, chains, dim)` after one Metropolized trajectory, and the acceptance rate by temperature."""
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


def swap(key: PRNGKeyArray, index: Array, x: Array, v: Array, step_width: Array) -> tuple[Array, Array, Array]:
    """Chains and their V after exchanges between the even (or odd) pairs of neighbors; rejection rates of all pairs."""
    log_ratio = step_width * (v[1:] - v[:-1])
    rejection = 1 - jnp.exp(jnp.minimum(log_ratio, 0)).mean(axis=1)
    due = (jnp.arange(len(log_ratio)) % 2 == index % 2)[:, None]
    accept = due & (jnp.log(jax.random.uniform(key, log_ratio.shape)) < log_ratio)
    none = jnp.zeros_like(accept[:1])
    with_upper, with_lower = jnp.concatenate([accept, none]), jnp.concatenate([none, accept])

    def exchanged(a: Array) -> Array:
        up, down = (mask.reshape(mask.shape + (1,) * (a.ndim - 2)) for mask in (with_upper, with_lower))
        return jnp.where(up, jnp.roll(a, -1, axis=0), jnp.where(down, jnp.roll(a, 1, axis=0), a))

    return exchanged(x), exchanged(v), rejection


def retune(tuning: Tuning, found: Round, resize: bool) -> tuple[Tuning, Array]:
    """The tuning for the next round, and where its chains start: at the points of the nearest temperature so far."""
    betas, rejection = np.asarray(tuning.betas, np.float64), np.asarray(found.rejection, np.float64).mean(axis=0)
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(rejection, 1e-3))])
    num = math.ceil(2 * barrier[-1]) + 1 if resize else len(betas)
    num = max(num, 3)
    new = np.interp(np.linspace(0, barrier[-1], num), barrier, betas)
    new[0], new[-1] = 0.0, 1.0
    # log Z_β is smooth in β: the bridges' sums, interpolated, say where to expect those of the new ladder.
    log_z = np.concatenate([[0.0], np.cumsum(bridges(found, tuning))])
    log_ratio = np.diff(np.interp(np.interp(new, betas, barrier), barrier, log_z))
    nearest = np.abs(np.interp(new, betas, barrier)[:, None] - barrier).argmin(axis=1)
    scale_tril = np.linalg.cholesky(shrunk(np.asarray(found.covariance)[nearest]))
    arrays = (new, scale_tril, np.asarray(found.size)[nearest], log_ratio)
    return Tuning(*(jnp.asarray(array, jnp.float32) for array in arrays)), found.x[nearest]


def shrunk(covariance: np.ndarray) -> np.ndarray:
    """Covariances `(R, dim, dim)`, mixed a little with their diagonals so that each has a Cholesky factor."""
    covariance = np.asarray(covariance, np.float64)
    variances = np.einsum("rii->ri", covariance)
    return (1 - SHRINK) * covariance + SHRINK * (variances + 1e-12)[:, :, None] * np.eye(covariance.shape[-1])


def bridges(found: Round, tuning: Tuning) -> np.ndarray:
    """log Z_{r+1}/Z_r of each pair of neighbors, `(R-1,)`, summed over sweeps in double precision."""
    upper, lower = (np.asarray(a, np.float64).mean(axis=0) for a in (found.upper, found.lower))
    tiny = np.finfo(np.float32).tiny
    return np.asarray(tuning.log_ratio, np.float64) + np.log(np.maximum(upper, tiny)) - np.log(np.maximum(lower, tiny))
