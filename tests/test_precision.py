"""Answers in double precision, and the rounding of an energy as part of the error of log Z."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.precision import programs_of, rounding_error, trains_in_single
from boltzflow.model.continuity import trainable
from boltzflow.numerics.batching import map_points

QUICK = {"preset": "quick", "num_steps": 20, "num_eval_samples": 1024, "width": 8, "sample_steps": 8}
LOG_2PI = float(np.log(2 * np.pi))
OFFSET = 1e7
X = np.random.default_rng(0).normal(size=(400, 2))


def gaussian(x):
    return x @ x / 2


def with_offset(x):
    return x @ x / 2 + OFFSET


def in_single(fn):
    """`fn` with its point cast to single precision, and its result back."""
    return lambda x: fn(x.astype(jnp.float32)).astype(x.dtype)


def rounding_of(fn, x=X, precision="auto"):
    target = bf.Energy(fn, x.shape[1])
    with programs_of(target, precision).answering():
        return rounding_error(target, x)


def parameters(run):
    return jax.tree.leaves(eqx.filter(run.trained.transport, trainable(run.trained.transport)))


# --- an offset --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def offset_run():
    return bf.fit(bf.Energy(with_offset, 2), config=QUICK)


@pytest.fixture(scope="module")
def plain_run():
    return bf.fit(bf.Energy(gaussian, 2), config=QUICK)


def test_an_offset_is_in_log_z(offset_run):
    estimate = offset_run.log_z()
    assert estimate.stderr < 0.1
    assert abs(estimate.value - (LOG_2PI - OFFSET)) < 5 * estimate.stderr


def test_an_offset_makes_training_take_double_precision(offset_run, plain_run):
    assert {leaf.dtype for leaf in parameters(offset_run)} == {np.dtype(np.float64)}
    assert {leaf.dtype for leaf in parameters(plain_run)} == {np.dtype(np.float32)}
    assert offset_run.trained.in_double
    assert not plain_run.trained.in_double


def test_answers_are_in_double_precision(plain_run):
    samples = plain_run.samples
    assert {array.dtype for array in vars(samples).values()} == {np.dtype(np.float64)}
    np.testing.assert_allclose(samples.energy, (samples.x**2).sum(axis=1) / 2, rtol=1e-14)
    np.testing.assert_allclose(samples.log_weight, -samples.energy - samples.log_prob, rtol=1e-14)


def test_the_energies_of_an_offset_keep_their_differences(offset_run):
    samples = offset_run.samples
    np.testing.assert_allclose(samples.energy - OFFSET, (samples.x**2).sum(axis=1) / 2, atol=4e-9)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e7, -1e7])
def test_training_takes_double_precision_where_single_loses_the_energy(offset):
    target = bf.Energy(lambda x: x @ x / 2 + offset, 2)
    with programs_of(target).answering():
        assert trains_in_single(target, X) == (abs(offset) < 1e5)


# --- data -------------------------------------------------------------------------------------------------------------

SIGMA = 1e-4
TIMES = np.linspace(0.0, 1.0, 12)
DATA = 100.0 + 3.0 * TIMES + SIGMA * np.random.default_rng(1).normal(size=TIMES.size)
DESIGN = np.stack([np.ones_like(TIMES), TIMES], axis=1)


def misfit(data):
    """The energy of a straight line's two coefficients, for data with the error SIGMA."""
    return lambda x: (((data - DESIGN @ x) / SIGMA) ** 2).sum() / 2


def line_log_z():
    """log of the Gaussian integral, exact."""
    best, [rest], *_ = np.linalg.lstsq(DESIGN, DATA, rcond=None)
    return LOG_2PI - np.linalg.slogdet(DESIGN.T @ DESIGN / SIGMA**2)[1] / 2 - rest / SIGMA**2 / 2, best


def posterior_points(num=400):
    best = line_log_z()[1]
    factor = np.linalg.cholesky(np.linalg.inv(DESIGN.T @ DESIGN / SIGMA**2))
    return best + np.random.default_rng(2).normal(size=(num, 2)) @ factor.T


def test_data_with_small_errors_are_taken_in_full():
    exact, best = line_log_z()
    run = bf.fit(bf.Energy(misfit(DATA), 2), config=QUICK)
    estimate = run.log_z()
    assert estimate.stderr < 0.1
    assert abs(estimate.value - exact) < 5 * estimate.stderr
    assert run.trained.in_double
    mean = run.expectation(lambda x: x)
    assert np.all(np.abs(mean.value - best) < 5 * mean.stderr)
    assert np.all(mean.stderr < 0.1 * SIGMA * np.sqrt(12))


def test_double_data_leave_no_rounding():
    assert rounding_of(misfit(DATA), posterior_points()) < 1e-6


