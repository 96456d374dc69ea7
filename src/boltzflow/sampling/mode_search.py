"""The search for modes that a run of SMC has missed: energies far around, descents, and a weight for each minimum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.tracing import num_operations
from boltzflow.sampling.coverage import MIN_SHARE, Region, behind_barriers, energies_at, weigh_missed_modes
from boltzflow.sampling.gaussian_fit import fit_to_points, inflated
from boltzflow.sampling.minima import descend, far_apart, screen
from boltzflow.sampling.resampling import spread
from boltzflow.sampling.smc import SMCSample

_DESCENT_STEPS = 100
_INFLATION = 2.0
_MOST_SCREENED = 2**20
_SCREENING = 1e9  # numbers to compute in screening: about a second
_PER_DIMENSION = 60.0  # numbers to compute for each dimension of a point that is drawn
_MAX_MINIMA = 256


def screened(
    target: AbstractDensity, x: Float[Array | np.ndarray, "num dim"], key: PRNGKeyArray
) -> tuple[Float[np.ndarray, "kept dim"], int]:
    """Points around the target that a Gaussian fit to its points `x` does not explain, and the energies asked for.

    Many energies are only asked for where they cost little, and in few dimensions, where they can hit a narrow well.
    """
    point = jax.ShapeDtypeStruct((target.dim,), jax.dtypes.canonicalize_dtype(float))
    affordable = _SCREENING / (num_operations(target.energy, point) + _PER_DIMENSION * target.dim)
    num = int(min(_MOST_SCREENED, affordable))
    fit = fit_to_points(target, x)
    return screen(target, fit, inflated(fit, _INFLATION), key, num, _MAX_MINIMA), num


def find_minima(
    target: AbstractDensity,
    runs: list[SMCSample],
    screened: Float[np.ndarray, "num_screened dim"],
    scale: Float[np.ndarray, " dim"],
    num: int,
) -> tuple[Float[Array, "num_minima dim"], int]:
    """Minima by descent from `num` points: particles of all β of these runs, and those from screening; the gradients.

    At small β particles are everywhere.
    """
    share = -(-(num - len(screened)) // len(runs))
    starts = [screened]
    for run in runs:
        num_steps, num_saved, dim = run.path.shape
        points = run.path[:, :: max(1, num_steps * num_saved // share)].reshape(-1, dim)
        starts.append(points[np.linspace(0, len(points) - 1, share).astype(int)])
    x, f = descend(target, jnp.asarray(np.concatenate(starts)[:num]), num_steps=_DESCENT_STEPS)
    x = np.asarray(x)[np.isfinite(np.asarray(f)) & np.isfinite(np.asarray(x)).all(axis=1)]
    minima = jnp.asarray(x[far_apart(x, scale, _MAX_MINIMA)]) if len(x) else jnp.zeros((0, target.dim))
    return minima, num * (1 + _DESCENT_STEPS)


def with_missed_modes(
    target: AbstractDensity,
    run: SMCSample,
    minima: Float[Array, "num_minima dim"],
    scale: Float[np.ndarray, " dim"],
    key: PRNGKeyArray,
) -> Float[Array, "num dim"]:
    """The points of `run`, some of them replaced by points of missed modes in proportion to their probability."""
    x = np.asarray(run.x)
    modes = missed_modes(target, x, run.log_z, np.asarray(minima), scale, key)
    if not modes:
        return run.x
    odds = np.array([mode.share / max(1 - mode.share, 1e-6) for mode in modes])  # against all that `run` has found
    nums = np.ceil(len(x) * odds / (1 + odds.sum())).astype(int)
    parts = [spread(jnp.asarray(mode.points), int(num)) for mode, num in zip(modes, nums, strict=True)]
    return jnp.concatenate([spread(run.x, max(1, len(x) - sum(map(len, parts)))), *parts])


def missed_modes(
    target: AbstractDensity,
    x: Float[np.ndarray, "num dim"],
    log_z: float,
    minima: Float[np.ndarray, "num_minima dim"],
    scale: Float[np.ndarray, " dim"],
    key: PRNGKeyArray,
) -> list[Region]:
    """The modes around `minima` that hold a share of the probability, and that the points `x` of the target lack."""
    separate = minima[behind_barriers(target, minima, x, scale)]
    if not len(separate):
        return []
    cover = fit_to_points(target, x)
    log_ratio = energies_at(cover, separate) - energies_at(target, separate) + float(cover.log_z) - log_z
    log_prob = functools.partial(map_points, cover.log_prob)
    regions, _ = weigh_missed_modes(target, log_prob, separate, log_ratio, log_z, scale, key, known_points=x)
    return [region for region in regions if region.share >= MIN_SHARE]
