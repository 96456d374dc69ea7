"""The No-U-Turn sampler: BlackJAX's kernel after Stan's warm-up with a dense mass matrix, many chains at once.

The chains start far apart, in a wide Gaussian. A chain that fell into one of several modes stays there: the split R-hat
of the chains says so. There is no log Z.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.studies.baselines.start import Answer, Start
from boltzflow.studies.baselines.timing import Stopwatch

NUM_CHAINS = 16
NUM_WARMUP = 500


class Chains(NamedTuple):
    """Mean of x, of x² of each half of each chain, `(chains, 2, dim)`; gradients taken by each, acceptance rates."""

    mean: Float[Array, "chains 2 dim"]
    square: Float[Array, "chains 2 dim"]
    num_gradients: Int[Array, " chains"]
    acceptance: Float[Array, " chains"]


def sample(energy: Callable, dim: int, key: PRNGKeyArray, num_draws: int, *, std: float) -> Answer:
    """`num_draws` draws (an even number) of each of 16 chains, which start in N(0, std² I), after 500 of warm-up."""
    watch, num_draws = Stopwatch(), num_draws + num_draws % 2
    program = functools.partial(run_chains, energy, num_draws)
    found = watch.run(program, key, Start.wide(dim, std).sample(jax.random.fold_in(key, 1), NUM_CHAINS))
    mean, square = (np.asarray(part, np.float64) for part in (found.mean, found.square))
    detail = {"acceptance": float(found.acceptance.mean()), "r_hat": r_hat(mean, square, num_draws // 2)}
    return Answer(
        float("nan"), mean.mean(axis=(0, 1)), square.mean(axis=(0, 1)), watch.seconds, watch.compile_seconds,
        0, int(np.asarray(found.num_gradients, np.int64).sum()), detail,
    )  # fmt: skip


def run_chains(energy: Callable, num_draws: int, key: PRNGKeyArray, start: Float[Array, "chains dim"]) -> Chains:
    """All chains from `start`, to be called under jit."""
    import blackjax

    def log_density(x: Array) -> Array:
        return -energy(x)

    def chain(key: PRNGKeyArray, x: Array) -> Chains:
        warm_key, key = jax.random.split(key)
        warmup = blackjax.window_adaptation(
            blackjax.nuts, log_density, is_mass_matrix_diagonal=False, adaptation_info_fn=_gradients_of
        )
        (state, parameters), spent = warmup.run(warm_key, x, NUM_WARMUP)
        kernel = blackjax.nuts(log_density, **parameters).step

        def draw(carry: Any, key: PRNGKeyArray) -> Any:
            state, first, second, gradients, rate = carry
            state, info = kernel(key, state)
            x = state.position
            gradients = gradients + info.num_integration_steps
            return (state, first + x, second + x**2, gradients, rate + info.acceptance_rate), None

        means, squares, gradients, rate = [], [], jnp.sum(spent), jnp.zeros(())
        for half_key in jax.random.split(key):
            zero = jnp.zeros_like(x)
            keys = jax.random.split(half_key, num_draws // 2)
            (state, first, second, gradients, rate), _ = jax.lax.scan(draw, (state, zero, zero, gradients, rate), keys)
            means.append(first / (num_draws // 2))
            squares.append(second / (num_draws // 2))
        return Chains(jnp.stack(means), jnp.stack(squares), gradients, rate / num_draws)

    return jax.vmap(chain)(jax.random.split(key, len(start)), start)


def _gradients_of(state: Any, info: Any, adaptation_state: Any) -> Any:
    return info.num_integration_steps


def r_hat(mean: np.ndarray, square: np.ndarray, length: int) -> float:
    """The largest split R-hat of any coordinate, from means of x and x² of halves of chains of `length` draws each."""
    mean, square = mean.reshape(-1, mean.shape[-1]), square.reshape(-1, square.shape[-1])
    within = np.mean((square - mean**2) * length / max(length - 1, 1), axis=0)
    between = mean.var(axis=0, ddof=1)
    return float(np.sqrt((length - 1) / length + between / np.maximum(within, np.finfo(float).tiny)).max())
