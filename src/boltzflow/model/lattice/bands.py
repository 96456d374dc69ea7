"""The Fourier analysis of a periodic lattice: the inputs of networks that are the same at every site."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from boltzflow.densities.base import AbstractFixed
from boltzflow.errors import InputError
from boltzflow.model.networks import Whitening
from boltzflow.numerics.linalg import Circulant
from boltzflow.numerics.validation import frozen

_MAX_BANDS = 32
_MOST_NUMBERS = 2**22  # of the matrices that replace many small Fourier transforms
Shape = tuple[int, ...]


class Bands(AbstractFixed):
    """The Fourier analysis of a lattice, x ↦ z ↦ p: whitened modes, and bands of them at the sites of the networks.

    z(k) = Σ_x e^{-ikx} [L⁻¹(x - mean)](x) / √N; p_c(y) = √g_c Σ_{k in c} e^{iky} z(k) / √n_c for the n_c wave vectors
    of band c: a pair ±k in one dimension, one of at most 32 shells in more. An axis has at most `max_sites` sites y;
    wave vectors that these cannot distinguish are in no band. Shifts of the lattice by whole distances of the y are
    exact symmetries, others up to aliasing.
    """

    mean: Float[np.ndarray, ""]
    scale: Float[np.ndarray, "*half"]
    multiplicity: Float[np.ndarray, "*half"]
    filters: Float[np.ndarray, "bands *coarse_half"]
    variances: Float[np.ndarray, " bands"]  # g_c ∝ the width of the band in x, 1 for the widest
    waves: tuple[Float[np.ndarray, "half outputs"], Float[np.ndarray, "half outputs"]] | None
    shape: Shape = eqx.field(static=True)
    coarse_shape: Shape = eqx.field(static=True)

    def __init__(self, lattice_shape: Shape, whitening: Whitening | None = None, max_sites: int = 32):
        self.shape = tuple(int(n) for n in lattice_shape)
        self.coarse_shape = tuple(min(n, max_sites) for n in self.shape)
        self.mean, scale = _same_at_every_site(self.shape, whitening)
        self.scale = frozen(scale[..., : self.shape[-1] // 2 + 1])
        self.multiplicity = frozen(_multiplicity(self.shape))
        masks = _shells(self.shape, self.coarse_shape)
        counted = masks * _multiplicity(self.coarse_shape)
        axes = tuple(range(1, masks.ndim))
        sizes = counted.sum(axes)
        power = (counted * _crop(self.scale**2, self.coarse_shape)).sum(axes)
        self.variances = frozen(np.sqrt(power / power.max()))
        self.filters = frozen(masks * np.sqrt(self.variances / sizes).reshape(-1, *[1] * len(axes)))
        small = self.filters.size * self.num_sites <= _MOST_NUMBERS and len(self.shape) > 1
        self.waves = _filtered_waves(self.filters, self.coarse_shape) if small else None

    @property
    def num_bands(self) -> int:
        return self.filters.shape[0]

    @property
    def num_sites(self) -> int:
        return math.prod(self.coarse_shape)

    def whiten(self, x: Float[Array, " dim"]) -> Complex[Array, "*half"]:
        """z, for the half of the wave vectors that `rfftn` gives."""
        centered = (x - jnp.asarray(self.mean, x.dtype)).reshape(self.shape)
        return jnp.fft.rfftn(centered, norm="ortho") / jnp.asarray(self.scale, x.dtype)

    def push(self, v: Complex[Array, "*half"]) -> Float[Array, " dim"]:
        """A velocity of z as a velocity of x."""
        return jnp.fft.irfftn(jnp.asarray(self.scale, v.real.dtype) * v, self.shape, norm="ortho").reshape(-1)

    def split(self, z: Complex[Array, "*half"]) -> Float[Array, "sites bands"]:
        """P z."""
        z = _crop(z, self.coarse_shape)
        if self._one_mode_each:
            amplitudes, cos, sin = self._waves(z.real.dtype)
            z = z[: self.num_bands] * jnp.asarray(_multiplicity(self.coarse_shape)[: self.num_bands], amplitudes.dtype)
            return cos * (amplitudes * z.real) - sin * (amplitudes * z.imag)
        if self.waves is not None:
            cos, sin = (jnp.asarray(wave, z.real.dtype) for wave in self.waves)
            z = z.ravel() * jnp.asarray(_multiplicity(self.coarse_shape).ravel(), z.real.dtype)
            bands = jnp.matmul(z.real, cos, precision="highest") - jnp.matmul(z.imag, sin, precision="highest")
            return bands.reshape(self.num_sites, self.num_bands)
        filtered = jnp.asarray(self.filters, z.real.dtype) * z
        bands = jnp.fft.irfftn(filtered, self.coarse_shape, axes=tuple(range(1, filtered.ndim)), norm="forward")
        return bands.reshape(self.num_bands, -1).T

    def join(self, m: Float[Array, "sites bands"]) -> Complex[Array, "*half"]:
        """Pᵀ m, over the number of sites."""
        if self._one_mode_each:
            amplitudes, cos, sin = self._waves(m.dtype)
            v = jax.lax.complex(amplitudes * jnp.mean(cos * m, axis=0), -amplitudes * jnp.mean(sin * m, axis=0))
            return jnp.pad(v, (0, self.shape[0] // 2 + 1 - self.num_bands))
        if self.waves is not None:
            cos, sin = (jnp.asarray(wave, m.dtype) / self.num_sites for wave in self.waves)
            real = jnp.matmul(cos, m.ravel(), precision="highest")
            v = jax.lax.complex(real, -jnp.matmul(sin, m.ravel(), precision="highest"))
            return _embed(v.reshape(self.filters.shape[1:]), self.shape, self.coarse_shape)
        m = m.T.reshape(-1, *self.coarse_shape)
        spectra = jnp.fft.rfftn(m, axes=tuple(range(1, m.ndim)), norm="forward")
        return _embed(jnp.sum(jnp.asarray(self.filters, m.dtype) * spectra, axis=0), self.shape, self.coarse_shape)

    def total(self, values: Float[Array, "*half"]) -> Float[Array, ""]:
        """The sum over all wave vectors."""
        return jnp.sum(jnp.asarray(self.multiplicity, values.dtype) * values)

    @property
    def _one_mode_each(self) -> bool:
        """Whether the bands are the pairs ±k of a ring: sums over waves are then cheaper than many transforms."""
        return len(self.shape) == 1 and self.num_bands == _num_kept(self.shape[0], self.coarse_shape[0])

    def _waves(self, dtype: Any) -> list[Array]:
        """On a ring: the filters `(bands,)`, cos ky and sin ky `(sites, bands)`."""
        k = np.arange(self.num_bands)
        phases = 2 * np.pi / self.num_sites * (np.arange(self.num_sites)[:, None] * k % self.num_sites)
        return [jnp.asarray(a, dtype) for a in (self.filters[k, k], np.cos(phases), np.sin(phases))]


def _filtered_waves(
    filters: Float[np.ndarray, "bands *coarse_half"], coarse: Shape
) -> tuple[Float[np.ndarray, "half outputs"], Float[np.ndarray, "half outputs"]]:
    """cos ky and sin ky times the filter of each band, for every wave vector k, site y and band, sites first.

    On lattices of some hundred sites two products with these matrices are several times faster than a Fourier
    transform for each band.
    """
    sites = np.indices(coarse).reshape(len(coarse), -1)
    numbers = np.indices(filters.shape[1:]).reshape(len(coarse), -1)
    phases = 2 * np.pi * sum(np.outer(k, y) % n / n for k, y, n in zip(numbers, sites, coarse, strict=True))
    flat = filters.reshape(len(filters), -1).T
    cos, sin = (
        frozen((wave[:, :, None] * flat[:, None, :]).reshape(len(flat), -1))
        for wave in (np.cos(phases), np.sin(phases))
    )
    return cos, sin


def _same_at_every_site(shape: Shape, whitening: Whitening | None) -> tuple[np.ndarray, Float[np.ndarray, "*lattice"]]:
    """The mean of a site and the eigenvalues of L."""
    if not shape or min(shape) < 1:
        raise InputError(f"lattice_shape must be the number of sites along each axis, got {shape}")
    whitening = whitening or Whitening.identity(math.prod(shape))
    mean = whitening.mean
    scale = whitening.decode
    same = mean.shape == (math.prod(shape),) and np.allclose(mean, mean[0])
    if same and isinstance(scale, Circulant) and scale.eigenvalues.shape == shape:
        return frozen(mean.mean()), scale.eigenvalues
    if same and isinstance(scale, np.ndarray) and scale.ndim == 1 and np.allclose(scale, scale[0]):
        return frozen(mean.mean()), np.full(shape, scale[0])
    raise InputError(
        f"on a lattice of shape {shape} the whitening must be the same at every site: a mean of one value, and as "
        f"scale a number or a Circulant of that shape"
    )


def _wave_numbers(shape: Shape) -> list[Float[np.ndarray, "*half"]]:
    """The |k_i| of each wave vector of the half, one array for each axis."""
    axes = [np.abs(np.fft.fftfreq(n) * n) for n in shape[:-1]] + [np.arange(shape[-1] // 2 + 1.0)]
    return list(np.meshgrid(*axes, indexing="ij"))


def _multiplicity(shape: Shape) -> Float[np.ndarray, "*half"]:
    """The number of wave vectors that each one of the half stands for: itself, and -k where that is not in the half."""
    last = _wave_numbers(shape)[-1]
    return np.where((last == 0) | (2 * last == shape[-1]), 1.0, 2.0)


def _num_kept(num_sites: int, num_coarse: int) -> int:
    """The number of |k| on a coarser axis, without its own Nyquist frequency unless that is the lattice's."""
    return num_coarse // 2 + 1 if num_coarse == num_sites else (num_coarse + 1) // 2


