"""Hamiltonian moves of many particles at once, preconditioned with the covariance of the particles themselves."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..densities import AbstractDensity, AbstractDistribution
from ..linalg import multiply_circulant

_TARGET_ACCEPTANCE = 0.7


class Preconditioner(eqx.Module):
    """A square root L of the particles' covariance: a lower triangle, or on a lattice a circulant's eigenvalues."""

    scale: Float[Array, "dim dim"] | Float[Array, "*lattice"]
    on_lattice: bool = eqx.field(static=True)

    def push(self, z: Float[Array, "num dim"]) -> Float[Array, "num dim"]:
        """L z for every row."""
        return multiply_circulant(self.scale, z) if self.on_lattice else jnp.matmul(z, self.scale.T)

    def pull(self, v: Float[Array, "num dim"]) -> Float[Array, "num dim"]:
        """Lᵀ v for every row."""
        return multiply_circulant(self.scale, v) if self.on_lattice else jnp.matmul(v, self.scale)


def preconditioner(x: Float[Array, "num dim"], lattice: tuple[int, ...] | None) -> Preconditioner:
    """From the particles' covariance: on a lattice averaged over all shifts, which takes few particles and no matrix;
    else shrunk a little to its diagonal, so that it always has a Cholesky factor."""
    if lattice is not None:
        axes = tuple(range(1, 1 + len(lattice)))
        waves = jnp.fft.fftn((x - jnp.mean(x)).reshape(-1, *lattice), axes=axes)
        return Preconditioner(jnp.sqrt(jnp.mean(jnp.abs(waves) ** 2, axis=0) / x.shape[1] + 1e-12), True)
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False))
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-12)
    shrink = 0.02 if x.shape[0] > 8 * x.shape[1] else 0.1
    return Preconditioner(jnp.linalg.cholesky((1 - shrink) * covariance + shrink * diagonal), False)


class HamiltonianMoves(eqx.Module):
    """Hamiltonian moves that leave exp(-f_β), f_β = (1 - β) f_0 + β f_1, invariant."""

    base: AbstractDistribution
    target: AbstractDensity
    num_moves: Int[Array, ""]
    num_leapfrog: int

    def __call__(self, key, beta, x, f1, scale: Preconditioner, size):
        """x and f_1(x) after the moves, the mean acceptance rate, the next step size, and how many proposals had an
        energy that is not finite. `size` is the leapfrog step in whitened units, adapted towards the target acceptance.
        """

        def move(i, carry):
            x, f1, size, rates, num_bad = carry
            noise_key, size_key, accept_key = jax.random.split(jax.random.fold_in(key, i), 3)
            momentum = jax.random.normal(noise_key, x.shape)
            step = size * jax.random.uniform(size_key, (x.shape[0], 1), minval=0.6, maxval=1.4)
            new_x, new_f1, new_momentum = self._leapfrog(beta, x, momentum, step, scale)
            f0, new_f0 = jax.vmap(self.base.energy)(x), jax.vmap(self.base.energy)(new_x)
            drop = (1 - beta) * (f0 - new_f0) + beta * (f1 - new_f1)
            drop = drop + 0.5 * jnp.sum(momentum**2 - new_momentum**2, axis=1)
            bad = ~jnp.isfinite(new_f1)
            accept = (jnp.log(jax.random.uniform(accept_key, drop.shape)) < drop) & ~bad
            x = jnp.where(accept[:, None], new_x, x)
            rate = jnp.mean(jnp.minimum(1.0, jnp.exp(jnp.where(bad | jnp.isnan(drop), -jnp.inf, drop))))
            size = jnp.clip(size * jnp.exp(0.7 * (rate - _TARGET_ACCEPTANCE)), 1e-4, 1.5)
            return x, jnp.where(accept, new_f1, f1), size, rates + rate, num_bad + jnp.sum(bad)

        start = (x, f1, size, jnp.zeros(()), jnp.zeros((), int))
        x, f1, size, rates, num_bad = jax.lax.fori_loop(0, self.num_moves, move, start)
        return x, f1, rates / self.num_moves, size, num_bad

    def _leapfrog(self, beta, x, momentum, step, scale: Preconditioner):
        def force(x):
            f1, g1 = jax.vmap(jax.value_and_grad(self.target.energy))(x)
            g0 = jax.vmap(jax.grad(self.base.energy))(x)
            # NaN counts as +inf: such a point is never moved to.
            return jnp.where(jnp.isnan(f1), jnp.inf, f1), -scale.pull((1 - beta) * g0 + beta * g1)

        def leap(carry, _):
            x, momentum, _, f = carry
            momentum = momentum + 0.5 * step * f
            x = x + scale.push(step * momentum)
            f1, f = force(x)
            return (x, momentum + 0.5 * step * f, f1, f), None

        f1, f = force(x)
        (x, momentum, f1, _), _ = jax.lax.scan(leap, (x, momentum, f1, f), None, length=self.num_leapfrog)
        return x, f1, momentum
