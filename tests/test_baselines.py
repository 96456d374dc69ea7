"""The baselines: right on a Gaussian, diagnosed where they are wrong, and run at the cost of the flow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.cli import main
from boltzflow.densities.catalog import mixture_2
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.studies.baselines import nuts, smc, tempering
from boltzflow.studies.baselines.common import Answer, draw, fitted_gaussian, shrunk, wide_gaussian
from boltzflow.studies.baselines.compare import at_equal_cost, errors, truth_of

DIM = 4
SHAPE = np.array([[2.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0.5, 0], [0, 0.2, 0, 1]])  # the Gaussian's Cholesky factor
INVERSE = np.linalg.inv(SHAPE)
MEAN = np.array([1.0, -2.0, 0.0, 3.0])
SQUARE = MEAN**2 + np.diag(SHAPE @ SHAPE.T)
LOG_Z = 0.5 * DIM * np.log(2 * np.pi) + np.log(np.diag(SHAPE)).sum()
NUM_SEEDS = 3
# A t-test on the mean of three runs: |t| above 40 is a false alarm of 6e-4; each run errs by 0.01 to 0.03.
MAX_T, MAX_ERROR = 40, 0.12


def gaussian_energy(x):
    return 0.5 * jnp.sum((jnp.asarray(INVERSE) @ (x - jnp.asarray(MEAN))) ** 2)


@pytest.mark.parametrize(
    "estimate",
    [
        functools.partial(smc.estimate_log_z, num_particles=2000, std=6.0),
        functools.partial(tempering.estimate_log_z, num_sweeps=64, std=6.0),
    ],
    ids=["smc", "tempering"],
)
def test_log_z_and_moments_of_a_gaussian(estimate):
    pytest.importorskip("blackjax")
    answers = [estimate(gaussian_energy, DIM, jax.random.key(seed)) for seed in range(NUM_SEEDS)]
    errors = np.array([answer.log_z - LOG_Z for answer in answers])
    assert np.abs(errors).max() < MAX_ERROR
    assert abs(errors.mean()) < MAX_T * errors.std(ddof=1) / np.sqrt(NUM_SEEDS)
    assert answers[0].compile_seconds > 0
    for answer in answers:
        assert answer.seconds > 0 and answer.gradient_evaluations > 1000
        assert 0.4 < answer.detail["acceptance"] < 0.95
        check_moments(answer, 0.2)


def check_moments(answer, tolerance):
    """In standard deviations of x and x²; 0.2 is about five standard errors of 2000 weighted particles."""
    scale = np.sqrt(np.diag(SHAPE @ SHAPE.T))
    np.testing.assert_allclose((answer.mean - MEAN) / scale, 0, atol=tolerance)
    square_scale = np.sqrt(2 * scale**4 + 4 * scale**2 * MEAN**2)
    np.testing.assert_allclose((answer.square - SQUARE) / square_scale, 0, atol=tolerance)


def test_starts_are_gaussians_that_share_a_program():
    """A start with other moments has arrays of the same shapes; its draws have these moments and its log Z is exact."""
    wide = wide_gaussian(DIM, 3.0)
    fitted = fitted_gaussian(MEAN, SHAPE @ SHAPE.T)
    assert jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, fitted)
    assert float(fitted.log_z) == pytest.approx(LOG_Z) and float(wide.log_z) == pytest.approx(
        DIM * np.log(3 * np.sqrt(2 * np.pi))
    )
    x = np.asarray(draw(fitted, jax.random.key(0), 40_000))
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=5 * 2 / 200)
    np.testing.assert_allclose(np.cov(x.T), SHAPE @ SHAPE.T, atol=5 * 6 / 200)


def test_shrunk_covariances_keep_their_variances_and_have_a_cholesky_factor():
    singular = np.stack([np.ones((2, 2)), np.zeros((2, 2))])
    for covariance in (singular, jnp.asarray(singular)):
        np.testing.assert_allclose(shrunk(covariance), [[[1, 0.999], [0.999, 1]], np.zeros((2, 2))], atol=1e-7)
    assert np.isfinite(np.linalg.cholesky(shrunk(singular))).all()


def test_short_smc_run_passes_on_moments_and_step_size(monkeypatch):
    runs = []

    def run(energy, key, start, size, *, settings):
        runs.append((*settings, float(size), np.asarray(start.mean).tolist()))
        return smc.SMCResult(jnp.zeros(()), jnp.ones(2), jnp.eye(2), jnp.array(3), 0.7, 1.0, jnp.asarray(0.25))

    monkeypatch.setattr(smc, "run_smc", run)
    answer = smc.estimate_log_z(mixture_2().energy, 2, jax.random.key(0), 64_000, std=10.0)
    assert runs[0] == (4000, 0.5, 2, 6, pytest.approx(1.2 * 2**-0.25), [0, 0])
    assert runs[1] == (64_000, 0.9, 4, 0, 0.25, [1, 1])
    assert answer.gradient_evaluations == 3 * (4000 * 11 + 64_000 * 21)


def test_nuts_has_moments_of_a_gaussian_and_large_r_hat_between_modes():
    pytest.importorskip("blackjax")
    answer = nuts.sample(gaussian_energy, DIM, jax.random.key(0), 200, std=6.0)
    check_moments(answer, 0.1)  # of 3200 draws, hardly correlated
    assert np.isnan(answer.log_z) and answer.detail["r_hat"] < 1.03 and answer.gradient_evaluations > 16 * 700
    stuck = nuts.sample(mixture_2().energy, 2, jax.random.key(0), 200, std=10.0)
    assert stuck.detail["r_hat"] > 2


def test_split_r_hat_matches_its_definition():
    rng = np.random.default_rng(0)
    halves = rng.normal(size=(3, 2, 50, 2)) + np.arange(3)[:, None, None, None]
    flat = halves.reshape(6, 50, 2)
    within = flat.var(axis=1, ddof=1).mean(axis=0)
    expected = np.sqrt(49 / 50 + flat.mean(axis=1).var(axis=0, ddof=1) / within).max()
    assert nuts.r_hat(halves.mean(axis=2), (halves**2).mean(axis=2), 50) == pytest.approx(expected, rel=1e-10)


def test_budgets_meet_the_cost_of_the_flow():
    """A baseline that costs 1000 + 3 b evaluations and 0.5 + b / 1000 seconds."""

    def baseline(energy, dim, key, budget, *, std):
        x = np.zeros(dim)
        return Answer(0.0, x, x, 0.5 + budget / 1000, 0.0, 1000 + budget, 2 * budget, {})

    (_, first), (_, second) = at_equal_cost(baseline, 100, mixture_2(), 0, 10.0, 100_000, 20.0)
    assert 70_000 <= first.evaluations <= 100_000 and 14 <= second.seconds <= 20
    (least, _), (_, answer) = at_equal_cost(baseline, 100, mixture_2(), 0, 10.0, 10, 0.01)
    assert least == 100 and answer.seconds > 0.01  # the smallest budget costs more, and the answer states it


def test_errors_are_taken_against_exact_samples():
    target = GaussianMixture(np.array([1.0]), np.array([[1.0, -2.0]]), 4.0)
    truth = truth_of(target)
    np.testing.assert_allclose(truth.mean, [1, -2], atol=5 * 2 / 512)
    np.testing.assert_allclose(truth.square, [5, 8], atol=5 * 10 / 512)
    answer = Answer(target.log_z + 0.5, truth.mean + truth.mean_scale, truth.square, 0.0, 0.0, 0, 0, {})
    assert errors(answer, truth) == pytest.approx((0.5, 1.0, 0.0), abs=1e-6)


@pytest.mark.slow
def test_compare_prints_two_tables(monkeypatch, tmp_path, capsys):
    pytest.importorskip("blackjax")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "mixture-2", "--preset", "quick"]) == 0
    out = capsys.readouterr().out
    assert "energy evaluations" in out and "seconds" in out and out.count("parallel tempering") >= 2
    assert "R-hat" in out and not list(tmp_path.iterdir())
