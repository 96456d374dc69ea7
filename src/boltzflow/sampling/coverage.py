"""The mode probe: points of the target, found without the flow, are asked "would the flow ever come here?".

Points of the annealed sampler are weighted as the target weighs them, and their number is the share of what is missing.
Minima are not: around one to which the flow does not come, Hamiltonian moves fill the well, and importance weights from
the Gaussian of what they fill say how much it holds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, lattice_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics.batching import BATCH_SIZE, map_points
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.hmc import HamiltonianMoves, preconditioner
from boltzflow.sampling.resampling import systematic

# e^5: the flow comes to such a point at less than a hundredth of the rate that the target asks for.
_UNCOVERED = 5.0
MIN_SHARE = 0.005  # an uncovered region of less probability is within the noise of a thousand probe points
_MAX_WELLS = 8
_CHAINS, _ROUNDS, _MOVES, _LEAPFROG = 256, 12, 4, 5
_DRAWS = 4096
_NEIGHBORS, _STATIONS, _BARRIER = 4, 17, 0.5  # of a minimum; on the way to each; what is no barrier yet


@dataclass(frozen=True)
class Region:
    """A part of the target that the flow does not cover: its center, about which share of the whole it holds, and of a
    well that was weighed, equally weighted points in it."""

    center: Float[np.ndarray, " dim"]
    share: float
    points: Float[np.ndarray, "num dim"] | None = None


def uncovered_share(excess: Float[np.ndarray, " num"]) -> float:
    """At which share of equally weighted points of the target `excess`, the log-weight less log Z, says that the flow
    hardly comes there."""
    return float(np.mean(~(np.asarray(excess) <= _UNCOVERED)))


def uncovered_regions(
    points: Float[np.ndarray, "num dim"], excess: Float[np.ndarray, " num"], max_regions: int = 3
) -> list[Region]:
    """Where `excess`, the log-weight less log Z at equally weighted points of the target, is far above zero.

    The largest group comes first. Groups are balls in coordinates scaled by the spread of all points. A log-weight that
    is not finite means that the flow's density there is zero to machine precision.
    """
    uncovered = ~(np.asarray(excess) <= _UNCOVERED)
    scale = points.std(axis=0) + 1e-12
    # Within a mode the squared distance from its center is about dim; two modes that split one axis are 2 apart on it.
    radius = np.sqrt(2 * points.shape[1] - 1.6)
    left = points[uncovered]
    depth = np.where(np.isfinite(excess), excess, np.inf)[uncovered]
    regions = []
    while len(left):
        seed = left[np.argmax(depth)]
        center = np.median(left[np.linalg.norm((left - seed) / scale, axis=1) <= radius], axis=0)
        near = np.linalg.norm((left - center) / scale, axis=1) <= radius
        near |= (left == seed).all(axis=1)
        regions.append(Region(np.median(left[near], axis=0), float(near.sum() / len(points))))
        left, depth = left[~near], depth[~near]
    return sorted(regions, key=lambda region: -region.share)[:max_regions]


def weigh_missed_modes(
    target: AbstractDensity,
    log_prob: Callable[[Float[Array, " dim"]], Float[Array, ""]],
    minima: Float[np.ndarray, "num dim"] | Float[Array, "num dim"],
    excess: Float[np.ndarray, " num"] | Float[Array, " num"],
    log_z: float,
    scale: Float[np.ndarray, " dim"],
    key: PRNGKeyArray,
    *,
    found: Float[np.ndarray, "num dim"] | None = None,
    watch: Stopwatch | None = None,
) -> tuple[list[Region], int]:
    """What the wells hold around those of `minima` to which the flow of density `log_prob` does not come; and how many
    of these minima were not looked at.

    `excess` is their log-weight less `log_z`, which is without these wells; `scale` is how wide the target is. The
    lowest are looked at first, eight at most, and others in a well that is lost are not looked at again. A well in
    which there are half as many of `found`, points of the target, as there should be is not lost.
    """
    left = np.asarray(minima, np.float64)[~(np.asarray(excess) <= _UNCOVERED)]
    regions, wells = [], list[Gaussian]()
    for number in range(_MAX_WELLS):
        if not len(left):
            break
        lowest = int(np.nanargmin(np.asarray(map_points(target.energy, jnp.asarray(left, jnp.float32)))))
        fill_key, draw_key = jax.random.split(jax.random.fold_in(key, number))
        start = jnp.asarray(left[lowest], jnp.float32), jnp.asarray(scale, jnp.float32)
        x = np.asarray(watch.run(_fill, target, fill_key, *start) if watch else _fill_jitted(target, fill_key, *start))
        well = _gaussian(x, lattice_of(target))
        done = np.arange(len(left)) == lowest
        if not any(_within(known, well.mean[None])[0] for known in wells):  # its chains did not go to one of these
            weighed = _weigh(target, log_prob, well, log_z, draw_key)
            there = 0.0 if found is None else float(_within(well, found).mean())
            regions += [region for region in weighed if there < region.share / 2]
            if weighed:  # else its chains left for what the flow covers, which may surround a well that it does not
                wells.append(well)
                done |= _within(well, left)
        left = left[~done]
    return sorted(regions, key=lambda region: -region.share), len(left)


def behind_barriers(target, minima, x, scale, watch: Stopwatch) -> Bool[np.ndarray, " num_minima"]:
    """Which of `minima` are in no well of the points `x`, spread by `scale`: on the straight way to each of the nearest
    of these the energy rises above both ends. Cheap, and blind to a hole inside the bulk, which is below its
    surroundings and behind nothing."""
    if not len(minima):
        return np.zeros(0, bool)
    distance = np.stack([np.sum(((x - minimum) / scale) ** 2, axis=1) for minimum in minima])
    ends = x[np.argsort(distance, axis=1)[:, :_NEIGHBORS]]
    way = np.linspace(0, 1, _STATIONS)[:, None, None, None]
    energies = energies_at(target, ((1 - way) * minima[:, None] + way * ends).reshape(-1, x.shape[1]), watch)
    energies = energies.reshape(_STATIONS, *ends.shape[:2])
    barrier = energies.max(axis=0) - np.maximum(energies[0], energies[-1])
    return ~(barrier <= _BARRIER).any(axis=1)


def energies_at(density: AbstractDensity, x, watch: Stopwatch) -> Float[np.ndarray, " num"]:
    """The energy at every row of `x`, by a program of one size for any number of them."""
    num, x = len(x), np.asarray(x, np.float32)
    x = np.concatenate([x, np.broadcast_to(x[-1:], (-num % BATCH_SIZE, x.shape[1]))])
    blocks = [
        watch.run(_block_of_energies, density, jnp.asarray(x[i : i + BATCH_SIZE])) for i in range(0, num, BATCH_SIZE)
    ]
    return np.concatenate(blocks)[:num].astype(np.float64)


def _block_of_energies(density, x):
    return jax.vmap(density.energy)(x)


def _fill(target, key, minimum, scale):
    """Chains of the target that start close around a minimum, and reach as far as the well does."""

    def more(i, carry):
        x, size = carry
        x, _, size, _ = moves(jax.random.fold_in(key, i), x, preconditioner(x, lattice_of(target)), size)
        return x, size

    moves = HamiltonianMoves(target.energy, _MOVES, _LEAPFROG)
    start = minimum + 1e-2 * scale * jax.random.normal(key, (_CHAINS, target.dim))
    size = jnp.asarray(0.5 * target.dim**-0.25)
    return jax.lax.fori_loop(0, _ROUNDS, more, (start, size))[0]


_fill_jitted = eqx.filter_jit(_fill)


def _gaussian(x: Float[np.ndarray, "num dim"], lattice: tuple[int, ...] | None) -> Gaussian:
    """Of these points, and a little wider."""
    wider = 1 + 0.5 / np.sqrt(x.shape[1])
    scale = wider * np.asarray(preconditioner(jnp.asarray(x), lattice).scale, np.float64)
    return Gaussian(x.mean(axis=0), scale_tril=Circulant(scale) if lattice else scale)


def _within(well: Gaussian, x: Float[np.ndarray, "num dim"]) -> np.ndarray:
    distance = jnp.linalg.norm(jax.vmap(well.whiten)(jnp.asarray(x, jnp.float32)), axis=1)
    return np.array(distance <= np.sqrt(well.dim) + 4)


def _weigh(target, log_prob, well: Gaussian, log_z: float, key) -> list[Region]:
    """What of the well the flow does not cover: nothing where it covers all of it."""
    draw_key, pick_key = jax.random.split(key)
    x, log_density = jax.vmap(well.sample_and_log_prob)(jax.random.split(draw_key, _DRAWS))
    minus_energy = -np.asarray(map_points(target.energy, x), np.float64)
    uncovered = ~(minus_energy - np.asarray(map_points(log_prob, x)) - log_z <= _UNCOVERED)
    log_weight = np.where(uncovered & ~np.isnan(minus_energy), minus_energy - np.asarray(log_density), -np.inf)
    if not np.isfinite(log_weight.max()):
        return []
    log_mass = np.logaddexp.reduce(log_weight) - np.log(_DRAWS)
    weight = np.exp(log_weight - log_weight.max())
    center = np.average(np.asarray(x, np.float64), axis=0, weights=weight)
    points = np.asarray(x)[np.asarray(systematic(pick_key, jnp.asarray(log_weight - log_weight.max(), jnp.float32)))]
    return [Region(center, float(np.exp(log_mass - np.logaddexp(log_mass, log_z))), points)]
