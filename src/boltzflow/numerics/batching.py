"""One-point mathematics over many points, in batches of bounded memory and one compilation."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

BATCH_SIZE = 8192


def map_points(function: Callable[[Float[Array, " dim"]], Any], x: Float[Array, "num dim"]) -> Any:
    """`function` of every row of `x`, an array or a tree of them. Every batch has the same size, the last one filled up
    and cut again."""
    num = len(x)
    x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (-num % BATCH_SIZE, *x.shape[1:]))])
    batches = [_mapped(function, x[i : i + BATCH_SIZE]) for i in range(0, len(x), BATCH_SIZE)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num], *batches)


def purpose_key(seed: int, purpose: int) -> PRNGKeyArray:
    """The key of one use of a run's seed after training, apart from all that training splits from it."""
    return jax.random.fold_in(jax.random.key(seed), 2**31 + purpose)


@eqx.filter_jit
def _mapped(function, x):
    return jax.vmap(function)(x)
