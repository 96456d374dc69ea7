"""A banana in any dimension: a Gaussian bent along a parabola of its first coordinate.

    boltzflow run examples/banana.py:energy --dim 5

x_0 ~ N(0, 2²), and for i ≥ 1  x_i ~ N(x_0²/4 - 1, 1) given x_0. The bend preserves volume, so that exactly

    log Z = dim/2 · log 2π + log 2        (5.287841 in dimension 5),   E[x_i] = 0,   Var x_0 = 4,   Var x_i = 3
"""

import jax.numpy as jnp


def energy(x):
    """x_0²/8 + Σ_{i≥1} (x_i + 1 - x_0²/4)²/2 at one point x of shape (dim,), dim at least 2."""
    return x[0] ** 2 / 8 + jnp.sum((x[1:] + 1 - x[0] ** 2 / 4) ** 2) / 2
