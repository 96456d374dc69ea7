"""The linear interpolation, Eq. (17)."""

from ..densities import AbstractDensity, AbstractDistribution
from .base import AbstractInterpolation


class Linear(AbstractInterpolation):
    """f_t(x) = (1 - t) f_0(x) + t f_1(x) (Eq. 17).

    It does not keep the relative weights of modes along the way; where they move, the field has to carry mass
    between modes and its norm explodes (paper, Fig. 6).
    """

    base: AbstractDistribution
    target: AbstractDensity

    def energy(self, t, x):
        return (1 - t) * self.base.energy(x) + t * self.target.energy(x)
