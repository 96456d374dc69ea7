"""Annealing along the learned path: the flow carries the particles, Langevin moves mend what it leaves undone.

Between t_k and t_{k+1} every particle follows the flow, and its log-weight grows by

    f_{t_k}(x_k) - f_{t_{k+1}}(x_{k+1}) + ∫ ∇·V dt,

the work of Jarzynski's equality for a map in place of a process; then come moves that leave p_{t_{k+1}} invariant,
which change no weight. A perfect flow gives equal weights, no flow at all annealed importance sampling. The moves are
Metropolis-adjusted, so that log Z and the weighted particles are right for any number of stages, up to the error of the
solver. After Albergo & Vanden-Eijnden, *NETS* (2024), who choose the diffusion after training, by the ESS, as is done
here; their weights hold in continuous time, ours in every stage.
"""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.densities.base import lattice_of
from boltzflow.model.continuity import Transport
from boltzflow.model.integrate import solve
from boltzflow.sampling.hmc import HamiltonianMoves, preconditioner
from boltzflow.sampling.resampling import systematic

NUM_PARTICLES, NUM_STAGES, NUM_MOVES = 4096, 16, 4
_POPULATION = 1024  # particles that are resampled together: one compiled program serves trials and flights
_SIZES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # of the moves, in units of the particles' own spread
_RESAMPLE_BELOW = 0.5  # effective samples, as a share


@dataclass(frozen=True)
class FlowSMCSample:
    """Weighted particles of the target, `x` `(num_particles, dim)` and `log_weight` `(num_particles,)`: the mean of
    their weights is an unbiased estimate of Z.

    `log_z` and its standard error; `ess`, the effective share of the weights; `num_resamplings` on the way, at most;
    `acceptance` of the moves, `step_size` of the moves as chosen, 0 where they do not help; `num_ancestors`, how many
    of the first particles have descendants; `num_gradients` of the target's energy.
    """

    x: Float[Array, "num_particles dim"]
    log_weight: Float[np.ndarray, " num_particles"]
    log_z: float
    log_z_stderr: float
    ess: float
    num_resamplings: int
    acceptance: float
    step_size: float
    num_ancestors: int
    num_gradients: int


