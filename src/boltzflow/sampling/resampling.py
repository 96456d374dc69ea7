"""Weighted particles: effective sample size, error of log Z from the ancestry, systematic resampling, thinning."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray


def effective_sample_size(weight: Float[Array, "num *batch"] | Float[np.ndarray, "num *batch"]) -> Any:
    """(Σ w)² / Σ w² over the first axis of JAX or NumPy weights; 0 where all of them are zero."""
    return weight.sum(axis=0) ** 2 / ((weight**2).sum(axis=0) + 1e-300)


def log_z_stderr(share: Float[np.ndarray, " num"]) -> float:
    """√(Σ share² - 1/n), `share` being the weight that descends from each first particle (Lee & Whiteley, 2018)."""
    return float(np.sqrt(max(np.sum(share**2) - 1 / len(share), 0.0)))


def systematic(key: PRNGKeyArray, log_weight: Float[Array, " num"]) -> Int[Array, " num"]:
    """Indices of systematic resampling in a compiled program: particle i appears num · w_i / Σ w times on average."""
    num = log_weight.shape[0]
    cumulative = jnp.cumsum(jax.nn.softmax(log_weight))
    positions = (jnp.arange(num) + jax.random.uniform(key)) / num
    return jnp.minimum(jnp.searchsorted(cumulative, positions * cumulative[-1]), num - 1)


def systematic_in_double(
    rng: np.random.Generator, log_weight: Float[np.ndarray, " num_weights"], num: int
) -> Int[np.ndarray, " num"]:
    """Increasing indices of `num` draws: a sum of millions of weights loses the small ones in single precision."""
    cumulative = np.cumsum(np.exp(log_weight - np.logaddexp.reduce(log_weight)))
    positions = (np.arange(num) + rng.uniform()) / num * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, positions), len(cumulative) - 1)


def spread(x: Float[Array | np.ndarray, "num_particles dim"], num: int) -> Any:
    """At most `num` particles at equal distances in the list: resampling keeps the offspring of a particle together."""
    return x[:: max(1, len(x) // num)][:num]
