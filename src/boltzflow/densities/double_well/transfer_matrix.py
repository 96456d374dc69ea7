"""Exact results for a periodic chain of sites, from the spectrum of its transfer matrix.

The chain has the density exp(-Σ_i [m/2 ((φ_i - φ_{i+1})/ΔT)² + V(φ_i)] ΔT), with V even. With the symmetric kernel

    K(a, b) = exp(-[m (a - b)²/(2ΔT) + ½ ΔT (V(a) + V(b))])

Z is Tr K^N, and every correlation is a trace with operators between the powers. On a grid whose spacing is small
against the width of K the trapezoid rule is accurate to rounding, so the matrix h K(z_j, z_l) replaces the operator.
It commutes with φ → -φ. Even and odd eigenfunctions are computed separately, which costs a quarter and does not mix the
two nearly degenerate ones of deep wells. All of this file is NumPy in float64 and runs once, at construction.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from boltzflow.errors import InputError

MAX_GRID = 4000  # two symmetric eigenproblems of half that size: some seconds
_NEGLIGIBLE_ACTION = 50.0  # about exp(-50) of the mass lies outside the grid
_NOISE = 1e-14  # smaller eigenvalues, relative to the largest, are rounding and may be negative


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """The grid of the operator h K, and its r eigenvalues and eigenfunctions above rounding."""

    mass: float
    time_step: float
    potential: Callable[[np.ndarray], np.ndarray]
    grid: Float[np.ndarray, " n"]
    spacing: float
    log_largest: float
    log_ratios: Float[np.ndarray, " r"]  # log(λ_k/λ_0), falling
    functions: Float[np.ndarray, "n r"]  # h Σ_j ψ_k(z_j)² = 1
    even: Bool[np.ndarray, " r"]  # whether ψ_k is even in φ

    def kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """K(a, b) for arrays that broadcast against each other."""
        return _kernel(a, b, self.mass, self.time_step, self.potential)

    def log_trace(self, power: int) -> float:
        """log Tr K^power."""
        return power * self.log_largest + math.log(np.exp(power * self.log_ratios).sum())

    def site_density(self, points: np.ndarray, num_sites: int) -> np.ndarray:
        """The density of one site, Σ_k λ_k^N ψ_k(x)² / Z, at any `points`: λ_k ψ_k(x) = h Σ_j K(x, z_j) ψ_k(z_j)."""
        weights = np.exp(num_sites * self.log_ratios)
        kept = weights > 1e-17 * weights[0]
        continued = self.spacing * self.kernel(points[:, None], self.grid[None, :]) @ self.functions[:, kept]
        continued /= np.exp(self.log_largest + self.log_ratios[kept])
        return continued**2 @ weights[kept] / weights.sum()

    def correlator(self, num_sites: int) -> np.ndarray:
        """<φ_0 φ_d> for d = 0 ... N-1: Σ_kl λ_k^(N-d) λ_l^d <k|φ|l>² / Z."""
        elements = self.spacing * self.functions.T @ (self.grid[:, None] * self.functions)
        elements[self.even[:, None] == self.even[None, :]] = 0.0  # φ is odd
        separation = np.arange(num_sites // 2 + 1)[:, None]
        left = np.exp((num_sites - separation) * self.log_ratios)
        right = np.exp(separation * self.log_ratios)
        half = np.einsum("dk,dk->d", left @ elements**2, right) / np.exp(num_sites * self.log_ratios).sum()
        # At d = 0 the sum over l runs over all eigenfunctions, also the ones dropped as rounding: it is <φ²>.
        half[0] = np.sum(self.grid**2 * self.site_density(self.grid, num_sites)) * self.spacing
        return half[np.minimum(np.arange(num_sites), num_sites - np.arange(num_sites))]


def solve(
    mass: float, time_step: float, potential: Callable[[np.ndarray], np.ndarray], edge: float, spacing: float
) -> Spectrum:
    """The spectrum of h K on a symmetric grid up to ± `edge`, for an even `potential`."""
    num_half = math.ceil(edge / spacing)
    if 2 * num_half > MAX_GRID:
        raise InputError(
            f"the exact solution of this chain needs a grid of {2 * num_half} points, of at most {MAX_GRID}; "
            "take fewer sites or a longer total time"
        )
    half = (np.arange(num_half) + 0.5) * spacing
    same = spacing * _kernel(half[:, None], half[None, :], mass, time_step, potential)
    across = spacing * _kernel(half[:, None], -half[None, :], mass, time_step, potential)
    even_values, even_vectors = np.linalg.eigh(same + across)
    odd_values, odd_vectors = np.linalg.eigh(same - across)
    values = np.concatenate([even_values, odd_values])
    functions = np.block([[even_vectors[::-1], -odd_vectors[::-1]], [even_vectors, odd_vectors]])
    functions /= math.sqrt(2 * spacing)
    even = np.arange(values.size) < even_values.size
    order = np.argsort(-values)
    order = order[values[order] > _NOISE * values.max()]
    return Spectrum(
        mass,
        time_step,
        potential,
        grid=np.concatenate([-half[::-1], half]),
        spacing=spacing,
        log_largest=float(np.log(values[order[0]])),
        log_ratios=np.log(values[order] / values[order[0]]),
        functions=np.ascontiguousarray(functions[:, order]),
        even=even[order],
    )


def reach(mass: float, total_time: float, potential: Callable[[np.ndarray], np.ndarray], well: float) -> float:
    """The edge of the grid: every closed path that reaches it has an action of at least 50 above the lowest.

    A path through x whose point nearest the well is y costs at least 2 ∫_y^x √(2m (V - V(y))) + T V(y): the bound of
    Bogomolny, which holds in discrete time for V convex beyond the well and 0 in it.
    """

    def least_action(x: float) -> float:
        turning = np.linspace(well, x, 64)
        path = turning[:, None] + (x - turning[:, None]) * np.linspace(0, 1, 257)[None, :]
        momentum = np.sqrt(np.maximum(2 * mass * (potential(path) - potential(turning)[:, None]), 0))
        return float(np.min(2 * momentum.mean(axis=1) * (x - turning) + total_time * potential(turning)))

    low = well
    high = well + 1.0
    while least_action(high) < _NEGLIGIBLE_ACTION:
        low = high
        high = well + 2 * (high - well)
    for _ in range(30):
        middle = (low + high) / 2
        if least_action(middle) < _NEGLIGIBLE_ACTION:
            low = middle
        else:
            high = middle
    return high


def _kernel(
    a: np.ndarray, b: np.ndarray, mass: float, time_step: float, potential: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    return np.exp(-mass * (a - b) ** 2 / (2 * time_step) - 0.5 * time_step * (potential(a) + potential(b)))
