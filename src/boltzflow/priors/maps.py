"""Quantile functions F⁻¹(Φ(z)) in closed form, elementwise, right in both tails.

The probabilities Φ(z) and Φ(-z) enter through their logarithms, so that neither tail is lost where the other
probability rounds to 1. Values stay finite and inside the support: where the floating type ends, they keep its last
value, with derivative 0.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erfinv, log_ndtr, ndtr
from jaxtyping import Array, Float

Elements = Float[Array, "..."]

_LOG_2PI = math.log(2 * math.pi)
_NEWTON_STEPS = 6


def log_normal_density(z: Elements) -> Elements:
    """log φ(z)."""
    return -0.5 * z * z - 0.5 * _LOG_2PI


def log_phi(z: Elements) -> Elements:
    """log Φ(z), to rounding in both tails: JAX's own is right to 10⁻⁹ near z = -20, and not for Φ(z) close to 1."""
    is_lower = z < 0
    lower = log_ndtr(jnp.where(is_lower, z, -1), series_order=8)
    return jnp.where(is_lower, lower, jnp.log1p(-ndtr(-jnp.where(is_lower, 1, z))))


def largest_log(dtype: Any) -> float:
    """log x of the largest value x that is given: 10 below the end, so that derivatives are finite too."""
    return math.log(float(jnp.finfo(dtype).max)) - 10


def exp_finite(y: Elements) -> Elements:
    """exp(y), but never 0 or infinite."""
    smallest = math.log(float(jnp.finfo(y.dtype).tiny)) + 1e-3
    return jnp.exp(jnp.clip(y, smallest, largest_log(y.dtype)))


def positive(x: Elements) -> Elements:
    """x ≥ 0, but at least the smallest number that is not flushed to 0."""
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)


def inside(x: Elements, low: Elements, high: Elements) -> Elements:
    """x between the floating number above `low` and the one below `high`."""
    tiny = jnp.finfo(x.dtype).tiny  # next to 0, where smaller numbers are flushed to it
    above = jnp.where(low == 0, tiny, jnp.nextafter(low, high))
    below = jnp.where(high == 0, -tiny, jnp.nextafter(high, low))
    return jnp.clip(x, above, below)


def uniform(z: Elements, low: Elements, high: Elements) -> Elements:
    """low + (high - low) Φ(z), from the nearer end."""
    width = high - low
    return inside(jnp.where(z < 0, low + width * ndtr(z), high - width * ndtr(-z)), low, high)


def exponential(z: Elements) -> Elements:
    """-log Φ(-z): the exponential distribution of rate 1."""
    return -log_phi(-z)


@jax.custom_jvp
def half_normal(z: Elements) -> Elements:
    """|N(0, 1)|: the x with 2 Φ(-x) = Φ(-z).

    Below the median it is √2 erf⁻¹(Φ(z)). Above, Newton's method solves log Φ(-x) = log Φ(-z) - log 2.
    """
    below = math.sqrt(2) * erfinv(ndtr(jnp.minimum(z, 0)))
    above = jnp.maximum(z, 0)
    wanted = log_phi(-above) - math.log(2)
    x = jnp.sqrt(above * above + 2 * math.log(2))
    for _ in range(_NEWTON_STEPS):
        found = log_phi(-x)
        x = x + (found - wanted) * jnp.exp(found - log_normal_density(x))
    return jnp.where(z < 0, below, x)


@half_normal.defjvp
def _(primals, tangents):
    [z], [change] = primals, tangents
    x = half_normal(z)
    return x, 0.5 * jnp.exp(0.5 * (x - z) * (x + z)) * change


def cauchy(z: Elements) -> Elements:
    """tan(π (Φ(z) - ½))."""
    central = jnp.abs(z) < 1
    middle = jnp.tan(0.5 * math.pi * jax.lax.erf(jnp.where(central, z, 0) / math.sqrt(2)))
    tail = -jnp.abs(jnp.where(central, 1, z))
    return jnp.where(central, middle, jnp.sign(z) * exp_finite(-_log_tan(tail, math.pi)))


def half_cauchy(z: Elements) -> Elements:
    """tan(π/2 Φ(z))."""
    return exp_finite(log_half_cauchy(z))


def log_half_cauchy(z: Elements) -> Elements:
    """log tan(π/2 Φ(z)), which is odd in z and grows as z²/2."""
    below = jnp.where(z < 0, z, -z)  # not -|z|, whose derivative at 0 is 0
    log_x = _log_tan(below, 0.5 * math.pi)
    return jnp.where(z < 0, log_x, -log_x)


def _log_tan(z: Elements, factor: float) -> Elements:
    """log tan(factor · Φ(z)) for z ≤ 0."""
    log_angle = log_phi(z) + math.log(factor)
    angle = jnp.exp(log_angle)
    small = angle < 1e-3
    safe = jnp.where(small, 1e-3, angle)
    return log_angle + jnp.where(small, angle**2 / 3, jnp.log(jnp.tan(safe) / safe))
