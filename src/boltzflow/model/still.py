"""The field that moves nothing."""

import equinox as eqx
import jax.numpy as jnp

from boltzflow.model.abstract_field import AbstractVectorField


class Still(AbstractVectorField):
    """V_t(x) = 0: a flow along it is its base. For a base that needs no flow."""

    dim: int = eqx.field(static=True)

    def velocity(self, t, x):
        return jnp.zeros_like(x)

    def velocity_and_divergence(self, t, x):
        return jnp.zeros_like(x), jnp.zeros((), x.dtype)
