"""What the baselines share: the answer that each returns, the Gaussian that it starts from, and its covariances."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics.compiling import Stopwatch

_TARGET_ACCEPTANCE = 0.75
_SHRINK = 1e-3


class Answer(NamedTuple):
    """The estimates of a baseline and their cost."""

    log_z: float  # NaN from a method without an estimate
    mean: Float[np.ndarray, " dim"]  # of x
    square: Float[np.ndarray, " dim"]  # the mean of x²
    seconds: float  # of the compiled programs, without compilation
    compile_seconds: float  # of tracing and compiling
    energy_evaluations: int  # without the gradient
    gradient_evaluations: int  # of the energy with its gradient
    detail: dict[str, float]  # diagnostics by name, such as the acceptance rate

    @property
    def evaluations(self) -> int:
        """Evaluations of the energy, with or without its gradient."""
        return self.energy_evaluations + self.gradient_evaluations


def answer_of(
    watch: Stopwatch, log_z: float, mean: Any, covariance: Any, detail: dict, gradients: int, energies: int = 0
) -> Answer:
    """The answer of a method that has the mean and covariance of x and a number of evaluations of each kind."""
    mean = np.asarray(mean, np.float64)
    square = mean**2 + np.diag(np.asarray(covariance, np.float64))
    return Answer(log_z, mean, square, watch.seconds, watch.compile_seconds, energies, gradients, detail)


def wide_gaussian(dim: int, std: float) -> Gaussian:
    """N(0, std² I). Its scale is a matrix, so that a fitted Gaussian runs in the same compiled program."""
    return Gaussian.from_scale_tril(np.zeros(dim), std * np.eye(dim))


def fitted_gaussian(mean: Any, covariance: Any) -> Gaussian:
    """The Gaussian with these moments."""
    return Gaussian.from_scale_tril(np.asarray(mean), np.linalg.cholesky(np.asarray(covariance, np.float64)))


def draw(gaussian: Gaussian, key: PRNGKeyArray, num: int) -> Float[Array, "num dim"]:
    """Independent samples."""
    return jax.vmap(gaussian.unwhiten)(jax.random.normal(key, (num, gaussian.dim)))


def adapted(size: Float[Array, "*n"], acceptance: Float[Array, "*n"], gain: float) -> Float[Array, "*n"]:
    """Step sizes of Hamiltonian moves after a step of `gain` towards an acceptance rate of 0.75."""
    return jnp.clip(size * jnp.exp(gain * (acceptance - _TARGET_ACCEPTANCE)), 1e-4, 1.5)


def shrunk(covariance):
    """Covariances `(..., dim, dim)`, correlations reduced by 0.1 %, so that each has a Cholesky factor."""
    identity = np.eye(covariance.shape[-1])
    return covariance * (1 - _SHRINK + _SHRINK * identity) + 1e-15 * identity
