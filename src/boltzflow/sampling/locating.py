"""Where the target is, and how wide: short SMC runs from isotropic Gaussians, and the wide base fitted to them."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric, lattice_of, prior_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.numerics.linalg import Circulant
from boltzflow.numerics.stages import stage
from boltzflow.sampling.gaussian_fit import fit_gaussian, fit_to_points, gradients_at, inflated
from boltzflow.sampling.settling import settle
from boltzflow.sampling.smc import SMCSample, run_smc

SHARE_OF_LOCATING = 0.25  # of the time of a pilot
_FEWEST_ANCESTORS = 30.0  # effective ones; fewer know neither the width of the target nor the shares of its modes
_TOO_FEW = 1 / 3  # of these: a run with fewer is doubted
_INFLATION = 3.0
_FEW_DIMENSIONS = 16  # up to which the wide base is so many times as wide
_MAX_WIDENINGS = 8
_LOSS = 3.0  # errors by which a wider base must lower log Z, to be too wide


class Effort(NamedTuple):
    """The work of an SMC run; many dimensions get fewer particles."""

    ess: float  # the share of effective samples that a step in β keeps
    particles: int  # at most
    numbers: int  # at most, of all particles together
    moves: int  # at each β


_SHORT = Effort(0.5, 2048, 2**16, 2)


def wide_base(
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
    k = last_sure(run)
    if k == len(run.betas) - 1:
        settled = settle(target, run.x, settle_key)
        base = inflated(fit_to_points(target, settled.x), inflation(target.dim))
        return base, runs, doubts, len(run.x) + settled.num_gradients
    beta, x = float(run.betas[k]), run.path[k]
    gradient = (1 - beta) * gradients_at(located.base, x) + beta * gradients_at(target, x)
    base = fit_gaussian(x, gradient, lattice_of(target), is_sign_symmetric(target))
    # A Gaussian is wider at this β already, by 1/√β.
    return inflated(base, max(1.0, inflation(target.dim) * beta**0.5)), runs, doubts, len(x)


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
        start, end = (SHARE_OF_LOCATING * (1 - 0.5**k) for k in (attempt, attempt + 1))
        stage("locating the target", start, end)
        isotropic = Circulant(scale * np.ones(lattice)) if lattice else scale * np.eye(target.dim)
        base = Gaussian(np.zeros(target.dim), scale_tril=isotropic)
        run = run_with(base, target, jax.random.fold_in(key, attempt), _SHORT)
        runs.append(run)
        last = _Attempt(base, run, _reach(run))
        if best and run.betas[-1] == 1 and sigma_of(best.run, run) > _LOSS:
            return best, runs, []
        if run.betas[-1] == 1 and not (best and best.run.log_z > run.log_z):
            best = last
        if fitting is not None and last.reach <= 1.5 * fitting.reach:
            doubts = unfinished(fitting.run, "that located the target") + unfinished(run, "that confirmed this")
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


def last_sure(run: SMCSample) -> int:
    """The last step in β at which enough first particles are behind the others; the last step of a run cut short.

    The descendants of few have lost the width of the target and whole modes, though log Z of the run may be near.
    """
    sure = np.flatnonzero(run.concentration * _FEWEST_ANCESTORS <= 1)
    if run.betas[-1] < 1:
        return len(run.betas) - 1
    return int(sure[-1]) if len(sure) else 0


def sigma_of(one: SMCSample, other: SMCSample) -> float:
    """By how many of their errors log Z of `one` is larger than that of `other`."""
    return (one.log_z - other.log_z) / max(float(np.hypot(one.log_z_stderr, other.log_z_stderr)), 1e-6)


def _reach(run: SMCSample) -> float:
    """The distance of the particles from the origin, by their mean and their largest standard deviation."""
    points = np.asarray(run.x, np.float64)
    if not np.isfinite(points).all():
        raise InputError("The energy led the pilot to non-finite points: is it finite, and does it grow outwards?")
    variance = np.linalg.eigvalsh(np.atleast_2d(np.cov(points, rowvar=False)))[-1]
    return float(np.hypot(np.abs(points.mean(axis=0)).max(), np.sqrt(variance)))


# --- runs and what they say -------------------------------------------------------------------------------------------


def inflation(dim: int) -> float:
    """How many times as wide as the target the wide base is.

    The radius of its points is (s - 1)√(2 dim) spreads away from that of the target's: this distance, and with it the
    number of inverse temperatures on the way, does not grow beyond 16 dimensions.
    """
    return 1 + (_INFLATION - 1) * min(1.0, (_FEW_DIMENSIONS / dim) ** 0.5)


def run_with(base: AbstractDistribution, target: AbstractDensity, key: PRNGKeyArray, effort: Effort) -> SMCSample:
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


def few_ancestors(run: SMCSample) -> int:
    """How many starting points the particles descend from, where these are too few to know the target; else 0."""
    effective = 1 / run.concentration[-1]
    if run.num_ancestors < 30 or effective < _TOO_FEW * _FEWEST_ANCESTORS:
        return min(run.num_ancestors, round(effective))
    return 0


def unfinished(run: SMCSample, where: str) -> list[str]:
    """A run that stopped before β = 1 has not sampled the target, only a wider density."""
    beta = run.betas[-1]
    return [f"The pilot's SMC run {where} stopped at inverse temperature β = {beta:.3g} of 1."] if beta < 1 else []
