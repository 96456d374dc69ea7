"""SMC along the learned path: the flow transports the particles, Langevin moves correct its errors.

Between t_k and t_{k+1} every particle follows the flow, and its log-weight grows by

    f_{t_k}(x_k) - f_{t_{k+1}}(x_{k+1}) + ∫ ∇·V dt,

the work of Jarzynski's equality for a deterministic map. Metropolis-adjusted moves that leave p_{t_{k+1}} invariant
follow, so that log Z is exact for any number of stages (after Albergo & Vanden-Eijnden, *NETS*, 2024).

Independent populations show by their scatter how well log Z is known, also where the ancestry of one population looks
healthy. The weights of every stage have a tail, which is judged like that of importance weights.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from boltzflow.densities.base import lattice_of
from boltzflow.model.continuity import Transport
from boltzflow.model.integrate import solve
from boltzflow.numerics.compiling import compiled
from boltzflow.sampling.hmc import HamiltonianMoves, Points, Scalar, preconditioner
from boltzflow.sampling.resampling import effective_sample_size, log_z_stderr, systematic
from boltzflow.statistics.estimates import log_z_of_groups
from boltzflow.statistics.weights import distrust_tails, effective_share, fit_tails, hopeless, tail_error, tail_of

NUM_PARTICLES = 4096
_NUM_MOVES = 4  # after each stage
_POPULATION = 512  # particles that are resampled together; one compiled program serves trial runs and the final run
_NUM_POPULATIONS = 8  # at least, where particles are not few: the scatter of fewer says little
_NUM_TRIAL_POPULATIONS = 2  # for each step size
_STEP_SIZES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)  # of the moves, in units of the particles' own spread
_RESAMPLE_BELOW = 0.5  # effective samples, as a share


@dataclass(frozen=True)
class FlowSMCSample:
    """Weighted particles of the target; the mean of their weights is an unbiased estimate of Z."""

    x: Float[Array, "num_particles dim"]
    log_weight: Float[np.ndarray, " num_particles"]
    log_z: float
    log_z_stderr: float
    ess: float  # effective samples as a share of all; 0 where no weight is left
    num_resamplings: int  # the most of any population
    acceptance: float
    step_size: float  # of the moves; 0 where they do not help
    num_ancestors: int  # first particles that have descendants
    num_gradients: int  # of the target's energy
    doubt: str = ""  # why the weights of a stage permit no error bar; empty if they do


def run_flow_smc(
    transport: Transport,
    key: PRNGKeyArray,
    *,
    num_particles: int = NUM_PARTICLES,
    num_stages: int = 16,
    solver_steps: int = 16,
    step_size: float | None = None,
) -> FlowSMCSample:
    """Sample the target by SMC along the path of `transport`, in independent populations, the last one filled up.

    `solver_steps` is of the whole path, and `step_size` of the moves in units of the particles' spread; None tries
    several with a few populations, 0 (the flow alone) among them, and takes the one with the largest ESS.
    """
    trial_key, key = jax.random.split(key)
    size = max(_fewest(transport), min(_POPULATION, num_particles))
    substeps = max(1, -(-solver_steps // num_stages))
    run = functools.partial(_run_population, transport, num=size, num_stages=num_stages, substeps=substeps)
    num_trials = 0
    if step_size is None:
        # All trials share the starting points and the noise: they differ by the step size alone.
        trial_keys = jax.random.split(trial_key, _NUM_TRIAL_POPULATIONS)
        trials = [[run(k, jnp.asarray(trial), jnp.asarray(0.0)) for k in trial_keys] for trial in _STEP_SIZES]
        shares = [effective_share(np.concatenate([_double(one.log_weight) for one in trial])) for trial in trials]
        step_size = _STEP_SIZES[int(np.argmax(shares))]
        num_trials = len(_STEP_SIZES) * _NUM_TRIAL_POPULATIONS * size
    keys = jax.random.split(key, max(-(-num_particles // size), min(_NUM_POPULATIONS, num_particles // _POPULATION)))
    populations = [run(k, jnp.asarray(step_size), jnp.asarray(_RESAMPLE_BELOW)) for k in keys]
    log_weight = np.concatenate([_double(one.log_weight) + float(one.log_z) for one in populations])
    ancestor = np.concatenate([np.asarray(one.ancestor) + i * size for i, one in enumerate(populations)])
    share = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    ancestor_share = np.bincount(ancestor, weights=share, minlength=len(log_weight))
    stderr = log_z_stderr(ancestor_share)
    if len(populations) > 1:
        stderr = max(stderr, log_z_of_groups(log_weight.reshape(len(populations), size)).stderr)
    log_weights, used = zip(*(one.stages for one in populations), strict=True)
    doubt, unseen = _judge_stages(np.stack(log_weights), np.stack(used))
    log_weight += float(transport.interpolation.base.log_z)
    return FlowSMCSample(
        x=jnp.concatenate([one.x for one in populations]),
        log_weight=log_weight,
        log_z=float(np.logaddexp.reduce(log_weight) - np.log(len(log_weight))),
        log_z_stderr=float(np.hypot(stderr, unseen)),
        ess=effective_share(log_weight),
        num_resamplings=max(int(one.num_resamplings) for one in populations),
        acceptance=float(np.mean([one.acceptance for one in populations])),
        step_size=float(step_size),
        num_ancestors=int(np.sum(ancestor_share > 0)),
        num_gradients=(len(log_weight) + num_trials) * num_stages * (2 + _NUM_MOVES),
        doubt=doubt,
    )


def _fewest(transport: Transport) -> int:
    """The fewest particles whose covariance can guide their moves; on a lattice every site is a sample."""
    target = transport.interpolation.target
    return 1 if lattice_of(target) else 4 * target.dim


def _double(log_weight: Float[Array, " num"] | Float[np.ndarray, " num"]) -> Float[np.ndarray, " num"]:
    return np.asarray(log_weight, np.float64)


def _judge_stages(
    log_weight: Float[np.ndarray, "num_populations num_stages num"],
    used: Bool[np.ndarray, "num_populations num_stages"],
) -> tuple[str, float]:
    """A doubt about the weights of a stage, and the relative error of Z from what the tails may hold unseen.

    The log-weights are those since the last resampling. Only weights matter that a resampling has `used`, or the end.
    """
    doubt = ""
    square = 0.0
    for k in range(used.shape[1]):
        if not (used[:, k].any() or k == used.shape[1] - 1):
            continue
        pooled = _double(log_weight[:, k].ravel())
        if hopeless(pooled):
            return "No particle is left with a weight above zero.", np.inf
        tails = fit_tails(tail_of(pooled), len(pooled))
        doubt = doubt or distrust_tails(tails, len(pooled), "weights along the path")
        square += (tail_error(tails) / np.exp(pooled - pooled.max()).sum()) ** 2
    return doubt, float(np.sqrt(square))


class _Population(NamedTuple):
    """Particles that are resampled together."""

    x: Points
    energy: Float[Array, " num"]
    log_weight: Float[Array, " num"]
    ancestor: Int[Array, " num"]
    log_z: Scalar  # the part of log Z that resampling took out of the weights
    num_resamplings: Int[Array, ""]
    acceptance: Scalar
    stages: tuple[Array, Array] | None = None  # of each stage: log-weights before resampling, whether it followed


@compiled
def _run_population(
    transport: Transport,
    key: PRNGKeyArray,
    step_size: Scalar,
    threshold: Scalar,
    num: int,
    num_stages: int,
    substeps: int,
) -> _Population:
    """One population from t = 0 to t = 1."""
    path = transport.interpolation
    energy = jax.vmap(path.energy, (None, 0))
    start_key, stage_key = jax.random.split(key)
    x, _ = jax.vmap(path.base.sample_and_log_prob)(jax.random.split(start_key, num))
    zero = jnp.zeros(())
    start = _Population(x, energy(zero, x), jnp.zeros(num), jnp.arange(num), zero, jnp.zeros((), int), zero)

    def stage(population: _Population, k: Int[Array, ""]) -> tuple[_Population, tuple[Array, Array]]:
        resample_key, move_key = jax.random.split(jax.random.fold_in(stage_key, k))
        end = (k + 1) / num_stages
        population = _transported(transport, population, k / num_stages, end, substeps)
        log_weight = population.log_z + population.log_weight
        num_before = population.num_resamplings
        population = _resampled(population, resample_key, threshold, k < num_stages - 1)
        followed = population.num_resamplings > num_before
        moves = HamiltonianMoves(lambda x: path.energy(end, x), _NUM_MOVES, 1, adapt=False)
        scale = preconditioner(population.x, lattice_of(path.target))
        x, accepted, _, _ = moves(move_key, population.x, scale, step_size)
        acceptance = population.acceptance + accepted / num_stages
        population = population._replace(x=x, energy=energy(end, x), acceptance=acceptance)
        return population, (log_weight, followed)

    population, stages = jax.lax.scan(stage, start, jnp.arange(num_stages))
    return population._replace(stages=stages)


def _transported(
    transport: Transport, population: _Population, start: Scalar, end: Scalar, substeps: int
) -> _Population:
    """The particles carried by the flow from time `start` to `end`, with their new weights; `energy` stays the old."""
    times = start + (end - start) * jnp.arange(substeps + 1) / substeps

    def rates(t, state):
        return transport.field.velocity_and_divergence(t, state[0])

    carried, outflow = jax.vmap(lambda x: solve(rates, (x, jnp.zeros(())), times, solver="rk4"))(population.x)
    change = population.energy - jax.vmap(transport.interpolation.energy, (None, 0))(end, carried) + outflow
    # A particle that left the finite numbers stays where it was, with weight zero.
    lost = ~jnp.isfinite(carried).all(axis=1)
    x = jnp.where(lost[:, None], population.x, carried)
    log_weight = population.log_weight + jnp.where(lost, -jnp.inf, change)
    # After an infinite energy the change may be NaN or finite: a weight of zero stays zero.
    is_zero = jnp.isnan(log_weight) | jnp.isneginf(population.log_weight)
    return population._replace(x=x, log_weight=jnp.where(is_zero, -jnp.inf, log_weight))


def _resampled(population: _Population, key: PRNGKeyArray, threshold: Scalar, allowed: Bool[Array, ""]) -> _Population:
    log_weight = population.log_weight
    num = len(log_weight)
    share = effective_sample_size(jnp.exp(log_weight - jnp.max(log_weight))) / num
    due = (share < threshold) & allowed
    index = jnp.where(due, systematic(key, log_weight), jnp.arange(num))
    return population._replace(
        x=population.x[index],
        log_weight=jnp.where(due, 0.0, log_weight),
        ancestor=population.ancestor[index],
        log_z=population.log_z + jnp.where(due, jax.nn.logsumexp(log_weight) - jnp.log(num), 0.0),
        num_resamplings=population.num_resamplings + due,
    )
