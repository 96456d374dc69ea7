"""How finely a flow is integrated, and has to be: measured on samples, by taking twice as many steps from the same
start."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, sample_batch
from boltzflow.model.flow import Flow, with_resolution
from boltzflow.model.integrate import SOLVERS
from boltzflow.numerics.batching import BATCH_SIZE, map_points

FIRST_STEPS, _MOST_STEPS = 8, 128
_TOLERANCE = 1e-4  # mean |change of a log-weight| at twice the steps; of a fourth-order method a sixteenth is left then


class Weighted(NamedTuple):
    """Points and their log-weights -energy - log q."""

    x: Float[Array, "num dim"]
    log_weight: Float[np.ndarray, " num"]


class Resolutions(NamedTuple):
    """The same starting points carried in the flow's own steps, and in twice as many. What a method of order p still
    lacks is 2ᵖ / (2ᵖ - 1) of what changes: `factor`."""

    coarse: Weighted
    fine: Weighted
    factor: float


def two_resolutions(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> Resolutions:
    """Of 8192 samples."""
    fine = with_resolution(flow, 2 * flow.num_steps)
    power = 2.0 ** SOLVERS[flow.solver].order
    return Resolutions(_weighted(flow, target, key), _weighted(fine, target, key), power / (power - 1))


def _weighted(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> Weighted:
    """Flows of any resolution start from the same points at the same key."""
    x, log_prob = sample_batch(flow, key, BATCH_SIZE)
    return Weighted(x, -np.asarray(map_points(target.energy, x), np.float64) - np.asarray(log_prob, np.float64))


def with_sufficient_steps(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> Flow:
    """`flow` in the fewest of 8, 16, 32, ... steps of which twice as many change a sample's log-weight by no more than
    10⁻⁴ on average. Where rounding or 128 steps come first, what they give: the verdict looks at the change again."""
    coarse = with_resolution(flow, FIRST_STEPS)
    before, last = _weighted(coarse, target, key).log_weight, np.inf
    while coarse.num_steps < _MOST_STEPS:
        fine = with_resolution(flow, 2 * coarse.num_steps)
        after = _weighted(fine, target, key).log_weight
        with np.errstate(invalid="ignore"):
            change = np.nanmean(np.abs(after - before)) if np.isfinite(after - before).any() else 0.0
        if change <= _TOLERANCE or change > last / 2:
            break
        coarse, before, last = fine, after, change
    return coarse
