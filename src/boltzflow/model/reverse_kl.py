"""The reverse Kullback–Leibler divergence, Eq. (1): the baseline of the paper, and what makes flows drop modes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity
from boltzflow.model.flow import Flow


def reverse_kl_loss(flow: Flow, target: AbstractDensity, keys: PRNGKeyArray) -> Float[Array, ""]:
    """E_{x ~ q} [log q(x) + f(x)] = KL(q, p) - log Z over one sample for each of `keys`, shape `(batch,)`.

    The gradient goes through the solve of the flow; each of its steps is checkpointed, which bounds the memory.
    """
    x, log_prob = jax.vmap(flow.sample_and_log_prob)(keys)
    return jnp.mean(log_prob + jax.vmap(target.energy)(x))
