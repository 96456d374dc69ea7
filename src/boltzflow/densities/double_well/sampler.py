"""Exact independent samples of a periodic chain, site by site, from the spectrum of its transfer matrix.

The first site has the density K^N(x, x)/Z. Given it and the previous site, each further site has

    p(φ_i | φ_{i-1}, φ_0) ∝ K(φ_{i-1}, φ_i) K^R(φ_i, φ_0),    R = N - i steps to the end.

Each site is drawn on a grid with its own random offset (`densities.base.choose`). The message K^R(y, φ_0) to the points
y of the shifted grid is h Σ_l K(y, z_l) K^(R-1)(z_l, φ_0) over the fixed grid z, whose last factor is
Σ_k ψ_k(z_l) λ_k^(R-2) [K ψ_k](φ_0). Eigenvalues enter as λ_k/λ_0, and fewer of them contribute as R grows.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractFixed, choose
from boltzflow.densities.double_well.transfer_matrix import Spectrum
from boltzflow.numerics.validation import frozen

_WIDTHS = 7.0  # the kernel is cut off at this many of its standard deviations: exp(-24)
_NEGLIGIBLE = 1e-12  # eigenfunctions with a smaller share of a message are left out
_SUBDIVISION = 16  # points of the first site's table for each grid spacing; cubic interpolation errs by 1e-7


class ChainSampler(AbstractFixed):
    """Tables for sampling a chain of `num_sites` sites, made from the spectrum of its transfer matrix."""

    num_sites: int = eqx.field(static=True)
    spacing: float = eqx.field(static=True)
    variance: float = eqx.field(static=True)  # of the kinetic part of K
    time_step: float = eqx.field(static=True)
    first_point: float = eqx.field(static=True)
    groups: tuple[tuple[int, int, int], ...] = eqx.field(static=True)  # (from R, down to R, number of eigenfunctions)
    grid: Float[np.ndarray, " n"]
    half_weights: Float[np.ndarray, " n"]  # exp(-½ ΔT V) at the grid
    functions: Float[np.ndarray, "n r"]
    log_ratios: Float[np.ndarray, " r"]
    kernel: Float[np.ndarray, "window reached"]  # kinetic part, between a window and the grid points it reaches
    first_site: Float[np.ndarray, " fine"]

    def __init__(self, spectrum: Spectrum, num_sites: int):
        self.num_sites = num_sites
        self.spacing = spectrum.spacing
        self.time_step = spectrum.time_step
        self.variance = spectrum.time_step / spectrum.mass
        self.grid = frozen(spectrum.grid)
        self.first_point = float(spectrum.grid[0])
        self.half_weights = frozen(np.exp(-0.5 * self.time_step * spectrum.potential(spectrum.grid)))
        self.groups = tuple(_groups(spectrum.log_ratios, num_sites))
        rank = max((rank for _, _, rank in self.groups), default=1)
        self.functions = frozen(spectrum.functions[:, :rank])
        self.log_ratios = frozen(spectrum.log_ratios[:rank])
        num = spectrum.grid.size
        taps = min(num, math.ceil(_WIDTHS * math.sqrt(self.variance) / self.spacing))
        window = min(num, 2 * taps + 1)
        distance = np.arange(window)[:, None] - np.arange(window + 2 * taps)[None, :] + taps
        self.kernel = frozen(np.exp(-((distance * self.spacing) ** 2) / (2 * self.variance)))
        fine = self.first_point + self.spacing * ((np.arange(_SUBDIVISION * num + 3) - 1) / _SUBDIVISION - 0.5)
        self.first_site = frozen(spectrum.site_density(fine, num_sites))

    def sample(self, key: PRNGKeyArray, potential: Callable[[Array], Array]) -> Float[Array, " num_sites"]:
        """One exact sample of the chain; `potential` is the spectrum's, in JAX, and is not stored a second time."""
        picks, offsets = jax.random.uniform(key, (2, self.num_sites))
        first = self._draw_first(offsets[0], picks[0])
        from_first = jnp.exp(-((first - self._as(self.grid, first)) ** 2) / (2 * self.variance))
        continued = _dot(from_first * self._as(self.half_weights, first), self._as(self.functions, first))
        sites = [first[None]]
        last = first
        for high, low, rank in self.groups:
            steps = jnp.arange(high, low - 1, -1)
            done = self.num_sites - high
            draws = (steps, (offsets - 0.5)[done : done + steps.size], picks[done : done + steps.size])

            def one_site(last: Array, draw: tuple[Array, Array, Array], rank: int = rank) -> tuple[Array, Array]:
                site = self._draw_next(last, continued[:rank], potential, *draw)
                return site, site

            last, drawn = jax.lax.scan(one_site, last, draws)
            sites.append(drawn)
        sites.append(self._draw_last(last, first, potential, offsets[-1] - 0.5, picks[-1])[None])
        return jnp.concatenate(sites)

    def _draw_first(self, offset: Array, pick: Array) -> Array:
        """A draw from the density of one site, interpolated by cubics in its table."""
        cell = jnp.floor(offset * _SUBDIVISION)
        t = offset * _SUBDIVISION - cell
        cubic = (
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        )
        start = _SUBDIVISION * np.arange(self.grid.size) + cell.astype(int)
        density = sum(cubic[i] * self._as(self.first_site, offset)[start + i] for i in range(4))
        index = choose(jnp.log(jnp.maximum(density, 1e-30)), pick)
        return self.first_point + (index + offset - 0.5) * self.spacing

    def _draw_next(
        self, last: Array, continued: Array, potential: Callable, steps: Array, offset: Array, pick: Array
    ) -> Array:
        """A site `steps` ≥ 2 steps before the end, given the previous site."""
        rank = continued.shape[0]
        coefficients = continued * jnp.exp((steps - 2) * self._as(self.log_ratios[:rank], last))
        coefficients /= jnp.max(jnp.abs(coefficients))  # one factor for all points: it cancels
        message = _dot(self._as(self.functions[:, :rank], last), coefficients) * self._as(self.half_weights, last)
        window, reached = self.kernel.shape
        taps = (reached - window) // 2
        start, points = self._window(last, offset)
        nearby = jax.lax.dynamic_slice(jnp.pad(message, taps), (start,), (reached,))
        # With d = j - l, exp(-(d h + u)²/2s²) is exp(-(d h)²/2s²) exp(-j h u/s²) exp(l h u/s²) times a constant: the
        # first factor is one matrix for all samples, the others are vectors.
        tilt = offset * self.spacing**2 / self.variance
        nearby = nearby * jnp.exp(tilt * (np.arange(reached) - 0.5 * (reached - 1)))
        arrived = _dot(self._as(self.kernel, last), nearby)
        log_message = jnp.log(jnp.maximum(arrived, 1e-30)) - tilt * (np.arange(window) - 0.5 * (window - 1))
        local = (points - last) ** 2 / (2 * self.variance) + self.time_step * potential(points)
        # `local` holds ½ ΔT V twice: from the message's end and from the kernel of the previous site.
        return points[choose(log_message - local, pick)]

    def _draw_last(self, last: Array, first: Array, potential: Callable, offset: Array, pick: Array) -> Array:
        """The last site, given the previous one and the first."""
        _, points = self._window(last, offset)
        kinetic = ((points - last) ** 2 + (points - first) ** 2) / (2 * self.variance)
        return points[choose(-kinetic - self.time_step * potential(points), pick)]

    def _window(self, last: Array, offset: Array) -> tuple[Array, Array]:
        """The grid index of the first point that one step from `last` can reach, and all such points, shifted."""
        window = self.kernel.shape[0]
        nearest = jnp.round((last - self.first_point) / self.spacing).astype(int)
        start = jnp.clip(nearest - window // 2, 0, self.grid.size - window)
        return start, self.first_point + (start + np.arange(window) + offset) * self.spacing

    @staticmethod
    def _as(array: Array | np.ndarray, like: Array) -> Array:  # under jit the fields are tracers
        return jnp.asarray(array, like.dtype)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _groups(log_ratios: np.ndarray, num_sites: int) -> Iterator[tuple[int, int, int]]:
    """Steps to the end from N-1 down to 2, in octaves, each with the number of eigenfunctions its lowest needs."""
    octaves = itertools.groupby(range(num_sites - 1, 1, -1), key=int.bit_length)
    for _, members in octaves:
        steps = list(members)
        kept = np.sum((steps[-1] - 1) * log_ratios > math.log(_NEGLIGIBLE))
        yield steps[0], steps[-1], int(kept)
