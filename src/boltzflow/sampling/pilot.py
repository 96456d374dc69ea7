"""The pilot: an exploration of the target before training, by sequential Monte Carlo (SMC) without a flow.

Three tempered SMC runs, each from a better base. Short runs from an isotropic Gaussian, widened until the target fits
well inside it or log Z falls, locate the target. A run from a Gaussian fitted to their particles, inflated threefold,
samples it, and descent from the particles of all β finds modes that SMC has missed. A run from the base of training
gives the schedule of the path, the active subspace, the training points, and a log Z without a flow. After each run the
particles settle: moves at β = 1 bring back what was lost in narrow parts of the target.
"""

import dataclasses
from html import escape
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric, lattice_of, prior_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import DefensiveMixture, SubspaceMixture, whitening_gaussian
from boltzflow.errors import InputError
from boltzflow.model.interpolations import Clock, fit_clock
from boltzflow.numerics.linalg import Circulant
from boltzflow.numerics.stages import stage
from boltzflow.sampling.gaussian_fit import (
    active_subspace,
    aligned_base,
    fit_gaussian,
    fit_to_points,
    gradients_at,
    inflated,
)
from boltzflow.sampling.mixture_fit import DEFENSIVE, FittedDensity, fit_mixture
from boltzflow.sampling.mode_search import find_minima, screened, with_missed_modes
from boltzflow.sampling.resampling import spread
from boltzflow.sampling.settling import Settled, settle
from boltzflow.sampling.smc import SMCSample, run_smc
from boltzflow.statistics.notation import concise


class _Effort(NamedTuple):
    """The work of an SMC run; many dimensions get fewer particles."""

    ess: float  # the share of effective samples that a step in β keeps
    particles: int  # at most
    numbers: int  # at most, of all particles together
    moves: int  # at each β


_SHORT = _Effort(0.5, 2048, 2**16, 2)
_WIDE = _Effort(0.8, 4096, 2**20, 4)
_PATH = _Effort(0.97, 4096, 2**20, 4)
_FEWEST_ANCESTORS = 30.0  # effective ones; fewer know neither the width of the target nor the shares of its modes
_TOO_FEW = 1 / 3  # of these: a run with fewer is doubted
_INFLATION = 3.0
_FEW_DIMENSIONS = 16  # up to which the wide base is so many times as wide
_MAX_WIDENINGS = 8
_LOSS = 3.0  # errors by which a wider base must lower log Z, to be too wide
_LOST_DRIFT = 6.0  # errors by which settling may change an average of the particles
_LOST_SIGMA = 4.0
_MOST_APART = 4.0  # errors, of the largest of some ten to hundred averages
_WIDE_PART = 0.5  # of a base of populations
_MIN_STDERR = 1e-3  # of log Z: correlated particles allow no smaller error
# Where each stage begins and ends, as a share of the time of a pilot.
_SHARE_OF_LOCATING = 0.25
_SHARE_OF_WIDE = (0.25, 0.5)
_SHARE_OF_MINIMA = (0.5, 0.8)
_SHARE_OF_PATH = (0.8, 1.0)


@dataclasses.dataclass(frozen=True)
class Pilot:
    """The findings of the pilot: a base and a schedule for training, points of the target, log Z, and the cost.

    Args:
        base: The base of training.
        clock: The pace of the path: β at each t.
        active_subspace: Columns that span where the target differs from a fitted Gaussian base, `(dim, size)`; None
            for another base.
        points: Equally weighted points of the target, from the SMC run that starts at `base`, `(num_points, dim)`.
        wide_points: The same from the wide run, with points of the modes that it missed, `(num_wide, dim)`.
        minima: Minima of the energy, or low points on the way to one, as far apart as possible, `(num_minima, dim)`.
        path_times: Times from 0 to 1, `(num_knots,)`.
        path_points: Equally weighted points at each of `path_times`, `(num_knots, num_saved, dim)`.
        log_z: log Z by SMC, in nats.
        log_z_stderr: Its standard error.
        acceptance: The share of the moves that was accepted.
        num_gradients: How many energies with their gradient were computed.
        num_particles: The particles of the SMC run that starts at `base`.
        nonfinite_share: The share of energies that were not finite.
        complaints: A sentence for each thing that went wrong.
        enough: Whether weighted samples of `base` reach the target error of log Z, so that no flow is needed.
    """

    base: AbstractDistribution
    clock: Clock
    active_subspace: Float[np.ndarray, "dim size"] | None
    points: Float[np.ndarray, "num_points dim"]
    wide_points: Float[np.ndarray, "num_wide dim"]
    minima: Float[np.ndarray, "num_minima dim"]
    path_times: Float[np.ndarray, " num_knots"]
    path_points: Float[np.ndarray, "num_knots num_saved dim"]
    log_z: float
    log_z_stderr: float
    acceptance: float
    num_gradients: int
    num_particles: int
    nonfinite_share: float
    complaints: tuple[str, ...] = ()
    enough: bool = False

    def __repr__(self) -> str:
        found = [
            f"log Z = {concise(self.log_z, self.log_z_stderr)}",
            f"base {type(self.base).__name__} in {self.base.dim} dimensions",
            f"{len(self.points):,} points, {len(self.minima)} minima, {len(self.path_times)} times",
            f"{self.num_gradients:,} gradients",
            *self.complaints,
        ]
        return f"<Pilot: {'; '.join(found)}>"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"


