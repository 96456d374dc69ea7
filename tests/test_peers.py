"""The peers: right on a Gaussian, honest where they are not, and given as much as the flow took."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.cli import main
from boltzflow.densities.catalog import mixture_2
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.studies.baselines import nuts, smc, tempering
from boltzflow.studies.baselines.compare import Entry, at_equal_cost, truth_of
from boltzflow.studies.baselines.start import Answer

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
    for answer in answers:
        assert answer.seconds > 0 and answer.compile_seconds > 0 and answer.gradient_evaluations > 1000
        assert 0.4 < answer.detail["acceptance"] < 0.95
        check_moments(answer, 0.2)


def check_moments(answer, tolerance):
    """In standard deviations of x and x²; of 2000 particles that carry weights 0.2 is some five errors."""
    scale = np.sqrt(np.diag(SHAPE @ SHAPE.T))
    np.testing.assert_allclose((answer.mean - MEAN) / scale, 0, atol=tolerance)
    square_scale = np.sqrt(2 * scale**4 + 4 * scale**2 * MEAN**2)
    np.testing.assert_allclose((answer.square - SQUARE) / square_scale, 0, atol=tolerance)


def test_smc_scouts_hand_on_where_the_target_is_and_their_step(monkeypatch):
    flown = []

    def fly(self, program, key, start, size):
        flown.append((*program.args[1:], float(size), np.asarray(start.mean).tolist()))
        return smc.Flight(jnp.zeros(()), jnp.ones(2), jnp.eye(2), jnp.array(3), 0.7, 1.0, jnp.asarray(0.25))

    monkeypatch.setattr(smc.Stopwatch, "run", fly)
    answer = smc.estimate_log_z(mixture_2().energy, 2, jax.random.key(0), 64_000, std=10.0)
    assert flown[0] == (4000, 0.5, 2, 6, pytest.approx(1.2 * 2**-0.25), [0, 0])
    assert flown[1] == (64_000, 0.9, 4, 0, 0.25, [1, 1])
    assert answer.gradient_evaluations == 3 * (4000 * 11 + 64_000 * 21)


def test_nuts_knows_a_gaussian_and_says_that_it_is_stuck_between_modes():
    pytest.importorskip("blackjax")
    answer = nuts.sample(gaussian_energy, DIM, jax.random.key(0), 200, std=6.0)
    check_moments(answer, 0.1)  # of 3200 draws, hardly correlated
    assert np.isnan(answer.log_z) and answer.detail["r_hat"] < 1.03 and answer.gradient_evaluations > 16 * 700
    stuck = nuts.sample(mixture_2().energy, 2, jax.random.key(0), 200, std=10.0)
    assert stuck.detail["r_hat"] > 2


def test_split_r_hat_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    halves = rng.normal(size=(3, 2, 50, 2)) + np.arange(3)[:, None, None, None]
    flat = halves.reshape(6, 50, 2)
    within = flat.var(axis=1, ddof=1).mean(axis=0)
    expected = np.sqrt(49 / 50 + flat.mean(axis=1).var(axis=0, ddof=1) / within).max()
    assert nuts.r_hat(halves.mean(axis=2), (halves**2).mean(axis=2), 50) == pytest.approx(expected, rel=1e-10)


def test_budgets_meet_the_cost():
    """Of a peer that costs 1000 + 3 b evaluations and 0.5 + b / 1000 seconds."""

    def peer(energy, dim, key, budget, *, std):
        x = np.zeros(dim)
        return Answer(0.0, x, x, 0.5 + budget / 1000, 0.0, 1000 + budget, 2 * budget, {})

    (_, first), (_, second) = at_equal_cost(peer, 100, mixture_2(), 0, 10.0, 100_000, 20.0)
    assert 70_000 <= first.evaluations <= 100_000 and 14 <= second.seconds <= 20
    (least, _), (_, answer) = at_equal_cost(peer, 100, mixture_2(), 0, 10.0, 10, 0.01)
    assert least == 100 and answer.seconds > 0.01  # what cannot be as cheap says what it cost


def test_errors_are_those_of_exact_samples():
    target = GaussianMixture(np.array([1.0]), np.array([[1.0, -2.0]]), 4.0)
    truth = truth_of(target)
    np.testing.assert_allclose(truth.mean, [1, -2], atol=5 * 2 / 512)
    np.testing.assert_allclose(truth.square, [5, 8], atol=5 * 10 / 512)
    answer = Answer(target.log_z + 0.5, truth.mean + truth.mean_scale, truth.square, 0.0, 0.0, 0, 0, {})
    assert Entry("some", 1, answer).errors(truth) == pytest.approx((0.5, 1.0, 0.0), abs=1e-6)


@pytest.mark.slow
def test_compare_prints_two_tables(monkeypatch, tmp_path, capsys):
    pytest.importorskip("blackjax")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "mixture-2", "--preset", "quick"]) == 0
    out = capsys.readouterr().out
    assert "energy evaluations" in out and "seconds" in out and out.count("parallel tempering") >= 2
    assert "R-hat" in out and not list(tmp_path.iterdir())
