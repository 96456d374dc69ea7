"""The pilot: an exploration of the target before training, by sequential Monte Carlo (SMC) without a flow.

Three tempered SMC runs, each from a better base. Short runs from an isotropic Gaussian, widened until the target fits
well inside it or log Z falls, locate the target. A run from a Gaussian fitted to their particles, inflated threefold,
samples it, and descent from the particles of all β finds modes that SMC has missed. A run from the base of training
gives the schedule of the path, the active subspace, the training points, and a log Z without a flow. After each run the
particles settle: moves at β = 1 bring back what was lost in narrow parts of the target.
"""

import dataclasses
from html import escape

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, lattice_of, prior_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import DefensiveMixture, SubspaceMixture, whitening_gaussian
from boltzflow.densities.noncentered import NonCentered, NonCentering
from boltzflow.model.interpolations import Clock, fit_clock
from boltzflow.numerics.stages import stage
from boltzflow.sampling.gaussian_fit import (
    active_subspace,
    aligned_base,
    fit_to_points,
    gradients_at,
    inflated,
)
from boltzflow.sampling.locating import (
    SHARE_OF_LOCATING,
    Effort,
    few_ancestors,
    inflation,
    last_sure,
    run_with,
    sigma_of,
    unfinished,
    wide_base,
)
from boltzflow.sampling.mixture_fit import DEFENSIVE, FittedDensity, fit_mixture
from boltzflow.sampling.mode_search import find_minima, screened, with_missed_modes
from boltzflow.sampling.resampling import spread
from boltzflow.sampling.settling import Settled, settle
from boltzflow.sampling.smc import SMCSample
from boltzflow.statistics.notation import concise

_WIDE = Effort(0.8, 4096, 2**20, 4)
_PATH = Effort(0.97, 4096, 2**20, 4)
_LOST_DRIFT = 6.0  # errors by which settling may change an average of the particles
_LOST_SIGMA = 4.0
_MOST_APART = 4.0  # errors, of the largest of some ten to hundred averages
_WIDE_PART = 0.5  # of a base of populations
_MIN_STDERR = 1e-3  # of log Z: correlated particles allow no smaller error
# Where each stage begins and ends, as a share of the time of a pilot.
_SHARE_OF_WIDE = (SHARE_OF_LOCATING, 0.5)
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
        noncentering: The map from the coordinates of the pilot to those of the target; None where they are the same.
            Base, points and minima are in the coordinates of the pilot.
        known_points: Points of the target, and the same from the wide run, of an earlier pilot in other coordinates,
            `(2, num_known, dim)`; None where there was none.
        coordinates: A sentence on why they were changed; empty where they were not.
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
    noncentering: NonCentering | None = None
    coordinates: str = ""
    known_points: Float[np.ndarray, "kinds num_known dim"] | None = None

    @property
    def point_sets(self) -> list[Float[np.ndarray, "num dim"]]:
        """All sets of points of the target: from the base of training, from the wide base, and of an earlier pilot."""
        known = [] if self.known_points is None else list(self.known_points)
        return [self.points, self.wide_points, *known]

    def __repr__(self) -> str:
        found = [
            f"log Z = {concise(self.log_z, self.log_z_stderr)}",
            f"base {type(self.base).__name__} in {self.base.dim} dimensions",
            f"{len(self.points):,} points, {len(self.minima)} minima, {len(self.path_times)} times",
            f"{self.num_gradients:,} gradients",
            *([self.coordinates] if self.coordinates else []),
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
    base_of_wide, runs, doubts, num_gradients = wide_base(target, locate_key, next(settle_keys))
    stage("SMC from a wide base", *_SHARE_OF_WIDE)
    wide = run_with(base_of_wide, target, wide_key, _WIDE)
    runs.append(wide)
    if last_sure(wide) < len(wide.betas) - 1:
        wide = run_with(base_of_wide, target, jax.random.fold_in(wide_key, 1), _PATH)
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
    run = run_with(base, target, path_key, _PATH)
    runs.append(run)
    settled = settle(target, run.x, next(settle_keys))
    num_gradients += settled.num_gradients
    if settled.drifted and fits_base and isinstance(base, Gaussian):  # a base that knows what the run has lost
        base = fit_to_points(target, settled.x)
        run = run_with(base, target, jax.random.fold_in(path_key, 1), _PATH)
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


def in_coordinates(target: AbstractDensity, pilot: Pilot) -> AbstractDensity:
    """The target in the coordinates of its pilot; a target that is in them already stays as it is."""
    if pilot.noncentering is None or isinstance(target, NonCentered):
        return target
    return NonCentered(target, pilot.noncentering)


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
        wide = inflated(fit_to_points(target, x), inflation(target.dim))
    return DefensiveMixture(base, wide, _WIDE_PART)


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


def _complaints(run: SMCSample, where: str) -> list[str]:
    """One sentence for each reason to doubt an SMC run."""
    sentences = unfinished(run, where)
    if run.acceptance < 0.2:
        sentences.append(f"The pilot's moves {where} were accepted only {run.acceptance:.0%} of the time.")
    if few := few_ancestors(run):
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
    if run.betas[-1] == wide.betas[-1] == 1 and sigma_of(wide, run) > _LOST_SIGMA:
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
