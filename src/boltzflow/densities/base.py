"""What everything else is about: an energy, the density proportional to exp(-energy), and what is known of it.

The author of a density writes the mathematics of one point `x` of shape `(dim,)`; batches are made above it, with
`jax.vmap`. Every class here is abstract; every subclass elsewhere is final (nothing implemented is overridden).
"""

import abc
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.numerics.batching import BATCH_SIZE


class AbstractFixed(eqx.Module):
    """A module whose arrays are data, never parameters: training leaves them bit for bit as they are."""


class AbstractDensity(AbstractFixed):
    """A density p(x) ∝ exp(-energy(x)) on R^dim, known up to its normalization.

    To write one: subclass, set `dim`, define `energy`. The energy is dimensionless (in units of kT) and needs values
    and first derivatives only, so one computed outside JAX serves as well as one that JAX can see.
    """

    dim: eqx.AbstractVar[int]

    @abc.abstractmethod
    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The energy f(x) at one point, a scalar."""


class AbstractDistribution(AbstractDensity):
    """A density whose normalization is known and which can be sampled independently and exactly.

    To write one: everything of `AbstractDensity`, and `log_z`, `log_prob`, `sample_and_log_prob`, such that
    `log_prob(x) = -energy(x) - log_z` for every x.
    """

    log_z: eqx.AbstractVar[Float[Array, ""] | Float[np.ndarray, ""] | float]

    @abc.abstractmethod
    def log_prob(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The normalized log-density at one point."""

    @abc.abstractmethod
    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """One exact sample and its log-density."""


@runtime_checkable
class HasModes(Protocol):
    """A target whose modes are known: `modes` has shape `(num_modes, dim)`; the Hausdorff distance (23) needs them."""

    @property
    def modes(self) -> Float[Array, "num_modes dim"]: ...


@runtime_checkable
class OnLattice(Protocol):
    """A target that may say that it lives on the sites of a periodic lattice, where no energy is changed by a shift.

    `lattice_shape` has the sites along each axis, their product the dimension (sites in C order), or is None: no
    lattice. `sign_symmetric` says whether the energy of -x is that of x. What is claimed here is used without another
    question by the pilot and by fields that share the symmetry; `boltzflow.targets.check_energy` verifies it.
    """

    @property
    def lattice_shape(self) -> tuple[int, ...] | None: ...
    @property
    def sign_symmetric(self) -> bool: ...


def lattice_of(density: AbstractDensity) -> tuple[int, ...] | None:
    """The lattice that `density` says it lives on, or None."""
    return density.lattice_shape if isinstance(density, OnLattice) else None


def is_sign_symmetric(density: AbstractDensity) -> bool:
    """Whether `density` says that the energy of -x is that of x, on a lattice or not."""
    return isinstance(density, OnLattice) and density.sign_symmetric


@runtime_checkable
class GaussianMixtureLike(Protocol):
    """A target that is a mixture of K Gaussians: what the diffusion interpolation (19) needs of it.

    `weights` have sum 1; `covariances` are diagonals `(K, dim)` or matrices `(K, dim, dim)`; `log_z` normalizes its
    `energy`.
    """

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K dim"]
    covariances: Float[np.ndarray, "K dim"] | Float[np.ndarray, "K dim dim"]
    log_z: float


# --- batches ----------------------------------------------------------------------------------------------------------


def sample_batch(
    distribution: AbstractDistribution, key: PRNGKeyArray, num_samples: int
) -> tuple[Float[Array, "num_samples dim"], Float[Array, " num_samples"]]:
    """Independent samples and their log-densities."""
    keys = jax.random.split(key, -(-num_samples // BATCH_SIZE))
    xs, log_probs = zip(*(_sample(distribution, k) for k in keys), strict=True)
    return jnp.concatenate(xs)[:num_samples], jnp.concatenate(log_probs)[:num_samples]


@eqx.filter_jit
def _sample(distribution, key):
    return jax.vmap(distribution.sample_and_log_prob)(jax.random.split(key, BATCH_SIZE))
