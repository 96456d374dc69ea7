"""The No-U-Turn sampler: BlackJAX's kernel after Stan's warm-up with a dense mass matrix, many chains at once.

The chains start from a wide Gaussian, far apart. A chain that reaches one of several modes stays there, which the split
R-hat of the chains shows. The method has no estimate of log Z.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.numerics.compiling import Stopwatch, compiled
from boltzflow.studies.baselines.common import Answer, draw, wide_gaussian

NUM_CHAINS = 16
NUM_WARMUP = 500


class Chains(NamedTuple):
    """Means of x and x² over each half of each chain; gradient evaluations and acceptance rate of each chain."""

    mean: Float[Array, "chains 2 dim"]
    square: Float[Array, "chains 2 dim"]
    num_gradients: Int[Array, " chains"]
    acceptance: Float[Array, " chains"]


def sample(energy: Callable, dim: int, key: PRNGKeyArray, num_draws: int, *, std: float) -> Answer:
    """Means over `num_draws` draws (rounded up to an even number) of each of 16 chains, after 500 steps of warm-up."""
    length = (num_draws + 1) // 2
    start = draw(wide_gaussian(dim, std), jax.random.fold_in(key, 1), NUM_CHAINS)
    with Stopwatch() as watch:
        found = jax.block_until_ready(run_chains(energy, key, start, length=length))
    mean = np.asarray(found.mean, np.float64)
    square = np.asarray(found.square, np.float64)
    return Answer(
        log_z=float("nan"),
        mean=mean.mean(axis=(0, 1)),
        square=square.mean(axis=(0, 1)),
        seconds=watch.seconds,
        compile_seconds=watch.compile_seconds,
        energy_evaluations=0,
        gradient_evaluations=int(np.asarray(found.num_gradients, np.int64).sum()),
        detail={"acceptance": float(found.acceptance.mean()), "r_hat": r_hat(mean, square, length)},
    )


@compiled
def run_chains(energy: Callable, key: PRNGKeyArray, start: Float[Array, "chains dim"], *, length: int) -> Chains:
    """All chains from `start`, each with two halves of `length` draws, under jit."""
    import blackjax

    def log_density(x: Array) -> Array:
        return -energy(x)

    def chain(key: PRNGKeyArray, x: Array) -> Chains:
        warm_key, key = jax.random.split(key)
        warmup = blackjax.window_adaptation(
            blackjax.nuts,
            log_density,
            is_mass_matrix_diagonal=False,
            adaptation_info_fn=lambda state, info, adaptation_state: info.num_integration_steps,
        )
        (state, parameters), spent = warmup.run(warm_key, x, NUM_WARMUP)
        kernel = blackjax.nuts(log_density, **parameters).step

        def step(carry: Any, key: PRNGKeyArray) -> Any:
            state, first, second, gradients, rate = carry
            state, info = kernel(key, state)
            x = state.position
            gradients = gradients + info.num_integration_steps
            return (state, first + x, second + x**2, gradients, rate + info.acceptance_rate), None

        def half(carry: Any, key: PRNGKeyArray) -> Any:
            state, gradients, rate = carry
            zero = jnp.zeros_like(x)
            keys = jax.random.split(key, length)
            (state, first, second, gradients, rate), _ = jax.lax.scan(step, (state, zero, zero, gradients, rate), keys)
            return (state, gradients, rate), (first / length, second / length)

        carry = (state, jnp.sum(spent), jnp.zeros(()))
        (_, gradients, rate), (mean, square) = jax.lax.scan(half, carry, jax.random.split(key))
        return Chains(mean, square, gradients, rate / (2 * length))

    return jax.vmap(chain)(jax.random.split(key, len(start)), start)


def r_hat(mean: Float[np.ndarray, "*n dim"], square: Float[np.ndarray, "*n dim"], length: int) -> float:
    """The largest split R-hat of any coordinate, from means of x and x² of halves of chains of `length` draws each."""
    mean = mean.reshape(-1, mean.shape[-1])
    square = square.reshape(-1, square.shape[-1])
    within = np.mean((square - mean**2) * length / max(length - 1, 1), axis=0)
    between = mean.var(axis=0, ddof=1)
    return float(np.sqrt((length - 1) / length + between / np.maximum(within, np.finfo(float).tiny)).max())
