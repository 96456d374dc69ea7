"""A velocity field with the symmetry of a periodic lattice."""

import math

import equinox as eqx
from jaxtyping import PRNGKeyArray

from boltzflow.model.abstract_field import AbstractVectorField
from boltzflow.model.lattice.bands import Bands
from boltzflow.model.lattice.networks import LatticeVelocity
from boltzflow.model.networks import Whitening


class Lattice(AbstractVectorField):
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
