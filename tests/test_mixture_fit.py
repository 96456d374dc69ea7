"""The density that needs no flow: a mixture where one Gaussian is not enough, and runs that need no training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import SubspaceMixture
from boltzflow.densities.student_t import StudentT, StudentTMixture
from boltzflow.model.fields import ZeroField
from boltzflow.sampling.expectation_maximization import Cloud, maximize
from boltzflow.sampling.mixture_fit import FittedDensity, fit_mixture
from boltzflow.sampling.pilot import run_pilot
from boltzflow.statistics.estimates import log_z_importance, samples_for
from boltzflow.training.loop import without_a_flow

FULL_PILOT = True

TINY = dataclasses.replace(default_preset(), width=16, num_networks=2, num_eval_samples=8192)


def fitted(target, x, gaussian, subspace=None, key=0, **settings):
    subspace = np.eye(target.dim) if subspace is None else subspace
    return fit_mixture(target, gaussian, subspace, np.asarray(x), jax.random.key(key), **settings)


def points_of(target, num=4096):
    return jax.vmap(lambda key: target.sample_and_log_prob(key)[0])(jax.random.split(jax.random.key(5), num))


def gaussian_of(x):
    return Gaussian(np.mean(x, axis=0), np.cov(np.asarray(x, np.float64), rowvar=False))


@pytest.mark.parametrize("target", [bf.mixture_2(), bf.mixture_4()], ids=["mixture-2", "mixture-4"])
def test_mixture_is_recovered_with_its_components(target):
    """Beside a twentieth of the one Gaussian that is too wide, which takes at most that from the effective samples."""
    x = points_of(target)
    found = fitted(target, x, gaussian_of(x))
    assert isinstance(found.density, SubspaceMixture) and len(found.density.inner.weights) == 1 + len(target.weights)
    assert 0.95 < found.share < 0.98 and not found.heavy
    weights = found.density.inner.weights
    assert weights[-1] == pytest.approx(0.05)
    np.testing.assert_allclose(sorted(weights[:-1] / 0.95), sorted(target.weights), atol=0.015)
    bare = fitted(target, x, gaussian_of(x), defensive=0.0)
    assert len(bare.density.inner.weights) == len(target.weights) and bare.share > 0.998


def test_num_samples_is_bounded_for_tiny_error():
    found = FittedDensity(Gaussian([0.0], 1.0), 0.9, False, 0)
    assert (
        found.num_samples(1e-170) == np.inf
        and FittedDensity(Gaussian([0.0], 1.0), 1.0, False, 0).num_samples(1e-170) == 0
    )
    assert samples_for(1e-170, np.random.default_rng(0).normal(size=1000), most=5000) == 5000


def test_maximize_keeps_largest_component_of_few_points():
    y = np.random.default_rng(0).normal(size=(20, 19))
    kept = maximize(Cloud(y), np.array([[0.6, 0.4]] * 19 + [[0.0, 1.0]]))
    assert len(kept.weights) == 1 and np.isfinite(kept.scales).all()


def test_ring_gets_many_components():
    target = bf.Energy(lambda x: 2.0 * (jnp.linalg.norm(x) - 3.0) ** 2, 2)  # a ring
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 4096)
    radius = np.random.default_rng(1).normal(3, 0.5, 4096)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = fitted(target, x, gaussian_of(x))
    assert len(found.density.inner.weights) >= 9 and found.share > 0.95
    again = fitted(target, x, gaussian_of(x))
    np.testing.assert_array_equal(again.density.inner.means, found.density.inner.means)  # the key is all there is


def test_forty_modes_are_found():
    """The first doublings gain little, and with this key nothing; only some forty components keep most samples."""
    target = bf.gmm_40()
    x = points_of(target)
    found = fitted(target, x, gaussian_of(x), key=1)
    assert len(found.density.inner.weights) > 32 and found.share > 0.9 and not found.heavy


def test_search_looks_two_doublings_ahead():
    """Six far modes along a diagonal: two or four components keep hardly more samples than one Gaussian."""
    means = np.array([[-8.0], [-4.8], [-1.6], [1.6], [4.8], [8.0]]) * np.ones(6)
    target = bf.GaussianMixture(np.ones(6) / 6, means, 0.01)
    x = points_of(target)
    found = fitted(target, x, gaussian_of(x))
    assert found.share > 0.9 and not found.heavy


def test_funnel_gets_components_along_its_axis():
    """x₁ to x₃ of a variance e^x₀ that spans six orders of magnitude: each component has a width of its own."""
    rng = np.random.default_rng(0)
    neck = 3 * rng.normal(size=4096)
    x = np.concatenate([neck[:, None], np.exp(neck / 2)[:, None] * rng.normal(size=(4096, 3))], axis=1)
    target = bf.Energy(lambda x: x[0] ** 2 / 18 + 1.5 * x[0] + 0.5 * jnp.exp(-x[0]) * x[1:] @ x[1:], 4)
    found = fitted(target, x, gaussian_of(x))
    widths = np.abs(np.asarray(found.density.inner.scales)[:, 1, 1])
    assert found.share > 0.7 and widths.max() > 30 * widths.min()


def test_heavy_tails_get_components_of_student_t():
    """The weights of Gaussians have no variance there; those of a t with nearly the right degrees do."""
    target = StudentT(np.ones(3), 4.0, scale_tril=np.eye(3))
    x = points_of(target)
    found = fitted(target, x, gaussian_of(x))
    assert isinstance(found.density.inner, StudentTMixture) and 3 <= found.density.inner.degrees <= 5
    assert found.share > 0.95 and not found.heavy
    log_weight = -jax.vmap(target.energy)(points_of(found.density)) - jax.vmap(found.density.log_prob)(
        points_of(found.density)
    )
    log_z = log_z_importance(log_weight)
    assert abs(log_z.value - target.log_z) < 5 * log_z.stderr


def test_mixture_is_confined_to_subspace():
    """Two modes along one direction of twelve; the gaussian has the eleven others exactly."""
    rng = np.random.default_rng(0)
    direction = np.linalg.qr(rng.normal(size=(12, 12)))[0][:, :1]
    two = bf.GaussianMixture([0.5, 0.5], [[-0.9], [0.9]], 0.19)  # of variance 1 in all
    target = SubspaceMixture(Gaussian(np.zeros(12), 1.0), two, direction)
    found = fitted(target, points_of(target), Gaussian(np.zeros(12), 1.0), subspace=direction)
    assert found.share > 0.95 and found.density.inner.dim == 1


def test_gaussian_target_and_large_subspace_get_no_mixture():
    target = Gaussian([1.0, -2.0], [[4.0, 1.2], [1.2, 1.0]])
    found = fitted(target, points_of(target), target)
    assert found.density is target and found.share > 0.9999
    chain = bf.DoubleWell(80, 1.5)
    gaussian = Gaussian(np.zeros(80), 0.5)
    assert fitted(chain, np.zeros((100, 80)), gaussian).density is gaussian


def test_heavy_weights_need_infinitely_many_samples():
    cauchy = bf.Energy(lambda x: jnp.sum(jnp.log1p(x**2)), 2)
    x = np.random.default_rng(0).standard_cauchy((4096, 2))
    assert fitted(cauchy, x, Gaussian(np.zeros(2), 4.0), subspace=np.eye(2)[:, :1]).num_samples(1.0) == np.inf
    nowhere = bf.Energy(lambda x: jnp.nan * jnp.sum(x), 2)
    assert fitted(nowhere, x, gaussian_of(x)).num_samples(1.0) == np.inf


def test_num_samples_follows_weight_variance():
    assert FittedDensity(Gaussian([0.0], 1.0), 0.8, False, 0).num_samples(1e-2) == pytest.approx(2500)
    log_weight = np.log(np.random.default_rng(0).gamma(4.0, size=10_000))  # relative variance 1/4, ESS 0.8
    num = samples_for(1e-3, log_weight)
    assert num == pytest.approx(1.2 * 0.25 / 1e-6, rel=0.05)
    more = np.log(np.random.default_rng(1).gamma(4.0, size=num))
    assert log_z_importance(more).stderr == pytest.approx(1e-3 / np.sqrt(1.2), rel=0.05)
    assert samples_for(0.0, log_weight) == samples_for(0.1, log_weight) == 10_000
    assert samples_for(1e-5, log_weight, most=20_000) == 20_000
    heavy = np.random.default_rng(0).standard_exponential(10_000) * 2  # exp of it has no mean: more would not help
    assert samples_for(1e-5, heavy) == 10_000


# --- runs with a target error -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    return bf.fit(bf.mixture_2(), seed=1, config=dataclasses.replace(TINY, log_z_error=2e-4))


def test_loose_target_error_needs_no_flow(run):
    report = run.report()
    log_z = report.estimates["log_z"]
    assert report.cost["steps"] == 0 and isinstance(run.flow.field, ZeroField) and run.history == []
    assert log_z.stderr <= 2e-4 and abs(log_z.value) < 5 * log_z.stderr  # 8192 weights told how many are needed
    assert report.verdict.trustworthy and "log_z_rate" not in report.estimates
    assert abs(report.estimates["log_z_annealed"].value) < 5 * report.estimates["log_z_annealed"].stderr
    mean = run.expectation(lambda x: x[0])
    assert abs(mean.value + 4) < 5 * mean.stderr  # 4/3 - 16/3
    samples = run.correct(jax.random.key(0), 2000, "metropolis").x
    assert abs(float(np.mean(np.asarray(samples)[:, 0] > 0)) - 1 / 3) < 0.06


def test_run_without_flow_is_loaded_from_its_folder(run, tmp_path):
    run.save(tmp_path)
    loaded = bf.load(tmp_path, bf.mixture_2())
    np.testing.assert_array_equal(loaded.log_weights, run.log_weights)
    assert run.figures() and loaded.report().cost["steps"] == 0


def test_explicit_num_steps_are_taken():
    config = dataclasses.replace(TINY, log_z_error=1e-2, num_steps=20)
    run = bf.fit(bf.mixture_2(), config=config)
    assert run.trained.cost["steps"] == 20 and not run.pilot.enough


def test_flow_is_trained_where_sampling_costs_more():
    """A mixture of some nine effective samples in ten would need 3·10⁷ for an error of 5·10⁻⁵."""
    target = bf.DoubleWell(8, 1.5)
    pilot = run_pilot(target, jax.random.key(0))
    for error, enough in ((1e-2, True), (5e-5, False)):
        config = dataclasses.replace(TINY, log_z_error=error)
        after = without_a_flow(pilot, target, config, jax.random.key(0))
        assert after.enough == enough and after.num_gradients > pilot.num_gradients
        assert (after.base is pilot.base) != enough


def test_target_error_draws_more_weights_than_samples_kept():
    config = dataclasses.replace(TINY, log_z_error=1e-3, num_eval_samples=1000)
    run = bf.fit(bf.DoubleWell(8, 1.5), config=config)
    log_z = run.log_z()
    exact = float(run.target.log_z)
    assert len(run.samples.x) == 1000 < len(run.log_weights) == log_z.n
    assert log_z.stderr <= 1e-3 and abs(log_z.value - exact) < 5 * log_z.stderr


def test_fit_seeds_reaches_target_error(tmp_path):
    config = dataclasses.replace(TINY, log_z_error=1e-3)
    runs = bf.fit_seeds(bf.mixture_2(), seeds=[1, 2], config=config, keep=tmp_path)
    assert [run.trained.cost["steps"] for run in runs] == [0, 0]
    again = bf.fit_seeds(bf.mixture_2(), seeds=[1, 2], config=config, keep=tmp_path)  # from what is kept
    np.testing.assert_array_equal(again[1].samples.x, runs[1].samples.x)
