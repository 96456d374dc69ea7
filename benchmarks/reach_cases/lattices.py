"""φ⁴ on a periodic square lattice, S = Σ_x Σ_μ (φ_{x+μ} - φ_x)² + m² φ² + λ φ⁴."""

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import boltzflow
from benchmarks.reach_cases.case import Case

_LONG_RUN = "a run of 1600 steps with the lattice field, reverse ESS .999"


def action(phi: Float[Array, " sites"], side: int, m2: float, lam: float) -> Float[Array, ""]:
    """The action of one configuration."""
    field = phi.reshape(side, side)
    kinetic = sum(jnp.sum((jnp.roll(field, 1, axis) - field) ** 2) for axis in (0, 1))
    return kinetic + jnp.sum(m2 * field**2 + lam * field**4)


def lattice(side: int, m2: float, lam: float, declared: bool = True) -> boltzflow.Energy:
    """The target, with its symmetries or without."""
    energy = functools.partial(action, side=side, m2=m2, lam=lam)
    if not declared:
        return boltzflow.Energy(energy, side * side)
    return boltzflow.Energy(energy, side * side, lattice_shape=(side, side), sign_symmetric=True)


def free_log_z(side: int, m2: float) -> float:
    """log Z at λ = 0, from the eigenvalues 2 (m² + Σ_μ (2 - 2 cos k_μ)) of the action's matrix."""
    wave = 2 - 2 * np.cos(2 * np.pi * np.arange(side) / side)
    return float(0.5 * np.sum(np.log(np.pi / (m2 + wave[:, None] + wave))))


def _case(side: int, m2: float, lam: float, log_z: float, goal: float, minutes: float, declared: bool = True) -> Case:
    make: Callable[[], boltzflow.Energy] = functools.partial(lattice, side, m2, lam, declared)
    source = "Fourier modes" if lam == 0 else _LONG_RUN if log_z == log_z else "none"
    of = "ess" if declared else "log_z"
    return Case(make, log_z, 2e-4 if lam else 0.0, goal, of, minutes, source)


LATTICES = {
    "free field 8 x 8": _case(8, 1.25, 0.0, free_log_z(8, 1.25), 0.99, 4),
    "φ⁴ 8 x 8, m² = −4": _case(8, -4.0, 6.975, 12.3580, 0.99, 4),
    "φ⁴ 8 x 8, m² = −1": _case(8, -1.0, 1.0, math.nan, 0.99, 4),
    "φ⁴ 8 x 8, m² = −4, not declared": _case(8, -4.0, 6.975, 12.3580, 0.01, 4, declared=False),
    "φ⁴ 8 x 8, broken phase": _case(8, -4.75, 5.1, math.nan, 0.9, 6),
    "φ⁴ 16 x 16, m² = −4": _case(16, -4.0, 6.975, math.nan, 0.9, 10),
}
