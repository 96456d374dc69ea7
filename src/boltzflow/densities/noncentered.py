"""Non-centered coordinates: a target whose scales change from place to place, in coordinates where they do not.

In a hierarchical model the spread of some coordinates is given by others, as in Neal's funnel. Such a neck becomes a
part like any other in z, where x_i = mean_i + exp(s_i) z_i with a mean and a log-scale s_i that are linear in the
coordinates before it (Papaspiliopoulos, Roberts & Sköld, 2007). A change of variables leaves log Z as it is, whatever
the numbers of the map: they decide how easy z is to sample, and nothing else.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import (
    AbstractDensity,
    AbstractDistribution,
    AbstractEnergyDistribution,
    AbstractFixed,
    coordinates_of,
    prior_of,
)
from boltzflow.numerics.validation import frozen, one_point

ARRAYS = ("center", "width", "means", "log_scales", "low", "high", "rank")


class NonCentering(AbstractFixed):
    """The map x = c + w u, u_i = A_i0 + Σ_j A_ij u_j + exp(s_i) z_i, with s_i = B_i0 + Σ_j B_ij u_j within bounds.

    The sums are over coordinates j of a lower rank, so that the map is inverted in one step and log |∂x/∂z| is
    Σ_i (s_i + log w_i).

    Args:
        center: c, `(dim,)`.
        width: w, `(dim,)`, positive.
        means: A with A_i0 in the first column, `(dim, dim + 1)`.
        log_scales: B likewise.
        low: The lowest s_i, `(dim,)`.
        high: The highest s_i.
        rank: Which coordinates come before which: those of rank 0 depend on none, `(dim,)`.
    """

    center: Float[np.ndarray, " dim"]
    width: Float[np.ndarray, " dim"]
    means: Float[np.ndarray, "dim columns"]
    log_scales: Float[np.ndarray, "dim columns"]
    low: Float[np.ndarray, " dim"]
    high: Float[np.ndarray, " dim"]
    rank: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, center: Any, width: Any, means: Any, log_scales: Any, low: Any, high: Any, rank: Any):
        self.center = frozen(center)
        self.width = frozen(width)
        self.means = frozen(means)
        self.log_scales = frozen(log_scales)
        self.low = frozen(low)
        self.high = frozen(high)
        self.rank = tuple(int(number) for number in rank)

    def forward(self, z: Float[Array, " dim"]) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """x at one point z, and log |∂x/∂z| there."""
        u = jnp.zeros_like(z)
        for rank in range(max(self.rank) + 1):  # each pass has all coordinates of lower ranks
            mean, s = self._mean_and_log_scale(u)
            u = jnp.where(np.asarray(self.rank) == rank, mean + jnp.exp(s) * z, u)
        _, s = self._mean_and_log_scale(u)
        return self._scaled(u), self._log_jacobian(s)

    def inverse(self, x: Float[Array, " dim"]) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """z at one point x, and log |∂x/∂z| there."""
        u = (x - jnp.asarray(self.center, x.dtype)) / jnp.asarray(self.width, x.dtype)
        mean, s = self._mean_and_log_scale(u)
        return (u - mean) * jnp.exp(-s), self._log_jacobian(s)

    def _mean_and_log_scale(self, u: Float[Array, " dim"]) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
        known = jnp.concatenate([jnp.ones(1, u.dtype), u])
        mean = jnp.sum(jnp.asarray(self.means, u.dtype) * known, axis=1)
        s = jnp.sum(jnp.asarray(self.log_scales, u.dtype) * known, axis=1)
        return mean, jnp.clip(s, jnp.asarray(self.low, u.dtype), jnp.asarray(self.high, u.dtype))

    def _scaled(self, u: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return jnp.asarray(self.center, u.dtype) + jnp.asarray(self.width, u.dtype) * u

    def _log_jacobian(self, s: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(s + jnp.log(jnp.asarray(self.width, s.dtype)))


class NonCentered(AbstractDensity):
    """The density of z where x(z) has that of a target: energy(z) = f(x(z)) - log |∂x/∂z|, with the same log Z."""

    dim: int = eqx.field(static=True)
    target: AbstractDensity
    noncentering: NonCentering

    def __init__(self, target: AbstractDensity, noncentering: NonCentering):
        self.dim = target.dim
        self.target = target
        self.noncentering = noncentering

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        at, log_jacobian = self.noncentering.forward(one_point(x, self.dim))
        return self.target.energy(at) - log_jacobian

    def constrain(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The target's point of R^dim at one point z."""
        return self.noncentering.forward(one_point(x, self.dim))[0]

    def whiten(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The point z at one of the target's points of R^dim."""
        return self.noncentering.inverse(one_point(x, self.dim))[0]

    def log_jacobian(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """log |∂x/∂z| at one point z: the energy of x minus that of z."""
        return self.noncentering.forward(one_point(x, self.dim))[1]

    @property
    def prior_base(self) -> "NonCenteredPrior | None":
        """The prior that the target declares, in these coordinates."""
        prior = prior_of(self.target)
        return None if prior is None else NonCenteredPrior(prior, self.noncentering)

    @property
    def num_coordinates(self) -> int:
        """The number of coordinates of what the user of the target calls a point."""
        return coordinates_of(self.target)


class NonCenteredPrior(AbstractEnergyDistribution):
    """The distribution of z where x(z) has that of a prior."""

    dim: int = eqx.field(static=True)
    prior: AbstractDistribution
    noncentering: NonCentering
    log_z: Any

    def __init__(self, prior: AbstractDistribution, noncentering: NonCentering):
        self.dim = prior.dim
        self.prior = prior
        self.noncentering = noncentering
        self.log_z = prior.log_z

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        at, log_jacobian = self.noncentering.forward(x)
        return self.prior.energy(at) - log_jacobian

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        x, log_prob = self.prior.sample_and_log_prob(key)
        z, log_jacobian = self.noncentering.inverse(x)
        return z, log_prob + log_jacobian
