"""Velocity fields V_t: the abstract class, the paper's field, a field with the symmetry of a lattice, and zero."""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from boltzflow.model.lattice.bands import Bands
from boltzflow.model.lattice.networks import LatticeVelocity
from boltzflow.model.networks import Point, Scalar, TimeMixtureMLP, Whitening


class AbstractVectorField(eqx.Module):
    """A time-dependent velocity field V_t on R^dim.

    To write one: subclass, set `dim`, define `velocity` and `velocity_and_divergence` for one point. The divergence
    must be exact, because the sampler's log-density is its integral. Where no closed form is known,
    `jnp.trace(jax.jacfwd(self.velocity, argnums=1)(t, x))` is exact at the cost of `dim` velocities.
    """

    dim: eqx.AbstractVar[int]

    @abc.abstractmethod
    def velocity(self, t: Scalar, x: Point) -> Point:
        """V_t(x), in units of x per unit of t."""

    @abc.abstractmethod
    def velocity_and_divergence(self, t: Scalar, x: Point) -> tuple[Point, Scalar]:
        """V_t(x) and its divergence ∇·V_t(x)."""


class TimeMixture(AbstractVectorField):
    """V_t(x) = L R Σ_k w_k(t) MLP_k(t, Rᵀ L⁻¹(x - mean)), zero everywhere before training."""

    mlp: TimeMixtureMLP
    whitening: Whitening
    dim: int = eqx.field(static=True)

    def __init__(self, dim: int, *, whitening: Whitening | None = None, key: PRNGKeyArray, **sizes: int):
        self.dim = dim
        self.whitening = whitening or Whitening.identity(dim)
        self.mlp = TimeMixtureMLP(self.whitening.size, self.whitening.size, key=key, **sizes)

    def velocity(self, t, x):
        return self.whitening.push(self.mlp(t, self.whitening.whiten(x)))

    def velocity_and_divergence(self, t, x):
        velocity, divergence = self.mlp.value_and_divergence(t, self.whitening.whiten(x))
        return self.whitening.push(velocity), divergence


class LatticeField(AbstractVectorField):
    """V_t(x) that commutes with shifts of the lattice, zero before training; odd about the mean if `sign_symmetric`."""

    network: LatticeVelocity
    dim: int = eqx.field(static=True)

    def __init__(
        self, lattice_shape: tuple[int, ...], *, whitening: Whitening | None = None, max_sites: int = 32, **options: Any
    ):
        self.dim = math.prod(lattice_shape)
        bands = Bands(lattice_shape, whitening, max_sites)
        defaults = {"sign_symmetric": False, "num_networks": 4, "width": 32, "depth": 2}
        self.network = LatticeVelocity(bands, **(defaults | options))

    def velocity(self, t, x):
        return self.network.value_and_divergence(t, x)[0]

    def velocity_and_divergence(self, t, x):
        return self.network.value_and_divergence(t, x)


class ZeroField(AbstractVectorField):
    """V_t(x) = 0, for a base that needs no flow: the flow along it is the base."""

    dim: int = eqx.field(static=True)

    def velocity(self, t, x):
        return jnp.zeros_like(x)

    def velocity_and_divergence(self, t, x):
        return jnp.zeros_like(x), jnp.zeros((), x.dtype)
