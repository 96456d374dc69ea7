"""The linear interpolation, Eq. (17)."""

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.model.abstract_interpolation import AbstractInterpolation
from boltzflow.model.clock import Clock


class Linear(AbstractInterpolation):
    """f_t(x) = (1 - t) f_0(x) + t f_1(x) (Eq. 17).

    It does not keep the relative weights of modes along the way; where they move, the field has to carry mass
    between modes and its norm explodes (paper, Fig. 6). `clock` puts β(t) in place of t; the default is the paper's t.
    """

    base: AbstractDistribution
    target: AbstractDensity
    clock: Clock = Clock()

    def energy(self, t, x):
        beta = self.clock(t)
        return (1 - beta) * self.base.energy(x) + beta * self.target.energy(x)
