"""Hamiltonian moves of many particles at once, preconditioned with the covariance of the particles themselves.

The step of a particle follows the force on it: where the target is narrower than the particles as a whole, as in the
neck of a funnel, the step is shorter. The step is drawn around a length s(x), and the acceptance contains the ratio of
the densities of that draw from both ends of the move, so that the moves remain exact (Bou-Rabee, Carpenter & Marsden,
*GIST*, 2024).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.numerics.linalg import multiply_circulant

_TARGET_ACCEPTANCE = 0.7
_JITTER = 0.25  # standard deviation of log(step / s(x))
_USUAL_FORCE = 1.5  # times √dim, in whitened units; a Gaussian's force has length √dim
_ROUNDINGS = 1000.0  # of the precision, of the diagonal: a Cholesky factor exists however narrow the particles are
_DIVERGENT = 1000.0  # loss of log-density in a move, as Stan counts divergences

Scalar = Float[Array, ""]
Points = Float[Array, "num dim"]


class Preconditioner(eqx.Module):
    """A square root L of the particles' covariance: a lower triangle, or on a lattice a circulant's eigenvalues."""

    scale: Float[Array, "dim dim"] | Float[Array, "*lattice"]
    on_lattice: bool = eqx.field(static=True)

    def push(self, z: Points) -> Points:
        """L z for every row."""
        return multiply_circulant(self.scale, z) if self.on_lattice else jnp.matmul(z, self.scale.T)

    def pull(self, v: Points) -> Points:
        """Lᵀ v for every row."""
        return multiply_circulant(self.scale, v) if self.on_lattice else jnp.matmul(v, self.scale)


def preconditioner(x: Points, lattice: tuple[int, ...] | None) -> Preconditioner:
    """A square root of the covariance of `x`, averaged over all shifts of a lattice or shrunk towards its diagonal."""
    if lattice is not None:
        axes = tuple(range(1, 1 + len(lattice)))
        waves = jnp.fft.fftn((x - jnp.mean(x)).reshape(-1, *lattice), axes=axes)
        return Preconditioner(jnp.sqrt(jnp.mean(jnp.abs(waves) ** 2, axis=0) / x.shape[1] + 1e-12), True)
    covariance = jnp.atleast_2d(jnp.cov(x, rowvar=False))
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-12)
    num, dim = x.shape
    shrink: Scalar | float = 0.02 if num > 8 * dim else 0.1
    if num > 16 * dim:  # so many know the narrow directions of a ridge across the coordinates, which shrinkage widens
        root = jnp.sqrt(jnp.diag(diagonal))
        narrowest = jnp.linalg.eigvalsh(covariance / jnp.outer(root, root))[0]
        shrink = jnp.where(narrowest < shrink, _ROUNDINGS * jnp.finfo(x.dtype).eps, shrink)
    return Preconditioner(jnp.linalg.cholesky((1 - shrink) * covariance + shrink * diagonal), False)


class HamiltonianMoves(eqx.Module):
    """Hamiltonian moves that leave exp(-energy) invariant; with one leapfrog step, adjusted Langevin moves (MALA)."""

    energy: Callable[[Float[Array, " dim"]], Scalar]
    num_moves: Int[Array, ""] | int
    num_leapfrog: int = eqx.field(static=True)
    adapt: bool = eqx.field(static=True, default=True)  # whether the step size follows the acceptance rate

    def __call__(
        self, key: PRNGKeyArray, x: Points, scale: Preconditioner, size: Scalar
    ) -> tuple[Points, Scalar, Scalar, Int[Array, ""]]:
        """The moved particles, mean acceptance rate, next leapfrog step in whitened units, and non-finite proposals."""

        def move(i, carry):
            x, f, force, size, rates, num_bad = carry
            noise_key, size_key, accept_key = jax.random.split(jax.random.fold_in(key, i), 3)
            momentum = jax.random.normal(noise_key, x.shape)
            jitter = _JITTER * jax.random.normal(size_key, f.shape)
            step = (size * _shortening(force) * jnp.exp(jitter))[:, None]
            new_x, new_f, new_force, new_momentum = self._leapfrog(x, f, force, momentum, step, scale)
            drop = f - new_f + 0.5 * jnp.sum(momentum**2 - new_momentum**2, axis=1)
            back = jitter + jnp.log(_shortening(force)) - jnp.log(_shortening(new_force))
            drop = drop + 0.5 * (jitter**2 - back**2) / _JITTER**2
            bad = ~jnp.isfinite(new_f)
            accept = (jnp.log(jax.random.uniform(accept_key, drop.shape)) < drop) & ~bad
            x = jnp.where(accept[:, None], new_x, x)
            force = jnp.where(accept[:, None], new_force, force)
            rate = jnp.mean(jnp.minimum(1.0, jnp.exp(jnp.where(bad | jnp.isnan(drop), -jnp.inf, drop))))
            if self.adapt:
                size = jnp.clip(size * jnp.exp(0.7 * (rate - _TARGET_ACCEPTANCE)), 1e-4, 1.5)
            return x, jnp.where(accept, new_f, f), force, size, rates + rate, num_bad + jnp.sum(bad)

        f, force = self._force(x, scale)
        start = (x, f, force, size, jnp.zeros(()), jnp.zeros((), int))
        x, _, _, size, rates, num_bad = jax.lax.fori_loop(0, self.num_moves, move, start)
        return x, rates / jnp.maximum(self.num_moves, 1), size, num_bad

    def _leapfrog(self, x, f, force, momentum, step, scale: Preconditioner):
        """x, f, force and momentum after `num_leapfrog` steps of the length `step`, one for each particle."""

        def leap(carry, _):
            x, _, force, momentum = carry
            momentum = momentum + 0.5 * step * force
            x = x + scale.push(step * momentum)
            f, force = self._force(x, scale)
            return (x, f, force, momentum + 0.5 * step * force), None

        return jax.lax.scan(leap, (x, f, force, momentum), None, length=self.num_leapfrog)[0]

    def _force(self, x: Points, scale: Preconditioner) -> tuple[Float[Array, " num"], Points]:
        """The energies, and -Lᵀ ∇f. NaN counts as +inf: a move never ends at such a point."""
        f, gradient = jax.vmap(jax.value_and_grad(self.energy))(x)
        return jnp.where(jnp.isnan(f), jnp.inf, f), -scale.pull(gradient)


def _shortening(force: Points) -> Float[Array, " num"]:
    """s(x) in units of the common step: 1 where the whitened force is as on a Gaussian, less where it is larger."""
    usual = _USUAL_FORCE * force.shape[1] ** 0.5
    return usual / jnp.maximum(usual, jnp.linalg.norm(force, axis=1))
