"""Does a gradient belong to its function? One slope by JAX and by central differences, and how far they may differ."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Slope(NamedTuple):
    """A derivative along one direction: by JAX, by central differences, and how far the two may lie apart."""

    automatic: float
    difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the two are the same up to the error of the difference. Not-a-number never agrees."""
        return abs(self.automatic - self.difference) <= self.tolerance


def slopes(
    fn: Callable[[Array], Array], points: Float[Array, "num dim"], directions: Float[Array, "num dim"]
) -> list[Slope]:
    """The slope of the scalar `fn` at each point of `(num, dim)` along each direction, of the same shape.

    The tolerance is loose on purpose, so that only gross errors fail: 2 % of the slope, the rounding error of the
    difference, and three times what halving the resolution changes.
    """
    eps = float(jnp.finfo(points.dtype).eps)
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    length = eps ** (1 / 3) * jnp.maximum(1, jnp.max(jnp.abs(points), axis=1, keepdims=True))
    batched = jax.jit(jax.vmap(fn))
    gradients = np.asarray(jax.jit(jax.vmap(jax.grad(fn)))(points), np.float64)
    automatic = np.sum(gradients * np.asarray(directions, np.float64), axis=1)
    above, below = points + length * directions, points - length * directions
    # What was stepped is what rounding left of it: divide by that.
    step = np.linalg.norm(np.asarray(above, np.float64) - np.asarray(below, np.float64), axis=1)
    values = [np.asarray(batched(at), np.float64) for at in (above, below)]
    wider = [np.asarray(batched(points + sign * 2 * length * directions), np.float64) for sign in (1, -1)]
    difference = (values[0] - values[1]) / step
    coarse = (wider[0] - wider[1]) / (2 * step)
    rounding = 8 * eps * np.maximum(np.abs(values[0]), np.abs(values[1])) / step
    scale = np.maximum(np.abs(automatic), np.abs(difference))
    tolerance = 0.02 * scale + rounding + 3 * np.abs(coarse - difference) + 10 * eps ** (2 / 3)
    return [Slope(*map(float, row)) for row in zip(automatic, difference, tolerance, strict=True)]
