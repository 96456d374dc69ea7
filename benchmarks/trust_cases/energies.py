"""Energies of the cases, functions of one point, written as a user would write them."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.trust_cases.case import regression

LOG_2PI = math.log(2 * math.pi)
SCHOOLS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
SCHOOL_ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
SCHOOLS_LOG_Z = -31.311349
SCAN = np.random.default_rng(0).normal(0.7, 1.0, 3000).astype(np.float32)


def normal(x, std=1.0):
    """-log N(x; 0, std²), summed."""
    return jnp.sum(0.5 * (x / std) ** 2 + jnp.log(std) + 0.5 * LOG_2PI)


@jax.custom_jvp
def wrong_gradient(x):
    return 0.5 * jnp.sum(x**2)


wrong_gradient.defjvp(lambda primals, tangents: (wrong_gradient(primals[0]), 2 * jnp.dot(primals[0], tangents[0])))


@jax.custom_jvp
def half_gradient_at_the_mean(x):
    return 0.5 * jnp.sum(x**2)


half_gradient_at_the_mean.defjvp(
    lambda primals, tangents: (
        half_gradient_at_the_mean(primals[0]),
        jnp.where(jnp.sum(primals[0] ** 2) < 4, 0.5, 1.0) * jnp.dot(primals[0], tangents[0]),
    )
)


def cauchy(x):
    return jnp.sum(jnp.log1p(x**2))


def student_t(nu, dim):
    return lambda x: 0.5 * (nu + dim) * jnp.log1p(jnp.sum(x**2) / nu)


def two_posteriors(x):
    """Wells of unequal mass and width, 27 apart, in five dimensions: the narrow one holds a fifth of the mass."""
    far = 0.5 * jnp.sum(((x - 6) / 0.5) ** 2) - 4.1
    near = 0.5 * jnp.sum(((x + 6) / 1.5) ** 2)
    return -jnp.logaddexp(-far, -near)


TWO_POSTERIORS_LOG_Z = float(np.logaddexp(4.1 + 5 * math.log(0.5) + 2.5 * LOG_2PI, 5 * math.log(1.5) + 2.5 * LOG_2PI))


def banana(bend, dim, width=2.0):
    """log Z = log(width) + dim/2 log 2π."""

    def energy(x):
        return 0.5 * (x[0] / width) ** 2 + 0.5 * (x[1] - bend * x[0] ** 2) ** 2 + 0.5 * jnp.sum(x[2:dim] ** 2)

    return energy


def logistic(dim, num):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(num, dim))
    labels = (features @ np.array([1.0, -2.0, 0.5, 0.0])[:dim] > 0).astype(float)

    def energy(x):
        margin = features @ x
        return jnp.sum(jnp.logaddexp(0.0, margin) - labels * margin) + 0.5 * jnp.sum(x**2) / 4

    return energy


def poisson(x):
    rng = np.random.default_rng(3)
    time = rng.uniform(-1, 1, 40)
    counts = rng.poisson(np.exp(1.0 + 0.7 * time))
    log_rate = x[0] + x[1] * time
    return jnp.sum(jnp.exp(log_rate) - counts * log_rate) + 0.5 * jnp.sum(x**2) / 9


def linear_regression(error, dtype=None):
    """Data with these errors; with `dtype` they are cast to it."""
    features, values = regression(8, error)

    def energy(w):
        residual = (jnp.asarray(values, dtype) - jnp.asarray(features, dtype) @ w) / error
        return 0.5 * jnp.sum(residual**2) + 50 * np.log(error) + 25 * LOG_2PI + normal(w)

    return energy


def days() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Julian days, and sine and cosine of a period of 3.2 days with values."""
    rng = np.random.default_rng(5)
    time = 2_457_000.0 + np.sort(rng.uniform(0, 27, 60))
    features = np.stack([np.sin(2 * np.pi * time / 3.2), np.cos(2 * np.pi * time / 3.2)], axis=1)
    return time, features, features @ np.array([1.0, -0.5]) + 0.1 * rng.normal(size=60)


