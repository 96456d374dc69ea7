"""Corrections of a flow: each keeps or reaches the target, whatever the flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset, with_changes
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.model.flow import Flow
from boltzflow.sampling.corrections import CORRECTIONS, correct, independence_metropolis
from gaussian_pair import make_pair, make_transport

FULL_PILOT = True

PAIR = make_pair(3, seed=2)
COVARIANCE = PAIR.rotation @ np.diag(PAIR.variances) @ PAIR.rotation.T


def flow_of(error):
    transport = make_transport(PAIR, error)
    return Flow(transport.interpolation.base, transport.field, num_steps=16), transport


def test_metropolis_keeps_target_invariant():
    """From exact states, five proposals of N(0.5, 1.4²) each: 40,000 chains keep the moments of N(0, 1), at 4.5 σ."""
    rng = np.random.default_rng(0)
    num = 40_000
    x = rng.normal(0.5, 1.4, size=(num, 6))
    x[:, 0] = rng.normal(size=num)
    log_weight = -(x**2) / 2 + (x - 0.5) ** 2 / (2 * 1.4**2)
    index, acceptance = independence_metropolis(log_weight[:, :], rng, np.arange(num) * 6)
    last = x.ravel()[index[:, -1]]
    assert 0.5 < acceptance < 0.9
    for power, exact, spread in ((1, 0, 1), (2, 1, np.sqrt(2)), (4, 3, np.sqrt(96))):
        assert abs(np.mean(last**power) - exact) < 4.5 * spread / np.sqrt(num)


def test_metropolis_never_accepts_zero_weight():
    log_weight = np.array([[-np.inf, np.nan, 0.0, -np.inf, -3.0, np.nan]])
    index, _ = independence_metropolis(log_weight, np.random.default_rng(3), np.array([0]))
    assert list(index[0][:4]) == [0, 0, 2, 2] and index[0][-1] in (2, 4)


@pytest.mark.parametrize("method", CORRECTIONS)
def test_correction_samples_target_from_wrong_flow(method):
    """Means and variances within 5 errors, as widened by repeats; those of the flow itself are not."""
    num = 20_000
    flow, transport = flow_of(0.3)
    samples = correct(flow, transport, transport.interpolation.target, jax.random.key(4), num, method)
    assert samples.x.shape == (num, 3) and samples.energy.shape == (num,)
    np.testing.assert_allclose(
        samples.energy[:5], jax.vmap(transport.interpolation.target.energy)(samples.x[:5]), rtol=1e-5
    )
    effective = min(samples.num_distinct, num) / 3
    z = np.linalg.solve(np.linalg.cholesky(COVARIANCE), (np.asarray(samples.x, np.float64) - PAIR.mean).T)
    assert np.abs(z.mean(axis=1)).max() < 5 / np.sqrt(effective)
    assert np.abs((z**2).mean(axis=1) - 1).max() < 5 * np.sqrt(2 / effective)
    assert (samples.chain is not None) == (method == "metropolis")


def test_correct_refuses_unknown_method_and_zero_weights():
    flow, transport = flow_of(0.0)
    with pytest.raises(InputError, match="importance, metropolis, annealed"):
        correct(flow, transport, transport.interpolation.target, jax.random.key(0), 10, "magic")

    class Nowhere(Gaussian):
        def energy(self, x):
            return jnp.inf * jnp.ones(())

    with pytest.raises(InputError, match="no sample"):
        correct(flow, transport, Nowhere(np.zeros(3), 1.0), jax.random.key(0), 10, "importance")


@pytest.mark.slow
def test_flow_smc_log_z_is_right_for_mediocre_flow():
    """Training at N = 64 stopped early, at a reverse ESS of about 0.3: log Z along its path is within 0.02."""
    config = with_changes(default_preset(), {"num_steps": 60})
    run = bf.fit(bf.DoubleWell(64, 1.5), config=config)
    estimates = run.report().estimates
    assert 0.1 < estimates["reverse_ess"].value < 0.6
    annealed = estimates["log_z_annealed"]
    error = annealed.value - run.target.log_z
    assert annealed.ok and abs(error) < 0.02 and abs(error) < 4 * annealed.stderr
