"""Drawing particles anew by their weights, and thinning them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def systematic(key, log_weight):
    """Indices of systematic resampling: each particle about as often as its share says."""
    n = log_weight.shape[0]
    cumulative = jnp.cumsum(jax.nn.softmax(log_weight))
    positions = (jnp.arange(n) + jax.random.uniform(key)) / n
    return jnp.minimum(jnp.searchsorted(cumulative, positions * cumulative[-1]), n - 1)


def spread(x: Float[Array, "num dim"], num: int) -> Float[Array, "num dim"]:
    """`num` of the particles, evenly apart: resampling keeps the offspring of a particle together."""
    return x[:: max(1, len(x) // num)][:num]