def light_curve(dtype):
    time, _, values = days()

    def energy(w):
        phase = 2 * jnp.pi * jnp.asarray(time, dtype) / 3.2
        residual = (values - w[0] * jnp.sin(phase) - w[1] * jnp.cos(phase)) / 0.1
        return 0.5 * jnp.sum(residual**2) + 60 * math.log(0.1) + 30 * LOG_2PI + normal(w)

    return energy


def scan_sum(dtype):
    """The mean of 3,000 observations summed by `lax.scan`, and an idle coordinate; `dtype` None is the type of x."""

    def energy(x):
        x = x.astype(dtype or x.dtype)

        def add(total, y):
            return total + 0.5 * (y - x[0]) ** 2 + 0.5 * LOG_2PI, None

        data = jnp.asarray(SCAN, x.dtype)
        return jax.lax.scan(add, jnp.zeros((), x.dtype), data)[0] + normal(x[0], 10.0) + normal(x[1])

    return energy


def scan_log_z() -> float:
    y = SCAN.astype(float)
    precision = len(y) + 0.01
    square = (y**2).sum() - y.sum() ** 2 / precision
    return float(-0.5 * len(y) * LOG_2PI - 0.5 * square - 0.5 * math.log(precision) - 0.5 * math.log(100))


# --- hierarchies ------------------------------------------------------------------------------------------------------


def _schools(mu, log_tau, effects):
    tau = jnp.exp(log_tau)
    prior = normal(mu, 5.0) + math.log(5 * math.pi / 2) + jnp.log1p((tau / 5) ** 2) - log_tau
    return prior + normal(jnp.asarray(SCHOOLS) - effects, jnp.asarray(SCHOOL_ERRORS))


def schools_centered(x):
    return _schools(x[0], x[1], x[2:]) + jnp.sum(0.5 * ((x[2:] - x[0]) / jnp.exp(x[1])) ** 2 + x[1] + 0.5 * LOG_2PI)


def schools_improper(x):
    """A flat prior on log τ: the neck holds infinite probability."""
    effects = normal(jnp.asarray(SCHOOLS) - x[2:], jnp.asarray(SCHOOL_ERRORS)) + normal(x[0], 5.0)
    return effects + jnp.sum(0.5 * ((x[2:] - x[0]) / jnp.exp(x[1])) ** 2 + x[1]) + 0.05 * x[1] ** 2 * (x[1] > 0)


def schools_noncentered(x):
    return _schools(x[0], x[1], x[0] + jnp.exp(x[1]) * x[2:]) + normal(x[2:])


def funnel(x, std):
    """Normalized."""
    return normal(x[0], std) + jnp.sum(0.5 * x[1:] ** 2 * jnp.exp(-x[0]) + 0.5 * x[0] + 0.5 * LOG_2PI)


def nested_funnel(x):
    """Each coordinate is the log-variance of the next. Normalized."""
    return normal(x[0], 1.5) + jnp.sum(0.5 * x[1:] ** 2 * jnp.exp(-x[:-1]) + 0.5 * x[:-1] + 0.5 * LOG_2PI)


HORSESHOE = (0.3, -2.0)


def horseshoe(x):
    """x = (log τ, log λ, β): y ~ N(β, 1), β ~ N(0, λ²τ²), λ and τ half-Cauchy."""
    scale = jnp.exp(x[0] + x[1:3])
    half_cauchy = jnp.sum(math.log(math.pi / 2) + jnp.log1p(jnp.exp(2 * x[:3])) - x[:3])
    return half_cauchy + normal(x[3:], scale) + normal(jnp.asarray(HORSESHOE) - x[3:])


def horseshoe_log_z() -> float:
    log_scale = np.linspace(-20, 20, 4001)
    prior = -math.log(math.pi / 2) - np.log1p(np.exp(2 * log_scale)) + log_scale
    step = log_scale[1] - log_scale[0]
    total = prior.copy()
    for y in HORSESHOE:
        variance = 1 + np.exp(2 * (log_scale[:, None] + log_scale))
        at = prior - 0.5 * y**2 / variance - 0.5 * np.log(2 * np.pi * variance)
        total += np.log(step) + np.logaddexp.reduce(at, axis=1)
    return float(np.log(step) + np.logaddexp.reduce(total))


def on_grid(fn, points: np.ndarray) -> np.ndarray:
    """Energies at points `(num, dim)`, in double precision."""
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(fn)(points), np.float64)
