"""Tempered sequential Monte Carlo (SMC) on a target without a flow, along the linear path from an over-wide base.

Each step raises the inverse temperature β as far as a set share of effective samples allows, resamples the particles
systematically, and applies Hamiltonian moves, preconditioned with the particles' own covariance (Del Moral, Doucet &
Jasra, 2006).
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, lattice_of
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.stages import advance
from boltzflow.sampling.hmc import HamiltonianMoves, Points, Scalar, preconditioner
from boltzflow.sampling.resampling import effective_sample_size, log_z_stderr, spread, systematic

_PATH_NUMBERS = 2**19  # kept of the particles at each β: 4 MiB in double precision
_LEAPFROG = 5  # steps of a move
_SETTLING_STEPS = 5  # steps in β before the moves' step size has settled


@dataclass(frozen=True)
class SMCSample:
    """The final particles of an SMC run, its log Z, and its diagnostics."""

    x: Float[Array, "num_particles dim"]  # equally weighted
    log_z: float
    log_z_stderr: float
    betas: Float[np.ndarray, " num_steps"]  # inverse temperatures, the last one 1 unless the run reached max_steps
    path: Float[np.ndarray, "num_steps num_saved dim"]  # equally weighted particles at each of `betas`
    acceptance: float  # the lowest rate of the moves at any β after the first few
    concentration: Float[np.ndarray, " num_steps"]  # Σ share² of the first particles in those at each of `betas`
    num_ancestors: int  # first particles that still have descendants
    num_gradients: int  # of the target's energy
    num_proposals: int
    num_nonfinite: int  # proposals with an energy of NaN or +inf


class _Particles(eqx.Module):
    x: Points
    beta: Scalar
    log_z: Scalar
    ancestor: Int[Array, " num"]
    step_size: Scalar
    rate: Scalar  # of acceptance of the last moves
    num_nonfinite: Int[Array, ""]


def run_smc(
    base: AbstractDistribution,
    target: AbstractDensity,
    key: PRNGKeyArray,
    ess_fraction: float,
    *,
    num_particles: int,
    num_moves: int = 4,
    max_steps: int = 400,
) -> SMCSample:
    """Sample `target` along f_β = (1 - β) f_0 + β f_1; each step in β keeps `ess_fraction` of effective samples."""
    start_key, loop_key = jax.random.split(key)
    particles = _start(base, target, start_key, num=num_particles)
    # Arrays and not constants of the program: SMC runs with other settings need no other compilation.
    settings = (jnp.asarray(ess_fraction), jnp.asarray(num_moves))
    betas: list[float] = []
    path: list[np.ndarray] = []
    rates: list[float] = []
    concentration: list[float] = []
    while (not betas or betas[-1] < 1) and len(betas) < max_steps:
        particles = _temper(particles, base, target, jax.random.fold_in(loop_key, len(betas)), *settings)
        betas.append(float(particles.beta))
        advance(betas[-1])
        path.append(np.asarray(spread(particles.x, max(1, _PATH_NUMBERS // base.dim))))
        rates.append(float(particles.rate))
        shares = np.bincount(np.asarray(particles.ancestor), minlength=num_particles) / num_particles
        concentration.append(float(np.sum(shares**2)))
    return SMCSample(
        x=particles.x,
        log_z=float(base.log_z) + float(particles.log_z),
        log_z_stderr=log_z_stderr(shares),
        betas=np.array(betas),
        path=np.stack(path),
        acceptance=min(rates[_SETTLING_STEPS:] or rates[-1:]),
        concentration=np.array(concentration),
        num_ancestors=int(np.sum(shares > 0)),
        num_gradients=num_particles * len(betas) * (2 + num_moves * _LEAPFROG),
        num_proposals=num_particles * (1 + len(betas) * num_moves),
        num_nonfinite=int(particles.num_nonfinite),
    )


@compiled
def _start(base: AbstractDistribution, target: AbstractDensity, key: PRNGKeyArray, *, num: int) -> _Particles:
    x, _ = jax.vmap(base.sample_and_log_prob)(jax.random.split(key, num))
    zero = jnp.zeros(())
    num_nonfinite = jnp.sum(~jnp.isfinite(jax.vmap(target.energy)(x)))
    return _Particles(x, zero, zero, jnp.arange(num), jnp.asarray(0.5 * base.dim**-0.25), zero, num_nonfinite)


@compiled
def _temper(
    particles: _Particles,
    base: AbstractDistribution,
    target: AbstractDensity,
    key: PRNGKeyArray,
    ess_fraction: Scalar,
    num_moves: Int[Array, ""],
) -> _Particles:
    """The particles at the next β."""
    resample_key, move_key = jax.random.split(key)
    f1 = jax.vmap(target.energy)(particles.x)
    difference = jax.vmap(base.energy)(particles.x) - jnp.where(jnp.isnan(f1), jnp.inf, f1)
    beta = _next_beta(particles.beta, difference, ess_fraction)
    log_weight = (beta - particles.beta) * difference
    log_z = particles.log_z + jax.nn.logsumexp(log_weight) - jnp.log(log_weight.shape[0])
    index = systematic(resample_key, log_weight)
    x = particles.x[index]
    moves = HamiltonianMoves(lambda x: (1 - beta) * base.energy(x) + beta * target.energy(x), num_moves, _LEAPFROG)
    x, rate, size, bad = moves(move_key, x, preconditioner(x, lattice_of(target)), particles.step_size)
    return _Particles(x, beta, log_z, particles.ancestor[index], size, rate, particles.num_nonfinite + bad)


def _next_beta(beta: Scalar, difference: Float[Array, " num"], ess_fraction: Scalar) -> Scalar:
    """The largest next β at which the incremental weights keep `ess_fraction` of effective samples, by bisection."""

    def too_far(candidate):
        log_weight = (candidate - beta) * difference
        # Relative to the largest: for energies of 1e8 the logarithm of a sum keeps no decimals in single precision.
        weight = jnp.exp(log_weight - jnp.max(log_weight))
        return ~(effective_sample_size(weight) / len(weight) >= ess_fraction)

    def halve(_, bracket):
        low, high = bracket
        # Geometric in the increment: from a wide base the first increments are many orders of magnitude below 1.
        middle = jnp.sqrt(low * high)
        return jax.lax.cond(too_far(beta + middle), lambda: (low, middle), lambda: (middle, high))

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.asarray(1e-30), 1 - beta))
    return jnp.where(too_far(1.0), jnp.minimum(beta + low, 1.0), 1.0)
