"""SMC along the learned path: exact for an exact flow, unbiased for a wrong one."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import LogZRate, Transport
from boltzflow.model.fields import TimeMixture
from boltzflow.model.interpolations import Linear
from boltzflow.sampling.flow_smc import run_flow_smc
from gaussian_pair import make_pair, make_transport

DIM = 4
PAIR = make_pair(DIM, seed=1)
LOG_Z = float(PAIR.log_z(1.0))


def pull(sample):
    return (sample.log_z - LOG_Z) / sample.log_z_stderr


def test_perfect_flow_gives_equal_weights():
    sample = run_flow_smc(make_transport(PAIR), jax.random.key(0), num_particles=512, solver_steps=64)
    assert sample.ess > 1 - 1e-6 and sample.num_resamplings == 0 and sample.num_ancestors == 512
    assert abs(sample.log_z - LOG_Z) < 1e-3


def test_moves_correct_wrong_flow_without_bias():
    """Of a field that is off by 0.6 sin x: log Z and the moments within 4 errors; the moves make weights more equal."""
    transport = make_transport(PAIR, error=0.6)
    alone = run_flow_smc(transport, jax.random.key(1), step_size=0.0)
    mended = run_flow_smc(transport, jax.random.key(1))
    assert abs(pull(alone)) < 4 and abs(pull(mended)) < 4
    assert mended.step_size > 0 and mended.ess > 0.8
    assert mended.log_z_stderr < 0.7 * alone.log_z_stderr
    weight = np.exp(mended.log_weight - np.logaddexp.reduce(mended.log_weight))
    z = np.linalg.solve(np.linalg.cholesky(covariance()), (np.asarray(mended.x, np.float64) - PAIR.mean).T)
    error = np.sqrt(np.sum(weight**2)) + mended.log_z_stderr
    np.testing.assert_allclose(z @ weight, 0, atol=5 * error)
    np.testing.assert_allclose(z**2 @ weight, 1, atol=5 * np.sqrt(2) * error)


def test_log_z_is_unbiased_over_repeats_with_resampling():
    """40 repeats of few particles: the mean of Z within 4 of its errors, and the errors claimed are those seen."""
    transport = make_transport(PAIR, error=1.5)
    runs = [
        run_flow_smc(transport, jax.random.key(k), num_particles=256, num_stages=8, step_size=0.4) for k in range(40)
    ]
    assert min(run.num_resamplings for run in runs) > 0
    ratio = np.exp([run.log_z - LOG_Z for run in runs])
    assert abs(ratio.mean() - 1) < 4 * ratio.std(ddof=1) / np.sqrt(len(runs))
    claimed = np.sqrt(np.mean([run.log_z_stderr**2 for run in runs]))
    assert 0.6 < claimed / np.std([run.log_z for run in runs], ddof=1) < 1.7  # 40 of them: ± 11 %


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_mean_weight_is_z(size):
    sample = run_flow_smc(make_transport(PAIR, error=0.3), jax.random.key(3), num_particles=512, step_size=size)
    mean = np.logaddexp.reduce(sample.log_weight) - np.log(512)
    assert mean == pytest.approx(sample.log_z, abs=1e-9)


def covariance():
    return PAIR.rotation @ np.diag(PAIR.variances) @ PAIR.rotation.T


class Wall(AbstractDensity):
    """½x² below 1, infinite from there on, and NaN beyond 2: where the energy is infinite, it may say anything next."""

    dim: int = eqx.field(static=True, default=1)

    def energy(self, x):
        return jnp.where(x[0] < 1, 0.5 * x[0] ** 2, jnp.where(x[0] < 2, jnp.inf, jnp.nan))


def test_particles_of_infinite_energy_get_zero_weight():
    """Of a field that stands still, from N(0, 1) to its part below a wall: log Z = ½ log 2π + log Φ(1)."""
    field = TimeMixture(1, width=4, depth=1, key=jax.random.key(0))
    path = Linear(Gaussian(np.zeros(1), 1.0), Wall())
    transport = Transport(field, path, LogZRate(width=4, depth=1, key=jax.random.key(1)))
    sample = run_flow_smc(transport, jax.random.key(2), num_particles=2048)
    exact = 0.5 * np.log(2 * np.pi) + np.log(0.5 * (1 + math.erf(1 / np.sqrt(2))))
    assert np.isfinite(sample.log_z) and abs(sample.log_z - exact) < 4 * sample.log_z_stderr
    counted = np.isfinite(sample.log_weight)
    assert (np.asarray(sample.x)[counted, 0] < 1).all()
