"""The mode probe: points of the target, found without the flow, are asked "would the flow ever come here?"."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# e^5: the flow comes to such a point at less than a hundredth of the rate that the target asks for.
_UNCOVERED = 5.0


@dataclass(frozen=True)
class Region:
    """A part of the target that the flow does not cover: its center, and about which share of the whole it holds."""

    center: Float[np.ndarray, " dim"]
    share: float


def missing_regions(
    points: Float[np.ndarray, "num dim"], excess: Float[np.ndarray, " num"], max_regions: int = 3
) -> list[Region]:
    """Where `excess`, the log-weight less log Z at equally weighted points of the target, is far above zero.

    The largest group comes first. Groups are balls in coordinates scaled by the spread of all points. A log-weight that
    is not finite means that the flow's density there is zero to machine precision.
    """
    uncovered = ~(np.asarray(excess) <= _UNCOVERED)
    scale = points.std(axis=0) + 1e-12
    radius = 1.3 * np.sqrt(points.shape[1])
    left = points[uncovered]
    depth = np.where(np.isfinite(excess), excess, np.inf)[uncovered]
    regions = []
    while len(left):
        distance = np.linalg.norm((left - left[np.argmax(depth)]) / scale, axis=1)
        near = distance <= radius
        regions.append(Region(np.median(left[near], axis=0), float(near.sum() / len(points))))
        left, depth = left[~near], depth[~near]
    return sorted(regions, key=lambda region: -region.share)[:max_regions]
