"""The Gaussian nearest to a target, from points of the target and the gradients there, and where the two differ.

A covariance from n points alone errs by 1/√n in every direction, which in 64 dimensions costs a flow more than the
target's own shape does. Two identities of Stein, E[g] = 0 and E[z gᵀ] = I for g the gradient of the energy in the
coordinate z, make control variates of the gradients: where the target is nearly Gaussian, g is nearly z, and nearly
all of that error cancels.

What is left is not Gaussian in a few directions only, as a rule: those of large H = E[(g - z)(g - z)ᵀ]. By the
logarithmic Sobolev inequality of the Gaussian, half of the trace of H over the other directions bounds the divergence
between the target and the best law that differs from the Gaussian in the first ones alone (Zahm, Cui, Law, Spantini &
Marzouk, 2022): a flow need not look anywhere else.
"""

import numpy as np
from jaxtyping import Float

from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.numerics import linalg

_TAIL = 1e-3  # trace of H that is left out: half of it bounds the KL divergence that no training can remove
_BLOCK = 8  # the number of directions is rounded up to a multiple: seeds that differ little have the same shapes
_REFINEMENTS = 3
_ROUNDING = 1e-12  # variance of a gradient in single precision that does not vary, relative to its square
_LEAST_SQUARE = 1e-4  # of a gradient, where the points' own scale is 1 and a Gaussian's is 1: less says nothing


def fit_gaussian(
    x: Float[np.ndarray, "num dim"],
    gradient: Float[np.ndarray, "num dim"],
    lattice: tuple[int, ...] | None = None,
    sign_symmetric: bool = False,
) -> Gaussian:
    """The Gaussian with the mean and covariance of the law of the points `x`, `gradient` that of its energy there.

    On a lattice the covariance is the same at every site, as an average over all shifts; where x and -x are alike the
    mean is 0.
    """
    x, gradient = _usable(x, gradient)
    if lattice is not None:
        return _fit_on_lattice(x, gradient, lattice, sign_symmetric)
    mean = np.zeros(x.shape[1]) if sign_symmetric else x.mean(axis=0)
    covariance = _sample_covariance(x - mean)
    frame = _between(covariance, x - mean, gradient if sign_symmetric else gradient - gradient.mean(axis=0))
    for _ in range(_REFINEMENTS):
        scale = np.linalg.cholesky(frame)
        z, g = np.linalg.solve(scale, (x - mean).T).T, gradient @ scale
        varying = g - g.mean(axis=0)
        variance = (varying**2).mean(axis=0)
        variance = np.where(variance > _ROUNDING * (g**2).mean(axis=0), variance, 0.0)
        shift = z.mean(axis=0) - _coefficient((z * varying).mean(axis=0), variance) * g.mean(axis=0)
        shift = np.zeros_like(shift) if sign_symmetric else shift
        refined = _controlled_covariance(z - shift, g)
        if np.linalg.eigvalsh(refined)[0] < 0.05:  # too few points: what is known without this it is
            break
        mean, frame = mean + scale @ shift, scale @ refined @ scale.T
        covariance = frame = (frame + frame.T) / 2
    return Gaussian(mean, covariance)


