"""The paper's velocity field: a time-kernel mixture of MLPs (§4 "Architectures"), seeing whitened coordinates."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from boltzflow.model.abstract_field import AbstractVectorField
from boltzflow.model.networks import TimeMixtureMLP, Whitening


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
