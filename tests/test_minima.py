"""Minima by descent, and modes that the pilot recovers with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian_mixture import SubspaceMixture
from boltzflow.sampling.minima import descend, far_apart
from boltzflow.sampling.pilot import run_pilot
from two_wells import FAR, NEAR, wells

FULL_PILOT = True


@pytest.mark.parametrize(("least", "typical", "worst"), [(0.3, 1e-3, 1e-2), (0.1, 5.0, 100.0)])
def test_descent_reaches_minimum_for_different_widths(least, typical, worst):
    """Tenfold: to the minimum. A hundredfold, in 100 steps from 10⁵: to where the target is, whose mean energy is 5."""
    widths = jnp.geomspace(least, 1 / least, 10)
    target = bf.Energy(lambda x: 0.5 * jnp.sum((x / widths) ** 2), 10)
    x, f = jax.jit(lambda x: descend(target, x))(20 * jax.random.normal(jax.random.key(0), (256, 10)))
    np.testing.assert_allclose(f, jax.vmap(target.energy)(x), rtol=1e-4, atol=1e-4)
    assert float(jnp.median(f)) < typical and float(jnp.max(f)) < worst


def test_descent_keeps_points_with_nan_energy():
    target = bf.Energy(lambda x: jnp.where(x[0] > 1, jnp.nan, 0.5 * jnp.sum(x**2)), 2)
    x, f = descend(target, jnp.array([[2.0, 0.0], [-3.0, 1.0]]))
    np.testing.assert_array_equal(x[0], [2.0, 0.0])
    assert jnp.isinf(f[0]) and f[1] < 1e-6


def test_far_apart_covers_every_cluster():
    rng = np.random.default_rng(0)
    places = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 50.0]])
    x = np.concatenate([places[0] + 1e-4 * rng.normal(size=(500, 2)), places[1:], places[1:]])
    chosen = x[far_apart(x, np.ones(2), 3)]
    assert np.linalg.norm(chosen[:, None] - places, axis=2).min(axis=0).max() < 1e-2
    assert len(far_apart(x, np.ones(2), 100)) == 3  # no more where all others lie within a thousandth


@pytest.mark.parametrize("seed", range(3))
def test_pilot_recovers_mode_that_smc_misses(seed):
    """Shares of 4096 particles that were resampled once err by a few binomial errors of 0.006."""
    pilot = run_pilot(wells(0.2), jax.random.key(seed))
    minima = np.asarray(pilot.minima)
    assert np.linalg.norm(minima - FAR, axis=1).min() < 0.5 and np.linalg.norm(minima - NEAR, axis=1).min() < 1
    assert not pilot.complaints and isinstance(pilot.base, SubspaceMixture)
    for points in (pilot.points, pilot.wide_points):
        assert abs(float(np.mean(np.asarray(points)[:, 0] > 0)) - 0.2) < 0.05
    assert abs(pilot.log_z) < 5 * pilot.log_z_stderr


@pytest.mark.slow
def test_fit_learns_mode_that_smc_misses():
    run = bf.fit(wells(0.2), config=bf.Config(num_steps=300, num_eval_samples=20_000))
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    log_z = run.log_z()
    share = run.expectation(lambda x: x[0] > 0)
    assert abs(log_z.value) < 5 * log_z.stderr + 1e-4 and abs(share.value - 0.2) < 5 * share.stderr
