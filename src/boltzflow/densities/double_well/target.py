"""The paper's quantum particle in a double well (§4.2): a periodic chain with its exact results."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractEnergyDistribution
from boltzflow.densities.double_well import transfer_matrix
from boltzflow.densities.double_well.sampler import ChainSampler
from boltzflow.numerics.validation import dimension, frozen, one_point, positive_number

_LOG_Z_TOLERANCE = 1e-10  # between a grid and one of half its spacing


class DoubleWell(AbstractEnergyDistribution):
    """The discretized action of a particle in a double well, (27) of the paper, sites periodic.

    energy(φ) = Σ_i [m/2 ((φ_i - φ_{i+1})/ΔT)² + V(φ_i)] ΔT,    V(φ) = -m/2 φ² + λ/4 φ⁴,    ΔT = T/N

    log Z, the density of one site, the correlator and samples are exact to about 10 digits, by the transfer matrix.

    Args:
        num_sites: The number of sites N, which is the dimension; at least 2.
        mass: The mass m, positive, in natural units.
        coupling: The coupling λ, positive.
        total_time: The total time T, positive.

    Raises:
        InputError: An argument is out of range, or the chain is so finely discretized (some 10^4 sites at T = 4) that
            the exact solution would be too large.
    """

    dim: int = eqx.field(static=True)
    mass: float = eqx.field(static=True)
    coupling: float = eqx.field(static=True)
    total_time: float = eqx.field(static=True)
    log_z: float = eqx.field(static=True)
    correlator: Float[np.ndarray, " dim"]
    site_grid: Float[np.ndarray, " num_points"]
    site_probabilities: Float[np.ndarray, " num_points"]
    mean_abs: float = eqx.field(static=True)
    sampler: ChainSampler
    sign_symmetric = True  # the energy of -φ is that of φ

    def __init__(self, num_sites: int = 16, mass: float = 1.5, coupling: float = 1.0, total_time: float = 4.0):
        self.dim = dimension("num_sites", num_sites, at_least=2)
        self.mass = positive_number("mass", mass)
        self.coupling = positive_number("coupling", coupling)
        self.total_time = positive_number("total_time", total_time)
        spectrum = self._solve()
        self.log_z = spectrum.log_trace(self.dim) + self.total_time * (self.mass**2 / (4 * self.coupling))
        self.correlator = frozen(spectrum.correlator(self.dim))
        fine = spectrum.spacing / 4
        self.site_grid = frozen((np.arange(4 * spectrum.grid.size) - 2 * spectrum.grid.size + 0.5) * fine)
        density = spectrum.site_density(self.site_grid, self.dim)
        self.site_probabilities = frozen(density / density.sum())
        self.mean_abs = _mean_abs(spectrum, self.dim)
        self.sampler = ChainSampler(spectrum, self.dim)

    @property
    def num_sites(self) -> int:
        """The number of sites N, which is the dimension."""
        return self.dim

    @property
    def time_step(self) -> float:
        """ΔT = T/N."""
        return self.total_time / self.dim

    @property
    def lattice_shape(self) -> tuple[int, ...]:
        """The shape of the lattice, a ring of N sites."""
        return (self.dim,)

    @property
    def modes(self) -> Float[Array, "2 dim"]:
        """The two constant configurations at the minima ± √(m/λ) of V, shape `(2, num_sites)`."""
        return jnp.asarray(self._well * np.array([[-1.0], [1.0]]) * np.ones((2, self.dim)))

    def potential(self, phi: Any) -> Any:
        """V(φ) = -m/2 φ² + λ/4 φ⁴, elementwise, of a number or an array of NumPy or JAX."""
        return -0.5 * self.mass * phi**2 + 0.25 * self.coupling * phi**4

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        x = one_point(x, self.dim)
        kinetic = 0.5 * self.mass / self.time_step * jnp.sum((x - jnp.roll(x, -1)) ** 2)
        return kinetic + self.time_step * jnp.sum(self.potential(x))

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        x = self.sampler.sample(key, self._raised_potential)
        return x, self.log_prob(x)

    def site_density(self) -> tuple[Float[np.ndarray, " num_points"], Float[np.ndarray, " num_points"]]:
        """The exact density of one site: the points φ of a uniform grid and the values there, both `(num_points,)`."""
        return self.site_grid, self.site_probabilities / (self.site_grid[1] - self.site_grid[0])

    def site_expectation(self, fn: Callable[[np.ndarray], np.ndarray]) -> float:
        """The exact E[fn(φ_i)] at one site, for a smooth elementwise `fn`; for |φ| use `mean_abs`."""
        return float(np.sum(self.site_probabilities * fn(self.site_grid)))

    @property
    def _well(self) -> float:
        return math.sqrt(self.mass / self.coupling)

    def _raised_potential(self, phi: Any) -> Any:
        """V plus a constant, so that its minimum is 0 and no exponential overflows."""
        return 0.25 * self.coupling * (phi**2 - self._well**2) ** 2

    def _solve(self) -> transfer_matrix.Spectrum:
        """The spectrum on a grid so fine that halving its spacing does not change log Z."""
        step = self.time_step
        potential = self._raised_potential
        edge = transfer_matrix.reach(self.mass, self.total_time, potential, self._well)
        # `bend` is the curvature of the exponent of the sharpest integrand over one site, K(a, y) K(y, b): kinetic
        # part, well and quartic wall. For a Gaussian a spacing of 0.7 of the width is exact to rounding.
        bend = 2 * self.mass / step + 2 * self.mass * step + 8 * math.sqrt(self.coupling * step)
        spacing = 0.7 / math.sqrt(bend)
        solve = functools.partial(transfer_matrix.solve, self.mass, step, potential, edge)
        finer = solve(spacing / 1.5)  # first, so that a chain that is too large fails at once
        spectrum = solve(spacing)
        # Rounding grows with N, and the tolerance with it.
        while abs(finer.log_trace(self.dim) - spectrum.log_trace(self.dim)) > _LOG_Z_TOLERANCE * max(1, self.dim / 16):
            spacing /= 1.5
            spectrum = finer
            finer = solve(spacing / 1.5)
        return spectrum


def _mean_abs(spectrum: transfer_matrix.Spectrum, num_sites: int) -> float:
    """<|φ|>, by Gauss-Legendre panels from 0: the trapezoid rule is not accurate at the kink."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = spectrum.grid.size // 2
    points = (spectrum.spacing * (np.arange(half)[:, None] + (nodes + 1) / 2)).ravel()
    density = spectrum.site_density(points, num_sites)
    return float(spectrum.spacing * np.sum(points * density * np.tile(weights, half)))
