"""Annealed sampling of a target without a flow: sequential Monte Carlo along the linear path from an over-wide base.

Adaptive tempering (each step keeps a set share of effective samples), systematic resampling, and Hamiltonian moves
preconditioned with the particles' own covariance, whose step size follows their acceptance rate. Moves by gradients and
not by random walk: the latter are silently wrong on a stiff chain. Del Moral, Doucet & Jasra (2006); the error of log Z
from the particles' ancestry, Lee & Whiteley (2018).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..densities import AbstractDensity, AbstractDistribution

_TARGET_ACCEPTANCE = 0.7


class AnnealedSample(eqx.Module):
    """Where the annealed sampler arrived, and how it went.

    Equally weighted particles `x` of the target, `log_z` and its standard error; the temperatures `betas` it stepped
    through (padded with 1 after `num_steps`), `path` with a few particles at each of them; the `acceptance` rate of the
    last moves; `num_ancestors`, how many of the first particles still have descendants; `num_gradients`, gradients of
    the target's energy; `num_nonfinite`, how many of those energies were NaN or +inf.
    """

    x: Float[Array, "num_particles dim"]
    log_z: Float[Array, ""]
    log_z_stderr: Float[Array, ""]
    betas: Float[Array, " max_steps"]
    path: Float[Array, "max_steps num_saved dim"]
    num_steps: Int[Array, ""]
    acceptance: Float[Array, ""]
    num_ancestors: Int[Array, ""]
    num_gradients: Int[Array, ""]
    num_nonfinite: Int[Array, ""]


def anneal(
    base: AbstractDistribution,
    target: AbstractDensity,
    key: PRNGKeyArray,
    ess_fraction: Float[Array, ""],
    *,
    num_particles: int,
    num_moves: int = 4,
    num_leapfrog: int = 5,
    max_steps: int = 200,
    num_saved: int = 64,
) -> AnnealedSample:
    """Particles of `target` ∝ exp(-f_1), from `base` along f_β = (1 - β) f_0 + β f_1 with β chosen as it goes.

    At every temperature the particles are resampled and moved `num_moves` times with `num_leapfrog` leapfrog steps.
    `ess_fraction` is the share of effective samples that each change of temperature keeps. `betas` reaches 1 unless
    `max_steps` came first: look at `betas[num_steps - 1]`. To be called under jit.
    """
    start_key, loop_key = jax.random.split(key)
    x, _ = jax.vmap(base.sample_and_log_prob)(jax.random.split(start_key, num_particles))
    moves = _Moves(base, target, num_moves, num_leapfrog)

    def body(state):
        step, beta, log_z, x, f1, ancestor, size, betas, path, _, bad = state
        resample_key, move_key = jax.random.split(jax.random.fold_in(loop_key, step))
        difference = jax.vmap(base.energy)(x) - f1
        next_beta = _next_beta(beta, difference, ess_fraction)
        log_weight = (next_beta - beta) * difference
        log_z = log_z + jax.nn.logsumexp(log_weight) - jnp.log(num_particles)
        index = _systematic(resample_key, log_weight)
        scale_tril = _robust_cholesky(x[index])
        x, f1, acceptance, size, new_bad = moves(move_key, next_beta, x[index], f1[index], scale_tril, size)
        path = path.at[step].set(spread(x, num_saved))
        return (step + 1, next_beta, log_z, x, f1, ancestor[index], size, betas.at[step].set(next_beta), path,
                acceptance, bad + new_bad)  # fmt: skip

    f1 = _finite(jax.vmap(target.energy)(x))
    state = (
        jnp.zeros((), int), jnp.zeros(()), base_log_z(base), x, f1, jnp.arange(num_particles),
        jnp.asarray(0.5 * base.dim**-0.25), jnp.ones(max_steps), jnp.zeros((max_steps, num_saved, base.dim)),
        jnp.zeros(()), jnp.sum(jnp.isinf(f1)),
    )  # fmt: skip
    state = jax.lax.while_loop(lambda s: (s[0] < max_steps) & (s[1] < 1), body, state)
    num_steps, _, log_z, x, _, ancestor, _, betas, path, acceptance, bad = state
    shares = jnp.zeros(num_particles).at[ancestor].add(1 / num_particles)
    return AnnealedSample(
        x=x,
        log_z=log_z,
        log_z_stderr=jnp.sqrt(jnp.maximum(jnp.sum(shares**2) - 1 / num_particles, 0.0)),
        betas=betas,
        path=path,
        num_steps=num_steps,
        acceptance=acceptance,
        num_ancestors=jnp.sum(shares > 0),
        num_gradients=num_particles * (1 + num_steps * num_moves * (num_leapfrog + 1)),
        num_nonfinite=bad,
    )


def spread(x: Float[Array, "num dim"], num: int) -> Float[Array, "num dim"]:
    """`num` of the particles, evenly apart: resampling keeps the offspring of a particle together."""
    return x[:: max(1, len(x) // num)][:num]


def base_log_z(base: AbstractDistribution) -> Float[Array, ""]:
    """log Z_0 as an array."""
    return jnp.asarray(base.log_z, float)


def _finite(energy):
    """NaN counts as +inf: such a point is never moved to."""
    return jnp.where(jnp.isnan(energy), jnp.inf, energy)


def _next_beta(beta, difference, ess_fraction):
    """The largest next β at which the incremental weights keep `ess_fraction` of effective samples, by bisection."""

    def too_far(candidate):
        log_weight = (candidate - beta) * difference
        ess = jnp.exp(2 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2 * log_weight)) / difference.shape[0]
        return ~(ess >= ess_fraction)

    def halve(_, bracket):
        low, high = bracket
        # Geometric in the increment: from a wide base the first increments are many orders of magnitude below 1.
        middle = jnp.sqrt(low * high)
        return jax.lax.cond(too_far(beta + middle), lambda: (low, middle), lambda: (middle, high))

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.asarray(1e-12), 1 - beta))
    return jnp.where(too_far(1.0), jnp.minimum(beta + low, 1.0), 1.0)


def _systematic(key, log_weight):
    """Indices of systematic resampling: each particle about as often as its share says."""
    n = log_weight.shape[0]
    cumulative = jnp.cumsum(jax.nn.softmax(log_weight))
    positions = (jnp.arange(n) + jax.random.uniform(key)) / n
    return jnp.minimum(jnp.searchsorted(cumulative, positions * cumulative[-1]), n - 1)


def _robust_cholesky(x):
    """A Cholesky factor of the particles' covariance, slightly shrunk to its diagonal so that it always exists."""
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False))
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-12)
    return jnp.linalg.cholesky(0.98 * covariance + 0.02 * diagonal)


