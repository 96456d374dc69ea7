"""The square root L of a covariance Σ = L Lᵀ, either a vector (diagonal, cost n) or a lower triangle (cost n²).

Matrix products ask for the highest precision: a TF32 product would put errors of 1e-3 into an energy.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.arguments import frozen, real_array
from boltzflow.errors import InputError


def scale_from_covariance(name: str, covariance: Any, dim: int) -> np.ndarray:
    """The scale L of a covariance given as a variance `()`, variances `(dim,)` or a matrix `(dim, dim)`.

    Returns shape `(dim,)` (standard deviations) for the first two, `(dim, dim)` (the Cholesky factor) for the last.
    Raises `InputError` where the shape is another one or the covariance is not symmetric and positive definite.
    """
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


def check_scale(name: str, scale: Any, dim: int) -> np.ndarray:
    """A scale given as `()`, `(dim,)` or a lower triangle `(dim, dim)`; the diagonal must be positive."""
    array = real_array(name, scale)
    if array.shape not in ((), (dim,), (dim, dim)):
        raise InputError(f"{name} must have shape (), ({dim},) or ({dim}, {dim}), got {array.shape}")
    if array.ndim == 2 and np.any(np.triu(array, 1)):
        raise InputError(f"{name} must be lower triangular, got non-zero entries above the diagonal")
    diagonal = np.diag(array) if array.ndim == 2 else array
    if not np.all(diagonal > 0):
        raise InputError(f"{name} must have a positive diagonal, got a smallest entry of {diagonal.min():.6g}")
    return array if array.ndim == 2 else frozen(np.broadcast_to(array, (dim,)))


def inverse(scale: np.ndarray) -> np.ndarray:
    """L⁻¹ in the form of L. Multiplying by it is faster than solving, above all for a batch of points."""
    return frozen(1 / scale) if scale.ndim == 1 else frozen(np.tril(np.linalg.inv(scale)))


def log_det(scale: np.ndarray) -> float:
    """log |L|, half of log |Σ|."""
    return float(np.sum(np.log(scale if scale.ndim == 1 else np.diag(scale))))


def dense(scale: np.ndarray) -> np.ndarray:
    """L as a matrix `(dim, dim)`, whatever its form."""
    return frozen(np.diag(scale)) if scale.ndim == 1 else scale


def apply(scale: np.ndarray | Array, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """L z, for L of shape `(dim,)` or `(dim, dim)`, in the type of `z`."""
    scale = jnp.asarray(scale, z.dtype)
    return scale * z if scale.ndim == 1 else jnp.matmul(scale, z, precision="highest")
