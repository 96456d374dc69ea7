"""Mixtures of Gaussians: a target, and a base that is a mixture in an active subspace alone."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDistribution, AbstractEnergyDistribution
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.numerics import linalg
from boltzflow.numerics.validation import frozen, one_point, real_array


class GaussianMixture(AbstractDistribution):
    """A normalized mixture of K Gaussians in any dimension, Σ_k = L_k L_kᵀ.

    energy(x) = -log Σ_k w_k N(x; μ_k, Σ_k),    log Z = 0

    At most one of `covariances` and `scales` is given. Where matrices are given the attributes are, else diagonals.

    Args:
        weights: w_k, shape `(K,)`, positive with sum 1.
        means: μ_k, shape `(K, dim)`, in the units of x.
        covariances: Σ_k as one variance `()`, one for each component `(K,)`, diagonals `(K, dim)` or matrices
            `(K, dim, dim)`. By default 1.
        scales: L_k as diagonals `(K, dim)` or lower triangles `(K, dim, dim)`.

    Raises:
        InputError: A shape does not fit, the weights are not positive with sum 1, or a covariance is not symmetric and
            positive definite.
    """

    dim: int = eqx.field(static=True)
    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K dim"]
    covariances: Float[np.ndarray, "K dim"] | Float[np.ndarray, "K dim dim"]
    scales: Float[np.ndarray, "K dim"] | Float[np.ndarray, "K dim dim"]
    inverse_scales: Float[np.ndarray, "K dim"] | Float[np.ndarray, "K dim dim"]
    log_amplitudes: Float[np.ndarray, " K"]
    log_z: float = eqx.field(static=True)

    def __init__(self, weights: Any, means: Any, covariances: Any = None, *, scales: Any = None):
        self.weights = _read_weights(weights)
        self.means = real_array("means", means)
        num = self.weights.size
        if self.means.ndim != 2 or self.means.shape[0] != num or self.means.shape[1] == 0:
            raise InputError(f"means must have shape ({num}, dim), one row for each weight, got {self.means.shape}")
        self.dim = self.means.shape[1]
        if scales is None:
            given = 1.0 if covariances is None else covariances
            each = _split_covariances(real_array("covariances", given), num, self.dim)
            scales = [linalg.scale_from_covariance(f"covariances[{k}]", each[k], self.dim) for k in range(num)]
        elif covariances is not None or len(scales) != num:
            raise InputError(f"give covariances or the scales of {num} components, not both")
        self.scales = frozen([linalg.check_scale(f"scales[{k}]", scale, self.dim) for k, scale in enumerate(scales)])
        self.inverse_scales = frozen([linalg.inverse(scale) for scale in self.scales])
        self.covariances = frozen([scale**2 if scale.ndim == 1 else scale @ scale.T for scale in self.scales])
        log_dets = np.array([linalg.log_det(scale) for scale in self.scales])
        self.log_amplitudes = frozen(np.log(self.weights) - log_dets - 0.5 * self.dim * math.log(2 * math.pi))
        self.log_z = 0.0

    @property
    def modes(self) -> Float[Array, "K dim"]:
        """The means of the components: the modes of the Hausdorff distance (23), as in the paper."""
        return jnp.asarray(self.means)

    def component_log_probs(self, x: Float[Array, " dim"]) -> Float[Array, " K"]:
        """log w_k + log N(x; μ_k, Σ_k) for each k."""
        half = self.half_squares(x)
        return jnp.asarray(self.log_amplitudes, half.dtype) - half

    def half_squares(self, x: Float[Array, " dim"]) -> Float[Array, " K"]:
        """½ ‖L_k⁻¹ (x - μ_k)‖² for each k."""
        x = one_point(x, self.dim)
        z = jax.vmap(linalg.apply)(jnp.asarray(self.inverse_scales, x.dtype), x - jnp.asarray(self.means, x.dtype))
        return 0.5 * jnp.sum(z**2, axis=1)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return -self.log_prob(x)

    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return jax.nn.logsumexp(self.component_log_probs(x))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        which_key, where_key = jax.random.split(key)
        z = jax.random.normal(where_key, (self.dim,))
        k = jax.random.categorical(which_key, jnp.log(jnp.asarray(self.weights, z.dtype)))
        # A sample of every component, then one of them: in batches a product with a chosen matrix is far slower.
        moved = jax.vmap(linalg.apply, (0, None))(jnp.asarray(self.scales, z.dtype), z)
        x = (jnp.asarray(self.means, z.dtype) + moved)[k]
        return x, self.log_prob(x)


def _read_weights(weights: Any) -> np.ndarray:
    """The weights, checked and normalized to float64; given in float32, their sum is 1 to seven digits only."""
    array = real_array("weights", weights)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"weights must have shape (K,), got {array.shape}")
    total = array.sum()
    if not np.all(array > 0) or abs(total - 1) > 1e-5:
        found = f"a smallest of {array.min():.6g} and a sum of {total:.6g}"
        raise InputError(f"weights must be positive and sum to 1, got {found}")
    return array if abs(total - 1) < 1e-14 else frozen(array / total)


def _split_covariances(array: np.ndarray, num: int, dim: int) -> np.ndarray:
    """The covariances with a leading axis of length `num`, one variance, diagonal or matrix each."""
    if array.shape == ():
        return np.broadcast_to(array, (num,))
    if array.shape not in ((num,), (num, dim), (num, dim, dim)):
        expected = f"(), ({num},), ({num}, {dim}) or ({num}, {dim}, {dim})"
        raise InputError(f"covariances must have shape {expected}, got {array.shape}")
    return array


class SubspaceMixture(AbstractEnergyDistribution):
    """The density of x = μ + L z: y = Rᵀ z follows a mixture, and z orthogonal to R a unit Gaussian.

    energy(x) = ½ ‖z - R y‖² - log q(y),    log Z = ½ (dim - size) log 2π + log |L|

    q is a mixture of Gaussians, or of Student's t.
    """

    dim: int = eqx.field(static=True)
    gaussian: Gaussian  # the whitening Gaussian, with μ and L
    inner: AbstractDistribution  # of y: a mixture, with weights, means and scales
    subspace: Float[np.ndarray, "dim size"]  # R, orthonormal columns
    log_z: Float[np.ndarray, ""]

    def __init__(self, gaussian: Gaussian, inner: AbstractDistribution, subspace: Any):
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


class DefensiveMixture(AbstractDistribution):
    """A share s of a second, wider distribution mixed into a first: q = (1 - s) q₁ + s q₂ (Hesterberg, 1995)."""

    dim: int = eqx.field(static=True)
    first: AbstractDistribution
    second: AbstractDistribution
    share: float
    log_z: float

    def __init__(self, first: AbstractDistribution, second: AbstractDistribution, share: float):
        self.dim = first.dim
        self.first = first
        self.second = second
        self.share = share
        self.log_z = 0.0

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return -self.log_prob(x)

    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        log_first = math.log1p(-self.share) + self.first.log_prob(x)
        return jnp.logaddexp(log_first, math.log(self.share) + self.second.log_prob(x))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        pick_key, first_key, second_key = jax.random.split(key, 3)
        first, _ = self.first.sample_and_log_prob(first_key)
        second, _ = self.second.sample_and_log_prob(second_key)
        x = jnp.where(jax.random.uniform(pick_key) < self.share, second, first)
        return x, self.log_prob(x)


def whitening_gaussian(base: AbstractDistribution) -> Gaussian:
    """The Gaussian that whitens a fitted base. Raises `InputError` for a base of another type."""
    if isinstance(base, SubspaceMixture):
        return base.gaussian
    if not isinstance(base, Gaussian):
        raise InputError(f"a Gaussian or a mixture of them was expected, got {type(base).__name__}")
    return base


def _product(matrix: Array, vector: Array) -> Array:
    return jnp.matmul(matrix, vector, precision="highest")
