"""The multivariate Student t, and mixtures of it: proposals with heavier tails than most targets.

Weights by heavier tails than the target's are bounded.
"""

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
from boltzflow.numerics import linalg
from boltzflow.numerics.validation import positive_number


class StudentT(AbstractEnergyDistribution):
    """The multivariate Student t with ν degrees of freedom, location μ and scale L; its covariance is L Lᵀ ν/(ν - 2).

    energy(x) = ½ (ν + dim) log(1 + ‖L⁻¹ (x - μ)‖²/ν)
    log Z = lgamma(ν/2) - lgamma((ν + dim)/2) + ½ dim log νπ + log |L|

    Args:
        mean: μ, shape `(dim,)`, in the units of x.
        degrees: ν, a positive number.
        scale_tril: L as `()`, `(dim,)`, a lower triangle `(dim, dim)` or a `linalg.Circulant`.

    Raises:
        InputError: A shape does not fit, ν is not positive, or L has no positive diagonal.
    """

    dim: int = eqx.field(static=True)
    gaussian: Gaussian  # of the same μ and L
    degrees: Float[np.ndarray, ""]
    log_z: Float[np.ndarray, ""]

    def __init__(self, mean: Any, degrees: float, *, scale_tril: Any):
        self.gaussian = Gaussian(mean, scale_tril=scale_tril)
        self.dim = self.gaussian.dim
        nu = positive_number("degrees", degrees)
        # Arrays and not static numbers, so that another fit needs no new compilation.
        self.degrees = np.asarray(nu)
        log_ratio = math.lgamma(nu / 2) - math.lgamma((nu + self.dim) / 2)
        log_det = linalg.log_det(self.gaussian.scale)
        self.log_z = np.asarray(log_ratio + 0.5 * self.dim * math.log(nu * math.pi) + log_det)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return self._energy(self.gaussian.whiten(x))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """x = μ + L z √(ν/χ²) with z standard normal and χ² of ν degrees of freedom."""
        z = _standard_t(key, self.degrees, self.dim)
        return self.gaussian.unwhiten(z), -self._energy(z) - jnp.asarray(self.log_z, z.dtype)

    def _energy(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """½ (ν + dim) log(1 + ‖z‖²/ν), without squares that overflow: z is divided by its largest entry above 1."""
        degrees = jnp.asarray(self.degrees, z.dtype)
        largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(z)), 1.0))
        ratio = jnp.sum((z / largest) ** 2) / degrees
        far = 2 * jnp.log(largest) + jnp.log(1 / largest / largest + ratio)
        return 0.5 * (degrees + self.dim) * jnp.where(largest > 1, far, jnp.log1p(ratio))


class StudentTMixture(AbstractDistribution):
    """A normalized mixture of K Student t of the same ν degrees of freedom.

    energy(x) = -log Σ_k w_k t_ν(x; μ_k, L_k),    log Z = 0

    Args:
        weights: w_k, shape `(K,)`, positive with sum 1.
        means: μ_k, shape `(K, dim)`.
        degrees: ν, a positive number.
        scales: L_k as diagonals `(K, dim)` or lower triangles `(K, dim, dim)`.

    Raises:
        InputError: A shape does not fit, the weights are not positive with sum 1, ν is not positive, or an L_k has no
            positive diagonal.
    """

    dim: int = eqx.field(static=True)
    gaussians: GaussianMixture  # of the same w_k, μ_k and L_k
    degrees: Float[np.ndarray, ""]
    log_ratio: Float[np.ndarray, ""]  # of the peaks of a t and a Gaussian of the same L
    log_z: float = eqx.field(static=True)

    def __init__(self, weights: Any, means: Any, degrees: float, *, scales: Any):
        self.gaussians = GaussianMixture(weights, means, scales=scales)
        self.dim = self.gaussians.dim
        nu = positive_number("degrees", degrees)
        self.degrees = np.asarray(nu)
        log_ratio = math.lgamma((nu + self.dim) / 2) - math.lgamma(nu / 2) - 0.5 * self.dim * math.log(nu / 2)
        self.log_ratio = np.asarray(log_ratio)
        self.log_z = 0.0

    @property
    def weights(self) -> Float[np.ndarray, " K"]:
        return self.gaussians.weights

    @property
    def means(self) -> Float[np.ndarray, "K dim"]:
        return self.gaussians.means

    @property
    def scales(self) -> Float[np.ndarray, "K dim"] | Float[np.ndarray, "K dim dim"]:
        return self.gaussians.scales

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return -self.log_prob(x)

    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        half = self.gaussians.half_squares(x)
        degrees = jnp.asarray(self.degrees, half.dtype)
        amplitudes = jnp.asarray(self.gaussians.log_amplitudes, half.dtype) + jnp.asarray(self.log_ratio, half.dtype)
        return jax.nn.logsumexp(amplitudes - 0.5 * (degrees + self.dim) * jnp.log1p(2 * half / degrees))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        which_key, where_key = jax.random.split(key)
        z = _standard_t(where_key, self.degrees, self.dim)
        k = jax.random.categorical(which_key, jnp.log(jnp.asarray(self.weights, z.dtype)))
        moved = jax.vmap(linalg.apply, (0, None))(jnp.asarray(self.scales, z.dtype), z)
        x = (jnp.asarray(self.means, z.dtype) + moved)[k]
        return x, self.log_prob(x)


def _standard_t(key: PRNGKeyArray, degrees: Float[Array | np.ndarray, ""], dim: int) -> Float[Array, " dim"]:
    """z √(ν/χ²) with z standard normal and χ² of ν degrees of freedom."""
    normal_key, chi_key = jax.random.split(key)
    z = jax.random.normal(normal_key, (dim,))
    nu = jnp.asarray(degrees, z.dtype)
    # In logarithms: for small ν the Gamma variable underflows.
    log_chi_squared = math.log(2) + jax.random.loggamma(chi_key, nu / 2)
    return z * jnp.exp(0.5 * (jnp.log(nu) - log_chi_squared))
