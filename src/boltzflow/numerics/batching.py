"""Functions of one point over many points in batches, and the random streams of a run."""

import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.numerics.compiling import compiled

BATCH_SIZE = 8192


def map_points(function: Callable[[Float[Array, " dim"]], Any], x: Float[Array | np.ndarray, "num dim"]) -> Any:
    """The results of a function of one point at every row of `x`, NumPy arrays with a leading axis of length `num`.

    Points are cast to the precision in force.
    """
    return map_batches(lambda batch: _mapped(function, batch), x)


def map_batches(
    function: Callable[[Float[np.ndarray, "batch dim"]], Any], x: Float[Array | np.ndarray, "num dim"]
) -> Any:
    """The same for a function of a batch of points.

    The last batch is padded, so that all have the same size and the function is compiled once. NumPy cuts and joins
    them, which needs no program for each length.
    """
    num = len(x)
    x = np.asarray(x, jnp.result_type(float))
    x = np.concatenate([x, np.broadcast_to(x[-1:], (-num % BATCH_SIZE, *x.shape[1:]))])
    batches = [function(x[i : i + BATCH_SIZE]) for i in range(0, len(x), BATCH_SIZE)]
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:num], *batches)


class Stream(enum.IntEnum):
    """The random streams of a run after training, one for each use of its seed, independent of the keys of training."""

    REPORT_SAMPLES = 1
    EXACT_SAMPLES = 2
    SOLVER_STEPS = 4
    FLOW_SMC = 5
    EXPECTATIONS = 6
    MISSED_MODES = 7
    MORE_WEIGHTS = 8
    COVERAGE = 9
    SAMPLE_COMMAND = 10
    HEAVY_TAILS = 11
    SETTLING = 12
    MIXTURE = 13
    POPULATIONS = 14
    FIGURES = 15


def stream_key(seed: int, stream: Stream) -> PRNGKeyArray:
    """The key of one random stream of the run with this seed."""
    return jax.random.fold_in(jax.random.key(seed), 2**31 + stream)


def numpy_generator(key: PRNGKeyArray) -> np.random.Generator:
    """NumPy's generator seeded with a JAX key: its draws need no compilation for each new shape."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


@compiled
def _mapped(function, x):
    return jax.vmap(function)(x)
