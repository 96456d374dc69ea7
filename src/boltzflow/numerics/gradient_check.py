"""Compare a gradient with finite differences of its function, along one direction at each of several points.

For a direction d of length 1 and a step h, the slope d·∇f is compared with a difference of second order. Its error is
estimated from the rounding of f and from the same difference at the step 2h.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

_RELATIVE_ERROR = 0.02  # loose on purpose: only a gross error fails


class Stencil(NamedTuple):
    """A difference of second order."""

    offsets: tuple[int, ...]  # in steps h
    fine: tuple[float, ...]  # weights of the values at the step h
    coarse: tuple[float, ...]  # and at the step 2h


CENTRAL = Stencil((1, -1, 2, -2), (1 / 2, -1 / 2, 0, 0), (0, 0, 1 / 4, -1 / 4))
FORWARD = Stencil((0, 1, 2, 4), (-3 / 2, 2, -1 / 2, 0), (-3 / 4, 0, 1, -1 / 4))  # never steps backward


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Slopes along one direction at each point."""

    claimed: Float[np.ndarray, " num"]  # by the gradient
    difference: Float[np.ndarray, " num"]
    uncertainty: Float[np.ndarray, " num"]  # of the difference

    def wrong(self, allowed: Float[np.ndarray, " num"] | None = None) -> Bool[np.ndarray, " num"]:
        """Where they are NaN or differ by more than the uncertainty plus `allowed`, by default 2 % of the larger."""
        if allowed is None:
            allowed = _RELATIVE_ERROR * np.maximum(np.abs(self.claimed), np.abs(self.difference))
        return ~(np.abs(self.claimed - self.difference) <= allowed + self.uncertainty)


def slopes(
    energy: Callable[[Any], Any],  # of a batch of points, in the precision of `points`
    gradients: ArrayLike,
    points: Float[np.ndarray, "num dim"],
    directions: ArrayLike,  # of any length above 0
    *,
    stencil: Stencil = CENTRAL,
    step: float | None = None,  # relative to the larger of 1 and the largest coordinate; by default ε^(1/3)
    noise: float | None = None,  # relative error of the energies; by default 4 ε
) -> Slopes:
    """Slopes of `energy` along one direction at each point, by the claimed `gradients` and by differences."""
    eps = float(np.finfo(points.dtype).eps)
    step = eps ** (1 / 3) if step is None else step
    noise = 4 * eps if noise is None else noise
    length = step * np.maximum(1, np.max(np.abs(points), axis=1, keepdims=True))
    unit = np.asarray(directions, np.float64) / np.linalg.norm(directions, axis=1, keepdims=True)
    move = (points + (length * unit).astype(points.dtype)) - points  # rounded, so that points + move is exact
    distance = np.linalg.norm(move.astype(np.float64), axis=1)
    values = [np.asarray(energy(points + points.dtype.type(k) * move), np.float64) for k in stencil.offsets]
    with np.errstate(invalid="ignore"):
        claimed = np.sum(np.asarray(gradients, np.float64) * move, axis=1) / distance
        difference = _combine(stencil.fine, values) / distance
        coarse = _combine(stencil.coarse, values) / distance
        rounding = noise * _combine(np.abs(stencil.fine), np.abs(values)) / distance
        uncertainty = rounding + 3 * np.abs(coarse - difference) + 10 * eps ** (2 / 3)
    return Slopes(claimed, difference, uncertainty)


def _combine(weights, values) -> Float[np.ndarray, " num"]:
    """Σ weight · value without the weights of 0, whose values may be infinite."""
    return np.sum([weight * value for weight, value in zip(weights, values, strict=True) if weight], axis=0)
