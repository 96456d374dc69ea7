"""One-point mathematics over many points, in batches of bounded memory and one compilation."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDistribution

BATCH_SIZE = 8192


def map_points(function: Callable[[Float[Array, " dim"]], Any], x: Float[Array, "num dim"]) -> Any:
    """`function` of every row of `x`, an array or a tree of them. Every batch has the same size, the last one filled up
    and cut again."""
    num = len(x)
    x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (-num % BATCH_SIZE, *x.shape[1:]))])
    batches = [_mapped(function, x[i : i + BATCH_SIZE]) for i in range(0, len(x), BATCH_SIZE)]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num], *batches)


def sample_batch(
    distribution: AbstractDistribution, key: PRNGKeyArray, num_samples: int
) -> tuple[Float[Array, "num_samples dim"], Float[Array, " num_samples"]]:
    """Independent samples and their log-densities."""
    keys = jax.random.split(key, -(-num_samples // BATCH_SIZE))
    xs, log_probs = zip(*(_sample(distribution, k) for k in keys), strict=True)
    return jnp.concatenate(xs)[:num_samples], jnp.concatenate(log_probs)[:num_samples]


def purpose_key(seed: int, purpose: int) -> PRNGKeyArray:
    """The key of one use of a run's seed after training, apart from all that training splits from it."""
    return jax.random.fold_in(jax.random.key(seed), 2**31 + purpose)


@eqx.filter_jit
def _mapped(function, x):
    return jax.vmap(function)(x)


@eqx.filter_jit
def _sample(distribution, key):
    return jax.vmap(distribution.sample_and_log_prob)(jax.random.split(key, BATCH_SIZE))
