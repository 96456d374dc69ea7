"""The paper's base: independent generalized Gaussians, energy ‖x/σ‖_p^p."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractEnergyDistribution
from boltzflow.errors import InputError
from boltzflow.numerics.validation import frozen, one_point, positive_number, real_array, whole_number


class GeneralizedGaussian(AbstractEnergyDistribution):
    """The generalized Gaussian base density of the paper (§1); at p = 2 the standard deviation is σ/√2.

    energy(x) = Σ_i |x_i/σ_i|^p,    log Z = Σ_i log 2σ_i + dim lgamma(1 + 1/p)
    """

    dim: int = eqx.field(static=True)
    scale: Float[np.ndarray, " dim"]  # σ, given as one positive number or `(dim,)`
    power: float = eqx.field(static=True)  # p, any positive number
    log_z: float = eqx.field(static=True)

    def __init__(self, dim: int, scale: Any = 1.0, power: float = 2.0):
        self.dim = whole_number("dim", dim, at_least=1)
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
