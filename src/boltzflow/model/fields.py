"""Velocity fields V_t: the abstract class, the paper's field, a field with the symmetry of a lattice, and zero."""

import abc
import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.model.lattice.bands import Bands
from boltzflow.model.lattice.networks import LatticeVelocity
from boltzflow.model.networks import TimeMixtureMLP, Whitening


class AbstractVectorField(eqx.Module):
    """A time-dependent velocity field V_t on R^dim.

    To write one: subclass, set `dim`, define `velocity` and `velocity_and_divergence` for one point. The divergence
    must be exact, because the sampler's log-density is its integral. Where no closed form is known,
    `jnp.trace(jax.jacfwd(self.velocity, argnums=1)(t, x))` is exact at the cost of `dim` velocities.
    """

    dim: eqx.AbstractVar[int]

    @abc.abstractmethod
    def velocity(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """V_t(x), in units of x per unit of t."""

    @abc.abstractmethod
    def velocity_and_divergence(
        self, t: Float[Array, ""], x: Float[Array, " dim"]
    ) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """V_t(x) and its divergence ∇·V_t(x)."""


class TimeMixture(AbstractVectorField):
    """V_t(x) = L R Σ_k w_k(t) MLP_k(t, Rᵀ L⁻¹(x - mean)), zero everywhere before training.

    Two hidden layers make the exact divergence as cheap as the value, in any dimension.
    """

    mlp: TimeMixtureMLP
    whitening: Whitening
    dim: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        *,
        num_networks: int = 4,
        width: int = 64,
        depth: int = 2,
        whitening: Whitening | None = None,
        key: PRNGKeyArray,
    ):
        """Make `num_networks` MLPs of `depth` hidden layers of `width`.

        Args:
            dim: The dimension of x.
            num_networks, width, depth: The sizes.
            whitening: The coordinates of the networks; None is the identity.
            key: The random key.
        """
        self.dim = dim
        self.whitening = Whitening(jnp.zeros(dim), jnp.ones(())) if whitening is None else whitening
        size = self.whitening.size
        self.mlp = TimeMixtureMLP(size, size, num_networks=num_networks, width=width, depth=depth, key=key)

    def velocity(self, t, x):
        return self.whitening.push(self.mlp(t, self.whitening.whiten(x)))

    def velocity_and_divergence(self, t, x):
        velocity, divergence = self.mlp.value_and_divergence(t, self.whitening.whiten(x))
        return self.whitening.push(velocity), divergence


class LatticeField(AbstractVectorField):
    """V_t(x) that commutes with shifts of the lattice, zero everywhere before training.

    A small network of the bands of wave vectors acts at each site; see `LatticeVelocity` for the formula, and `Bands`
    for the symmetries that are exact on a lattice of more than `max_sites` sites along an axis. One or two hidden
    layers make the exact divergence as cheap as the value.
    """

    network: LatticeVelocity
    dim: int = eqx.field(static=True)

    def __init__(
        self,
        lattice_shape: tuple[int, ...],
        *,
        sign_symmetric: bool = False,
        num_networks: int = 4,
        width: int = 32,
        depth: int = 2,
        max_sites: int = 32,
        whitening: Whitening | None = None,
        key: PRNGKeyArray,
    ):
        """Make a network of `depth` hidden layers of `width`, each matrix a mixture of `num_networks` in time.

        Args:
            lattice_shape: The number of sites along each axis.
            sign_symmetric: Whether V_t(mean - x) = -V_t(mean + x).
            num_networks, width, depth: The sizes.
            max_sites: The largest number of sites of the networks along an axis.
            whitening: The coordinates of the networks; None is the identity.
            key: The random key.

        Raises:
            InputError: Where the whitening is not the same at every site.
        """
        self.dim = math.prod(lattice_shape)
        bands = Bands(lattice_shape, whitening, max_sites)
        sizes = {"num_networks": num_networks, "width": width, "depth": depth}
        self.network = LatticeVelocity(bands, sign_symmetric=sign_symmetric, key=key, **sizes)

    def velocity(self, t, x):
        return self.network(t, x)

    def velocity_and_divergence(self, t, x):
        return self.network.value_and_divergence(t, x)


class ZeroField(AbstractVectorField):
    """V_t(x) = 0, for a base that needs no flow: the flow along it is the base."""

    dim: int = eqx.field(static=True)

    def velocity(self, t, x):
        return jnp.zeros_like(x)

    def velocity_and_divergence(self, t, x):
        return jnp.zeros_like(x), jnp.zeros((), x.dtype)
