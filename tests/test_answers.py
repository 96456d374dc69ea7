"""The route that answers where the flow does not: a fitted mixture, populations of SMC, or none."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.report.answers import answer_by
from boltzflow.report.populations import checks_of, log_z_of
from boltzflow.report.report import Report, Verdict
from boltzflow.sampling.populations import Groups, Populations, far_from_particles
from boltzflow.statistics.estimates import exact
from still_run import Hidden, still_run

NARROW = Gaussian(np.array([-4.0, 0.0]), 0.5)


def ring(x):
    """A ring of radius 4 and width 0.2 in two dimensions: no mixture of a few Gaussians is near it."""
    return 0.5 * ((jnp.hypot(x[0], x[1]) - 4) / 0.2) ** 2


LOG_Z_RING = np.log(2 * np.pi * 4 * 0.2 * np.sqrt(2 * np.pi))  # the inner end is 20 widths away


@pytest.fixture(scope="module")
def by_mixture():
    """The flow has one mode of two, with other weights than the target's."""
    target = Hidden(bf.GaussianMixture([0.3, 0.7], [[-4.0, 0.0], [4.0, 1.0]], 1.0), 2)
    return still_run(target, NARROW, log_z_error=0.01)


@pytest.fixture(scope="module")
def by_smc():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boltzflow.report.draws._LEAST_SHARE", 2.0)  # no mixture
        run = still_run(bf.Energy(ring, 2), NARROW, log_z_error=0.03)
        run.report()
        yield run


def test_mixture_answers_where_the_flow_misses_a_mode(by_mixture):
    report = by_mixture.report()
    assert report.route == "mixture" and report.verdict.trustworthy, report.verdict.warnings
    assert "not covered" in report.verdict.notes[0]
    log_z = by_mixture.log_z()
    assert log_z.ok and abs(log_z.value) < 4 * log_z.stderr and log_z.stderr < 0.01
    mean = by_mixture.expectation(lambda x: x[0])
    assert mean.ok and abs(mean.value - 1.6) < 4 * mean.stderr
    samples = by_mixture.sample(jax.random.key(1), 4000)
    np.testing.assert_allclose(samples.log_weight, -samples.energy - samples.log_prob)
    weight = np.exp(samples.log_weight)
    assert abs(np.average(samples.x[:, 0] > 0, weights=weight) - 0.7) < 0.05


def test_smc_answers_where_no_mixture_is_near(by_smc):
    report = by_smc.report()
    assert report.route == "smc" and report.verdict.trustworthy, report.verdict.warnings
    log_z = by_smc.log_z()
    assert log_z.ok and abs(log_z.value - LOG_Z_RING) < 4 * log_z.stderr
    square = by_smc.expectation(lambda x: x @ x)
    assert square.ok and abs(square.value - (16 + 3 * 0.04)) < 4 * square.stderr  # E r² over r exp(-(r - 4)²/.08)


def test_samples_of_smc_have_the_weight_of_log_z(by_smc):
    num = by_smc.draws.populations.x.shape[0] * by_smc.draws.populations.x.shape[1] + 1
    samples = by_smc.sample(jax.random.key(1), num)
    assert samples.x.shape == (num, 2)
    assert np.ptp(samples.log_weight) == 0 and abs(samples.log_weight[0] - LOG_Z_RING) < 0.2
    np.testing.assert_allclose(samples.log_weight, -samples.energy - samples.log_prob)


@pytest.mark.parametrize("method", ["importance", "metropolis", "annealed"])
def test_equally_weighted_samples_come_from_the_route_that_answers(by_smc, by_mixture, method):
    """The flow has none at radius 4 but on one side, and one mode of two."""
    angle_x = by_smc.correct(jax.random.key(2), 2000, method).x[:, 0]
    assert abs(np.mean(angle_x > 0) - 0.5) < 0.1
    assert abs(np.mean(np.asarray(by_mixture.correct(jax.random.key(2), 2000, method).x)[:, 0] > 0) - 0.7) < 0.1


def test_route_is_in_the_report_and_its_cost(by_smc):
    report = by_smc.report()
    assert Report.from_json(report.to_json()).route == "smc"
    assert report.cost["gradient_evaluations"] >= by_smc.draws.populations.num_gradients
    assert report.estimates["log_z"] == report.estimates["log_z_smc"]


def test_flow_alone_answers_where_the_settings_say_so():
    run = still_run(bf.Energy(ring, 2), NARROW, route="flow")
    assert run.report().route == "flow" and not run.log_z().ok


X = np.random.default_rng(0).normal(size=(8, 16, 2))
SOUND = Populations(
    x=X,
    log_z_of_group=np.linspace(-0.1, 0.1, 8),
    before=None,
    log_z=exact(0.0, stderr=0.03),
    num_moves=16,
    rise=0.5,
    drift=2.0,
    scales=3.0,
    acceptance=0.7,
    num_ancestors=100,
    last_beta=1.0,
    num_gradients=1,
    key=jax.random.key(0),
)
FLOW = Report({}, 0, "default", {}, {}, Verdict(False, ("Bad.",)), {}, {"log_z": exact(0.0)})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, ""),
        ({"last_beta": 0.5}, "stopped"),
        ({"drift": 7.0}, "neck"),
        ({"scales": 17.0}, "17 times narrower"),
        ({"rise": 3.0}, "still rose"),
        ({"rise": np.inf}, "afforded"),
        ({"log_z_of_group": np.linspace(-2, 2, 8)}, "scatters"),
        ({"log_z_of_group": np.array([9.0, 0, 0, 0, 0, 0, 0, 0])}, "effective populations"),
        ({"acceptance": 0.1}, "accepted only 10%"),
        ({"num_ancestors": 3}, "from only 3"),
        ({"log_z": exact(0.3, stderr=0.03)}, "exact value"),
    ],
)
def test_each_check_of_populations_trips_alone(changes, word):
    populations = dataclasses.replace(SOUND, **changes)
    checks = checks_of(populations, log_z_of(populations, 0.0), [], FLOW, ())
    found = [check.warning for check in checks if check.warning]
    assert len(found) == bool(word), found
    assert word in "".join(found)


def test_part_that_the_pilot_knows_and_no_particle_reaches_is_missed():
    """Particles of a normal law that end at 2 in one direction, and points of the whole law: 2.3 % are beyond."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, 2048, 2))
    whole = rng.normal(size=(4096, 2)) * [2.0, 1.0]
    populations = dataclasses.replace(SOUND, x=np.where(x > 1.9, -np.abs(x), x) * [2.0, 1.0])
    far = far_from_particles(populations, whole)
    assert len(far) > 0.005 * len(whole) and np.sum(far[:, 0] > 2 * 1.9) > 30
    assert len(far_from_particles(dataclasses.replace(SOUND, x=x * [2.0, 1.0]), whole)) < 0.003 * len(whole)


def test_expectation_holds_what_more_moves_have_changed(by_smc):
    """Averages over the particles, which with a quarter of the moves were elsewhere."""
    alone = by_smc.expectation(lambda x: x[0] ** 2)
    found = by_smc.draws.populations
    elsewhere = Groups(found.x + 2.0, found.log_z_of_group)
    answer = answer_by(by_smc.draws, "smc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_smc.draws, "populations", dataclasses.replace(found, before=elsewhere))
        changed = answer.expect(lambda x: x[0] ** 2, 0)
    assert changed.value == alone.value and changed.stderr > 2 > 10 * alone.stderr
