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
