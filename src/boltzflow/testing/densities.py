"""Contract checks of densities and distributions, that is, of targets and bases."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, AbstractFixed
from boltzflow.densities.energy_checks import check_energy
from boltzflow.errors import InputError
from boltzflow.numerics.batching import numpy_generator
from boltzflow.testing.asserts import (
    check_double_precision,
    check_function,
    expect,
    expect_close,
    expect_mean,
)

_NUM_POINTS = 8
_MAX_DIM_NORMALIZED = 4  # in more dimensions importance sampling from one wide Student t has too few effective samples


def check_density(density: AbstractDensity, key: PRNGKeyArray, *, scale: float = 1.0) -> None:
    """Check that `density` keeps the contract of `AbstractDensity`, at 8 points drawn from N(0, scale²).

    The arrays of `density` are fixed by type. The energy is a finite scalar of the type of x, in single and double
    precision, also under `jax.jit` and `jax.vmap`. Its gradient is finite and agrees with central differences. Each
    declared symmetry holds.

    Args:
        density: The density to check.
        key: The key that draws the points.
        scale: The standard deviation of the points, in the units of x.

    Raises:
        AssertionError: The first part of the contract that is broken, in one sentence.
    """
    name = type(density).__name__
    is_fixed = isinstance(density, AbstractFixed)
    expect(is_fixed, f"{name} must subclass AbstractDensity, or training would move its arrays")
    expect(isinstance(density.dim, int) and density.dim > 0, f"{name}.dim must be a positive int, got {density.dim!r}")
    points = scale * jax.random.normal(key, (_NUM_POINTS, density.dim))
    demand = f"return a scalar for x of shape {points.shape[1:]}"
    check_function(density, lambda d, x: (d.energy(x),), points, {f"{name}.energy": ((), demand)})
    try:
        check_energy(density, points)
    except InputError as error:
        raise AssertionError(f"{name}: {error}") from error
    check_double_precision(f"{name}.energy", density, lambda d, x: d.energy(x), np.asarray(points[:2]))


def check_distribution(
    distribution: AbstractDistribution,
    key: PRNGKeyArray,
    *,
    num_samples: int = 4096,
    num_sigma: float = 5.0,
    scale: float = 1.0,
) -> None:
    """Check that `distribution` keeps the contracts of `AbstractDensity` and `AbstractDistribution`.

    Beside `check_density`: log_prob(x) is -energy(x) - log_z, and is the log-density that `sample_and_log_prob` returns
    with x. Samples and density belong together: E[∇ log p] = 0 and E[x·∇ log p] = -dim. Up to dimension 4, importance
    sampling from a wide Student t tests the integral and the first two moments. In more dimensions a wrong log_z, and
    wrong weights of modes that do not overlap, are not seen: test them separately.

    Args:
        distribution: The distribution to check.
        key: The key of all random numbers.
        num_samples: How many exact samples are drawn.
        num_sigma: The allowed error of a mean, in standard errors. At 5, about 2 dim of 10⁶ correct ones fail.
        scale: As in `check_density`.

    Raises:
        AssertionError: The first part of the contract that is broken, in one sentence.
    """
    check_density(distribution, key, scale=scale)
    name = type(distribution).__name__
    sample_key, wide_key = jax.random.split(jax.random.fold_in(key, 1))
    x, log_prob = jax.jit(jax.vmap(distribution.sample_and_log_prob))(jax.random.split(sample_key, num_samples))
    _check_samples(name, distribution, x, log_prob)
    _check_values(name, distribution, x, log_prob, num_sigma)
    if distribution.dim <= _MAX_DIM_NORMALIZED:
        _check_normalization(name, distribution, x, wide_key, num_sigma)


def _check_samples(name: str, distribution: AbstractDistribution, x: Array, log_prob: Array) -> None:
    dim = distribution.dim
    expect(x.shape[1:] == (dim,), f"a sample of {name} has shape {x.shape[1:]}, not ({dim},)")
    expect(log_prob.shape == x.shape[:1], f"the log_prob of a sample of {name} has shape {log_prob.shape[1:]}, not ()")
    expect(jnp.all(jnp.isfinite(x)), f"{name} drew samples that are not finite")
    expect(not jnp.any(jnp.all(x[1:] == x[:-1], axis=1)), f"{name} drew the same sample from different keys")


def _check_values(name: str, distribution: AbstractDistribution, x: Array, log_prob: Array, num_sigma: float) -> None:
    """Compare energy, log_z and both log-densities, and test the samples by Stein's identities."""
    both = jax.jit(jax.vmap(lambda at: (distribution.energy(at), jax.value_and_grad(distribution.log_prob)(at))))
    energy, (again, score) = both(x)
    expect(jnp.all(jnp.isfinite(energy)), f"the energy of {name} is not finite at its own samples")
    expect_close(f"{name}.log_prob and -energy - log_z", again, -energy - distribution.log_z, energy)
    expect_close(f"{name}.log_prob and the log_prob returned with a sample", again, log_prob, energy)
    score = np.asarray(score, np.float64)
    expect_mean(f"the mean of ∇ log p over the samples of {name}", score, 0.0, num_sigma)
    along = np.sum(np.asarray(x, np.float64) * score, axis=1, keepdims=True)
    expect_mean(f"the mean of x·∇ log p over the samples of {name}", along, -float(distribution.dim), num_sigma)


def _check_normalization(
    name: str, distribution: AbstractDistribution, x: Array, key: PRNGKeyArray, num_sigma: float
) -> None:
    """Test ∫ p = 1 and the moments of the samples `x`, by importance sampling from a Student t around `x`."""
    from scipy.stats import multivariate_t  # slow to import

    samples = np.asarray(x, np.float64)
    mean = samples.mean(axis=0)
    covariance = np.atleast_2d(np.cov(samples.T))
    wide = multivariate_t(mean, covariance, df=3, seed=numpy_generator(key))
    proposal = wide.rvs(8 * len(samples)).reshape(-1, distribution.dim)
    log_prob = jax.jit(jax.vmap(distribution.log_prob))(jnp.asarray(proposal))
    weight = np.exp(np.asarray(log_prob, np.float64) - wide.logpdf(proposal))
    expect_mean(f"the integral of exp(log_prob) of {name}", weight[:, None], 1.0, num_sigma)
    std = np.sqrt(np.diag(covariance))
    for power in (1, 2):
        statistic = ((proposal - mean) / std) ** power
        exact = ((samples - mean) / std) ** power
        influence = weight[:, None] * (statistic - exact.mean(axis=0))
        error = np.sqrt(np.var(influence, axis=0) / len(weight) + np.var(exact, axis=0) / len(exact))
        worst = np.max(np.abs(influence.mean(axis=0)) / error)
        sentence = f"the samples of {name} and its density disagree on a moment of order {power} by {worst:.1f} sigma"
        expect(worst <= num_sigma, sentence)
