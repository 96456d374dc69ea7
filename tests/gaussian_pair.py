"""The oracle: a path between two Gaussians of which everything is known in closed form.

Base N(0, s0² I), target N(μ, Σ) with Σ = Q diag(v) Qᵀ, linear interpolation. In the coordinates z = Qᵀx every
component is by itself: p_t has precision λ = (1 - t) / s0² + t / v and mean m = t (Qᵀμ) / (v λ), and

    V_t = ṁ + (σ̇ / σ) (z - m) with σ = λ^(-1/2),    ∇·V_t = Σ σ̇ / σ,    C_t = d/dt log Z_t,

    log Z_t = Σ ½ log 2π - ½ log λ - ½ t (Qᵀμ)² / v + ½ λ m².

The flow carries x_0 to m_t + (σ_t / σ_0) x_0.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from boltzflow.densities.base import AbstractFixed
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import Transport
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import Linear


class GaussianPair(AbstractFixed):
    """The two Gaussians, and the mean, width and log Z of those between them."""

    base_variance: float = eqx.field(static=True)
    mean: np.ndarray
    variances: np.ndarray
    rotation: np.ndarray

    def precision(self, t):
        return (1 - t) / self.base_variance + t / self.variances

    def center(self, t):
        """m_t, in the coordinates z."""
        return t * (self.rotation.T @ self.mean) / (self.variances * self.precision(t))

    def rates(self, t):
        """ṁ and σ̇ / σ, in the coordinates z."""
        precision = self.precision(t)
        precision_rate = 1 / self.variances - 1 / self.base_variance
        center_rate = (self.rotation.T @ self.mean) / (self.variances * precision)
        return center_rate - self.center(t) * precision_rate / precision, -0.5 * precision_rate / precision

    def log_z(self, t):
        shift = self.rotation.T @ self.mean
        terms = jnp.log(2 * jnp.pi) - jnp.log(self.precision(t)) - t * shift**2 / self.variances
        return 0.5 * jnp.sum(terms + self.precision(t) * self.center(t) ** 2)

    def carry(self, t, x0):
        """Where the flow has carried `x0` at time t."""
        width = 1 / jnp.sqrt(self.base_variance * self.precision(t))
        return self.rotation @ (self.center(t) + width * (self.rotation.T @ x0))


class ExactField(AbstractVectorField):
    """V_t of a Gaussian pair; `error` times (sin x) is added to it, to have a field that is wrong by a known amount."""

    pair: GaussianPair
    error: float = eqx.field(static=True, default=0.0)

    @property
    def dim(self):
        return self.pair.mean.size

    def velocity(self, t, x):
        return self.velocity_and_divergence(t, x)[0]

    def velocity_and_divergence(self, t, x):
        rotation = jnp.asarray(self.pair.rotation, x.dtype)
        center_rate, growth = self.pair.rates(t)
        velocity = rotation @ (center_rate + growth * (rotation.T @ x - self.pair.center(t)))
        velocity = velocity + self.error * jnp.sin(x)
        return velocity.astype(x.dtype), (jnp.sum(growth) + self.error * jnp.sum(jnp.cos(x))).astype(x.dtype)


class ExactRate(eqx.Module):
    """C_t of a Gaussian pair, by hand: log_z differentiated term by term."""

    pair: GaussianPair

    def __call__(self, t):
        shift = self.pair.rotation.T @ self.pair.mean
        center = self.pair.center(t)
        precision = self.pair.precision(t)
        center_rate, growth = self.pair.rates(t)
        # ½ d(λ m²)/dt = λ m ṁ + ½ λ̇ m², with ½ λ̇ = -λ σ̇/σ.
        terms = growth - 0.5 * shift**2 / self.pair.variances + precision * center * (center_rate - growth * center)
        return jnp.sum(terms)


def make_pair(dim, seed=0, base_std=1.3):
    """A Gaussian pair with a random mean and a random full covariance, of condition number up to 100."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return GaussianPair(base_std**2, rng.normal(size=dim), 10 ** rng.uniform(-1, 1, dim), rotation)


def make_transport(pair, error=0.0):
    """The Transport whose residual vanishes everywhere, or with `error` one whose field is wrong."""
    covariance = pair.rotation @ np.diag(pair.variances) @ pair.rotation.T
    base = Gaussian(np.zeros(pair.mean.size), pair.base_variance)
    target = Gaussian(pair.mean, covariance)
    return Transport(ExactField(pair, error), Linear(base, target), ExactRate(pair))
