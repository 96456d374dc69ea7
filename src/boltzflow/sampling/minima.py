"""Minima of an energy, by descent from points spread wide: modes that the annealed sampler may have lost on its way.

Annealing keeps a mode only if it stands out at every temperature. A narrow well beside a wide one holds next to nothing
of the probability until the last temperatures, and by then no particle comes over to it. Descent finds a well as often
as its basin of attraction is wide, whatever it holds. The steps are those of Barzilai & Borwein (1988).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity

_TINY = 1e-30
_MEMORY = 10


def descend(
    target: AbstractDensity, x: Float[Array, "num dim"], *, num_steps: int = 100
) -> tuple[Float[Array, "num dim"], Float[Array, " num"]]:
    """Points further down the target's energy from each row of `x`, and the energies there, +inf where not a number.

    x' = x - a ∇f with 1/a the curvature along the step before, no further than the points are wide, and to no energy
    above all of the last ten: steps that may not go up at all are slow in a narrow valley (Raydan, 1997).
    """
    both = jax.vmap(jax.value_and_grad(target.energy))

    def look(x):
        f, gradient = both(x)
        good = jnp.isfinite(f) & jnp.isfinite(gradient).all(axis=1)
        return jnp.where(good, f, jnp.inf), jnp.where(good[:, None], gradient, 0.0)

    width = jnp.mean(jnp.std(x, axis=0))

    def step(_, carry):
        x, f, gradient, size, last = carry
        move = -size[:, None] * gradient
        new_f, new_gradient = look(x + move)
        better = new_f <= jnp.max(last, axis=0)
        curvature = jnp.sum(move * (new_gradient - gradient), axis=1) / (jnp.sum(move**2, axis=1) + _TINY)
        longest = width / (jnp.linalg.norm(new_gradient, axis=1) + _TINY)
        following = jnp.minimum(jnp.where(curvature > 0, 1 / curvature, 4 * size), longest)
        x, gradient = (jnp.where(better[:, None], *pair) for pair in ((x + move, x), (new_gradient, gradient)))
        f = jnp.where(better, new_f, f)
        return x, f, gradient, jnp.where(better, following, size / 4), jnp.concatenate([last[1:], f[None]])

    f, gradient = look(x)
    size = 0.1 * width / (jnp.linalg.norm(gradient, axis=1) + _TINY)
    start = x, f, gradient, size, jnp.broadcast_to(f, (_MEMORY, len(f)))
    x, f, *_ = jax.lax.fori_loop(0, num_steps, step, start)
    return x, f


def far_apart(x: Float[np.ndarray, "num dim"], scale: Float[np.ndarray, " dim"], most: int) -> np.ndarray:
    """Indices of at most `most` rows, each as far as can be from those before it, in units of `scale`: of points that
    lie in few places, at least one of every place."""
    z = x / scale
    chosen, distance = [0], np.linalg.norm(z - z[0], axis=1)
    while len(chosen) < most and distance.max() > 1e-3:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return np.array(chosen)
