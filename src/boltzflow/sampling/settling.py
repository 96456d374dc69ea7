"""Settling: moves that leave the target invariant carry particles of the target nowhere, unless they are not of it.

A region that is narrower than the rest, as the neck of a funnel, loses its particles on the way from a wide base. Moves
at β = 1 bring them back, slowly. So the particles move in batches, each twice as long as the one before, until a batch
changes neither their marginals nor their energies by more than its error.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, lattice_of
from boltzflow.numerics.compiling import compiled
from boltzflow.sampling.hmc import HamiltonianMoves, preconditioner

FIRST_BATCH = 32  # moves
_MOST_MOVES = 512
_LEAPFROG = 5
_DRIFT = 4.5  # in errors: of some hundred averages the largest is below this by chance
_ENDS = (0.01, 0.05, 0.95, 0.99)  # quantiles of a marginal


@dataclass(frozen=True)
class Settled:
    """Particles after the last batch, and how far the first and the last batch carried their averages, in errors."""

    x: Float[np.ndarray, "num dim"]
    first_drift: float
    last_drift: float
    num_moves: int
    num_gradients: int

    @property
    def drifted(self) -> bool:
        """Whether the particles were not of the target at first."""
        return self.first_drift > _DRIFT

    @property
    def drifts(self) -> bool:
        """Whether the last batch still moved them."""
        return self.last_drift > _DRIFT


def settle(
    target: AbstractDensity, x: Float[Array | np.ndarray, "num dim"], key: PRNGKeyArray, most_moves: int = _MOST_MOVES
) -> Settled:
    """Move equally weighted points of `target` until the moves no longer change their averages."""
    size = jnp.asarray(0.5 * target.dim**-0.25)
    before = jnp.asarray(x, float)
    num_moves = FIRST_BATCH
    total = 0
    drifts: list[float] = []
    while total < most_moves and (not drifts or drifts[-1] > _DRIFT):
        after, size, change = _batch(target, jax.random.fold_in(key, total), before, size, jnp.asarray(num_moves))
        drifts.append(_largest(np.asarray(change, np.float64)))
        total += num_moves
        before = after
        num_moves = min(2 * num_moves, most_moves - total)
    return Settled(np.asarray(before), drifts[0], drifts[-1], total, len(x) * (1 + total * _LEAPFROG))


@compiled
def _batch(target, key, x, size, num_moves):
    """The points after a batch of moves, the step size, and the change of each average for each point."""
    moves = HamiltonianMoves(target.energy, num_moves, _LEAPFROG)
    moved, _, size, _ = moves(key, x, preconditioner(x, lattice_of(target)), size)
    ends = jnp.quantile(x, jnp.array(_ENDS), axis=0)
    center = jnp.mean(x, axis=0)
    energy = jax.vmap(target.energy)

    def observed(x):
        below = [(x < end).astype(x.dtype) for end in ends]
        return jnp.concatenate([x, (x - center) ** 2, *below, energy(x)[:, None]], axis=1)

    return moved, size, observed(moved) - observed(x)


def _largest(change: Float[np.ndarray, "num observables"]) -> float:
    """The largest |mean change| in units of its error."""
    finite = np.where(np.isfinite(change), change, 0.0)
    stderr = finite.std(axis=0, ddof=1) / np.sqrt(len(finite))
    return float(np.max(np.abs(finite.mean(axis=0)) / np.maximum(stderr, 1e-300), initial=0.0, where=stderr > 0))
