"""The Gaussian that a peer starts from: its log Z_0 is known, so that a ratio of normalizations gives log Z."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray


class Start(NamedTuple):
    """N(mean, L Lᵀ) as arrays, so that another one is not another compilation; `mean` `(dim,)`, the others matrices."""

    mean: Float[Array, " dim"]
    scale_tril: Float[Array, "dim dim"]
    inverse: Float[Array, "dim dim"]

    @classmethod
    def wide(cls, dim: int, std: float) -> Self:
        """N(0, std² I)."""
        return cls(jnp.zeros(dim), std * jnp.eye(dim), jnp.eye(dim) / std)

    @classmethod
    def fitted(cls, mean: np.ndarray, covariance: np.ndarray) -> Self:
        """The Gaussian with the moments of a first run's points."""
        scale_tril = np.linalg.cholesky(np.asarray(covariance, np.float64))
        arrays = (mean, scale_tril, np.linalg.inv(scale_tril))
        return cls(*(jnp.asarray(array, jnp.float32) for array in arrays))

    def log_z(self) -> float:
        """log ∫ exp(-energy)."""
        scales = np.diag(np.asarray(self.scale_tril, np.float64))
        return float(0.5 * len(scales) * np.log(2 * np.pi) + np.log(scales).sum())

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """½ |L⁻¹ (x - mean)|² of one point."""
        return 0.5 * jnp.sum((self.inverse @ (x - self.mean)) ** 2)

    def sample(self, key: PRNGKeyArray, num: int) -> Float[Array, "num dim"]:
        """Independent samples."""
        return self.mean + jax.random.normal(key, (num, self.mean.size)) @ self.scale_tril.T


class Answer(NamedTuple):
    """What a peer found and what it cost: log Z (NaN where it gives none), the means of x and of x², `(dim,)`; seconds
    of running and of compiling, evaluations of the target's energy alone and with its gradient; `detail` says how it
    went."""

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
        """Of the energy, with a gradient or without one."""
        return self.energy_evaluations + self.gradient_evaluations