class _Moves(eqx.Module):
    """Hamiltonian moves that leave exp(-f_β) invariant, preconditioned by a Cholesky factor of the covariance."""

    base: AbstractDistribution
    target: AbstractDensity
    num_moves: int
    num_leapfrog: int

    def __call__(self, key, beta, x, f1, scale_tril, size):
        """`size` is the leapfrog step in whitened units; it is adapted towards the target acceptance."""

        def move(carry, move_key):
            x, f1, size = carry
            noise_key, size_key, accept_key = jax.random.split(move_key, 3)
            momentum = jax.random.normal(noise_key, x.shape)
            step = size * jax.random.uniform(size_key, (x.shape[0], 1), minval=0.6, maxval=1.4)
            new_x, new_f1, new_momentum = self._leapfrog(beta, x, momentum, step, scale_tril)
            f0, new_f0 = jax.vmap(self.base.energy)(x), jax.vmap(self.base.energy)(new_x)
            drop = (1 - beta) * (f0 - new_f0) + beta * (f1 - new_f1)
            drop = drop + 0.5 * jnp.sum(momentum**2 - new_momentum**2, axis=1)
            bad = ~jnp.isfinite(new_f1)
            accept = (jnp.log(jax.random.uniform(accept_key, drop.shape)) < drop) & ~bad
            x = jnp.where(accept[:, None], new_x, x)
            rate = jnp.mean(jnp.minimum(1.0, jnp.exp(jnp.where(bad | jnp.isnan(drop), -jnp.inf, drop))))
            size = jnp.clip(size * jnp.exp(0.7 * (rate - _TARGET_ACCEPTANCE)), 1e-4, 1.5)
            return (x, jnp.where(accept, new_f1, f1), size), (rate, jnp.sum(bad))

        keys = jax.random.split(key, self.num_moves)
        (x, f1, size), (rates, bad) = jax.lax.scan(move, (x, f1, size), keys)
        return x, f1, jnp.mean(rates), size, jnp.sum(bad)

    def _leapfrog(self, beta, x, momentum, step, scale_tril):
        def force(x):
            f1, g1 = jax.vmap(jax.value_and_grad(self.target.energy))(x)
            g0 = jax.vmap(jax.grad(self.base.energy))(x)
            return _finite(f1), -((1 - beta) * g0 + beta * g1) @ scale_tril

        def leap(carry, _):
            x, momentum, _, f = carry
            momentum = momentum + 0.5 * step * f
            x = x + (step * momentum) @ scale_tril.T
            f1, f = force(x)
            return (x, momentum + 0.5 * step * f, f1, f), None

        f1, f = force(x)
        (x, momentum, f1, _), _ = jax.lax.scan(leap, (x, momentum, f1, f), None, length=self.num_leapfrog)
        return x, f1, momentum