def run_pilot(
    target: AbstractDensity,
    key: PRNGKeyArray,
    *,
    base: AbstractDistribution | None = None,
    pace: bool = True,
) -> Pilot:
    """Explore `target` by SMC, and choose the base unless given, and the schedule of training (β = t unless `pace`)."""
    locate_key, wide_key, path_key, start_key, modes_key, mixture_key, settle_key = jax.random.split(key, 7)
    settle_keys = iter(jax.random.split(settle_key, 4))
    wide_base, runs, doubts, num_gradients = _wide_base(target, locate_key, next(settle_keys))
    stage("SMC from a wide base", *_SHARE_OF_WIDE)
    wide = _run_smc(wide_base, target, wide_key, _WIDE)
    runs.append(wide)
    if _last_sure(wide) < len(wide.betas) - 1:
        wide = _run_smc(wide_base, target, jax.random.fold_in(wide_key, 1), _PATH)
        runs.append(wide)
    wide_at = settle(target, wide.x, next(settle_keys))
    wide = dataclasses.replace(wide, x=jnp.asarray(wide_at.x))
    scale = np.std(np.asarray(wide.x), axis=0) + 1e-12
    stage("descent to minima", *_SHARE_OF_MINIMA)
    low, num_screened = screened(target, wide.x, jax.random.fold_in(modes_key, 1))
    minima, num_descending = find_minima(target, runs, low, scale, len(wide.x))
    wide_points = with_missed_modes(target, wide, minima, scale, modes_key)
    num_gradients += num_descending + num_screened + wide_at.num_gradients
    fits_base = base is None
    stage("SMC from the base of training", *_SHARE_OF_PATH)
    if base is None:
        base = gaussian = fit_to_points(target, wide_points)
        num_gradients += len(wide_points)
        if wide_points is not wide.x:  # from one Gaussian the next SMC run would miss the same modes again
            fitted = _fit_mixture(target, gaussian, wide_points, mixture_key, defensive=0.0)
            base = fitted.density
            num_gradients += fitted.num_energies
    run = _run_smc(base, target, path_key, _PATH)
    runs.append(run)
    settled = settle(target, run.x, next(settle_keys))
    num_gradients += settled.num_gradients
    if settled.drifted and fits_base and isinstance(base, Gaussian):  # a base that knows what the run has lost
        base = fit_to_points(target, settled.x)
        run = _run_smc(base, target, jax.random.fold_in(path_key, 1), _PATH)
        runs.append(run)
        settled = settle(target, run.x, next(settle_keys))
        num_gradients += settled.num_gradients + len(run.x)
    run = dataclasses.replace(run, x=jnp.asarray(settled.x))
    run.path[-1] = spread(settled.x, run.path.shape[1])
    subspace = None
    if fits_base:
        num_gradients += len(run.x)
        if isinstance(base, Gaussian):
            base, subspace = _with_active_subspace(target, base, run.x)
    clock = fit_clock(run.betas) if pace and run.betas[-1] == 1 else Clock()
    start = jax.vmap(base.sample_and_log_prob)(jax.random.split(start_key, run.path.shape[1]))[0]
    return Pilot(
        base=base,
        clock=clock,
        active_subspace=subspace,
        points=np.asarray(run.x),
        wide_points=np.asarray(wide_points),
        minima=np.asarray(minima),
        path_times=np.concatenate([[0.0], clock.inverse(run.betas)]),
        path_points=np.concatenate([np.asarray(start)[None], run.path]),
        log_z=run.log_z,
        log_z_stderr=max(run.log_z_stderr, _MIN_STDERR),
        acceptance=run.acceptance,
        num_gradients=num_gradients + sum(one.num_gradients for one in runs),
        num_particles=len(run.x),
        nonfinite_share=sum(one.num_nonfinite for one in runs) / sum(one.num_proposals for one in runs),
        complaints=(
            *doubts,
            *_lost(settled, run, dataclasses.replace(wide, x=jnp.asarray(wide_points))),
            *_complaints(wide, "from a wide base"),
            *_complaints(run, "from the base of training"),
        ),
    )


