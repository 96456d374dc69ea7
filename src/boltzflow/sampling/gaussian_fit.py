"""The Gaussian nearest to a target, from points of the target and the gradients there, and where the two differ.

Two identities of Stein, E[g] = 0 and E[z gᵀ] = I for the gradient g of the energy in the coordinate z, turn the
gradients into control variates, which cancel nearly all of the sampling error where the target is nearly Gaussian.

The target usually differs from its Gaussian in a few directions only: those of large H = E[(g - z)(g - z)ᵀ]. Half of
the trace of H over the others bounds the divergence that is out of reach (Zahm, Cui, Law, Spantini & Marzouk, 2022).
"""

import jax
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity, is_sign_symmetric, lattice_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.numerics import linalg
from boltzflow.numerics.batching import map_batches
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.linalg import Circulant

Points = Float[np.ndarray, "num dim"]
Matrix = Float[np.ndarray, "dim dim"]
Lattice = tuple[int, ...]
_TAIL = 1e-3  # the trace of H that is left out: half of it bounds the KL divergence that no training can remove
_BLOCK = 8  # the number of directions is rounded up to a multiple: similar seeds then have the same shapes
_LEAST_POINTS = 10  # for each dimension, by which linear parts are known
_LEAST_PRECISION = 0.2  # in units of the base
_REFINEMENTS = 3
_ROUNDING = 1e-12  # the variance of a constant gradient in single precision, relative to its square
_LEAST_VARIANCE = 1e-200  # of a control variate: a quotient with a smaller one may exceed all numbers
_LEAST_SQUARE = 1e-4  # of a gradient in units where a Gaussian's is 1; a smaller one carries no information


def fit_to_points(target: AbstractDensity, x: Float[Array | np.ndarray, "num dim"]) -> Gaussian:
    """The Gaussian nearest to the target, from points of it `(num, dim)`."""
    return fit_gaussian(np.asarray(x), gradients_at(target, x), lattice_of(target), is_sign_symmetric(target))


def gradients_at(target: AbstractDensity, x: Float[Array | np.ndarray, "num dim"]) -> Float[np.ndarray, "num dim"]:
    """The gradient of the energy at each point."""
    return np.asarray(map_batches(lambda batch: _gradients(target, batch), x))


@compiled
def _gradients(target, x):
    return jax.vmap(jax.grad(target.energy))(x)


def inflated(base: Gaussian, factor: float) -> Gaussian:
    """The Gaussian, `factor` times as wide."""
    if isinstance(base.scale, Circulant):
        return Gaussian(base.mean, scale_tril=Circulant(factor * base.scale.eigenvalues))
    return Gaussian(base.mean, scale_tril=factor * base.scale)


def fit_gaussian(x: Points, gradient: Points, lattice: Lattice | None = None, sign_symmetric: bool = False) -> Gaussian:
    """The mean and covariance of the law of the points `x` from the gradients of its energy there."""
    x, gradient = _usable(x, gradient)
    if lattice is not None:
        return _fit_on_lattice(x, gradient, lattice, sign_symmetric)
    mean = np.zeros(x.shape[1]) if sign_symmetric else x.mean(axis=0)
    second_moment = (x - mean).T @ (x - mean) / len(x)
    shrink = min(0.5, x.shape[1] / (4.0 * x.shape[0]))
    diagonal = np.diag(np.diag(second_moment))
    covariance = (1 - shrink) * second_moment + shrink * diagonal + _jitter(second_moment)
    # The covariance of the Gaussian in whose coordinates the control variates are taken.
    whitening = _between(covariance, x - mean, gradient if sign_symmetric else gradient - gradient.mean(axis=0))
    for _ in range(_REFINEMENTS):
        scale = np.linalg.cholesky(whitening)
        z = np.linalg.solve(scale, (x - mean).T).T
        g = gradient @ scale
        varying = g - g.mean(axis=0)
        variance = (varying**2).mean(axis=0)
        variance = np.where(variance > _ROUNDING * (g**2).mean(axis=0), variance, 0.0)
        shift = z.mean(axis=0) - _coefficient((z * varying).mean(axis=0), variance) * g.mean(axis=0)
        shift = np.zeros_like(shift) if sign_symmetric else shift
        refined = _controlled_covariance(z - shift, g)
        if np.linalg.eigvalsh(refined)[0] < 0.05:  # too few points: keep the covariance of the last round
            break
        mean = mean + scale @ shift
        whitening = scale @ refined @ scale.T
        covariance = whitening = (whitening + whitening.T) / 2
    return Gaussian(mean, covariance)


