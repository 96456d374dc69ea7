"""Adaptive tempered sequential Monte Carlo with Hamiltonian moves: BlackJAX's kernel, tuned as an expert would.

Every temperature keeps 90 % of effective samples. The mass matrix is the weighted covariance of the particles (they
still carry weights after a step), the step size follows the acceptance rate towards 0.75 and is jittered by particle,
resampling is systematic, and the whole loop is one compiled program. It runs twice: a few particles from a wide
Gaussian find the target, and the run that counts starts from the Gaussian fitted to them, which made the error of the
same number of particles smaller on every target here. Both are in the time.

BlackJAX's own tuner is not given the parameters that it tunes, so the step size travels in the loop's state instead.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.peers.start import Answer, Start
from boltzflow.peers.timing import Stopwatch

TARGET_ESS = 0.9
TARGET_ACCEPTANCE = 0.75
NUM_MOVES = 4
NUM_LEAPFROG = 5
MIN_SCOUTS = 2000
SHRINK = 1e-3
MAX_STEPS = 500


class Flight(NamedTuple):
    """Where a run ended: log Z/Z_0, moments of the weighted particles, temperatures, acceptance, the last β."""

    log_ratio: Float[Array, ""]
    mean: Float[Array, " dim"]
    covariance: Float[Array, "dim dim"]
    num_steps: Int[Array, ""]
    acceptance: Float[Array, ""]
    beta: Float[Array, ""]


def estimate_log_z(
    energy: Callable, dim: int, key: PRNGKeyArray, num_particles: int, *, std: float, two_flights: bool = True
) -> Answer:
    """log ∫ exp(-energy) with `num_particles`, from N(0, std² I); with one flight only where `two_flights` is False."""
    watch, start, num_gradients, num_energies = Stopwatch(), Start.wide(dim, std), 0, 0
    flights = [max(MIN_SCOUTS, num_particles // 16), num_particles] if two_flights else [num_particles]
    for flight_key, num in zip(jax.random.split(key, len(flights)), flights, strict=True):
        program = functools.partial(fly, energy, num)
        flight = watch.run(program, flight_key, start)
        base, start = start, Start.fitted(np.asarray(flight.mean), np.asarray(flight.covariance))
        num_gradients += num * int(flight.num_steps) * (1 + NUM_MOVES * NUM_LEAPFROG)
        num_energies += 2 * num * int(flight.num_steps)
    detail = {"temperatures": int(flight.num_steps), "acceptance": float(flight.acceptance), "beta": float(flight.beta)}
    log_z = base.log_z() + float(flight.log_ratio)
    mean = np.asarray(flight.mean, np.float64)
    square = mean**2 + np.diag(np.asarray(flight.covariance, np.float64))
    return Answer(log_z, mean, square, watch.seconds, watch.compile_seconds, num_energies, num_gradients, detail)


def fly(energy: Callable, num_particles: int, key: PRNGKeyArray, start: Start) -> Flight:
    """One run from `start` to the target, to be called under jit."""
    import blackjax
    from blackjax.smc import adaptive_tempered, resampling

    kernel = adaptive_tempered.build_kernel(
        logprior_fn=lambda x: -start.energy(x),
        loglikelihood_fn=lambda x: start.energy(x) - energy(x),
        mcmc_step_fn=blackjax.hmc.build_kernel(),
        mcmc_init_fn=blackjax.hmc.init,
        resampling_fn=resampling.systematic,
        target_ess=TARGET_ESS,
    )

    def step(carry: tuple) -> tuple:
        count, state, size, _, log_ratio = carry
        step_key, jitter_key = jax.random.split(jax.random.fold_in(key, count))
        _, covariance = weighted_moments(state.particles, state.weights)
        jitter = jax.random.uniform(jitter_key, (num_particles,), minval=0.6, maxval=1.4)
        # A leading axis of length one is shared by all particles, and one as long as there are particles is not.
        parameters: dict[str, Any] = {
            "step_size": size * jitter,
            "inverse_mass_matrix": covariance[None],
            "num_integration_steps": jnp.full((1,), NUM_LEAPFROG),
        }
        state, info = kernel(step_key, state, NUM_MOVES, parameters)
        rate = jnp.mean(info.update_info.acceptance_rate)
        size = jnp.clip(size * jnp.exp(1.5 * (rate - TARGET_ACCEPTANCE)), 1e-4, 1.5)
        return count + 1, state, size, rate, log_ratio + info.log_likelihood_increment

    particles = start.sample(jax.random.fold_in(key, MAX_STEPS), num_particles)
    state = adaptive_tempered.init(particles)._replace(tempering_param=jnp.zeros(()))
    size = jnp.asarray(1.2 * start.mean.size**-0.25)
    carry = (jnp.zeros((), int), state, size, jnp.zeros(()), jnp.zeros(()))
    count, state, _, rate, log_ratio = jax.lax.while_loop(
        lambda carry: (carry[0] < MAX_STEPS) & (carry[1].tempering_param < 1), step, carry
    )
    mean, covariance = weighted_moments(state.particles, state.weights)
    return Flight(log_ratio, mean, covariance, count, rate, state.tempering_param)


def weighted_moments(
    x: Float[Array, "num dim"], weights: Float[Array, " num"]
) -> tuple[Float[Array, " dim"], Float[Array, "dim dim"]]:
    """Mean and covariance, the latter mixed a little with its diagonal so that it always has a Cholesky factor."""
    mean = weights @ x
    centered = x - mean
    covariance = (weights[:, None] * centered).T @ centered
    return mean, (1 - SHRINK) * covariance + SHRINK * jnp.diag(jnp.diag(covariance) + 1e-12)
