"""Independent populations of tempered SMC from the pilot's base: an answer where the flow is of no help.

Each population is a run of `smc` of its own, so that the scatter of log Z and of averages over populations measures
their errors, whatever the ancestry of a population says. A population needs moves enough to follow the target as β
rises: their number is raised until the last particles are at rest under moves that leave the target invariant, and
until log Z no longer rises.
"""

from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, lattice_of
from boltzflow.sampling.resampling import spread
from boltzflow.sampling.settling import FIRST_BATCH, settle
from boltzflow.sampling.smc import SMCSample, run_smc
from boltzflow.statistics.estimates import Estimate, log_z_of_groups

_ESS = 0.97  # the share of effective samples that a step in β keeps
_SIZE = 1024  # particles of a population, where a covariance does not need more
_FIRST = 4  # populations with each number of moves
_MOVES = (4, 16, 64)  # at each β
_MOST = 64  # populations
_AT_REST = 4.5  # errors, by which settling may change one of a hundred averages
_NUM_SETTLED = 4096
RISE = 2.0  # errors, by which more moves may raise log Z


@dataclass(frozen=True)
class Populations:
    """Equally weighted particles of the target in independent groups, each with its own log Z."""

    x: Float[np.ndarray, "num_groups num dim"]
    log_z_of_group: Float[np.ndarray, " num_groups"]
    log_z: Estimate
    num_moves: int  # at each β
    rise: float  # of log Z when the moves became four times as many, in errors
    drift: float  # of averages of the last particles by moves that leave the target invariant, in errors
    acceptance: float
    num_ancestors: int  # of the worst group
    last_beta: float  # of the worst group
    num_gradients: int
    key: PRNGKeyArray  # of the populations, whose number is folded in


def run_populations(
    target: AbstractDensity, base: AbstractDistribution, key: PRNGKeyArray, *, error: float, most_gradients: float
) -> Populations:
    """Populations in such number that log Z has the standard `error`, or as many as `most_gradients` pay for."""
    spent = 0
    rise = np.inf
    before: Estimate | None = None
    for number, num_moves in enumerate(_MOVES):
        batch_key = jax.random.fold_in(key, number)
        runs = [_run(target, base, batch_key, i, num_moves) for i in range(_FIRST)]
        each = max(run.num_gradients for run in runs)
        spent += each * _FIRST
        drift = _drift(target, runs, jax.random.fold_in(batch_key, 2**20))
        found = _log_z(runs)
        rise = _rise(before, found) if before else np.inf
        dearer = _MOVES[number + 1] / num_moves if number + 1 < len(_MOVES) else np.inf
        if (drift <= _AT_REST and rise <= RISE) or spent + dearer * each * _FIRST > most_gradients:
            break
        before = found
    while _log_z(runs).stderr > error and len(runs) < _MOST and spent + each <= most_gradients:
        more = min(len(runs), _MOST - len(runs), max(1, int(most_gradients - spent) // each))
        runs += [_run(target, base, batch_key, len(runs) + i, num_moves) for i in range(more)]
        spent += each * more
    return Populations(
        x=np.stack([np.asarray(run.x, np.float64) for run in runs]),
        log_z_of_group=np.array([run.log_z for run in runs]),
        log_z=_log_z(runs),
        num_moves=num_moves,
        rise=rise,
        drift=drift,
        acceptance=min(run.acceptance for run in runs),
        num_ancestors=min(run.num_ancestors for run in runs),
        last_beta=min(float(run.betas[-1]) for run in runs),
        num_gradients=spent,
        key=batch_key,
    )


def grown(
    populations: Populations, target: AbstractDensity, base: AbstractDistribution, num_samples: int
) -> Populations:
    """The populations, and more of the same kind until they have at least `num_samples` particles."""
    num_groups, size, _ = populations.x.shape
    more = range(num_groups, -(-num_samples // size))
    runs = [_run(target, base, populations.key, i, populations.num_moves) for i in more]
    if not runs:
        return populations
    log_z = np.concatenate([populations.log_z_of_group, [run.log_z for run in runs]])
    return replace(
        populations,
        x=np.concatenate([populations.x, np.stack([np.asarray(run.x, np.float64) for run in runs])]),
        log_z_of_group=log_z,
        log_z=log_z_of_groups(log_z[:, None]),
        num_ancestors=min(populations.num_ancestors, *(run.num_ancestors for run in runs)),
    )


def _run(
    target: AbstractDensity, base: AbstractDistribution, key: PRNGKeyArray, number: int, num_moves: int
) -> SMCSample:
    size = _SIZE if lattice_of(target) else max(_SIZE, 4 * target.dim)
    return run_smc(base, target, jax.random.fold_in(key, number), _ESS, num_particles=size, num_moves=num_moves)


def _log_z(runs: list[SMCSample]) -> Estimate:
    return log_z_of_groups(np.array([[run.log_z] for run in runs]))


def _rise(before: Estimate, after: Estimate) -> float:
    """How many errors the second log Z is above the first: particles that move too little lose mass."""
    return (after.value - before.value) / max(float(np.hypot(before.stderr, after.stderr)), 1e-12)


def _drift(target: AbstractDensity, runs: list[SMCSample], key: PRNGKeyArray) -> float:
    points = np.concatenate([np.asarray(run.x) for run in runs])
    return settle(target, spread(points, _NUM_SETTLED), key, most_moves=FIRST_BATCH).first_drift