def run_flow_smc(
    transport: Transport,
    key: PRNGKeyArray,
    *,
    num_particles: int = NUM_PARTICLES,
    num_stages: int = NUM_STAGES,
    num_moves: int = NUM_MOVES,
    solver_steps: int = 16,
    step_size: float | None = None,
) -> FlowSMCSample:
    """Particles of the target along `transport`'s path, with `num_moves` Langevin moves after each of `num_stages`.

    `solver_steps` are the RK4 steps of the whole path, rounded up to a multiple of the stages. `step_size` None tries
    some with few particles, 0 (the flow alone) among them, and takes the one with the largest ESS. The particles fly in
    independent populations of 1024 (in many dimensions more), the last one filled up; the mean of all weights is as it
    would be of one.
    """
    trial_key, key = jax.random.split(key)
    settings = {"num_stages": num_stages, "substeps": max(1, -(-solver_steps // num_stages)), "num_moves": num_moves}
    size = min(num_particles, max(_POPULATION, 4 * transport.interpolation.target.dim))
    num_populations, spent = -(-num_particles // size), 0

    def fly(key, step_size, resample_below) -> _Population:
        return _fly(transport, key, jnp.asarray(step_size), size, jnp.asarray(resample_below), **settings)

    if step_size is None:
        # Of the same starting points and noise, so that they differ by the moves alone.
        found = {size: _ess(np.asarray(fly(trial_key, size, 0.0).log_weight, np.float64)) for size in _SIZES}
        step_size = max(found, key=lambda size: found[size])
        spent = len(_SIZES) * size
    flown = [fly(k, step_size, _RESAMPLE_BELOW) for k in jax.random.split(key, num_populations)]
    # A resampled population's particles have lost their weights: what these were worth, its log Z so far, comes back.
    log_weight = np.concatenate([np.asarray(one.log_weight, np.float64) + float(one.log_z) for one in flown])
    ancestor = np.concatenate([np.asarray(one.ancestor) + i * size for i, one in enumerate(flown)])
    num_particles = len(log_weight)
    share = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    of_ancestor = np.bincount(ancestor, weights=share, minlength=num_particles)
    log_weight += float(transport.interpolation.base.log_z)
    return FlowSMCSample(
        x=jnp.concatenate([one.x for one in flown]),
        log_weight=log_weight,
        log_z=float(np.logaddexp.reduce(log_weight) - np.log(num_particles)),
        log_z_stderr=float(np.sqrt(max(np.sum(of_ancestor**2) - 1 / num_particles, 0.0))),
        ess=_ess(log_weight),
        num_resamplings=max(int(one.num_resamplings) for one in flown),
        acceptance=float(np.mean([one.acceptance for one in flown])),
        step_size=float(step_size),
        num_ancestors=int(np.sum(of_ancestor > 0)),
        num_gradients=(num_particles + spent) * num_stages * (2 + num_moves),
    )


def _ess(log_weight: Float[np.ndarray, " num"]) -> float:
    """Effective samples as a share; 0 where no weight is left."""
    if not np.isfinite(log_weight).any():
        return 0.0
    return float(np.exp(2 * np.logaddexp.reduce(log_weight) - np.logaddexp.reduce(2 * log_weight)) / len(log_weight))


class _Population(NamedTuple):
    """Particles at t = 1 that were resampled together; `log_z`, what the resamplings took out of their weights."""

    x: Float[Array, "num dim"]
    ancestor: Int[Array, " num"]
    acceptance: Float[Array, ""]
    num_resamplings: Int[Array, ""]
    log_weight: Float[Array, " num"]
    log_z: Float[Array, ""]


@eqx.filter_jit
def _fly(transport: Transport, key, size, num: int, resample_below, *, num_stages: int, substeps: int, num_moves: int):
    """One population from t = 0 to t = 1."""
    path, field = transport.interpolation, transport.field
    start_key, key = jax.random.split(key)
    x, _ = jax.vmap(path.base.sample_and_log_prob)(jax.random.split(start_key, num))
    energy = jax.vmap(path.energy, (None, 0))

    def rates(t, state):
        velocity, divergence = field.velocity_and_divergence(t, state[0])
        return velocity, divergence

    def stage(carry, k):
        x, f, log_weight, ancestor, log_z, resamplings, rate = carry
        resample_key, move_key = jax.random.split(jax.random.fold_in(key, k))
        start, end = k / num_stages, (k + 1) / num_stages
        times = start + (end - start) * jnp.arange(substeps + 1) / substeps
        carried, outflow = jax.vmap(lambda x: solve(rates, (x, jnp.zeros(())), times, solver="rk4"))(x)
        change = f - energy(end, carried) + outflow
        lost = ~jnp.isfinite(carried).all(axis=1)  # of no weight from here on; where it is matters no more
        x, change = jnp.where(lost[:, None], x, carried), jnp.where(lost, -jnp.inf, change)
        grown = log_weight + change  # once the energy was infinite it may be NaN or finite: no weight comes back
        log_weight = jnp.where(jnp.isnan(grown) | jnp.isneginf(log_weight), -jnp.inf, grown)
        ess = jnp.exp(2 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2 * log_weight)) / num
        due = (ess < resample_below) & (k < num_stages - 1)
        index = jnp.where(due, systematic(resample_key, log_weight), jnp.arange(num))
        log_z = log_z + jnp.where(due, jax.nn.logsumexp(log_weight) - jnp.log(num), 0.0)
        log_weight = jnp.where(due, 0.0, log_weight)
        x, ancestor = x[index], ancestor[index]
        moves = HamiltonianMoves(lambda x: path.energy(end, x), num_moves, 1, adapt=False)
        x, accepted, _, _ = moves(move_key, x, preconditioner(x, lattice_of(path.target)), size)
        return (x, energy(end, x), log_weight, ancestor, log_z, resamplings + due, rate + accepted / num_stages), None

    zero = jnp.zeros(())
    carry = (x, energy(zero, x), jnp.zeros(num), jnp.arange(num), zero, jnp.zeros((), int), zero)
    (x, _, log_weight, ancestor, log_z, resamplings, rate), _ = jax.lax.scan(stage, carry, jnp.arange(num_stages))
    return _Population(x, ancestor, rate, resamplings, log_weight, log_z)
