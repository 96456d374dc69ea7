"""Annealed sampling of a target without a flow: sequential Monte Carlo along the linear path from an over-wide base.

Adaptive tempering (each step keeps a set share of effective samples), systematic resampling, and Hamiltonian moves
preconditioned with the particles' own covariance, whose step size follows their acceptance rate. Moves by gradients and
not by random walk: the latter are silently wrong on a stiff chain. Del Moral, Doucet & Jasra (2006); the error of log Z
from the particles' ancestry, Lee & Whiteley (2018).
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, lattice_of
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.sampling.hmc import HamiltonianMoves, preconditioner
from boltzflow.sampling.resampling import spread, systematic

_PATH_NUMBERS = 2**20  # floats kept of the particles at each temperature: 4 MiB
_SETTLING_STEPS = 5  # temperatures in which the moves' step size still finds its way


@dataclass(frozen=True)
class SMCSample:
    """Where the annealed sampler arrived, and how it went.

    Equally weighted particles `x` of the target, shape `(num_particles, dim)`; `log_z` and its standard error; the
    temperatures `betas` that it stepped through, the last of them 1 unless it ran out of steps, and `path`,
    `(num_steps, num_saved, dim)`, equally weighted particles at each of them; `acceptance`, the lowest rate at which
    the moves of a temperature were accepted; `num_ancestors`, how many of the first particles still have descendants;
    `num_gradients` of the target's energy, and of its `num_proposals` how many, `num_nonfinite`, were NaN or +inf.
    """

    x: Float[Array, "num_particles dim"]
    log_z: float
    log_z_stderr: float
    betas: np.ndarray
    path: Float[Array, "num_steps num_saved dim"]
    acceptance: float
    num_ancestors: int
    num_gradients: int
    num_proposals: int
    num_nonfinite: int


class _Particles(eqx.Module):
    x: Float[Array, "num dim"]
    beta: Float[Array, ""]
    log_z: Float[Array, ""]
    ancestor: Int[Array, " num"]
    step_size: Float[Array, ""]


def run_smc(
    base: AbstractDistribution,
    target: AbstractDensity,
    key: PRNGKeyArray,
    ess_fraction: float,
    *,
    num_particles: int,
    num_moves: int = 4,
    num_leapfrog: int = 5,
    max_steps: int = 400,
    watch: Stopwatch | None = None,
) -> SMCSample:
    """Particles of `target` ∝ exp(-f_1), from `base` along f_β = (1 - β) f_0 + β f_1 with β chosen as it goes.

    At every temperature the particles are resampled and moved `num_moves` times with `num_leapfrog` leapfrog steps.
    `ess_fraction` is the share of effective samples that each change of temperature keeps. Each temperature is one
    dispatch of a compiled function, which `watch` compiles.
    """
    watch = watch or Stopwatch()
    start_key, loop_key = jax.random.split(key)
    particles, num_nonfinite = watch.run(_start, base, target, start_key, num=num_particles)
    # Numbers and not constants of the program, so that flights of other settings need no other compilation.
    settings = (jnp.asarray(ess_fraction), jnp.asarray(num_moves))
    betas: list[float] = []
    path, rates = [], []
    while (not betas or betas[-1] < 1) and len(betas) < max_steps:
        step_key = jax.random.fold_in(loop_key, len(betas))
        particles, rate, bad = watch.run(
            _temper, particles, base, target, step_key, *settings, num_leapfrog=num_leapfrog
        )
        betas.append(float(particles.beta))
        path.append(spread(particles.x, max(1, _PATH_NUMBERS // base.dim)))
        rates.append(float(rate))
        num_nonfinite += bad
    shares = np.bincount(np.asarray(particles.ancestor), minlength=num_particles) / num_particles
    return SMCSample(
        x=particles.x,
        log_z=float(base.log_z) + float(particles.log_z),
        log_z_stderr=float(np.sqrt(max(np.sum(shares**2) - 1 / num_particles, 0.0))),
        betas=np.array(betas),
        path=jnp.stack(path),
        acceptance=min(rates[_SETTLING_STEPS:] or rates[-1:]),
        num_ancestors=int(np.sum(shares > 0)),
        num_gradients=num_particles * len(betas) * (2 + num_moves * num_leapfrog),
        num_proposals=num_particles * (1 + len(betas) * num_moves),
        num_nonfinite=int(num_nonfinite),
    )


def _start(base, target, key, *, num: int):
    x, _ = jax.vmap(base.sample_and_log_prob)(jax.random.split(key, num))
    zero, size = jnp.zeros(()), jnp.asarray(0.5 * base.dim**-0.25)
    return _Particles(x, zero, zero, jnp.arange(num), size), jnp.sum(~jnp.isfinite(jax.vmap(target.energy)(x)))


def _temper(particles: _Particles, base, target, key, ess_fraction, num_moves, *, num_leapfrog: int):
    """The particles at the next temperature, the acceptance rate of their moves, and non-finite proposals."""
    resample_key, move_key = jax.random.split(key)
    x, beta, num = particles.x, particles.beta, particles.x.shape[0]
    f1 = jax.vmap(target.energy)(x)
    difference = jax.vmap(base.energy)(x) - jnp.where(jnp.isnan(f1), jnp.inf, f1)
    next_beta = _next_beta(beta, difference, ess_fraction)
    log_weight = (next_beta - beta) * difference
    index = systematic(resample_key, log_weight)
    moves = HamiltonianMoves(Bridge(base, target, next_beta), num_moves, num_leapfrog)
    x, rate, size, bad = moves(move_key, x[index], preconditioner(x[index], lattice_of(target)), particles.step_size)
    log_z = particles.log_z + jax.nn.logsumexp(log_weight) - jnp.log(num)
    return _Particles(x, next_beta, log_z, particles.ancestor[index], size), rate, bad


class Bridge(eqx.Module):
    """f_β = (1 - β) f_0 + β f_1."""

    base: AbstractDistribution
    target: AbstractDensity
    beta: Float[Array, ""]

    def __call__(self, x):
        return (1 - self.beta) * self.base.energy(x) + self.beta * self.target.energy(x)


def _next_beta(beta, difference, ess_fraction):
    """The largest next β at which the incremental weights keep `ess_fraction` of effective samples, by bisection."""

    def too_far(candidate):
        log_weight = (candidate - beta) * difference
        # Relative to the largest: of energies of 1e8 the logarithm of a sum keeps no decimals in single precision.
        weight = jnp.exp(log_weight - jnp.max(log_weight))
        ess = jnp.sum(weight) ** 2 / jnp.sum(weight**2) / difference.shape[0]
        return ~(ess >= ess_fraction)

    def halve(_, bracket):
        low, high = bracket
        # Geometric in the increment: from a wide base the first increments are many orders of magnitude below 1.
        middle = jnp.sqrt(low * high)
        return jax.lax.cond(too_far(beta + middle), lambda: (low, middle), lambda: (middle, high))

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.asarray(1e-12), 1 - beta))
    return jnp.where(too_far(1.0), jnp.minimum(beta + low, 1.0), 1.0)
