"""The diffusion interpolation of a Gaussian mixture, Eq. (19), in a time in which it is smooth at t = 0."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, AbstractFixed, GaussianMixtureLike
from boltzflow.errors import InputError
from boltzflow.model.interpolations import AbstractInterpolation
from boltzflow.model.networks import Point, Scalar
from boltzflow.numerics.validation import frozen, one_point


class Diffusion(AbstractInterpolation):
    """f_t = -log p_t + const, with p_t the law of t x + √(1 - t²) z for x ~ p_1 and z ~ N(0, σ² I) (Eq. 19).

    Component i of the target then has mean t μ_i and covariance t² Σ_i + (1 - t²) σ² I; the paper writes √t for this t.
    Both ends have exactly the energies of base and target, and log Z_t is linear in t.
    """

    base: AbstractDistribution
    target: AbstractDensity
    components: "_Components"

    def __init__(self, base: AbstractDistribution, target: AbstractDensity):
        if not isinstance(target, GaussianMixtureLike):
            raise InputError(
                f"the diffusion interpolation is known in closed form for Gaussian mixtures only, and "
                f"{type(target).__name__} is none; use the trainable interpolation instead"
            )
        if base.dim != target.dim:
            raise InputError(f"the base has dimension {base.dim} and the target {target.dim}: they must be equal")
        self.base = base
        self.target = target
        self.components = _Components(target, _isotropic_variance(base))

    @property
    def log_z_rate(self) -> float:
        """C_t = d/dt log Z_t, the same at every t."""
        return float(self.components.log_z[1] - self.components.log_z[0])

    def energy(self, t, x):
        x = one_point(x, self.base.dim)
        t = jnp.asarray(t, x.dtype)
        start, end = jnp.asarray(self.components.log_z, x.dtype)
        f = -self.components.log_prob(t, x) - (1 - t) * start - t * end
        # At both ends the value is that of the end's energy to the last bit; the derivatives stay those of the formula.
        exact = jnp.where(t == 0, self.base.energy(x), self.target.energy(x))
        at_end = jax.lax.stop_gradient(exact) + (f - jax.lax.stop_gradient(f))
        return jnp.where((t == 0) | (t == 1), at_end, f)


class _Components(AbstractFixed):
    """The components in the eigenvectors of their covariances, where diffusion acts on each coordinate alone."""

    log_weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K dim"]  # in the coordinates of the eigenvectors
    variances: Float[np.ndarray, "K dim"]
    rotations: Float[np.ndarray, "K dim dim"] | None  # None for diagonal covariances
    base_variance: Float[np.ndarray, ""]
    log_z: Float[np.ndarray, " 2"]  # of base and target

    def __init__(self, target: GaussianMixtureLike, base_variance: float):
        means = np.asarray(target.means, np.float64)
        variances = np.asarray(target.covariances, np.float64)
        self.rotations = None
        if variances.ndim == 3:
            variances, rotations = np.linalg.eigh(variances)
            means = np.einsum("kij,ki->kj", rotations, means)
            self.rotations = frozen(rotations)
        self.log_weights = frozen(np.log(target.weights))
        self.means = frozen(means)
        self.variances = frozen(variances)
        self.base_variance = frozen(base_variance)
        self.log_z = frozen([0.5 * means.shape[1] * np.log(2 * np.pi * base_variance), float(target.log_z)])

    def log_prob(self, t: Scalar, x: Point) -> Scalar:
        """log p_t(x), normalized."""
        if self.rotations is not None:
            x = jnp.einsum("kij,i->kj", jnp.asarray(self.rotations, x.dtype), x, precision="highest")
        difference = x - t * jnp.asarray(self.means, x.dtype)
        spread = (1 - t) * (1 + t) * jnp.asarray(self.base_variance, x.dtype)
        variance = t**2 * jnp.asarray(self.variances, x.dtype) + spread
        terms = difference**2 / variance + jnp.log(2 * jnp.pi * variance)
        return jax.nn.logsumexp(jnp.asarray(self.log_weights, x.dtype) - 0.5 * jnp.sum(terms, axis=1))


def _isotropic_variance(base: AbstractDistribution) -> float:
    """The σ² of a base N(0, σ² I), from its log Z; raises `InputError` where its energy is not |x|²/2σ²."""
    with np.errstate(over="ignore"):
        variance = float(np.exp(2 * float(base.log_z) / base.dim) / (2 * np.pi))
    points = np.sqrt(variance) * np.random.default_rng(0).normal(size=(4, base.dim))
    got = np.asarray([base.energy(jnp.asarray(point)) for point in points], np.float64)
    wanted = 0.5 * np.sum(points**2, axis=1) / variance
    if not np.allclose(got, wanted, rtol=1e-5):
        raise InputError(
            f"the diffusion interpolation starts from a centered isotropic Gaussian, energy |x|²/2σ², and "
            f"{type(base).__name__} is none; use Gaussian(np.zeros({base.dim}), variance)"
        )
    return variance
