"""Adaptive tempered sequential Monte Carlo with Hamiltonian moves: BlackJAX's kernel, tuned as an expert would.

Every temperature keeps 90 % of effective samples. The mass matrix is the weighted covariance of the particles (they
still carry weights after a step), the step size follows the acceptance rate towards 0.75 and is jittered by particle,
resampling is systematic, and the whole loop is one compiled program. It runs twice: scouts from a wide Gaussian find
the target, few and fast as those of our pilot (50 % and 2 moves at a temperature), and move on there until their step
size has settled; the run that counts starts from the Gaussian fitted to them, and with that step size, in units of the
particles' own spread. A fitted start made the error of the same number of particles smaller on every target here. Both
are in the time.

BlackJAX's own tuner is not given the parameters that it tunes, so the step size travels in the loop's state instead.
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

TARGET_ESS, SCOUT_ESS = 0.9, 0.5
TARGET_ACCEPTANCE = 0.75
NUM_MOVES, SCOUT_MOVES = 4, 2
NUM_LEAPFROG = 5
NUM_SETTLING = 6  # rounds of the scouts' moves at β = 1: their step lags behind temperatures that change so fast
MIN_SCOUTS = 2000
SHRINK = 1e-3
MAX_STEPS = 500


class Flight(NamedTuple):
    """Where a run ended: log Z/Z_0, moments of the weighted particles, temperatures, acceptance, last β and step."""

    log_ratio: Float[Array, ""]
    mean: Float[Array, " dim"]
    covariance: Float[Array, "dim dim"]
    num_steps: Int[Array, ""]
    acceptance: Float[Array, ""]
    beta: Float[Array, ""]
    size: Float[Array, ""]


def estimate_log_z(
    energy: Callable, dim: int, key: PRNGKeyArray, num_particles: int, *, std: float, two_flights: bool = True
) -> Answer:
    """log ∫ exp(-energy) with `num_particles`, from N(0, std² I); with one flight only where `two_flights` is False."""
    watch, start, num_gradients, num_energies = Stopwatch(), Start.wide(dim, std), 0, 0
    size = jnp.asarray(1.2 * dim**-0.25)
    flights = [(num_particles, TARGET_ESS, NUM_MOVES, 0)]
    if two_flights:
        flights.insert(0, (max(MIN_SCOUTS, num_particles // 16), SCOUT_ESS, SCOUT_MOVES, NUM_SETTLING))
    for flight_key, settings in zip(jax.random.split(key, len(flights)), flights, strict=True):
        num, _, num_moves, _ = settings
        found = watch.run(functools.partial(fly, energy, *settings), flight_key, start, size)
        base, start, size = start, Start.fitted(np.asarray(found.mean), np.asarray(found.covariance)), found.size
        num_gradients += num * int(found.num_steps) * (1 + num_moves * NUM_LEAPFROG)
        num_energies += 2 * num * int(found.num_steps)
    detail = {"temperatures": int(found.num_steps), "acceptance": float(found.acceptance), "beta": float(found.beta)}
    log_z = base.log_z() + float(found.log_ratio)
    mean = np.asarray(found.mean, np.float64)
    square = mean**2 + np.diag(np.asarray(found.covariance, np.float64))
    return Answer(log_z, mean, square, watch.seconds, watch.compile_seconds, num_energies, num_gradients, detail)


def fly(
    energy: Callable,
    num_particles: int,
    target_ess: float,
    num_moves: int,
    num_settling: int,
    key: PRNGKeyArray,
    start: Start,
    size: Float[Array, ""],
) -> Flight:
    """One run from `start` to the target, to be called under jit. `size` is the first step of the moves; of these there
    are `num_settling` rounds more where the target is reached."""
    import blackjax
    from blackjax.smc import adaptive_tempered, resampling

    kernel = adaptive_tempered.build_kernel(
        logprior_fn=lambda x: -start.energy(x),
        loglikelihood_fn=lambda x: start.energy(x) - energy(x),
        mcmc_step_fn=blackjax.hmc.build_kernel(),
        mcmc_init_fn=blackjax.hmc.init,
        resampling_fn=resampling.systematic,
        target_ess=target_ess,
    )

    def step(carry: tuple) -> tuple:
        count, settled, state, size, _, log_ratio = carry
        step_key, jitter_key = jax.random.split(jax.random.fold_in(key, count))
        _, covariance = weighted_moments(state.particles, state.weights)
        jitter = jax.random.uniform(jitter_key, (num_particles,), minval=0.6, maxval=1.4)
        # A leading axis of length one is shared by all particles, and one as long as there are particles is not.
        parameters: dict[str, Any] = {
            "step_size": size * jitter,
            "inverse_mass_matrix": covariance[None],
            "num_integration_steps": jnp.full((1,), NUM_LEAPFROG),
        }
        state, info = kernel(step_key, state, num_moves, parameters)
        rate = jnp.mean(info.update_info.acceptance_rate)
        size = jnp.clip(size * jnp.exp(1.5 * (rate - TARGET_ACCEPTANCE)), 1e-4, 1.5)
        settled += state.tempering_param >= 1
        return count + 1, settled, state, size, rate, log_ratio + info.log_likelihood_increment

    particles = start.sample(jax.random.fold_in(key, MAX_STEPS), num_particles)
    state = adaptive_tempered.init(particles)._replace(tempering_param=jnp.zeros(()))
    carry = (jnp.zeros((), int), jnp.zeros((), int), state, size, jnp.zeros(()), jnp.zeros(()))
    count, _, state, size, rate, log_ratio = jax.lax.while_loop(
        lambda carry: (carry[0] < MAX_STEPS) & (carry[1] <= num_settling) & ~jnp.isnan(carry[2].tempering_param),
        step,
        carry,
    )
    mean, covariance = weighted_moments(state.particles, state.weights)
    return Flight(log_ratio, mean, covariance, count, rate, state.tempering_param, size)


def weighted_moments(
    x: Float[Array, "num dim"], weights: Float[Array, " num"]
) -> tuple[Float[Array, " dim"], Float[Array, "dim dim"]]:
    """Mean and covariance, the latter mixed a little with its diagonal so that it always has a Cholesky factor."""
    mean = weights @ x
    centered = x - mean
    covariance = (weights[:, None] * centered).T @ centered
    return mean, (1 - SHRINK) * covariance + SHRINK * jnp.diag(jnp.diag(covariance) + 1e-12)