def active_subspace(
    base: Gaussian, x: Points, gradient: Points, lattice: Lattice | None = None
) -> Float[np.ndarray, "dim size"]:
    """The orthonormal directions of z = L⁻¹(x - mean) in which a target differs from `base`; waves on a `lattice`."""
    _, difference = _difference(base, x, gradient)
    if lattice is None:
        return _eigenvectors(difference)
    directions = _waves(lattice)
    return _strongest(((difference @ directions) ** 2).mean(axis=0), directions)


def left_out(
    target: AbstractDensity, base: Gaussian, x: Float[Array | np.ndarray, "num dim"], subspace: Matrix
) -> float:
    """The trace of H outside the `subspace`, from points of the target: twice the KL divergence that it may hide."""
    _, difference = _difference(base, np.asarray(x), gradients_at(target, x))
    return float(np.mean(np.sum(difference**2, axis=1) - np.sum((difference @ subspace) ** 2, axis=1)))


def aligned_base(base: Gaussian, x: Points, gradient: Points) -> Gaussian:
    """The base without its errors of sampling outside the active subspace, if that makes the subspace smaller.

    A linear part of the difference g - z is an error of the base: where the base has the moments of the target it is
    zero. What is not linear gives directions R. Outside, along Q, the gradient is that of a Gaussian given Rᵀz,
    P Qᵀz + B Rᵀz + b, and a regression gives P, B and b.
    """
    z, difference = _difference(base, x, gradient)
    num, dim = z.shape
    if dim <= _BLOCK or num < _LEAST_POINTS * dim:
        return base
    affine = np.concatenate([np.ones((num, 1)), z], axis=1)
    linear = np.linalg.lstsq(affine, difference)[0]
    subspace = _eigenvectors(difference - affine @ linear)
    size = subspace.shape[1]
    if size >= _eigenvectors(difference).shape[1]:
        return base
    outside = np.linalg.svd(subspace)[0][:, size:]
    constant, slope = linear[0] @ outside, (linear[1:] @ outside).T
    precision = np.eye(dim - size) + slope @ outside
    squares, axes = np.linalg.eigh((precision + precision.T) / 2)
    if squares[0] < _LEAST_PRECISION:  # too few points
        return base
    inverse = axes / squares @ axes.T
    moved = subspace @ subspace.T - outside @ inverse @ slope @ subspace @ subspace.T
    moved += outside @ axes / np.sqrt(squares) @ axes.T @ outside.T
    scale = linalg.dense(base.scale)
    moved = scale @ moved
    return Gaussian(base.mean - scale @ outside @ inverse @ constant, moved @ moved.T)


def _difference(base: Gaussian, x: Points, gradient: Points) -> tuple[Points, Points]:
    """The points z in the coordinates of the base, and by how much the gradient there differs from z."""
    x, gradient = _usable(x, gradient)
    z = (x - base.mean) @ linalg.dense(base.inverse_scale).T
    return z, gradient @ linalg.dense(base.scale) - z


def _eigenvectors(difference: Points) -> Float[np.ndarray, "dim size"]:
    return _strongest(*np.linalg.eigh(difference.T @ difference / len(difference)))


