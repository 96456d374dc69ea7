"""Energies with bounds: log Z of truncated densities by quadrature, tails, samples of a run, the command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import boltzflow as bf
from boltzflow.cli import main
from boltzflow.densities.base import prior_of
from boltzflow.statistics.estimates import disagreement, exact
from boltzflow.testing import check_density

FEW = ["--log-z-error", "0.01", "--num-eval-samples", "4096"]  # a fitted Gaussian is enough: nothing is trained
TRUNCATED = {
    "uniform": (bf.Energy(lambda x: 0 * x[0], 1, lower=-1.0, upper=3.0), np.log(4)),
    "normal between": (
        bf.Energy(lambda x: x[0] ** 2 / 2, 1, lower=0.5, upper=2.0),
        0.5 * np.log(2 * np.pi) + np.log(special.ndtr(2.0) - special.ndtr(0.5)),
    ),
    "normal above": (
        bf.Energy(lambda x: x[0] ** 2 / 2, 1, lower=0.5),
        0.5 * np.log(2 * np.pi) + special.log_ndtr(-0.5),
    ),
    "exponential": (bf.Energy(lambda x: x[0] / 50, 1, lower=0.0), np.log(50)),
    "exponential below": (bf.Energy(lambda x: -50 * x[0], 1, upper=2.0), 100 - np.log(50)),
    "gamma of shape 1/2": (bf.Energy(lambda x: x[0] + jnp.log(x[0]) / 2, 1, lower=0.0), 0.5 * np.log(np.pi)),
    "beta of shapes 1/2": (
        bf.Energy(lambda x: (jnp.log(x[0]) + jnp.log1p(-x[0])) / 2, 1, lower=0.0, upper=1.0),
        np.log(np.pi),
    ),
    "power law": (bf.Energy(lambda x: 2 * jnp.log(x[0]), 1, lower=1.0), 0.0),
    "no bound": (bf.Energy(lambda x: x[0] ** 2 / 2, 1, lower=-np.inf, upper=np.inf), 0.5 * np.log(2 * np.pi)),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_log_z_is_that_of_the_truncated_density(name):
    target, log_z = TRUNCATED[name]
    grid = np.linspace(-14, 14, 8001)
    with jax.enable_x64(True):
        energy = np.asarray(jax.vmap(target.energy)(jnp.asarray(grid)[:, None]))
    rtol = 2e-6 if name == "beta of shapes 1/2" else 1e-8  # near 1 x rounds, and the density is infinite there
    assert np.log(np.trapezoid(np.exp(-energy), grid)) == pytest.approx(log_z, abs=rtol)


@pytest.mark.parametrize("name", [name for name in TRUNCATED if name != "no bound"])
def test_tails_are_those_of_a_gaussian_or_lighter(name):
    """The energy grows by at least z²/5 from |z| = 4 to 6 on both sides."""
    target, _ = TRUNCATED[name]
    with jax.enable_x64(True):
        energy = jax.vmap(target.energy)(jnp.asarray([[-6.0], [-4.0], [4.0], [6.0]], float))
    assert energy[0] - energy[1] > 4 and energy[3] - energy[2] > 4


def test_energies_with_bounds_keep_the_contract():
    mixed = bf.Energy(
        lambda x: jnp.sum(jnp.abs(x) ** 1.5) + x[0] * x[1],
        4,
        lower=[0.0, -1.0, -np.inf, -np.inf],
        upper=[np.inf, 2.0, 0.5, np.inf],
    )
    check_density(mixed, jax.random.key(0))
    z = np.asarray(jax.random.normal(jax.random.key(1), (100, 4))) * 5
    x = np.asarray(jax.vmap(mixed.constrain)(jnp.asarray(z)))
    assert (x[:, 0] > 0).all() and (x[:, 1] > -1).all() and (x[:, 1] < 2).all() and (x[:, 2] < 0.5).all()
    np.testing.assert_array_equal(x[:, 3], z[:, 3])
    with jax.enable_x64(True):
        z = jnp.asarray(z[:5] / 5, float)  # where x does not round to a bound
        for one in z:
            _, log_det = jnp.linalg.slogdet(jax.jacfwd(mixed.constrain)(one))
            assert float(mixed.bounds.log_jacobian(one)) == pytest.approx(float(log_det), abs=1e-8)


@pytest.mark.parametrize("double", [False, True])
def test_map_is_finite_and_inside_far_out(double):
    bounds = bf.Energy(lambda x: x @ x, 3, lower=[0.0, 2.0, -np.inf], upper=[np.inf, 3.0, 1.0]).bounds
    with jax.enable_x64(double):
        for z in (-1e12, -40.0, -15.0, 0.0, 15.0, 40.0, 1e12):
            z = jnp.full(3, z)
            x, slope = bounds.constrain(z), jax.jacfwd(bounds.constrain)(z)
            assert np.isfinite(x).all() and np.isfinite(slope).all()
            assert x[0] > 0 and 2 < x[1] < 3 and x[2] < 1
            assert np.isfinite(bounds.log_jacobian(z)) and np.isfinite(jax.grad(bounds.log_jacobian)(z)).all()


def test_symmetries_may_agree_with_bounds():
    target = bf.Energy(lambda x: jnp.sum(x**4), 4, (2, 2), True, lower=-1.0, upper=1.0)
    check_density(target, jax.random.key(0))


@pytest.mark.parametrize("lattice", [None, (2, 2)])
def test_the_uniform_density_of_a_finite_box_is_the_prior(lattice):
    """Its log-density in z is that of a flat energy up to its volume."""
    target = bf.Energy(lambda x: 0.0 * jnp.sum(x), 4, lower=-1.0, upper=2.0, lattice_shape=lattice)
    z = jnp.array([0.3, -2.0, 1.0, 4.0])
    expected = -prior_of(target).log_prob(z) - 4 * np.log(3.0)
    np.testing.assert_allclose(target.energy(z), expected, rtol=1e-5)
    assert prior_of(bf.Energy(lambda x: jnp.sum(x), 2, lower=[0.0, 0.0], upper=[1.0, np.inf])) is None


def test_a_run_samples_inside_the_bounds(tmp_path, monkeypatch, capsys):
    """Two exponential variables, one truncated at 1; x, energy, density and weight belong together."""
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    (tmp_path / "wait.py").write_text("def energy(x):\n    return 2 * x[0] + x[1]\ndef mean(x):\n    return x\n")
    monkeypatch.chdir(tmp_path)
    options = ["--dim", "2", "--lower", "0", "--upper", "1"]
    assert main(["run", "wait.py:energy", *options, *FEW, "--out", "run"]) == 0
    assert "lower = 0.0\nupper = 1.0" in (tmp_path / "run" / "config.toml").read_text()
    assert main(["sample", "run", "--num-samples", "1000", "--out", "samples.npz"]) == 0
    assert main(["expect", "run", "wait.py:mean"]) == 0
    run = bf.load("run")
    log_z = np.log((1 - np.exp(-2)) / 2) + np.log(1 - np.exp(-1))
    assert disagreement(run.log_z(), exact(log_z)) < 4
    mean = run.expectation(lambda x: x)
    expected = [1 / rate - 1 / np.expm1(rate) for rate in (2.0, 1.0)]
    assert (np.abs(mean.value - expected) < 4 * mean.stderr).all()
    samples = np.load("samples.npz")
    x = samples["x"]
    assert ((x > 0) & (x < 1)).all()
    np.testing.assert_allclose(samples["energy"], 2 * x[:, 0] + x[:, 1], rtol=1e-9)
    np.testing.assert_allclose(samples["log_weight"], -samples["energy"] - samples["log_prob"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.log(np.mean(np.exp(samples["log_weight"]))), log_z, atol=0.01)
    corrected = run.correct(jax.random.key(0), 500)
    np.testing.assert_allclose(corrected.energy, 2 * corrected.x[:, 0] + corrected.x[:, 1], rtol=1e-9)
    assert stats.kstest(corrected.x[:, 0], stats.truncexpon(2.0, scale=0.5).cdf).pvalue > 1e-4
