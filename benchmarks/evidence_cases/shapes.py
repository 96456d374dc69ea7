"""Likelihoods of a difficult shape with exact log Z, as papers on nested sampling have them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

import boltzflow
from benchmarks.evidence_cases.case import Case
from boltzflow.priors import Uniform


def shells(dim: int) -> boltzflow.Posterior:
    """Two thin shells, of radius 2 and width .1 around ±3.5 on the first axis (Feroz et al. 2009)."""
    center = 3.5 * np.eye(dim)[0]

    def log_likelihood(x: Float[Array, " dim"]) -> Float[Array, ""]:
        radii = jnp.stack([jnp.linalg.norm(x - center), jnp.linalg.norm(x + center)])
        return jax.nn.logsumexp(jax.scipy.stats.norm.logpdf(radii, 2.0, 0.1))

    return boltzflow.Posterior(log_likelihood, {"x": Uniform(-6.0, 6.0, shape=dim)})


def egg_box() -> boltzflow.Posterior:
    """Eighteen equal peaks, cut where they lie on the border (Feroz et al. 2009)."""

    def log_likelihood(x: Float[Array, ""], y: Float[Array, ""]) -> Float[Array, ""]:
        return (2 + jnp.cos(x / 2) * jnp.cos(y / 2)) ** 5

    prior = Uniform(0.0, 10 * math.pi)
    return boltzflow.Posterior(log_likelihood, {"x": prior, "y": prior})


def log_gamma(dim: int) -> boltzflow.Posterior:
    """Four modes with a light and a heavy tail each (Beaujean & Caldwell 2013), on the unit cube of Feroz et al. 2013.

    The first coordinate is of two log-gamma densities, the second of two normal ones; half of the others are
    log-gamma, half normal. All have the width 1/30.
    """

    def log_gamma_density(x: Array, center: float) -> Array:
        y = 30 * (x - center)
        return y - jnp.exp(y) + math.log(30)

    def normal_density(x: Array, center: float) -> Array:
        return jax.scipy.stats.norm.logpdf(x, center, 1 / 30)

    def of_two(density, x: Array) -> Array:
        return jnp.logaddexp(density(x, 1 / 3), density(x, 2 / 3)) - math.log(2)

    def log_likelihood(x: Float[Array, " dim"]) -> Float[Array, ""]:
        skewed, normal = jnp.split(x[2:], 2)
        rest = jnp.sum(log_gamma_density(skewed, 2 / 3)) + jnp.sum(normal_density(normal, 2 / 3))
        return of_two(log_gamma_density, x[0]) + of_two(normal_density, x[1]) + rest

    return boltzflow.Posterior(log_likelihood, {"x": Uniform(0.0, 1.0, shape=dim)})


def log_gamma_log_z(dim: int) -> float:
    """0, but for the tails that the unit cube cuts off."""

    def log_gamma_inside(center: float) -> float:
        return float(np.exp(-np.exp(-30 * center)) - np.exp(-np.exp(30 * (1 - center))))

    def normal_inside(center: float) -> float:
        return float(special.ndtr(30 * (1 - center)) - special.ndtr(-30 * center))

    of_two = [np.log((inside(1 / 3) + inside(2 / 3)) / 2) for inside in (log_gamma_inside, normal_inside)]
    rest = (dim - 2) / 2 * (np.log(log_gamma_inside(2 / 3)) + np.log(normal_inside(2 / 3)))
    return float(sum(of_two) + rest)


def rosenbrock(dim: int, width: float, factor: float) -> boltzflow.Posterior:
    """A curved valley: log L = -factor Σ_i 100 (x_{i+1} - x_i²)² + (1 - x_i)², with x_i between ± width."""

    def log_likelihood(x: Float[Array, " dim"]) -> Float[Array, ""]:
        return -factor * jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return boltzflow.Posterior(log_likelihood, {"x": Uniform(-width, width, shape=dim)})


def spike_and_slab() -> boltzflow.Posterior:
    """A narrow normal density apart from a wide one of the same weight, in ten dimensions."""
    centers = [np.array([center, center, *[0.0] * 8]) for center in (6.0, 2.5)]

    def log_likelihood(x: Float[Array, "10"]) -> Float[Array, ""]:
        spike, slab = (
            jnp.sum(jax.scipy.stats.norm.logpdf(x, center, variance**0.5))
            for center, variance in zip(centers, (0.08, 0.8), strict=True)
        )
        return jnp.logaddexp(spike, slab)

    return boltzflow.Posterior(log_likelihood, {"x": Uniform(-4.0, 8.0, shape=10)})


SHAPES = {
    "shells, d = 2": Case(functools.partial(shells, 2), -1.745642),
    "shells, d = 5": Case(functools.partial(shells, 5), -5.673601),
    "shells, d = 10": Case(functools.partial(shells, 10), -14.590491, may_distrust=True),
    "egg box": Case(egg_box, 235.855940),
    "log-gamma, d = 2": Case(functools.partial(log_gamma, 2), log_gamma_log_z(2)),
    "log-gamma, d = 10": Case(functools.partial(log_gamma, 10), log_gamma_log_z(10)),
    "Rosenbrock, d = 2": Case(functools.partial(rosenbrock, 2, 10.0, 0.5), -6.471617),
    "Rosenbrock, d = 10": Case(functools.partial(rosenbrock, 10, 5.0, 1.0), -43.108355, may_distrust=True),
    "spike and slab": Case(spike_and_slab, -24.155934),
}
