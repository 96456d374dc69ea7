"""The coverage check: does the flow reach the points of the target that were found without it?

At equally weighted points of the target, the share of points that the flow does not reach is the share of probability
that it misses. Minima of the energy carry no weight. Around a minimum that the flow does not reach, Hamiltonian moves
fill the mode, and importance weights from the Gaussian of the filled points give its probability. `log_ratio` is the
log-weight minus log Z: the log of target density over flow density at a point.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, lattice_of, sample_batch
from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics.batching import map_points, numpy_generator
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.hmc import HamiltonianMoves, preconditioner
from boltzflow.sampling.resampling import spread, systematic_in_double

_UNCOVERED = 5.0  # in log_ratio: the flow's density is below a hundredth of the target's
MIN_SHARE = 0.005  # an uncovered region of less probability is within the noise of a thousand points
_MAX_REGIONS = 3
_MAX_MODES = 8
# The chains that fill a mode, and the draws from its Gaussian.
_CHAINS = 256
_ROUNDS = 12
_MOVES = 4
_LEAPFROG = 5
_DRAWS = 4096
# Barriers: the nearest points that are tried, the stations on the way, and the height that still counts as none.
_NEIGHBORS = 4
_SOME = 64  # points out of all, of which a tenth must be on the same side
_FEW = 0.1
_STATIONS = 17
_BARRIER = 0.5

Points = Float[np.ndarray, "num dim"]
LogProb = Callable[[Points], Float[np.ndarray, " num"]]


@dataclass(frozen=True)
class Region:
    """A part of the target that the flow does not cover."""

    center: Float[np.ndarray, " dim"]
    share: float  # of the probability, approximately
    points: Float[np.ndarray, "num dim"] | None = None  # equally weighted, of a mode that was weighed


def _is_uncovered(log_ratio: Float[np.ndarray, " num"]) -> Bool[np.ndarray, " num"]:
    """Where the flow's density is too small; a `log_ratio` of NaN counts as uncovered."""
    return ~(log_ratio <= _UNCOVERED)


def uncovered_share(log_ratio: Float[np.ndarray, " num"]) -> float:
    """The share of points that the flow does not cover."""
    return float(np.mean(_is_uncovered(log_ratio)))


def uncovered_regions(points: Points, log_ratio: Float[np.ndarray, " num"]) -> list[Region]:
    """The three largest groups of uncovered points, largest first; a group is a ball in units of the spread of all."""
    uncovered = _is_uncovered(log_ratio)
    scale = points.std(axis=0) + 1e-12
    # Within a mode the squared distance from its center is about dim; two modes that split one axis are 2 apart on it.
    radius = np.sqrt(2 * points.shape[1] - 1.6)
    left = points[uncovered]
    depth = np.where(np.isfinite(log_ratio), log_ratio, np.inf)[uncovered]
    regions = []
    while len(left):
        seed = left[np.argmax(depth)]
        center = np.median(left[np.linalg.norm((left - seed) / scale, axis=1) <= radius], axis=0)
        near = np.linalg.norm((left - center) / scale, axis=1) <= radius
        near |= (left == seed).all(axis=1)
        regions.append(Region(np.median(left[near], axis=0), float(near.sum() / len(points))))
        left = left[~near]
        depth = depth[~near]
    return sorted(regions, key=lambda region: -region.share)[:_MAX_REGIONS]


def weigh_missed_modes(
    target: AbstractDensity,
    log_prob: LogProb,
    minima: Points | Float[Array, "num dim"],
    log_ratio: Float[np.ndarray, " num"],
    log_z: float,
    scale: Float[np.ndarray, " dim"],
    key: PRNGKeyArray,
    known_points: Float[np.ndarray, "num_known dim"] | None = None,
) -> tuple[list[Region], int]:
    """The uncovered modes around the lowest eight uncovered minima, largest first, and the number of minima left over.

    `log_z` leaves these modes out, and `scale` are the standard deviations of the target. A mode is not missed if it
    holds at least half as many of the equally weighted `known_points` as its share.
    """
    left = np.asarray(minima, np.float64)[_is_uncovered(np.asarray(log_ratio))]
    regions: list[Region] = []
    modes: list[Gaussian] = []
    for number in range(_MAX_MODES):
        if not len(left):
            break
        lowest = int(np.nanargmin(energies_at(target, left)))
        fill_key, draw_key = jax.random.split(jax.random.fold_in(key, number))
        x = _fill(target, fill_key, jnp.asarray(left[lowest], float), jnp.asarray(scale, float))
        mode = _gaussian(x, lattice_of(target))
        done = np.arange(len(left)) == lowest
        if not any(_within(known, mode.mean[None])[0] for known in modes):  # else its chains went to a known mode
            weighed = _weigh(target, log_prob, mode, log_z, draw_key)
            known_share = 0.0 if known_points is None else float(_within(mode, known_points).mean())
            regions += [region for region in weighed if known_share < region.share / 2]
            if weighed:  # else its chains left for a covered region, which may surround an uncovered mode
                modes.append(mode)
                done |= _within(mode, left)
        left = left[~done]
    return sorted(regions, key=lambda region: -region.share), len(left)