def _strongest(strengths: Float[np.ndarray, " dim"], directions: Matrix) -> Float[np.ndarray, "dim size"]:
    """The fewest directions that leave out no more than the tail, in a whole number of blocks."""
    order = np.argsort(-strengths, kind="stable")
    strengths = strengths[order]
    left_out = np.append(np.cumsum(strengths[::-1])[::-1][1:], 0.0)
    size = 1 + int(np.argmax(left_out <= _TAIL))
    return np.ascontiguousarray(directions[:, order[: -(-size // _BLOCK) * _BLOCK]])


def _usable(x: Points, gradient: Points) -> tuple[Float[np.ndarray, "kept dim"], Float[np.ndarray, "kept dim"]]:
    """The points with a finite gradient, and these gradients, in double precision."""
    finite = np.isfinite(gradient).all(axis=1)
    if np.sum(finite) < 2:
        first = ", ".join(f"{value:.4g}" for value in x[np.argmin(finite), :4])
        raise InputError(
            f"The gradient of the energy is not finite at {np.sum(~finite)} of the {len(x)} points that the pilot "
            f"found, as at x = ({first}{', ...' if x.shape[1] > 4 else ''}): is the energy smooth there, and does it "
            "grow outwards?"
        )
    return np.asarray(x, np.float64)[finite], np.asarray(gradient, np.float64)[finite]


def _jitter(covariance: Matrix) -> Matrix:
    """The amount that rounding may take from an eigenvalue, as a diagonal matrix."""
    return (1e-12 * np.mean(np.diag(covariance)) + 1e-30) * np.eye(len(covariance))


def _between(covariance: Matrix, x: Points, gradient: Points) -> Matrix:
    """The Σ with Σ E[g gᵀ] Σ = E[x xᵀ], for centered points: the covariance of a Gaussian, without sampling error."""
    num, dim = x.shape
    if num <= dim + 1:
        return covariance
    second_moment = x.T @ x / num
    scale = np.linalg.cholesky(second_moment + _jitter(second_moment))
    squares, axes = np.linalg.eigh(scale.T @ (gradient.T @ gradient / num) @ scale)
    factor = scale @ axes * np.maximum(squares, _LEAST_SQUARE) ** -0.25
    return factor @ factor.T


def _coefficient(covariance, variance):
    """The coefficient of a control variate that leaves the smallest variance; 0 where the variate hardly varies."""
    return np.where(variance > _LEAST_VARIANCE, covariance / np.maximum(variance, _LEAST_VARIANCE), 0.0)


def _controlled_covariance(z: Points, g: Points) -> Matrix:
    """E[z zᵀ] with the control variate (z gᵀ + g zᵀ)/2 - I, whose mean is 0; each entry has its own coefficient."""
    n = len(z)
    plain = z.T @ z / n
    control = (z.T @ g + g.T @ z) / (2 * n)
    z2 = z**2
    g2 = g**2
    zg = z * g
    variance = (z2.T @ g2 + g2.T @ z2 + 2 * zg.T @ zg) / (4 * n) - control**2
    covariance = (z2.T @ zg + zg.T @ z2) / (2 * n) - plain * control
    return plain - _coefficient(covariance, variance) * (control - np.eye(len(plain)))


# --- on a lattice -----------------------------------------------------------------------------------------------------


def _fit_on_lattice(x: Points, gradient: Points, lattice: Lattice, centered: bool) -> Gaussian:
    """The Gaussian with the same mean and the same covariance at every site; `centered` sets the mean to 0."""
    axes = tuple(range(1, 1 + len(lattice)))
    mean = np.zeros(x.shape[1])
    if not centered:
        site_mean = x.mean(axis=1)
        slope = gradient.mean(axis=1)
        covariance = np.cov(site_mean, slope)
        mean += site_mean.mean() - _coefficient(covariance[0, 1], covariance[1, 1]) * slope.mean()
    waves = np.fft.fftn((x - mean).reshape(-1, *lattice), axes=axes, norm="ortho")
    slopes = np.fft.fftn(gradient.reshape(-1, *lattice), axes=axes, norm="ortho")
    # A wave and its opposite have the same spectrum: together they are twice the data.
    plain = _even(np.abs(waves) ** 2, axes)
    control = _even((waves.conj() * slopes).real, axes)  # its mean is 1
    deviation = control - control.mean(axis=0)
    covariance = ((plain - plain.mean(axis=0)) * deviation).mean(axis=0)
    coefficient = _coefficient(covariance, (deviation**2).mean(axis=0))
    spectrum = plain.mean(axis=0) - coefficient * (control.mean(axis=0) - 1)
    spectrum = np.where(spectrum > 0.05 * plain.mean(axis=0), spectrum, plain.mean(axis=0))
    return Gaussian(mean, scale_tril=linalg.Circulant(np.sqrt(spectrum)))


def _even(a: Float[np.ndarray, "num *lattice"], axes: Lattice) -> Float[np.ndarray, "num *lattice"]:
    """The mean of an array and its mirror image along `axes`."""
    return (a + np.roll(np.flip(a, axes), 1, axes)) / 2


def _waves(lattice: Lattice) -> Matrix:
    """An orthonormal basis of real waves: a cosine and a sine for every pair of opposite wave vectors."""
    sites = np.indices(lattice).reshape(len(lattice), -1)
    columns = []
    for k in np.ndindex(*lattice):
        opposite = tuple((-i) % n for i, n in zip(k, lattice, strict=True))
        if opposite < k:
            continue
        phase = 2 * np.pi * sum(i * s / n for i, s, n in zip(k, sites, lattice, strict=True))
        columns.append(np.cos(phase))
        if k != opposite:
            columns.append(np.sin(phase))
    return np.stack([c / np.linalg.norm(c) for c in columns], axis=1)
