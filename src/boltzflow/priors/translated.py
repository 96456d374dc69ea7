"""Distributions of NumPyro as priors. They are recognized by their classes, and NumPyro is not imported.

A family of our own takes its parameters over. A distribution that NumPyro transforms is its base with the same
transforms, and any other with a quantile function (`icdf`) is F⁻¹(Φ(z)). There Φ(z) is cut at the rounding of 1, and
the value stays what it is there.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from boltzflow.priors.base import AbstractPrior, floating, size_of
from boltzflow.priors.families import Cauchy, Exponential, HalfCauchy, HalfNormal, LogNormal, Normal, Uniform
from boltzflow.priors.shaped import Beta, Dirichlet, Gamma, StudentT

_FAMILIES: dict[str, tuple[Callable[..., AbstractPrior], tuple[str, ...]]] = {
    "Uniform": (Uniform, ("low", "high")),
    "Normal": (Normal, ("loc", "scale")),
    "LogNormal": (LogNormal, ("loc", "scale")),
    "HalfNormal": (HalfNormal, ("scale",)),
    "Exponential": (Exponential, ("rate",)),
    "Cauchy": (Cauchy, ("loc", "scale")),
    "HalfCauchy": (HalfCauchy, ("scale",)),
    "Gamma": (Gamma, ("concentration", "rate")),
    "Chi2": (Gamma, ("concentration", "rate")),
    "Beta": (Beta, ("concentration1", "concentration0")),
    "StudentT": (StudentT, ("df", "loc", "scale")),
    "Dirichlet": (Dirichlet, ("concentration",)),
}
_WRAPPERS = ("Independent", "ExpandedDistribution")


class Transformed(AbstractPrior):
    """T(x) for a prior of x and maps T, applied in order."""

    base: AbstractPrior
    transforms: tuple[Any, ...]
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def normal_shape(self):
        return self.base.normal_shape

    def from_normals(self, z):
        value = self.base.from_normals(z)
        for transform in self.transforms:
            value = transform(value)
        return value

    def contains(self, value):
        for transform in reversed(self.transforms):
            value = transform.inv(value)
        return self.base.contains(value)


class MultivariateNormal(AbstractPrior):
    """loc + L z, with a lower triangle L."""

    loc: Any
    scale_tril: Any
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def normal_shape(self):
        return self.shape

    def from_normals(self, z):
        z = floating(z)
        product = jnp.einsum("...ij,...j->...i", jnp.asarray(self.scale_tril, z.dtype), z)
        return jnp.asarray(self.loc, z.dtype) + product

    def contains(self, value):
        return jnp.all(jnp.isfinite(value))


class ByQuantile(AbstractPrior):
    """F⁻¹(Φ(z)) by the method `icdf` of a distribution."""

    distribution: Any
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def normal_shape(self):
        return self.shape

    def from_normals(self, z):
        z = floating(z)
        limits = jnp.finfo(z.dtype)
        return self.distribution.icdf(jnp.clip(ndtr(z), limits.tiny, 1 - limits.epsneg))

    def contains(self, value):
        return jnp.all(self.distribution.support(value))


class Repeated(AbstractPrior):
    """Independent copies of a prior along new axes before its own."""

    base: AbstractPrior
    axes: tuple[int, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def normal_shape(self):
        return self.axes + self.base.normal_shape

    def from_normals(self, z):
        values = jax.vmap(self.base.from_normals)(z.reshape(-1, *self.base.normal_shape))
        return values.reshape(self.shape)

    def contains(self, value):
        return jnp.all(jax.vmap(self.base.contains)(value.reshape(-1, *self.base.shape)))


def is_numpyro(distribution: Any) -> bool:
    """Whether an object is a distribution of NumPyro."""
    return any(kind.__module__.startswith("numpyro.distributions") for kind in type(distribution).__mro__)


def from_numpyro(distribution: Any, is_constant: bool = True) -> AbstractPrior | None:
    """The prior of a distribution of NumPyro; None where it has no map from standard normals here.

    Args:
        distribution: The distribution.
        is_constant: Whether its parameters are known numbers, also where they are arrays of JAX.
    """
    shape = tuple(distribution.shape())
    inner = distribution
    while type(inner).__name__ in _WRAPPERS:
        inner = inner.base_dist
    prior = _translated(inner, is_constant)
    return None if prior is None else _expanded(prior, shape)


def _translated(distribution: Any, is_constant: bool) -> AbstractPrior | None:
    name = type(distribution).__name__
    if name in _FAMILIES:
        family, names = _FAMILIES[name]
        return family(*(_number(getattr(distribution, one), is_constant) for one in names))
    shape = tuple(distribution.shape())
    if name == "MultivariateNormal":
        return MultivariateNormal(loc=distribution.loc, scale_tril=distribution.scale_tril, shape=shape)
    if hasattr(distribution, "transforms") and hasattr(distribution, "base_dist"):
        base = from_numpyro(distribution.base_dist, is_constant)
        return None if base is None else Transformed(base=base, transforms=tuple(distribution.transforms), shape=shape)
    is_discrete = bool(getattr(distribution.support, "is_discrete", True))
    if is_discrete or size_of(tuple(distribution.event_shape)) != 1 or not _has_icdf(distribution):
        return None
    return ByQuantile(distribution=distribution, shape=shape)


def _has_icdf(distribution: Any) -> bool:
    """Whether `icdf` is defined: NumPyro has it on every class, and raises where it is not."""
    try:
        jax.eval_shape(distribution.icdf, jax.ShapeDtypeStruct(distribution.shape(), jnp.result_type(float)))
    except (NotImplementedError, AttributeError, TypeError):
        return False
    return True


def _expanded(prior: AbstractPrior, shape: tuple[int, ...]) -> AbstractPrior | None:
    """The prior with independent copies up to `shape`; None where an axis of length 1 would have to be repeated."""
    if prior.shape == shape:
        return prior
    axes = shape[: len(shape) - len(prior.shape)]
    return Repeated(base=prior, axes=axes, shape=shape) if axes + prior.shape == shape else None


def _number(value: Any, is_constant: bool) -> Any:
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer) and is_constant:
        return np.asarray(value)
    return value