def _shells(shape: Shape, coarse: Shape) -> Float[np.ndarray, "bands *coarse_half"]:
    """1 at the wave vectors of each band, 0 elsewhere: a band has one length |k|, in units of Nyquist's frequency."""
    numbers = _wave_numbers(coarse)
    kept = np.all([k < _num_kept(n, c) for k, n, c in zip(numbers, shape, coarse, strict=True)], axis=0)
    squares = np.round(sum((k / n) ** 2 for k, n in zip(numbers, shape, strict=True)), 9)
    lengths, shell = np.unique(squares[kept], return_inverse=True)
    if len(lengths) > _MAX_BANDS:
        radius = np.sqrt(squares[kept] / lengths[-1])
        shell = np.unique(np.minimum((radius * _MAX_BANDS).astype(int), _MAX_BANDS - 1), return_inverse=True)[1]
    masks = np.zeros((shell.max() + 1, *kept.shape))
    masks[(shell, *np.nonzero(kept))] = 1
    return masks


def _crop(z: Any, coarse: Shape) -> Any:
    """Values at the wave vectors of a coarser lattice, from JAX or NumPy values at the half of a finer lattice's."""
    for axis, num in enumerate(coarse[:-1]):
        n = z.shape[axis]
        if n > num:
            low = jax.lax.slice_in_dim(z, 0, num - num // 2, axis=axis)
            z = jnp.concatenate([low, jax.lax.slice_in_dim(z, n - num // 2, n, axis=axis)], axis)
    return z[..., : coarse[-1] // 2 + 1]


def _embed(v: Complex[Array, "*coarse_half"], shape: Shape, coarse: Shape) -> Complex[Array, "*half"]:
    """The transpose of `_crop`."""
    half = jax.ShapeDtypeStruct((*shape[:-1], shape[-1] // 2 + 1), v.dtype)
    return jax.linear_transpose(lambda z: _crop(z, coarse), half)(v)[0]
