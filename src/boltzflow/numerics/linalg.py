"""The square root L of a covariance Σ = L Lᵀ, its *scale*.

A scale is a vector (diagonal, cost n), a lower triangle (cost n²), or a `Circulant` (the same at every site of a
periodic lattice, cost n log n). Matrix products have the highest precision: a TF32 product would put errors of 1e-3
into an energy.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.errors import InputError
from boltzflow.numerics.validation import frozen, real_array


class Circulant(eqx.Module):
    """A symmetric positive matrix that is the same at every site of a periodic lattice: diagonal in Fourier space.

    Raises `InputError` if an eigenvalue is not positive, or differs between k and -k.
    """

    eigenvalues: Float[np.ndarray, "*lattice"]  # in the order of `np.fft.fftn`; sites in C order

    def __init__(self, eigenvalues: Any):
        self.eigenvalues = real_array("eigenvalues", eigenvalues)
        if self.eigenvalues.ndim == 0 or not np.all(self.eigenvalues > 0):
            raise InputError(f"eigenvalues must be a lattice of positive numbers, got {self.eigenvalues!r}")
        axes = tuple(range(self.eigenvalues.ndim))
        mirrored = np.roll(np.flip(self.eigenvalues, axes), 1, axes)
        if not np.allclose(mirrored, self.eigenvalues, rtol=1e-6):
            raise InputError("eigenvalues must be the same for a wave vector and its opposite")

    @property
    def dim(self) -> int:
        """The number of sites."""
        return self.eigenvalues.size

    def __call__(self, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The matrix times `z`."""
        return multiply_circulant(self.eigenvalues, z)

    def matrix(self) -> Float[np.ndarray, "dim dim"]:
        """The matrix."""
        kernel = np.fft.ifftn(self.eigenvalues).real
        sites = np.indices(kernel.shape).reshape(kernel.ndim, -1)
        apart = (sites[:, :, None] - sites[:, None, :]) % np.array(kernel.shape)[:, None, None]
        return frozen(kernel[tuple(apart)])


Scale = np.ndarray | Circulant


def multiply_circulant(
    eigenvalues: Float[Array, "*lattice"] | Float[np.ndarray, "*lattice"], z: Float[Array, "*batch dim"]
) -> Float[Array, "*batch dim"]:
    """The circulant matrix of `eigenvalues` times each vector in `z`."""
    shape = eigenvalues.shape
    half = jnp.asarray(eigenvalues[..., : shape[-1] // 2 + 1], z.dtype)
    axes = tuple(range(-len(shape), 0))
    waves = half * jnp.fft.rfftn(z.reshape(*z.shape[:-1], *shape), axes=axes)
    return jnp.fft.irfftn(waves, shape, axes=axes).reshape(z.shape)


def scale_from_covariance(name: str, covariance: Any, dim: int) -> np.ndarray:
    """The scale L of a variance `()` or variances `(dim,)`, as `(dim,)`, or of a matrix `(dim, dim)`, by Cholesky."""
    array = real_array(name, covariance)
    if array.shape in ((), (dim,)):
        if not np.all(array > 0):
            raise InputError(f"{name} must be positive, got a smallest variance of {array.min():.6g}")
        return frozen(np.broadcast_to(np.sqrt(array), (dim,)))
    if array.shape != (dim, dim):
        raise InputError(f"{name} must have shape (), ({dim},) or ({dim}, {dim}), got {array.shape}")
    if not np.allclose(array, array.T, rtol=1e-5, atol=1e-7 * np.abs(array).max()):
        raise InputError(f"{name} must be symmetric, got a largest asymmetry of {np.abs(array - array.T).max():.3g}")
    try:
        return frozen(np.linalg.cholesky((array + array.T) / 2))
    except np.linalg.LinAlgError:
        smallest = np.linalg.eigvalsh((array + array.T) / 2).min()
        raise InputError(f"{name} must be positive definite, got a smallest eigenvalue of {smallest:.3g}") from None


def check_scale(name: str, scale: Any, dim: int) -> Scale:
    """Check a scale given as `()`, `(dim,)`, lower triangle `(dim, dim)` or `Circulant`; its diagonal is positive."""
    if isinstance(scale, Circulant):
        if scale.dim != dim:
            raise InputError(f"{name} must have {dim} sites, got a lattice of {scale.eigenvalues.shape}")
        return scale
    array = real_array(name, scale)
    if array.shape not in ((), (dim,), (dim, dim)):
        raise InputError(f"{name} must have shape (), ({dim},) or ({dim}, {dim}), got {array.shape}")
    if array.ndim == 2 and np.any(np.triu(array, 1)):
        raise InputError(f"{name} must be lower triangular, got non-zero entries above the diagonal")
    diagonal = np.diag(array) if array.ndim == 2 else array
    if not np.all(diagonal > 0):
        raise InputError(f"{name} must have a positive diagonal, got a smallest entry of {diagonal.min():.6g}")
    return array if array.ndim == 2 else frozen(np.broadcast_to(array, (dim,)))


def check_orthonormal(columns: Any, dim: int) -> np.ndarray:
    """Check orthonormal columns `(dim, size)`: with any others densities and divergences would be wrong."""
    array = real_array("subspace", columns)
    if array.ndim != 2 or array.shape[0] != dim or not 1 <= array.shape[1] <= dim:
        raise InputError(f"subspace must have shape ({dim}, size) with size from 1 to {dim}, got {array.shape}")
    if not np.allclose(array.T @ array, np.eye(array.shape[1]), atol=1e-6):
        raise InputError("subspace must be orthonormal columns")
    return array


def inverse(scale: Scale) -> Scale:
    """L⁻¹ in the form of L. Multiplication by it is faster than a solve, above all for a batch of points."""
    if isinstance(scale, Circulant):
        return Circulant(1 / scale.eigenvalues)
    return frozen(1 / scale) if scale.ndim == 1 else frozen(np.tril(np.linalg.inv(scale)))


def log_det(scale: Scale) -> float:
    """log |L| = ½ log |Σ|."""
    if isinstance(scale, Circulant):
        return math.fsum(np.log(scale.eigenvalues).ravel())
    return float(np.sum(np.log(scale if scale.ndim == 1 else np.diag(scale))))


def dense(scale: Scale) -> np.ndarray:
    """L of any form as a matrix `(dim, dim)`."""
    if isinstance(scale, Circulant):
        return scale.matrix()
    return frozen(np.diag(scale)) if scale.ndim == 1 else scale


def apply(scale: Scale | Array, z: Float[Array, " dim"]) -> Float[Array, " rows"]:
    """L z, for L of shape `(dim,)`, `(rows, dim)` or a `Circulant`, in the type of `z`."""
    if isinstance(scale, Circulant):
        return scale(z)
    scale = jnp.asarray(scale, z.dtype)
    return scale * z if scale.ndim == 1 else jnp.matmul(scale, z, precision="highest")