def with_fitted_mixture(pilot: Pilot, target: AbstractDensity, key: PRNGKeyArray) -> tuple[Pilot, FittedDensity]:
    """Replace the fitted base of a pilot by the density nearest to the target without a flow; also returns that."""
    fitted = _fit_mixture(target, whitening_gaussian(pilot.base), pilot.points, key, defensive=DEFENSIVE)
    better = dataclasses.replace(pilot, base=fitted.density, clock=Clock(), active_subspace=None, enough=True)
    return dataclasses.replace(better, num_gradients=pilot.num_gradients + fitted.num_energies), fitted


def with_fitted_base(pilot: Pilot, target: AbstractDensity) -> Pilot:
    """The pilot with a Gaussian fitted to its wide points in place of a base that it did not fit itself."""
    if pilot.active_subspace is not None or isinstance(pilot.base, SubspaceMixture):
        return pilot
    x = pilot.wide_points
    fitted = dataclasses.replace(pilot, base=fit_to_points(target, x), points=x)
    return dataclasses.replace(fitted, num_gradients=pilot.num_gradients + len(x))


def with_wide_part(base: AbstractDistribution, pilot: Pilot, target: AbstractDensity) -> DefensiveMixture:
    """The base in equal parts with the prior, or a Gaussian around all points of the pilot as wide as its wide base.

    A base of points that lack the end of a ridge lacks it too, and populations from there agree on what they all lack.
    """
    wide = prior_of(target)
    if wide is None:
        x = np.concatenate([np.asarray(pilot.points), np.asarray(pilot.wide_points)])
        wide = inflated(fit_to_points(target, x), _inflation(target.dim))
    return DefensiveMixture(base, wide, _WIDE_PART)


# --- stages 1 and 2: locating and sampling the target -----------------------------------------------------------------


def _wide_base(
    target: AbstractDensity, locate_key: PRNGKeyArray, settle_key: PRNGKeyArray
) -> tuple[AbstractDistribution, list[SMCSample], list[str], int]:
    """The wide base, the short runs that it is fitted to, doubts about these, and the gradients of the fit.

    It is fitted at the last β at which the particles of the run that located the target descend from enough others.
    It is the prior where the target declares one, without a run: beyond the prior the maps from standard normals are
    flat, and a wider Gaussian sees little but its ends.
    """
    prior = prior_of(target)
    if prior is not None:
        return prior, [], [], 0
    located, runs, doubts = _locate(target, locate_key)
    run = located.run
    k = _last_sure(run)
    if k == len(run.betas) - 1:
        settled = settle(target, run.x, settle_key)
        base = inflated(fit_to_points(target, settled.x), _inflation(target.dim))
        return base, runs, doubts, len(run.x) + settled.num_gradients
    beta, x = float(run.betas[k]), run.path[k]
    gradient = (1 - beta) * gradients_at(located.base, x) + beta * gradients_at(target, x)
    base = fit_gaussian(x, gradient, lattice_of(target), is_sign_symmetric(target))
    # A Gaussian is wider at this β already, by 1/√β.
    return inflated(base, max(1.0, _inflation(target.dim) * beta**0.5)), runs, doubts, len(x)


class _Attempt(NamedTuple):
    """A short run, its base, and the distance of its particles from the origin."""

    base: Gaussian
    run: SMCSample
    reach: float


