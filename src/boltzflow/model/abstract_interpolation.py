"""What a path of energies must offer."""

import abc

import equinox as eqx
import jax
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity, AbstractDistribution


class AbstractInterpolation(eqx.Module):
    """A path of energies f_t, 0 <= t <= 1, from the base's to the target's, which it equals exactly at its ends.

    To write one: subclass, keep `base` and `target`, define `energy(t, x)` for one point. Arrays of your own are
    trained with the field; base and target are not.
    """

    base: eqx.AbstractVar[AbstractDistribution]
    target: eqx.AbstractVar[AbstractDensity]

    @abc.abstractmethod
    def energy(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, ""]:
        """f_t(x), with f_0 = base.energy and f_1 = target.energy."""

    def derivatives(
        self, t: Float[Array, ""], x: Float[Array, " dim"]
    ) -> tuple[Float[Array, ""], Float[Array, " dim"]]:
        """∂_t f_t(x) and ∇f_t(x): first derivatives only, so any differentiable energy will do."""
        return jax.grad(self.energy, argnums=(0, 1))(t, x)
