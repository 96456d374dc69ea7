"""What a target is like before training: points in every mode found, a base, a pace, and a first log Z.

The annealed sampler runs twice. From an isotropic base, widened until the target fits well inside it, it finds the
target's points; from the base of the run (by default the Gaussian fitted to those points) it finds how fast the path
may be walked, leaves points all along it, and measures log Z with no flow involved.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .bases import Gaussian
from .compilation import Stopwatch
from .correction.annealed import AnnealedSample, anneal
from .densities import AbstractDensity, AbstractDistribution
from .errors import InputError
from .interpolations import Clock, fit_clock

_NUM_PARTICLES = 4096
_MAX_STEPS = 200
_MAX_WIDENINGS = 8
_MIN_STDERR = 1e-3  # single precision, and particles that are correlated, allow no smaller error of log Z
_SAVED_NUMBERS = 2**24  # floats kept of the particles along the path: 64 MiB


@dataclasses.dataclass(frozen=True)
class Pilot:
    """The annealed sampler's findings.

    `base` and `clock` to train with; equally weighted `points` of the target as found from that base, and `wide_points`
    as found from a wide one, each of shape `(num_points, dim)`; `path_times`,
    shape `(num_knots,)` from 0 to 1, and equally weighted `path_points` at each of them, `(num_knots, num_saved, dim)`;
    log Z with its error; and what it cost. `complaints` are sentences on what went wrong, if anything did.
    """

    base: AbstractDistribution
    clock: Clock
    points: Float[Array, "num_points dim"]
    wide_points: Float[Array, "num_points dim"]
    path_times: Float[Array, " num_knots"]
    path_points: Float[Array, "num_knots num_saved dim"]
    log_z: float
    log_z_stderr: float
    acceptance: float
    num_gradients: int
    num_nonfinite: int
    complaints: tuple[str, ...] = ()


def fly_pilot(
    target: AbstractDensity,
    key: PRNGKeyArray,
    *,
    base: AbstractDistribution | None = None,
    pace: bool = True,
    stopwatch: Stopwatch | None = None,
) -> Pilot:
    """Explore `target`; `base` None fits a Gaussian to it; `pace` False keeps the paper's clock β = t.

    Raises `InputError` where the target's energy leads to points that are not finite.
    """
    watch = stopwatch or Stopwatch()
    explore_key, path_key, start_key = jax.random.split(key, 3)
    found, wide_gradients, doubts = _explore(target, explore_key, watch)
    if base is None:
        base = fit_gaussian(found.x)
    sample = _anneal(base, target, path_key, 0.97, watch)
    num_steps = int(sample.num_steps)
    betas = np.asarray(sample.betas[:num_steps], float)
    clock = fit_clock(betas) if pace and betas[-1] == 1 else Clock()
    times = np.concatenate([[0.0], clock.inverse(betas)])
    start = jax.vmap(base.sample_and_log_prob)(jax.random.split(start_key, sample.path.shape[1]))[0]
    return Pilot(
        base=base,
        clock=clock,
        points=sample.x,
        wide_points=found.x,
        path_times=jnp.asarray(times, jnp.float32),
        path_points=jnp.concatenate([start[None], sample.path[:num_steps]]),
        log_z=float(sample.log_z),
        log_z_stderr=max(float(sample.log_z_stderr), _MIN_STDERR),
        acceptance=float(sample.acceptance),
        num_gradients=wide_gradients + int(sample.num_gradients),
        num_nonfinite=int(found.num_nonfinite + sample.num_nonfinite),
        complaints=tuple(
            doubts + _complaints(found, "from a wide base") + _complaints(sample, "from the base of the run")
        ),
    )


def fit_gaussian(x: Float[Array, "num dim"]) -> Gaussian:
    """The Gaussian with the points' mean and covariance, shrunk a little to its diagonal so that it always exists."""
    points = np.asarray(x, np.float64)
    covariance = np.atleast_2d(np.cov(points, rowvar=False))
    shrink = min(0.5, points.shape[1] / (4.0 * points.shape[0]))
    covariance = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance)) + 1e-12 * np.eye(len(covariance))
    return Gaussian(points.mean(axis=0), covariance)


def _explore(target: AbstractDensity, key: PRNGKeyArray, watch: Stopwatch) -> tuple[AnnealedSample, int, list[str]]:
    """Anneal from N(0, s² I), with s grown until the target fits well inside it, and no wider base finds more of it.

    A mode out of reach of one base is seen from a wider one: so the base that fits is confirmed from one four times as
    wide, whose particles are used only where they spread further.
    """
    scale, gradients, fitting = 5.0, 0, None
    for attempt in range(_MAX_WIDENINGS):
        base = Gaussian(np.zeros(target.dim), scale**2 * np.eye(target.dim))
        sample = _anneal(base, target, jax.random.fold_in(key, attempt), 0.8, watch)
        gradients += int(sample.num_gradients)
        reach = _reach(sample)
        if fitting is not None and reach <= 1.5 * fitting[1]:
            return fitting[0], gradients, []
        fitting = (sample, reach) if 2 * reach <= scale else None
        scale = 4 * scale if fitting else max(3 * reach, 2 * scale)
    sentence = f"The target was still wide in the widest base tried, of scale {scale:.3g}: can it be normalized?"
    return sample, gradients, [sentence]


def _reach(sample: AnnealedSample) -> float:
    """How far the particles are from the origin: their mean and their largest standard deviation in any direction."""
    points = np.asarray(sample.x, np.float64)
    if not np.isfinite(points).all():
        raise InputError("The energy led the pilot to non-finite points: is it finite, and does it grow outwards?")
    variance = np.linalg.eigvalsh(np.atleast_2d(np.cov(points, rowvar=False)))[-1]
    return float(np.hypot(np.abs(points.mean(axis=0)).max(), np.sqrt(variance)))


def _anneal(base, target, key, ess_fraction, watch: Stopwatch) -> AnnealedSample:
    num_saved = int(np.clip(_SAVED_NUMBERS // (_MAX_STEPS * target.dim), 64, _NUM_PARTICLES))
    return watch.run(
        anneal, base, target, key, jnp.asarray(ess_fraction),
        num_particles=_NUM_PARTICLES, num_moves=4, num_leapfrog=5, max_steps=_MAX_STEPS, num_saved=num_saved,
    )  # fmt: skip


def _complaints(sample: AnnealedSample, where: str) -> list[str]:
    """What makes the pilot's word doubtful."""
    sentences = []
    beta = float(sample.betas[int(sample.num_steps) - 1])
    if beta < 1:
        sentences.append(f"The annealed pilot {where} stopped at temperature β = {beta:.3g} of 1.")
    if float(sample.acceptance) < 0.2:
        sentences.append(f"The pilot's moves {where} were accepted only {float(sample.acceptance):.0%} of the time.")
    if int(sample.num_ancestors) < 30:
        sentences.append(
            f"The pilot's particles {where} descend from only {int(sample.num_ancestors)} starting points."
        )
    return sentences
