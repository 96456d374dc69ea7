"""Independent populations of tempered SMC: an answer where the flow is of no help.

Each population is a run of `smc` of its own, so that the scatter of log Z and of averages over populations measures
their errors, whatever the ancestry of a population says. A population needs moves enough to follow the target as β
rises: their number is raised until the last particles are at rest under moves that leave the target invariant, and
until log Z no longer rises.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, lattice_of
from boltzflow.numerics.stages import stage
from boltzflow.sampling.noncentering import narrowness
from boltzflow.sampling.resampling import spread
from boltzflow.sampling.settling import FIRST_BATCH, settle
from boltzflow.sampling.smc import SMCSample, run_smc
from boltzflow.statistics.estimates import Estimate, log_z_of_groups

_ESS = 0.97  # the share of effective samples that a step in β keeps
_SIZE = 1024  # particles of a population, where a covariance does not need more
_FIRST = 4  # populations with each number of moves
_LEAST = 8  # populations that answer, where they can be afforded
_MOVES = (1, 4, 16, 64)  # at each β
_MOST = 64  # populations
_AT_REST = 4.5  # errors, by which settling may change one of a hundred averages
_NUM_SETTLED = 4096
_NUM_COMPARED = 4096
_NUM_AT_ONCE = 512
_RARE = 1e-3
RISE = 2.0  # errors, by which more moves may raise log Z


class Groups(NamedTuple):
    """Particles of several populations, and the log Z of each."""

    x: Float[np.ndarray, "num_groups num dim"]
    log_z_of_group: Float[np.ndarray, " num_groups"]

    @classmethod
    def of(cls, runs: list[SMCSample]) -> "Groups":
        return cls(np.stack([np.asarray(run.x, np.float64) for run in runs]), np.array([run.log_z for run in runs]))


@dataclass(frozen=True)
class Populations:
    """Equally weighted particles of the target in independent groups, each with its own log Z."""

    x: Float[np.ndarray, "num_groups num dim"]
    log_z_of_group: Float[np.ndarray, " num_groups"]
    before: "Groups | None"  # with a quarter of the moves
    log_z: Estimate
    num_moves: int  # at each β
    rise: float  # of log Z when the moves became four times as many, in errors
    drift: float  # of averages of the last particles by moves that leave the target invariant, in errors
    scales: float  # of the force: by how much one particle in two hundred is in a narrower place than most
    acceptance: float
    num_ancestors: int  # of the worst group
    last_beta: float  # of the worst group
    num_gradients: int
    key: PRNGKeyArray  # of the populations, whose number is folded in

    @property
    def share(self) -> Float[np.ndarray, " num_groups"]:
        """The weight of each population in an average: its Z over the sum of all."""
        return np.exp(self.log_z_of_group - np.logaddexp.reduce(self.log_z_of_group))


def run_populations(
    target: AbstractDensity, base: AbstractDistribution, key: PRNGKeyArray, *, error: float, most_gradients: float
) -> Populations:
    """Populations in such number that log Z has the standard `error`, or as many as `most_gradients` pay for.

    As many with a quarter of the moves stand beside them. What log Z gains from the last fourfold of the moves, or the
    noise of this gain, is part of its error: as much may still be missing.
    """
    spent = 0.0
    before: list[SMCSample] = []
    for number, num_moves in enumerate(_MOVES):
        batch_key = jax.random.fold_in(key, number)
        runs = [_run(target, base, batch_key, i, num_moves) for i in range(_FIRST)]
        spent += _gradients(runs)
        dearer = _MOVES[number + 1] / num_moves if number + 1 < len(_MOVES) else np.inf
        is_last = spent + dearer * _gradients(runs) > most_gradients
        if is_last or _rise(before, runs) <= RISE:
            settled = settle(target, _points(runs), jax.random.fold_in(batch_key, 2**20), most_moves=FIRST_BATCH)
            spent += settled.num_gradients
            if is_last or settled.first_drift <= _AT_REST:
                break
        before = runs
    earlier_key = jax.random.fold_in(key, max(number - 1, 0))
    while len(runs) < _MOST and (len(runs) < _LEAST or _log_z(before, runs).stderr > error):
        affordable = int((most_gradients - spent) * len(runs) / _gradients(before + runs))
        more = range(len(runs), min(2 * len(runs), len(runs) + affordable, _MOST))
        if not more:
            break
        added = [_run(target, base, batch_key, i, num_moves) for i in more]
        beside = [_run(target, base, earlier_key, i, _MOVES[number - 1]) for i in more] if before else []
        spent += _gradients(added + beside)
        runs = runs + added
        before = before + beside
    return Populations(
        *Groups.of(runs),
        before=Groups.of(before) if before else None,
        log_z=_log_z(before, runs),
        num_moves=num_moves,
        rise=_rise(before, runs),
        drift=settled.first_drift,
        scales=narrowness(target, _points(runs)),
        acceptance=min(run.acceptance for run in runs),
        num_ancestors=min(run.num_ancestors for run in runs),
        last_beta=min(float(run.betas[-1]) for run in runs),
        num_gradients=int(spent),
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
    added = Groups.of(runs)
    return replace(
        populations,
        x=np.concatenate([populations.x, added.x]),
        log_z_of_group=np.concatenate([populations.log_z_of_group, added.log_z_of_group]),
        num_ancestors=min(populations.num_ancestors, *(run.num_ancestors for run in runs)),
    )


def far_from_particles(
    populations: Populations, points: Float[np.ndarray, "num dim"]
) -> Float[np.ndarray, "num_far dim"]:
    """The `points` of the target that are farther from the particles than one particle in a thousand is from others.

    Particles of one half of the populations are measured against the other half, points against the same, in units of
    the particles' spread. Of points that the populations know one in a thousand is far.
    """
    first, second = np.array_split(populations.x, 2)
    scale = populations.x.std(axis=(0, 1)) + 1e-300
    known = spread(second.reshape(-1, second.shape[2]), _NUM_COMPARED) / scale
    usual = _nearest(spread(first.reshape(-1, first.shape[2]), _NUM_COMPARED) / scale, known)
    return points[_nearest(points / scale, known) > np.quantile(usual, 1 - _RARE)]


def _nearest(x: Float[np.ndarray, "num dim"], known: Float[np.ndarray, "num_known dim"]) -> Float[np.ndarray, " num"]:
    """The squared distance from each row of `x` to the nearest of the known ones."""
    found = []
    for part in np.array_split(x, -(-len(x) // _NUM_AT_ONCE)):
        square = np.sum(part**2, axis=1)[:, None] + np.sum(known**2, axis=1) - 2 * part @ known.T
        found.append(square.min(axis=1))
    return np.concatenate(found)


def _run(
    target: AbstractDensity, base: AbstractDistribution, key: PRNGKeyArray, number: int, num_moves: int
) -> SMCSample:
    stage(f"sequential Monte Carlo, population {number + 1} with {num_moves} moves at each β", 0.0, 1.0)
    size = _SIZE if lattice_of(target) else max(_SIZE, 4 * target.dim)
    return run_smc(base, target, jax.random.fold_in(key, number), _ESS, num_particles=size, num_moves=num_moves)


def _gradients(runs: list[SMCSample]) -> int:
    return sum(run.num_gradients for run in runs)


def _mean(runs: list[SMCSample]) -> Estimate:
    """log of the mean of Z, with the larger of two errors: the scatter of the runs, and what their ancestries say.

    The scatter alone would end the search where a few runs agree by luck.
    """
    found = log_z_of_groups(np.array([[run.log_z] for run in runs]))
    log_z = np.array([run.log_z for run in runs])
    share = np.exp(log_z - np.logaddexp.reduce(log_z))
    stated = float(np.linalg.norm(share * np.array([run.log_z_stderr for run in runs])))
    return replace(found, stderr=max(found.stderr, stated))


def _log_z(before: list[SMCSample], runs: list[SMCSample]) -> Estimate:
    """log Z by `runs`; its error holds its gain on runs with a quarter of the moves, or the noise of this gain."""
    found = _mean(runs)
    if not before:
        return found
    earlier = _mean(before)
    gain = max(found.value - earlier.value, float(np.hypot(found.stderr, earlier.stderr)))
    return replace(found, stderr=float(np.hypot(found.stderr, gain)))


def _rise(before: list[SMCSample], runs: list[SMCSample]) -> float:
    """How many errors log Z is above that of runs with a quarter of the moves, which lose mass; infinite without."""
    if not before:
        return np.inf
    found, earlier = _mean(runs), _mean(before)
    return (found.value - earlier.value) / max(float(np.hypot(found.stderr, earlier.stderr)), 1e-12)


def _points(runs: list[SMCSample]) -> Float[np.ndarray, "num dim"]:
    return np.asarray(spread(np.concatenate([np.asarray(run.x) for run in runs]), _NUM_SETTLED))
