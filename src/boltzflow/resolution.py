"""How finely a flow has to be integrated: measured on samples, by taking twice as many steps from the same start."""

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from .batches import BATCH_SIZE, map_points, sample_batch
from .densities import AbstractDensity
from .flow import Flow, with_resolution

FIRST_STEPS, _MOST_STEPS = 8, 128
_TOLERANCE = 1e-4  # mean |change of a log-weight| at twice the steps; of a fourth-order method a sixteenth is left then


def log_weights(flow: Flow, target: AbstractDensity, key: PRNGKeyArray, num: int) -> Float[np.ndarray, " num"]:
    """-energy - log q of `num` samples; flows of any resolution start from the same points at the same key."""
    x, log_prob = sample_batch(flow, key, num)
    return -np.asarray(map_points(target.energy, x), np.float64) - np.asarray(log_prob, np.float64)


def with_sufficient_steps(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> Flow:
    """`flow` in the fewest of 8, 16, 32, ... steps of which twice as many change a sample's log-weight by no more than
    10⁻⁴ on average. Where rounding or 128 steps come first, what they give: the verdict looks at the change again."""
    coarse = with_resolution(flow, FIRST_STEPS)
    before, last = log_weights(coarse, target, key, BATCH_SIZE), np.inf
    while coarse.num_steps < _MOST_STEPS:
        fine = with_resolution(flow, 2 * coarse.num_steps)
        after = log_weights(fine, target, key, BATCH_SIZE)
        with np.errstate(invalid="ignore"):
            change = np.nanmean(np.abs(after - before)) if np.isfinite(after - before).any() else 0.0
        if change <= _TOLERANCE or change > last / 2:
            break
        coarse, before, last = fine, after, change
    return coarse
