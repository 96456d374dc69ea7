"""The trigonometric interpolation: the linear one on another clock, at rest at both ends."""

import jax.numpy as jnp

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.model.abstract_interpolation import AbstractInterpolation


class Trigonometric(AbstractInterpolation):
    """f_t(x) = cos²(πt/2) f_0(x) + sin²(πt/2) f_1(x): ∂_t f vanishes at t = 0 and t = 1."""

    base: AbstractDistribution
    target: AbstractDensity

    def energy(self, t, x):
        # sin(π/2) rounds to exactly 1 where cos(π/2) does not round to 0: one minus keeps the end points exact.
        s = jnp.sin(jnp.pi / 2 * t) ** 2
        return (1 - s) * self.base.energy(x) + s * self.target.energy(x)
