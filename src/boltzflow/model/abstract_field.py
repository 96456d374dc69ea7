"""What a velocity field must offer."""

import abc

import equinox as eqx
from jaxtyping import Array, Float


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
