"""The multivariate Student t: a proposal with heavier tails than most targets, so that it bounds their weights."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractEnergyDistribution
from boltzflow.densities.gaussian import Gaussian
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
        normal_key, chi_key = jax.random.split(key)
        z = jax.random.normal(normal_key, (self.dim,))
        degrees = jnp.asarray(self.degrees, z.dtype)
        # In logarithms: for small ν the Gamma variable underflows.
        log_chi_squared = math.log(2) + jax.random.loggamma(chi_key, degrees / 2)
        z = z * jnp.exp(0.5 * (jnp.log(degrees) - log_chi_squared))
        return self.gaussian.unwhiten(z), -self._energy(z) - jnp.asarray(self.log_z, z.dtype)

    def _energy(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """½ (ν + dim) log(1 + ‖z‖²/ν), without squares that overflow: z is divided by its largest entry above 1."""
        degrees = jnp.asarray(self.degrees, z.dtype)
        largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(z)), 1.0))
        ratio = jnp.sum((z / largest) ** 2) / degrees
        far = 2 * jnp.log(largest) + jnp.log(1 / largest / largest + ratio)
        return 0.5 * (degrees + self.dim) * jnp.where(largest > 1, far, jnp.log1p(ratio))
