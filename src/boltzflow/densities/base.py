"""Contracts of densities: an energy, the density proportional to exp(-energy), and exact facts about it.

The author of a density writes the mathematics of one point `x` of shape `(dim,)`; batches are `jax.vmap`s of it. Every
class here is abstract; every subclass elsewhere is final (nothing implemented is overridden).
"""

import abc
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.numerics.batching import BATCH_SIZE
from boltzflow.numerics.compiling import compiled


class AbstractFixed(eqx.Module):
    """A module whose arrays are data, never parameters: training does not change them.

    It is hashed by its identity, as functions are: `jax.jit` of `target.energy` needs a hash, which arrays do not have.
    """

    def __hash__(self) -> int:
        return id(self)


class AbstractDensity(AbstractFixed):
    """A density p(x) ∝ exp(-energy(x)) on R^dim, known up to its normalization.

    A subclass sets `dim` and defines `energy`. The energy is dimensionless (in units of kT). Only its values and first
    derivatives are used, so it may be computed outside JAX.
    """

    dim: eqx.AbstractVar[int]

    @abc.abstractmethod
    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The energy f(x) at one point, a scalar."""


class AbstractDistribution(AbstractDensity):
    """A density with known normalization and independent, exact samples.

    A subclass also sets `log_z` and defines `log_prob`, with `log_prob(x) = -energy(x) - log_z` for every x, and
    `sample_and_log_prob`.
    """

    log_z: eqx.AbstractVar[Float[Array, ""] | Float[np.ndarray, ""] | float]

    @abc.abstractmethod
    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The normalized log-density at one point."""

    @abc.abstractmethod
    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """One exact sample and its log-density."""


class AbstractEnergyDistribution(AbstractDistribution):
    """A distribution that is given by its energy and `log_z`."""

    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        energy = self.energy(x)
        return -energy - jnp.asarray(self.log_z, energy.dtype)


@runtime_checkable
class HasModes(Protocol):
    """A target with known modes, `(num_modes, dim)`, which the Hausdorff distance (23) needs."""

    @property
    def modes(self) -> Float[Array, "num_modes dim"]: ...


def lattice_of(density: AbstractDensity) -> tuple[int, ...] | None:
    """The `lattice_shape` that `density` declares: sites along each axis, in C order; no shift changes the energy."""
    return getattr(density, "lattice_shape", None)


def is_sign_symmetric(density: AbstractDensity) -> bool:
    """Whether `density` declares `sign_symmetric`: the energy of -x equals that of x. `check_energy` verifies both."""
    return getattr(density, "sign_symmetric", False)


def prior_of(density: AbstractDensity) -> AbstractDistribution | None:
    """The prior that `density` declares as `prior_base`, in its own coordinates: p is that prior times a likelihood."""
    return getattr(density, "prior_base", None)


def coordinates_of(density: AbstractDensity) -> int:
    """The number of coordinates of what the user of `density` calls a point: fewer than `dim` where some are angles."""
    return getattr(density, "num_coordinates", density.dim)


def of_point(density: AbstractDensity, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`fn` of what the user of `density` calls a point, as a function of one point x of R^dim.

    A density that declares `constrain` has such coordinates, as the named variables of a posterior: `constrain` maps x
    to them.
    """
    constrain = getattr(density, "constrain", None)
    if constrain is None:
        return fn

    def through(x: Float[Array, " dim"]) -> Any:
        return fn(constrain(x))

    return through


@runtime_checkable
class GaussianMixtureLike(Protocol):
    """A mixture of K Gaussians, as the diffusion interpolation (19) needs it; `log_z` normalizes `energy`."""

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K dim"]
    covariances: Float[np.ndarray, "K dim"] | Float[np.ndarray, "K dim dim"]
    log_z: float


def sample_batch(
    distribution: AbstractDistribution, key: PRNGKeyArray, num_samples: int
) -> tuple[Float[np.ndarray, "num_samples dim"], Float[np.ndarray, " num_samples"]]:
    """Independent samples and their log-densities."""
    keys = jax.random.split(key, -(-num_samples // BATCH_SIZE))
    xs, log_probs = zip(*(map(np.asarray, _sample(distribution, k)) for k in keys), strict=True)
    return np.concatenate(xs)[:num_samples], np.concatenate(log_probs)[:num_samples]


@compiled
def _sample(distribution, key):
    return jax.vmap(distribution.sample_and_log_prob)(jax.random.split(key, BATCH_SIZE))


def choose(log_weights: Float[Array, " n"], pick: Float[Array, ""]) -> Int[Array, ""]:
    """The index j with probability ∝ exp(log_weights[j]), from `pick` uniform on [0, 1).

    On a grid z_j of spacing h, shifted by u uniform on [-h/2, h/2), this samples a smooth one-dimensional density w:
    the trapezoid rule h Σ_j w(z_j + u) does not depend on u, so that z_j + u has the density w up to the rule's error.
    """
    cumulative = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    index = jnp.sum(cumulative <= pick * cumulative[-1])  # not <: a pick of 0 must not choose a point of weight 0
    return jnp.minimum(index, log_weights.shape[0] - 1)
