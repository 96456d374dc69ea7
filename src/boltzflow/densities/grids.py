"""Exact sampling in one dimension from a density that is only known pointwise, by a randomly shifted grid.

For a smooth density w with the spacing h small against its width, the sum S(u) = h Σ_j w(z_j + u) does not depend on u:
the trapezoid rule is spectrally accurate. So with u uniform on [-h/2, h/2) and then the point z_j + u chosen with
probability h w(z_j + u) / S, the chosen point has density w(y) / S: continuous, and exact up to the error of the rule.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def choose(log_weights: Float[Array, " n"], pick: Float[Array, ""]) -> Int[Array, ""]:
    """The index j with probability ∝ exp(log_weights[j]), from `pick` uniform on [0, 1)."""
    cumulative = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    # <= and not <: a pick of exactly 0 must not land on a point of weight 0.
    index = jnp.sum(cumulative <= pick * cumulative[-1])
    return jnp.minimum(index, log_weights.shape[0] - 1)
