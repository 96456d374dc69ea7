"""Posteriors: logistic regression, a log-Gaussian Cox process, and NumPyro models with made-up data."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from benchmarks.reach_cases.case import Case

_DATA = Path(__file__).parent / "data"


def sonar() -> boltzflow.Energy:
    """Logistic regression on the sonar data in 61 dimensions: standardized columns, an intercept, weights N(0, 1)."""
    rows = [line.split(",") for line in (_DATA / "sonar.csv").read_text().split()]
    columns = np.array([row[:-1] for row in rows], float)
    sign = np.array([1.0 if row[-1] == rows[0][-1] else -1.0 for row in rows])
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    design = sign[:, None] * np.concatenate([np.ones((len(rows), 1)), columns], axis=1)
    dim = design.shape[1]

    def energy(w):
        prior = 0.5 * w @ w + 0.5 * dim * math.log(2 * math.pi)
        return prior + jnp.sum(jax.nn.softplus(-jnp.asarray(design) @ w))

    return boltzflow.Energy(energy, dim)


def pines(side: int = 40, bounding_box: bool = False) -> boltzflow.Energy:
    """A log-Gaussian Cox process of 126 pines on a grid, in whitened coordinates, without the factorials of counts."""
    points = np.loadtxt(_DATA / "finpines.txt", skiprows=1)[:, :2]
    low, width = (points.min(0), np.ptp(points, 0)) if bounding_box else (np.array([-5.0, -8.0]), 10.0)
    cell = np.minimum(((points - low) / width * side).astype(int), side - 1)
    counts = np.zeros((side, side))
    np.add.at(counts, (cell[:, 0], cell[:, 1]), 1)
    sites = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(sites[:, None] - sites[None], axis=-1)
    factor = np.linalg.cholesky(1.91 * np.exp(-33.0 * distance / side))
    dim = side**2

    def energy(z):
        log_rate = math.log(126) - 1.91 / 2 + jnp.asarray(factor) @ z
        log_likelihood = jnp.asarray(counts.ravel()) @ log_rate - jnp.sum(jnp.exp(log_rate)) / dim
        return 0.5 * z @ z + 0.5 * dim * math.log(2 * math.pi) - log_likelihood

    return boltzflow.Energy(energy, dim)


def change_point() -> boltzflow.AbstractDensity:
    """Yearly counts whose rate changes in an unknown year: a jump in the likelihood."""
    years = np.arange(1900, 1960)
    counts = np.random.default_rng(1).poisson(np.where(years < 1933, 2.2, 1.3))

    def model():
        import numpyro
        import numpyro.distributions as dist

        switch = numpyro.sample("switch", dist.Uniform(1900.0, 1960.0))
        early = numpyro.sample("early", dist.Exponential(1.0))
        late = numpyro.sample("late", dist.Exponential(1.0))
        numpyro.sample("count", dist.Poisson(jnp.where(years < switch, early, late)).to_event(1), obs=counts)

    return _posterior(model)


def phase_distance() -> boltzflow.AbstractDensity:
    """A distance known up to a wavelength, with a bounded prior: four equal modes."""
    wave_number = 4 * np.pi * 100e6 / 299792458.0
    phases = 2 * np.pi * np.arange(3) / 3
    intensity = 90 * np.cos(wave_number * 1.13 + phases) + np.array([6.0, -9.0, 4.0])

    def model():
        import numpyro
        import numpyro.distributions as dist

        amplitude = numpyro.sample("amplitude", dist.HalfNormal(150.0))
        distance = numpyro.sample("distance", dist.Uniform(0.0, 6.0))
        mean = amplitude * jnp.cos(wave_number * distance + phases)
        numpyro.sample("intensity", dist.Normal(mean, 14.0).to_event(1), obs=intensity)

    return _posterior(model)


def varying_intercepts() -> boltzflow.AbstractDensity:
    """85 group means, centered, in 88 dimensions."""
    rng = np.random.default_rng(12)
    group = np.repeat(np.arange(85), rng.integers(1, 9, 85))
    values = 1.3 + 0.25 * rng.normal(size=85)[group] + 0.8 * rng.normal(size=len(group))

    def model():
        import numpyro
        import numpyro.distributions as dist

        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        between = numpyro.sample("between", dist.HalfNormal(1.0))
        within = numpyro.sample("within", dist.HalfNormal(1.0))
        intercept = numpyro.sample("intercept", dist.Normal(mean, between).expand([85]).to_event(1))
        numpyro.sample("value", dist.Normal(intercept[group], within).to_event(1), obs=values)

    return _posterior(model)


def _posterior(model) -> boltzflow.AbstractDensity:
    from boltzflow.interop.numpyro import Posterior

    return Posterior(model)


POSTERIORS = {
    "logistic regression, sonar": Case(sonar, -108.381, 0.018, 0.005, "log_z", 1, "annealing, long runs"),
    "Cox process 40 x 40, unit square": Case(pines, 501.75, 0.05, 0.1, "log_z", 8, "long runs"),
    "Cox process 40 x 40, bounding box": Case(
        functools.partial(pines, bounding_box=True), 506.97, 0.07, 0.1, "log_z", 8, "long runs"
    ),
    "change point": Case(change_point, -99.0303, 0.0, 0.02, "log_z", 3, "quadrature"),
    "phase and distance": Case(phase_distance, -15.597868, 0.0, 0.02, "log_z", 3, "quadrature"),
    "varying intercepts": Case(varying_intercepts, -493.779, 0.01, 0.05, "log_z", 5, "long runs"),
}