def _locate(target: AbstractDensity, key: PRNGKeyArray) -> tuple[_Attempt, list[SMCSample], list[str]]:
    """The short run that locates the target, all short runs, and doubts about them.

    A wider base sees more of the target, so that log Z rises, until the way from it is so long that mass is lost on it.
    """
    lattice = lattice_of(target)
    # On a lattice the sites may all move together: the target is then √dim times as wide in that one direction.
    scale = 5.0 * (np.sqrt(target.dim) if lattice else 1.0)
    runs: list[SMCSample] = []
    fitting: _Attempt | None = None
    best: _Attempt | None = None
    was_stuck = False
    for attempt in range(_MAX_WIDENINGS):
        start, end = (_SHARE_OF_LOCATING * (1 - 0.5**k) for k in (attempt, attempt + 1))
        stage("locating the target", start, end)
        isotropic = Circulant(scale * np.ones(lattice)) if lattice else scale * np.eye(target.dim)
        base = Gaussian(np.zeros(target.dim), scale_tril=isotropic)
        run = _run_smc(base, target, jax.random.fold_in(key, attempt), _SHORT)
        runs.append(run)
        last = _Attempt(base, run, _reach(run))
        if best and run.betas[-1] == 1 and _sigma(best.run, run) > _LOSS:
            return best, runs, []
        if run.betas[-1] == 1 and not (best and best.run.log_z > run.log_z):
            best = last
        if fitting is not None and last.reach <= 1.5 * fitting.reach:
            doubts = _unfinished(fitting.run, "that located the target") + _unfinished(run, "that confirmed this")
            return fitting, runs, doubts
        fitting = last if 2 * last.reach <= scale else None
        stuck = run.betas[-1] < 1
        if stuck and was_stuck:  # the steps in β ran out at two scales: a third scale would be no better
            break
        was_stuck = stuck
        # A mode may be out of reach of this base: a base four times as wide must confirm it.
        scale = 4 * scale if fitting else max(3 * last.reach, 2 * scale)
    doubt = (
        f"The target was still wide in the widest base tried, of scale {scale:.3g}: it has very long tails or a "
        "funnel, or exp(-energy) has no finite integral."
    )
    return best or last, runs, [doubt]


def _last_sure(run: SMCSample) -> int:
    """The last step in β at which enough first particles are behind the others; the last step of a run cut short.

    The descendants of few have lost the width of the target and whole modes, though log Z of the run may be near.
    """
    sure = np.flatnonzero(run.concentration * _FEWEST_ANCESTORS <= 1)
    if run.betas[-1] < 1:
        return len(run.betas) - 1
    return int(sure[-1]) if len(sure) else 0


def _sigma(one: SMCSample, other: SMCSample) -> float:
    """By how many of their errors log Z of `one` is larger than that of `other`."""
    return (one.log_z - other.log_z) / max(float(np.hypot(one.log_z_stderr, other.log_z_stderr)), 1e-6)


def _reach(run: SMCSample) -> float:
    """The distance of the particles from the origin, by their mean and their largest standard deviation."""
    points = np.asarray(run.x, np.float64)
    if not np.isfinite(points).all():
        raise InputError("The energy led the pilot to non-finite points: is it finite, and does it grow outwards?")
    variance = np.linalg.eigvalsh(np.atleast_2d(np.cov(points, rowvar=False)))[-1]
    return float(np.hypot(np.abs(points.mean(axis=0)).max(), np.sqrt(variance)))


# --- fits and runs ----------------------------------------------------------------------------------------------------


def _fit_mixture(
    target: AbstractDensity,
    gaussian: Gaussian,
    x: Float[Array | np.ndarray, "num dim"],
    key: PRNGKeyArray,
    defensive: float,
) -> FittedDensity:
    gaussian, subspace = _with_active_subspace(target, gaussian, x)
    return fit_mixture(target, gaussian, subspace, np.asarray(x), key, defensive=defensive)


def _with_active_subspace(
    target: AbstractDensity, base: Gaussian, x: Float[Array | np.ndarray, "num dim"]
) -> tuple[Gaussian, Float[np.ndarray, "dim size"]]:
    """The base, aligned to points of the target where no lattice has averaged it, and its active subspace."""
    x, gradient, lattice = np.asarray(x), gradients_at(target, x), lattice_of(target)
    if lattice is None:
        base = aligned_base(base, x, gradient)
    return base, active_subspace(base, x, gradient, lattice)


