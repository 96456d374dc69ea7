"""Bases: a Gaussian, which is fitted to a target and whitens it, and the paper's generalized Gaussian."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractEnergyDistribution
from boltzflow.errors import InputError
from boltzflow.numerics import linalg
from boltzflow.numerics.validation import dimension, frozen, one_point, positive_number, real_array


class Gaussian(AbstractEnergyDistribution):
    """The Gaussian density with mean μ and covariance Σ = L Lᵀ.

    energy(x) = ½ ‖L⁻¹ (x - μ)‖²,    log Z = ½ dim log 2π + log |L|

    Exactly one of `covariance` and `scale_tril` is given.

    Args:
        mean: μ, shape `(dim,)`, in the units of x.
        covariance: Σ as one variance `()`, variances `(dim,)` or a matrix `(dim, dim)`.
        scale_tril: L as a standard deviation `()`, standard deviations `(dim,)`, a lower triangle `(dim, dim)`, or a
            `linalg.Circulant`, the same at every site of a periodic lattice.

    Raises:
        InputError: A shape does not fit, or Σ is not symmetric and positive definite.
    """

    dim: int = eqx.field(static=True)
    mean: Float[np.ndarray, " dim"]
    scale: linalg.Scale
    inverse_scale: linalg.Scale
    log_z: Float[np.ndarray, ""]

    def __init__(self, mean: Any, covariance: Any = None, *, scale_tril: Any = None):
        self.mean = real_array("mean", mean)
        if self.mean.ndim != 1 or self.mean.size == 0:
            raise InputError(f"mean must have shape (dim,), got {self.mean.shape}")
        self.dim = self.mean.size
        if (covariance is None) == (scale_tril is None):
            raise InputError("give exactly one of covariance and scale_tril")
        if scale_tril is None:
            self.scale = linalg.scale_from_covariance("covariance", covariance, self.dim)
        else:
            self.scale = linalg.check_scale("scale_tril", scale_tril, self.dim)
        self.inverse_scale = linalg.inverse(self.scale)
        # An array and not a static number, so that another covariance needs no new compilation.
        self.log_z = np.asarray(0.5 * self.dim * math.log(2 * math.pi) + linalg.log_det(self.scale))

    @classmethod
    def from_scale_tril(cls, mean: Any, scale_tril: Any) -> "Gaussian":
        """The Gaussian with mean `(dim,)` and L = `scale_tril`, without a Cholesky factorization."""
        return cls(mean, scale_tril=scale_tril)

    @property
    def scale_tril(self) -> Float[Array, "dim dim"]:
        """L as a matrix; `whiten` and `unwhiten` are cheaper than products with it."""
        return jnp.asarray(linalg.dense(self.scale))

    def whiten(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """z = L⁻¹ (x - μ), standard normal if x has this density; shapes `(dim,)`."""
        x = one_point(x, self.dim)
        return linalg.apply(self.inverse_scale, x - jnp.asarray(self.mean, x.dtype))

    def unwhiten(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """x = μ + L z, the inverse of `whiten`; shapes `(dim,)`."""
        z = one_point(z, self.dim)
        return jnp.asarray(self.mean, z.dtype) + linalg.apply(self.scale, z)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(self.whiten(x) ** 2)

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        z = jax.random.normal(key, (self.dim,))
        return self.unwhiten(z), -0.5 * jnp.sum(z**2) - jnp.asarray(self.log_z, z.dtype)


class GeneralizedGaussian(AbstractEnergyDistribution):
    """The generalized Gaussian base density of the paper (§1); at p = 2 the standard deviation is σ/√2.

    energy(x) = Σ_i |x_i/σ_i|^p,    log Z = Σ_i log 2σ_i + dim lgamma(1 + 1/p)
    """

    dim: int = eqx.field(static=True)
    scale: Float[np.ndarray, " dim"]  # σ, given as one positive number or `(dim,)`
    power: float = eqx.field(static=True)  # p, any positive number
    log_z: float = eqx.field(static=True)

    def __init__(self, dim: int, scale: Any = 1.0, power: float = 2.0):
        self.dim = dimension("dim", dim)
        self.power = positive_number("power", power)
        scale = real_array("scale", scale)
        if scale.shape not in ((), (self.dim,)) or not np.all(scale > 0):
            raise InputError(f"scale must be one positive number or {self.dim} of them, got {scale.tolist()}")
        self.scale = frozen(np.broadcast_to(scale, (self.dim,)))
        self.log_z = float(np.sum(np.log(2 * self.scale))) + self.dim * math.lgamma(1 + 1 / self.power)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        x = one_point(x, self.dim)
        return jnp.sum(_abs_power(x / jnp.asarray(self.scale, x.dtype), self.power))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """|x_i/σ_i|^p ~ Gamma(1/p), with a random sign."""
        if self.power == 2.0:
            z = jax.random.normal(key, (self.dim,)) * math.sqrt(0.5)
        else:
            size_key, sign_key = jax.random.split(key)
            # In logarithms: for large p the Gamma(1/p) variable underflows, and its p-th root does not.
            size = jnp.exp(jax.random.loggamma(size_key, 1 / self.power, (self.dim,)) / self.power)
            z = size * jax.random.rademacher(sign_key, (self.dim,), size.dtype)
        x = z * jnp.asarray(self.scale, z.dtype)
        return x, self.log_prob(x)


def _abs_power(z: Array, power: float) -> Array:
    """|z|^p with derivative 0 at z = 0, where the chain rule through |z| gives 0 · inf for p < 1."""
    if power % 2 == 0:
        return z ** int(power)
    is_zero = z == 0
    return jnp.where(is_zero, 0, jnp.where(is_zero, 1, jnp.abs(z)) ** power)
