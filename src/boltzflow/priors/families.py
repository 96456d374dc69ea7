"""Priors whose quantile function has a closed form in Φ. Each docstring is the density of one entry."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.errors import InputError
from boltzflow.priors import maps
from boltzflow.priors.base import AbstractElementwise, Parameter, all_finite, common_shape, parameter


class Uniform(AbstractElementwise):
    """p(x) = 1 / (high - low) between the two ends.

    Args:
        low: The lower end, a number or an array.
        high: The upper end, above `low`.
        shape: The shape of a value; by default that of the parameters.
    """

    low: Parameter
    high: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, low: Any = 0.0, high: Any = 1.0, shape: Any = ()):
        self.low = parameter("Uniform", "low", low)
        self.high = parameter("Uniform", "high", high)
        self.shape = common_shape("Uniform", shape, self.low, self.high)
        if not any(isinstance(end, jax.core.Tracer) for end in (self.low, self.high)):
            wrong = np.asarray(self.low) >= np.asarray(self.high)
            if np.any(wrong):
                place = np.unravel_index(np.argmax(wrong), wrong.shape)
                low, high = (np.broadcast_to(np.asarray(end), wrong.shape)[place] for end in (self.low, self.high))
                raise InputError(f"low of Uniform must be below high, got {low:g} and {high:g}")

    def quantile(self, z):
        low, high = (jnp.broadcast_to(jnp.asarray(end, z.dtype), z.shape) for end in (self.low, self.high))
        return maps.uniform(z, low, high)

    def contains(self, value):
        return jnp.all((value >= self.low) & (value <= self.high))


class Normal(AbstractElementwise):
    """p(x) ∝ exp(-(x - loc)² / (2 scale²)).

    Args:
        loc: The mean, a number or an array.
        scale: The standard deviation, positive.
        shape: The shape of a value; by default that of the parameters.
    """

    loc: Parameter
    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, shape: Any = ()):
        self.loc = parameter("Normal", "loc", loc)
        self.scale = parameter("Normal", "scale", scale, positive=True)
        self.shape = common_shape("Normal", shape, self.loc, self.scale)

    def quantile(self, z):
        return jnp.asarray(self.loc, z.dtype) + jnp.asarray(self.scale, z.dtype) * z

    def contains(self, value):
        return all_finite(value)


class LogNormal(AbstractElementwise):
    """log x is normal, of mean `loc` and standard deviation `scale`.

    Args:
        loc: The mean of log x, a number or an array.
        scale: The standard deviation of log x, positive.
        shape: The shape of a value; by default that of the parameters.
    """

    loc: Parameter
    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, shape: Any = ()):
        self.loc = parameter("LogNormal", "loc", loc)
        self.scale = parameter("LogNormal", "scale", scale, positive=True)
        self.shape = common_shape("LogNormal", shape, self.loc, self.scale)

    def quantile(self, z):
        return maps.exp_finite(jnp.asarray(self.loc, z.dtype) + jnp.asarray(self.scale, z.dtype) * z)

    def contains(self, value):
        return all_finite(value) & jnp.all(value > 0)


class HalfNormal(AbstractElementwise):
    """p(x) ∝ exp(-x² / (2 scale²)) for x ≥ 0.

    Args:
        scale: The standard deviation of the whole normal, positive; a number or an array.
        shape: The shape of a value; by default that of the parameters.
    """

    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, scale: Any = 1.0, shape: Any = ()):
        self.scale = parameter("HalfNormal", "scale", scale, positive=True)
        self.shape = common_shape("HalfNormal", shape, self.scale)

    def quantile(self, z):
        return maps.positive(jnp.asarray(self.scale, z.dtype) * maps.half_normal(z))

    def contains(self, value):
        return all_finite(value) & jnp.all(value >= 0)


class Exponential(AbstractElementwise):
    """p(x) = rate exp(-rate x) for x ≥ 0.

    Args:
        rate: The rate, positive; a number or an array.
        shape: The shape of a value; by default that of the parameters.
    """

    rate: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, rate: Any = 1.0, shape: Any = ()):
        self.rate = parameter("Exponential", "rate", rate, positive=True)
        self.shape = common_shape("Exponential", shape, self.rate)

    def quantile(self, z):
        return maps.positive(maps.exponential(z) / jnp.asarray(self.rate, z.dtype))

    def contains(self, value):
        return all_finite(value) & jnp.all(value >= 0)


class Cauchy(AbstractElementwise):
    """p(x) ∝ 1 / (1 + ((x - loc) / scale)²).

    Args:
        loc: The median, a number or an array.
        scale: The half width at half the maximum, positive.
        shape: The shape of a value; by default that of the parameters.
    """

    loc: Parameter
    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, loc: Any = 0.0, scale: Any = 1.0, shape: Any = ()):
        self.loc = parameter("Cauchy", "loc", loc)
        self.scale = parameter("Cauchy", "scale", scale, positive=True)
        self.shape = common_shape("Cauchy", shape, self.loc, self.scale)

    def quantile(self, z):
        return jnp.asarray(self.loc, z.dtype) + _scaled(maps.cauchy(z), self.scale)

    def contains(self, value):
        return all_finite(value)


class HalfCauchy(AbstractElementwise):
    """p(x) ∝ 1 / (1 + (x / scale)²) for x ≥ 0.

    Args:
        scale: The half width at half the maximum, positive; a number or an array.
        shape: The shape of a value; by default that of the parameters.
    """

    scale: Parameter
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, scale: Any = 1.0, shape: Any = ()):
        self.scale = parameter("HalfCauchy", "scale", scale, positive=True)
        self.shape = common_shape("HalfCauchy", shape, self.scale)

    def quantile(self, z):
        return maps.positive(_scaled(maps.half_cauchy(z), self.scale))

    def contains(self, value):
        return all_finite(value) & jnp.all(value >= 0)


def _scaled(x: Any, scale: Any) -> Any:
    """scale · x, kept finite."""
    largest = jnp.finfo(x.dtype).max
    scale = jnp.asarray(scale, x.dtype)
    limit = largest / jnp.maximum(scale, 1)
    return scale * jnp.clip(x, -limit, limit)
