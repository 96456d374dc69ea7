"""Minima of an energy, by descent from widely spread points: modes that tempered SMC may have missed.

SMC keeps a mode only if the mode has a fair share of the probability at every β. Descent finds a mode in proportion to
the width of its basin of attraction. The steps are those of Barzilai & Borwein (1988).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, sample_batch
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import compiled

_TINY = 1e-30
_MEMORY = 10
_SCREENED = 2**16  # points at a time


@compiled
def descend(
    target: AbstractDensity, x: Float[Array, "num dim"], *, num_steps: int = 100
) -> tuple[Float[Array, "num dim"], Float[Array, " num"]]:
    """Lower the target's energy from each row of `x`; also returns the energies there, +inf where not finite.

    x' = x - a ∇f with 1/a the curvature along the previous step. A step is at most as long as the points are wide, and
    its energy at most the largest of the last ten (Raydan, 1997).
    """
    value_and_grad = jax.vmap(jax.value_and_grad(target.energy))

    def evaluate(x):
        f, gradient = value_and_grad(x)
        good = jnp.isfinite(f) & jnp.isfinite(gradient).all(axis=1)
        return jnp.where(good, f, jnp.inf), jnp.where(good[:, None], gradient, 0.0)

    width = jnp.mean(jnp.std(x, axis=0))

    def step(_, carry):
        x, f, gradient, size, recent = carry
        move = -size[:, None] * gradient
        new_f, new_gradient = evaluate(x + move)
        better = new_f <= jnp.max(recent, axis=0)
        curvature = jnp.sum(move * (new_gradient - gradient), axis=1) / (jnp.sum(move**2, axis=1) + _TINY)
        longest = width / (jnp.linalg.norm(new_gradient, axis=1) + _TINY)
        next_size = jnp.minimum(jnp.where(curvature > 0, 1 / curvature, 4 * size), longest)
        x = jnp.where(better[:, None], x + move, x)
        gradient = jnp.where(better[:, None], new_gradient, gradient)
        f = jnp.where(better, new_f, f)
        return x, f, gradient, jnp.where(better, next_size, size / 4), jnp.concatenate([recent[1:], f[None]])

    f, gradient = evaluate(x)
    size = 0.1 * width / (jnp.linalg.norm(gradient, axis=1) + _TINY)
    start = x, f, gradient, size, jnp.broadcast_to(f, (_MEMORY, len(f)))
    x, f, *_ = jax.lax.fori_loop(0, num_steps, step, start)
    return x, f


def screen(
    target: AbstractDensity,
    fit: AbstractDistribution,
    cover: AbstractDistribution,
    key: PRNGKeyArray,
    num: int,
    most: int,
) -> Float[np.ndarray, "kept dim"]:
    """Of `num` points of `cover` the at most `most` at which the target's density exceeds that of `fit` most.

    A narrow and deep well beside the rest of the target stands out so from its edge on, at the cost of an energy for
    each point, where a descent costs a hundred gradients.
    """

    def log_ratio(x):
        return fit.energy(x) - target.energy(x)

    best = np.zeros((0, target.dim))
    excess = np.zeros(0)
    for start in range(0, num, _SCREENED):
        x, _ = sample_batch(cover, jax.random.fold_in(key, start), min(_SCREENED, num - start))
        found = np.asarray(map_points(log_ratio, x), np.float64)
        best = np.concatenate([best, np.asarray(x)])
        excess = np.concatenate([excess, np.where(np.isnan(found), -np.inf, found)])
        kept = np.argsort(-excess)[:most]
        best, excess = best[kept], excess[kept]
    return best[np.isfinite(excess)]


def far_apart(x: Float[np.ndarray, "num dim"], scale: Float[np.ndarray, " dim"], most: int) -> Int[np.ndarray, " kept"]:
    """At most `most` indices of rows, each as far as possible, over a thousandth `scale`, from the earlier ones."""
    z = x / scale
    chosen = [0]
    distance = np.linalg.norm(z - z[0], axis=1)
    while len(chosen) < most and distance.max() > 1e-3:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return np.array(chosen)
