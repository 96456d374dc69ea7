"""What the baselines share: the answer that each returns, the Gaussian that it starts from, and its covariances."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.gaussian import Gaussian

_TARGET_ACCEPTANCE = 0.75
_SHRINK = 1e-3


class Answer(NamedTuple):
    """The estimates of a baseline and their cost.

    Attributes:
        log_z: The estimate of log Z; NaN from a method without one.
        mean: The mean of x, `(dim,)`.
        square: The mean of x², `(dim,)`.
        seconds: Time of the compiled programs, without compilation.
        compile_seconds: Time of tracing and compiling.
        energy_evaluations: Evaluations of the energy without its gradient.
        gradient_evaluations: Evaluations of the energy with its gradient.
        detail: Diagnostics by name, such as the acceptance rate.
    """

    log_z: float
    mean: Float[np.ndarray, " dim"]
    square: Float[np.ndarray, " dim"]
    seconds: float
    compile_seconds: float
    energy_evaluations: int
    gradient_evaluations: int
    detail: dict[str, float]

    @property
    def evaluations(self) -> int:
        """Evaluations of the energy, with or without its gradient."""
        return self.energy_evaluations + self.gradient_evaluations


def wide_gaussian(dim: int, std: float) -> Gaussian:
    """N(0, std² I). Its scale is a matrix, so that a fitted Gaussian runs in the same compiled program."""
    return Gaussian.from_scale_tril(np.zeros(dim), std * np.eye(dim))


def fitted_gaussian(mean: Float[np.ndarray, " dim"], covariance: Float[np.ndarray, "dim dim"]) -> Gaussian:
    """The Gaussian with these moments."""
    return Gaussian.from_scale_tril(mean, np.linalg.cholesky(np.asarray(covariance, np.float64)))


def draw(gaussian: Gaussian, key: PRNGKeyArray, num: int) -> Float[Array, "num dim"]:
    """Independent samples, to be called inside or outside jit."""
    return jax.vmap(gaussian.unwhiten)(jax.random.normal(key, (num, gaussian.dim)))


def adapted(size: Float[Array, "*n"], acceptance: Float[Array, "*n"], gain: float) -> Float[Array, "*n"]:
    """Step sizes of Hamiltonian moves after a step of `gain` towards an acceptance rate of 0.75."""
    return jnp.clip(size * jnp.exp(gain * (acceptance - _TARGET_ACCEPTANCE)), 1e-4, 1.5)


def shrunk(covariance):
    """Covariances `(..., dim, dim)`, correlations reduced by 0.1 %, so that each has a Cholesky factor."""
    identity = np.eye(covariance.shape[-1])
    return covariance * (1 - _SHRINK + _SHRINK * identity) + 1e-15 * identity
