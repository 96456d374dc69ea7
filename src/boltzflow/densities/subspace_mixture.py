"""A base that is a mixture of Gaussians in an active subspace and one Gaussian orthogonal to it."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDistribution, AbstractEnergyDistribution
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.errors import InputError
from boltzflow.numerics import linalg


class SubspaceMixture(AbstractEnergyDistribution):
    """The density of x = μ + L z: y = Rᵀ z follows a mixture, and z orthogonal to R a unit Gaussian.

    energy(x) = ½ ‖z - R y‖² - log Σ_k w_k N(y; m_k, S_k),    log Z = ½ (dim - size) log 2π + log |L|
    """

    dim: int = eqx.field(static=True)
    gaussian: Gaussian  # the whitening Gaussian, with μ and L
    inner: GaussianMixture  # of y
    subspace: Float[np.ndarray, "dim size"]  # R, orthonormal columns
    log_z: Float[np.ndarray, ""]

    def __init__(self, gaussian: Gaussian, inner: GaussianMixture, subspace: Any):
        self.dim = gaussian.dim
        self.gaussian = gaussian
        self.inner = inner
        self.subspace = linalg.check_orthonormal(subspace, gaussian.dim)
        if self.subspace.shape[1] != inner.dim:
            raise InputError(f"subspace must have shape ({gaussian.dim}, {inner.dim}), got {self.subspace.shape}")
        rest = 0.5 * (self.dim - inner.dim) * math.log(2 * math.pi)
        self.log_z = np.asarray(rest + linalg.log_det(gaussian.scale))

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return self._energy(self.gaussian.whiten(x))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        inner_key, rest_key = jax.random.split(key)
        y, _ = self.inner.sample_and_log_prob(inner_key)
        z = jax.random.normal(rest_key, (self.dim,))
        into = jnp.asarray(self.subspace, z.dtype)
        z = z + _product(into, y - _product(into.T, z))
        return self.gaussian.unwhiten(z), -self._energy(z) - jnp.asarray(self.log_z, z.dtype)

    def _energy(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        into = jnp.asarray(self.subspace, z.dtype)
        y = _product(into.T, z)
        rest = 0.0 if self.dim == self.inner.dim else 0.5 * jnp.sum((z - _product(into, y)) ** 2)
        return rest + self.inner.energy(y)


def whitening_gaussian(base: AbstractDistribution) -> Gaussian:
    """The Gaussian that whitens a fitted base. Raises `InputError` for a base of another type."""
    if isinstance(base, SubspaceMixture):
        return base.gaussian
    if not isinstance(base, Gaussian):
        raise InputError(f"a Gaussian or a mixture of them was expected, got {type(base).__name__}")
    return base


def _product(matrix: Array, vector: Array) -> Array:
    return jnp.matmul(matrix, vector, precision="highest")