def active_subspace(
    base: Gaussian,
    x: Float[np.ndarray, "num dim"],
    gradient: Float[np.ndarray, "num dim"],
    lattice: tuple[int, ...] | None = None,
) -> Float[np.ndarray, "dim size"]:
    """Orthonormal directions of z = L⁻¹(x - mean) in which the target differs from `base`, the largest H first.

    As many as leave at most 10⁻³ of the trace of H outside, rounded up to a multiple of 8. On a lattice they are waves.
    """
    x, gradient = _usable(x, gradient)
    scale, inverse = linalg.dense(base.scale), linalg.dense(base.inverse_scale)
    difference = gradient @ scale - (x - base.mean) @ inverse.T
    if lattice is not None:
        directions = _waves(lattice)
        strengths = ((difference @ directions) ** 2).mean(axis=0)
        order = np.argsort(-strengths, kind="stable")
        strengths, directions = strengths[order], directions[:, order]
    else:
        strengths, directions = np.linalg.eigh(difference.T @ difference / len(difference))
        strengths, directions = strengths[::-1], directions[:, ::-1]
    left_out = np.append(np.cumsum(strengths[::-1])[::-1][1:], 0.0)
    size = 1 + int(np.argmax(left_out <= _TAIL))
    return np.ascontiguousarray(directions[:, : min(base.dim, -(-size // _BLOCK) * _BLOCK)])


def _usable(x, gradient):
    x, gradient = np.asarray(x, np.float64), np.asarray(gradient, np.float64)
    finite = np.isfinite(gradient).all(axis=1)
    if np.sum(finite) < 2:
        raise InputError("The gradient of the energy is not finite where the pilot found the target: mend it there.")
    return x[finite], gradient[finite]


def _sample_covariance(x):
    """The second moment of centered points, shrunk a little to its diagonal so that it has a Cholesky factor."""
    covariance = x.T @ x / len(x)
    shrink = min(0.5, x.shape[1] / (4.0 * x.shape[0]))
    diagonal = np.diag(np.diag(covariance))
    return (1 - shrink) * covariance + shrink * diagonal + _hair(covariance)


def _hair(covariance):
    """What rounding may take from an eigenvalue."""
    return (1e-12 * np.mean(np.diag(covariance)) + 1e-30) * np.eye(len(covariance))


def _between(covariance, x, gradient):
    """The Σ of which Σ E[g gᵀ] Σ = E[x xᵀ], for centered points: a Gaussian's covariance, without an error of sampling.

    In its coordinates a Gaussian has g = z to the last bit; so control variates leave least of the error there.
    """
    num, dim = x.shape
    if num <= dim + 1:
        return covariance
    second_moment = x.T @ x / num
    scale = np.linalg.cholesky(second_moment + _hair(second_moment))
    squares, axes = np.linalg.eigh(scale.T @ (gradient.T @ gradient / num) @ scale)
    factor = scale @ axes * np.maximum(squares, _LEAST_SQUARE) ** -0.25
    return factor @ factor.T


def _coefficient(covariance, variance):
    """Of a control variate: the one that leaves least variance."""
    return np.where(variance > 0, covariance / np.maximum(variance, 1e-300), 0.0)


def _controlled_covariance(z, g):
    """E[z zᵀ] with (z gᵀ + g zᵀ)/2 - I, whose mean is 0, as control variate, each entry with its own coefficient."""
    n = len(z)
    plain, control = z.T @ z / n, (z.T @ g + g.T @ z) / (2 * n)
    z2, g2, zg = z**2, g**2, z * g
    variance = (z2.T @ g2 + g2.T @ z2 + 2 * zg.T @ zg) / (4 * n) - control**2
    covariance = (z2.T @ zg + zg.T @ z2) / (2 * n) - plain * control
    return plain - _coefficient(covariance, variance) * (control - np.eye(len(plain)))


def _fit_on_lattice(x, gradient, lattice, sign_symmetric):
    axes = tuple(range(1, 1 + len(lattice)))
    mean = np.full(x.shape[1], 0.0 if sign_symmetric else _mean_on_lattice(x, gradient))
    waves = np.fft.fftn((x - mean).reshape(-1, *lattice), axes=axes, norm="ortho")
    slopes = np.fft.fftn(gradient.reshape(-1, *lattice), axes=axes, norm="ortho")
    plain, control = np.abs(waves) ** 2, (waves.conj() * slopes).real  # the mean of the second is 1
    # A wave and its opposite have the same spectrum: together they are twice the data.
    plain, control = (_even(a, axes) for a in (plain, control))
    centered = plain - plain.mean(axis=0), control - control.mean(axis=0)
    coefficient = _coefficient((centered[0] * centered[1]).mean(0), (centered[1] ** 2).mean(0))
    spectrum = plain.mean(axis=0) - coefficient * (control.mean(axis=0) - 1)
    spectrum = np.where(spectrum > 0.05 * plain.mean(axis=0), spectrum, plain.mean(axis=0))
    return Gaussian(mean, scale_tril=linalg.Circulant(np.sqrt(spectrum)))


def _mean_on_lattice(x, gradient):
    """The mean of any site, with the mean gradient as control variate."""
    x, gradient = x.mean(axis=1), gradient.mean(axis=1)
    covariance = np.cov(x, gradient)
    return x.mean() - _coefficient(covariance[0, 1], covariance[1, 1]) * gradient.mean()


def _even(a, axes):
    return (a + np.roll(np.flip(a, axes), 1, axes)) / 2


def _waves(lattice: tuple[int, ...]) -> Float[np.ndarray, "dim dim"]:
    """An orthonormal basis of real waves: for every wave vector and its opposite a cosine and a sine."""
    dim = int(np.prod(lattice))
    sites = np.indices(lattice).reshape(len(lattice), -1)
    columns, seen = [], set()
    for k in np.ndindex(*lattice):
        opposite = tuple((-i) % n for i, n in zip(k, lattice, strict=True))
        if opposite in seen:
            continue
        seen.add(k)
        phase = 2 * np.pi * sum(i * s / n for i, s, n in zip(k, sites, lattice, strict=True))
        columns.append(np.cos(phase))
        if k != opposite:
            columns.append(np.sin(phase))
    return np.stack([c / np.linalg.norm(c) for c in columns], axis=1).reshape(dim, dim)