def test_data_in_single_precision_are_a_rounding_error():
    points = posterior_points()
    data = DATA.astype(np.float32)
    slopes = ((data - DESIGN @ points.mean(axis=0)) / SIGMA**2).astype(np.float64)
    expected = np.linalg.norm(slopes * np.spacing(data)) / np.sqrt(12)
    found = rounding_of(misfit(jnp.asarray(data)), points)
    assert expected / 2 < found < 2 * expected


def test_whole_numbers_in_single_precision_are_no_rounding_error():
    counts = jnp.asarray(np.arange(12.0), jnp.float32)
    assert rounding_of(lambda x: ((counts - DESIGN @ x) ** 2).sum() / 2) < 1e-6


def test_data_in_single_precision_raise_the_error_of_log_z(plain_run):
    """Data that shift the energy; those that move its minimum leave log Z as it is."""
    narrow = jnp.asarray(1e4 + np.random.default_rng(3).normal(size=50), jnp.float32)
    expected = np.sqrt(50 / 12) * np.spacing(np.float32(1e4))
    target = bf.Energy(lambda x: x @ x / 2 + narrow.astype(x.dtype).sum(), 2)
    run = bf.Run(target, plain_run.config, 0, plain_run.trained, programs=programs_of(target))
    assert expected / 2 < run.draws.rounding < 2 * expected
    assert plain_run.draws.rounding < 1e-9
    assert run.log_z().stderr >= run.draws.rounding


# --- an energy in single precision ------------------------------------------------------------------------------------


def test_a_smooth_energy_in_double_precision_has_no_noise():
    assert rounding_of(gaussian) < 1e-9
    assert rounding_of(with_offset) < 1e-7


@pytest.mark.parametrize("offset", [1e3, 1e4, 1e5, 1e6, 1e7])
def test_an_energy_that_casts_has_the_noise_of_its_rounding(offset):
    fn = in_single(lambda x: x @ x / 2 + offset)
    expected = np.std(np.asarray(map_points(fn, X.astype(np.float32)), np.float64) - offset - (X**2).sum(axis=1) / 2)
    assert expected / 3 < rounding_of(fn) < 3 * expected


def test_single_precision_is_asked_for():
    run = bf.fit(bf.Energy(gaussian, 2), config=QUICK | {"precision": "single"})
    assert not run.programs.double
    assert not run.trained.in_double
    energy = run.samples.energy
    assert energy.dtype == np.float64
    np.testing.assert_array_equal(energy, energy.astype(np.float32))


def test_single_precision_has_its_own_rounding_error():
    assert rounding_of(with_offset, precision="single") > 1e3 * rounding_of(with_offset, precision="double")


def needs_single(x):
    """An energy with an operation that takes arguments of one type alone."""
    return jax.lax.mul(x, jnp.ones(2, jnp.float32)) @ x / 2


def test_an_energy_that_fails_in_double_precision_is_answered_in_single():
    target = bf.Energy(needs_single, 2)
    assert not programs_of(target, "auto").double
    with pytest.raises(bf.InputError, match="cannot be evaluated in double precision: TypeError"):
        programs_of(target, "double")


def test_the_caller_keeps_his_precision(plain_run):
    for before in (False, True):
        with jax.enable_x64(before):
            plain_run.sample(jax.random.key(0), 4)
            assert jnp.ones(1).dtype == (np.float64 if before else np.float32)


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["offset_run", "plain_run"])
def test_a_checkpoint_keeps_every_bit(request, tmp_path, name):
    run = request.getfixturevalue(name)
    run.save(tmp_path)
    again = bf.load(tmp_path, run.target)
    for kept, leaf in zip(parameters(again), parameters(run), strict=True):
        assert kept.dtype == leaf.dtype
        np.testing.assert_array_equal(kept, leaf)
    assert again.trained.in_double == run.trained.in_double
    assert again.programs == run.programs
    for name, array in vars(run.samples).items():
        np.testing.assert_array_equal(getattr(again.samples, name), array)
    assert again.log_z() == run.log_z()


def test_a_checkpoint_of_another_offset_is_told_from_this_target(offset_run, tmp_path):
    """Offsets alone shift log Z, which a stored run keeps; only differences of energies identify the target."""
    offset_run.save(tmp_path)
    with pytest.raises(bf.InputError):
        bf.load(tmp_path, bf.Energy(lambda x: x @ x + OFFSET, 2))


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit, lambda fn: jax.jit(jax.jit(fn))])
def test_rounded_data_inside_a_jit_of_the_users_own_count(wrap):
    """The residuals are known to 1e-4 of the data, and single precision rounds these by 3e-8."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=50)
    points = np.array([[0.1]]) + 1e-5 * rng.normal(size=(500, 1))
    errors = []
    for data in (exact, jnp.asarray(exact, jnp.float32)):
        target = bf.Energy(wrap(lambda x, data=data: 0.5 * jnp.sum(((jnp.asarray(data) - x[0]) / 1e-4) ** 2)), 1)
        with programs_of(target).answering():
            errors.append(rounding_error(target, points))
    assert errors[0] < 1e-3 and errors[1] > 1