def _inflation(dim: int) -> float:
    """How many times as wide as the target the wide base is.

    The radius of its points is (s - 1)√(2 dim) spreads away from that of the target's: this distance, and with it the
    number of inverse temperatures on the way, does not grow beyond 16 dimensions.
    """
    return 1 + (_INFLATION - 1) * min(1.0, (_FEW_DIMENSIONS / dim) ** 0.5)


def _run_smc(base: AbstractDistribution, target: AbstractDensity, key: PRNGKeyArray, effort: _Effort) -> SMCSample:
    """An SMC run with enough particles for a covariance, and enough steps in β, whose number grows as √dim."""
    fewest = 512 if lattice_of(target) else max(512, 2 * target.dim)  # on a lattice every site is a sample
    return run_smc(
        base,
        target,
        key,
        effort.ess,
        num_particles=max(fewest, min(effort.particles, effort.numbers // target.dim)),
        num_moves=effort.moves,
        max_steps=int(max(400, 60 * np.sqrt(target.dim))),
    )


def _complaints(run: SMCSample, where: str) -> list[str]:
    """One sentence for each reason to doubt an SMC run."""
    sentences = _unfinished(run, where)
    if run.acceptance < 0.2:
        sentences.append(f"The pilot's moves {where} were accepted only {run.acceptance:.0%} of the time.")
    effective = 1 / run.concentration[-1]
    if run.num_ancestors < 30 or effective < _TOO_FEW * _FEWEST_ANCESTORS:
        few = min(run.num_ancestors, round(effective))
        sentences.append(f"The pilot's particles {where} descend from only {few} starting points.")
    return sentences


def _lost(settled: Settled, run: SMCSample, wide: SMCSample) -> list[str]:
    """Sentences on a part of the target that one of two runs has lost on its way; `wide` with the modes it missed."""
    sentences = []
    apart = _apart(run, wide)
    if run.betas[-1] == wide.betas[-1] == 1 and apart > _MOST_APART:
        sentences.append(
            f"The pilot's points from a wide base and from the base of training differ in an average by {apart:.1f} "
            "errors: one of the runs has lost a part of the target, or the share of a mode."
        )
    if settled.first_drift > _LOST_DRIFT:
        sentences.append(
            "The pilot's particles were not of the target: moves that leave it invariant changed their averages by "
            f"{settled.first_drift:.1f} errors. A part that is narrower than the rest, as the neck of a funnel, was "
            "lost on the way from the base."
        )
    elif settled.drifts:
        sentences.append(f"The pilot's particles still drift after {settled.num_moves} moves at β = 1.")
    if run.betas[-1] == wide.betas[-1] == 1 and _sigma(wide, run) > _LOST_SIGMA:
        sentences.append(
            f"The pilot's log Z from the base of training, {run.log_z:.4g} ± {run.log_z_stderr:.2g}, is smaller than "
            f"from a wide base, {wide.log_z:.4g} ± {wide.log_z_stderr:.2g}: a part of the target was lost."
        )
    return sentences


def _apart(one: SMCSample, other: SMCSample) -> float:
    """How far averages of two runs' particles are from each other, in errors; the largest.

    They are the coordinates and, at the quartiles of each, the shares below. The particles that descend from one first
    particle count as one: in another mode than others they all stay, and as many count as 1 / Σ share² of the first.
    """
    x, y = np.asarray(one.x), np.asarray(other.x)
    quartiles = np.quantile(np.concatenate([x, y]), [0.25, 0.5, 0.75], axis=0)
    largest = 0.0
    for observed in (lambda z: z, *(lambda z, q=q: (z < q).astype(float) for q in quartiles)):
        a, b = observed(x), observed(y)
        variance = a.var(axis=0) * one.concentration[-1] + b.var(axis=0) * other.concentration[-1]
        largest = max(largest, float(np.max(np.abs(a.mean(axis=0) - b.mean(axis=0)) / np.sqrt(variance + 1e-300))))
    return largest


def _unfinished(run: SMCSample, where: str) -> list[str]:
    """A run that stopped before β = 1 has not sampled the target, only a wider density."""
    beta = run.betas[-1]
    return [f"The pilot's SMC run {where} stopped at inverse temperature β = {beta:.3g} of 1."] if beta < 1 else []