def behind_barriers(
    target: AbstractDensity, minima: Float[np.ndarray, "num_minima dim"], x: Points, scale: Float[np.ndarray, " dim"]
) -> Bool[np.ndarray, " num_minima"]:
    """Which minima a barrier separates from the nearest points `x` of the target, or from nearly all points.

    The way is straight. Points near a minimum do not suffice: a few may have strayed into a mode that holds far more of
    the probability.
    """
    if not len(minima):
        return np.zeros(0, bool)
    distance = np.stack([np.sum(((x - minimum) / scale) ** 2, axis=1) for minimum in minima])
    nearest = x[np.argsort(distance, axis=1)[:, :_NEIGHBORS]]
    some = np.broadcast_to(spread(x, _SOME), (len(minima), *spread(x, _SOME).shape))
    far = ~(_barriers(target, minima, nearest) <= _BARRIER).any(axis=1)
    return far | (np.mean(_barriers(target, minima, some) <= _BARRIER, axis=1) < _FEW)


def _barriers(
    target: AbstractDensity, minima: Float[np.ndarray, "num_minima dim"], ends: Float[np.ndarray, "num_minima num dim"]
) -> Float[np.ndarray, "num_minima num"]:
    """The height of the energy on the way from each minimum to each of its ends, above the higher end of the way."""
    way = np.linspace(0, 1, _STATIONS)[:, None, None, None]
    energies = energies_at(target, ((1 - way) * minima[:, None] + way * ends).reshape(-1, ends.shape[2]))
    energies = energies.reshape(_STATIONS, *ends.shape[:2])
    return energies.max(axis=0) - np.maximum(energies[0], energies[-1])


def energies_at(density: AbstractDensity, x: Points) -> Float[np.ndarray, " num"]:
    """The energy at every row of `x`, as NumPy doubles."""
    return np.asarray(map_points(density.energy, x), np.float64)


@compiled
def _fill(
    target: AbstractDensity, key: PRNGKeyArray, minimum: Float[Array, " dim"], scale: Float[Array, " dim"]
) -> Float[Array, "num dim"]:
    """Chains of the target that start close to a minimum and spread over its mode."""
    moves = HamiltonianMoves(target.energy, _MOVES, _LEAPFROG)

    def more(i, carry):
        x, size = carry
        x, _, size, _ = moves(jax.random.fold_in(key, i), x, preconditioner(x, lattice_of(target)), size)
        return x, size

    start = minimum + 1e-2 * scale * jax.random.normal(key, (_CHAINS, target.dim))
    size = jnp.asarray(0.5 * target.dim**-0.25)
    return jax.lax.fori_loop(0, _ROUNDS, more, (start, size))[0]


def _gaussian(x: Float[Array, "num dim"], lattice: tuple[int, ...] | None) -> Gaussian:
    """The Gaussian of these points, a little wider."""
    wider = 1 + 0.5 / np.sqrt(x.shape[1])
    scale = wider * np.asarray(preconditioner(x, lattice).scale, np.float64)
    return Gaussian(np.asarray(x).mean(axis=0), scale_tril=Circulant(scale) if lattice else scale)


def _within(mode: Gaussian, x: Points) -> Bool[np.ndarray, " num"]:
    return np.linalg.norm(map_points(mode.whiten, x), axis=1) <= np.sqrt(mode.dim) + 4


def _weigh(target: AbstractDensity, log_prob: LogProb, mode: Gaussian, log_z: float, key: PRNGKeyArray) -> list[Region]:
    """The part of the mode that the flow does not cover; empty where the flow covers all of it."""
    draw_key, pick_key = jax.random.split(key)
    x, log_density = sample_batch(mode, draw_key, _DRAWS)
    minus_energy = -np.asarray(map_points(target.energy, x), np.float64)
    uncovered = _is_uncovered(minus_energy - log_prob(x) - log_z)
    log_weight = np.where(uncovered & ~np.isnan(minus_energy), minus_energy - log_density, -np.inf)
    if not np.isfinite(log_weight.max()):
        return []
    log_mass = np.logaddexp.reduce(log_weight) - np.log(_DRAWS)
    log_weight -= log_weight.max()
    center = np.average(np.asarray(x, np.float64), axis=0, weights=np.exp(log_weight))
    points = x[systematic_in_double(numpy_generator(pick_key), log_weight, _DRAWS)]
    return [Region(center, float(np.exp(log_mass - np.logaddexp(log_mass, log_z))), points)]
