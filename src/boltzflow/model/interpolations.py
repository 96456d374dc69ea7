"""The trainable interpolation, Eq. (20)."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.model.abstract_interpolation import AbstractInterpolation
from boltzflow.model.clock import Clock
from boltzflow.model.networks import TimeMixtureMLP, Whitening


class Trainable(AbstractInterpolation):
    """f_t(x) = (1 - t) f_0(x) + t f_1(x) + t (1 - t) f_θ(t, x) (Eq. 20), f_θ a time-kernel mixture of MLPs.

    f_θ is trained together with the field. It is zero at first, so training starts from the linear path. Another
    network may take the place of the MLPs, as `LatticePotential` does on a lattice.
    """

    base: AbstractDistribution
    target: AbstractDensity
    mlp: Any
    whitening: Whitening
    clock: Clock

    def __init__(
        self,
        base: AbstractDistribution,
        target: AbstractDensity,
        *,
        num_networks: int = 4,
        width: int = 64,
        depth: int = 2,
        whitening: Whitening | None = None,
        clock: Clock | None = None,
        network: Any = None,
        key: PRNGKeyArray,
    ):
        """`num_networks` MLPs of `depth` hidden layers of `width`; `whitening` defaults to the identity.

        `clock` puts β(t) in place of the t of the linear part; the default is the paper's t. `network`, in place of the
        MLPs, is f_θ as a module of t and of x as `whitening` leaves it, its value an array `(1,)`.
        """
        self.base, self.target = base, target
        self.clock = Clock() if clock is None else clock
        self.whitening = Whitening(jnp.zeros(base.dim), jnp.ones(())) if whitening is None else whitening
        sizes = {"num_networks": num_networks, "width": width, "depth": depth}
        self.mlp = TimeMixtureMLP(self.whitening.size, 1, key=key, **sizes) if network is None else network

    def energy(self, t, x):
        f_theta = self.mlp(t, self.whitening.whiten(x))[0]
        beta = self.clock(t)
        return (1 - beta) * self.base.energy(x) + beta * self.target.energy(x) + t * (1 - t) * f_theta
