"""Bounds of coordinates: the map from R^dim to a box, and its Jacobian.

With Φ the standard normal distribution function, each coordinate is

    x = lower + (upper - lower) Φ(z)          between two bounds,
    x = lower + tan(π/2 Φ(z))                 above one bound, and mirrored below one.

A flat density between two bounds is N(0, 1) in z. Above one bound log(x - lower) is odd in z and grows as z²/2, so that
every density that behaves as a power of x - lower at the bound and far out has the tails of a Gaussian in z, and one
that falls faster has lighter tails. No scale has to be known.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from boltzflow.errors import InputError
from boltzflow.numerics.validation import frozen, shown
from boltzflow.priors import maps

_SIDES = ("lower", "upper")


class Bounds(eqx.Module):
    """A box of R^dim, each coordinate with two bounds, one or none.

    Args:
        lower: The lower bounds, one number or `(dim,)`, -inf for none.
        upper: The upper bounds, inf for none.
        dim: The dimension.

    Raises:
        InputError: A bound is no number, the shape is another, or a lower bound is not below the upper one.
    """

    low: Float[np.ndarray, " dim"]  # 0 where there is no bound, and 1 above it
    high: Float[np.ndarray, " dim"]
    has_low: Bool[np.ndarray, " dim"]
    has_high: Bool[np.ndarray, " dim"]
    some_have_both: bool = eqx.field(static=True)
    some_have_one: bool = eqx.field(static=True)

    def __init__(self, lower: Any, upper: Any, dim: int):
        low, high = (_bound(name, value, dim) for name, value in zip(_SIDES, (lower, upper), strict=True))
        if (low >= high).any():
            worst = int(np.argmax(low >= high))
            raise InputError(f"lower must be below upper, got {low[worst]:g} and {high[worst]:g} for x[{worst}]")
        self.has_low, self.has_high = np.isfinite(low), np.isfinite(high)
        self.low = frozen(np.where(self.has_low, low, 0.0))
        self.high = frozen(np.where(self.has_high, high, self.low + 1.0))
        self.some_have_both = bool((self.has_low & self.has_high).any())
        self.some_have_one = bool((self.has_low ^ self.has_high).any())

    def constrain(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """x inside the box at one point z of R^dim."""
        low, high = jnp.asarray(self.low, z.dtype), jnp.asarray(self.high, z.dtype)
        x = z
        if self.some_have_both:
            x = jnp.where(self.has_low & self.has_high, maps.uniform(z, low, high), x)
        if self.some_have_one:
            distance = maps.half_cauchy(jnp.where(self.has_low, z, -z))
            above = jnp.maximum(low + distance, jnp.nextafter(low, jnp.inf))
            below = jnp.minimum(high - distance, jnp.nextafter(high, -jnp.inf))
            x = jnp.where(self.has_low ^ self.has_high, jnp.where(self.has_low, above, below), x)
        return x

    def log_jacobian(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """log |∂x/∂z| at one point."""
        terms = jnp.zeros_like(z)
        log_phi = maps.log_normal_density(z)
        if self.some_have_both:
            width = jnp.asarray(self.high, z.dtype) - jnp.asarray(self.low, z.dtype)
            terms = jnp.where(self.has_low & self.has_high, log_phi + jnp.log(width), terms)
        if self.some_have_one:
            log_distance = maps.log_half_cauchy(jnp.where(self.has_low, z, -z))
            log_slope = math.log(math.pi / 2) + jnp.logaddexp(0.0, 2 * log_distance)
            terms = jnp.where(self.has_low ^ self.has_high, log_phi + log_slope, terms)
        return jnp.sum(terms)

    def have_both(self) -> Bool[np.ndarray, " dim"]:
        """Which coordinates lie between two bounds: N(0, 1) is uniform there."""
        return self.has_low & self.has_high

    def same_at_every_site(self) -> bool:
        """Whether all coordinates have the same bounds."""
        sides = (self.low, self.high, self.has_low, self.has_high)
        return all(bool((np.asarray(side) == np.asarray(side)[0]).all()) for side in sides)

    def symmetric(self) -> bool:
        """Whether -x lies in the box wherever x does."""
        same_sides = (self.has_low == self.has_high).all()
        return bool(same_sides and (np.where(self.has_low, self.low + self.high, 0) == 0).all())


def _bound(name: str, value: Any, dim: int) -> np.ndarray:
    """The bounds of one side, `(dim,)`."""
    if value is None:
        return np.full(dim, -np.inf if name == "lower" else np.inf)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} must be one number or {dim} of them, got {shown(value)}") from None
    if array.shape not in ((), (dim,)):
        raise InputError(f"{name} must be one number or {dim} of them, got an array of shape {array.shape}")
    if np.isnan(array).any():
        raise InputError(f"{name} must be numbers, or infinite where there is no bound, got nan")
    return np.broadcast_to(array, (dim,))
