"""Figs. 5 and 6: the linear path between two energies on the line, where the velocity is known exactly.

For densities p_t on R with distribution functions F_t the velocity is unique: V_t = -(∂_t F_t) / p_t. Between modes
that exchange mass p_t is nearly 0, and V_t explodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TIMES = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
_GRID = np.linspace(-14.0, 14.0, 28_001)


def base_energy(x: Floats) -> Floats:
    """f_0(x) = x²/4."""
    return x**2 / 4


def even_modes(x: Floats) -> Floats:
    """f_1 of Fig. 5: -log(½ exp(-(x-3)²) + ½ exp(-(x+3)²))."""
    return -np.logaddexp(np.log(0.5) - (x - 3) ** 2, np.log(0.5) - (x + 3) ** 2)


def uneven_modes(x: Floats) -> Floats:
    """f_1 of Fig. 6: -log(⅓ exp(-(x-1)²) + ⅔ exp(-(x+4)²))."""
    return -np.logaddexp(np.log(1 / 3) - (x - 1) ** 2, np.log(2 / 3) - (x + 4) ** 2)


class LinePath(NamedTuple):
    """-f_t, p_t and V_t, each `(T, n)`, on the points `x`, `(n,)`, at `times`, `(T,)`; the norms √E[V_t²], `(T,)`."""

    x: Floats
    times: Floats
    log_density: Floats
    density: Floats
    velocity: Floats
    norm: Floats


def linear_path(
    f0: Callable[[Floats], Floats], f1: Callable[[Floats], Floats], times: Floats = TIMES, x: Floats = _GRID
) -> LinePath:
    """The path (17) from f_0 to f_1 with its exact velocity, by the trapezoid rule.

    ∂_t F_t is the integral of ∂_t p_t = p_t (E[∂_t f_t] - ∂_t f_t) from the left; right of the median it is taken from
    the right, so that neither tail is a small difference of large numbers.

    Args:
        f0: The energy of the base.
        f1: The energy of the target.
        times: The times. Defaults to those of the figures.
        x: Uniform points that cover both densities.
    """
    start = f0(x)
    rate = f1(x) - start
    step = x[1] - x[0]
    log_density = -(start + times[:, None] * rate)
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    density /= step * density.sum(axis=1, keepdims=True)
    mean_rate = step * (density * rate).sum(axis=1, keepdims=True)
    change = density * (mean_rate - rate)
    area = step * (change[:, 1:] + change[:, :-1]) / 2
    none = np.zeros((len(times), 1))
    from_left = np.concatenate([none, np.cumsum(area, axis=1)], axis=1)
    from_right = -np.concatenate([np.cumsum(area[:, ::-1], axis=1)[:, ::-1], none], axis=1)
    is_left = step * np.cumsum(density, axis=1) < 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        velocity = -np.where(is_left, from_left, from_right) / density
    norm = np.sqrt(step * (density * np.nan_to_num(velocity, posinf=0.0, neginf=0.0) ** 2).sum(axis=1))
    return LinePath(x, times, log_density, density, velocity, norm)
