"""Velocity fields V_t: what one must offer, the paper's, one with the symmetry of a lattice, and none."""

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
    must be exact: it is what makes the sampler's log-density exact. Where nothing better is known,
    `divergence_by_autodiff` gives it.
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
        """`num_networks` MLPs of `depth` hidden layers of `width`; `whitening` defaults to the identity."""
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
    """V_t(x) that moves along when the lattice is shifted, and where `sign_symmetric` V_t(mean - x) = -V_t(mean + x).

    A small network of the bands of wave vectors acts at each site; see `LatticeVelocity` for the formula and `Bands`
    for what is exact on a lattice of more than `max_sites` sites along an axis. One or two hidden layers make the exact
    divergence as cheap as the value. Zero everywhere before training.
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
        """`depth` hidden layers of `width`, their matrices mixtures of `num_networks`; no `whitening`: the identity.

        Raises `InputError` where the whitening is not the same at every site.
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
    """V_t(x) = 0: a flow along it is its base. For a base that needs no flow."""

    dim: int = eqx.field(static=True)

    def velocity(self, t, x):
        return jnp.zeros_like(x)

    def velocity_and_divergence(self, t, x):
        return jnp.zeros_like(x), jnp.zeros((), x.dtype)
