"""A run that starts from the run of a neighboring target: the same answers in fewer steps, or training anew."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from bad_input import STARTS
from boltzflow.priors import Normal
from boltzflow.statistics.estimates import disagreement, exact
from boltzflow.training import loop
from boltzflow.training.race import Race
from boltzflow.training.start import Started

SITES = 4
FEW = {"width": 16, "num_networks": 2, "num_steps": 0, "num_eval_samples": 8192, "field": "time-mixture"}


@pytest.fixture(autouse=True, scope="module")
def few_steps():
    """Every run takes 240 steps, and a started one an eighth: with equal settings they share compiled programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_STEPS_RANGE", (240, 240))
        yield


def action(x, m):
    """The energy of `DoubleWell(4, m)`."""
    step = 4.0 / SITES
    return step * jnp.sum(m / 2 * ((x - jnp.roll(x, 1)) / step) ** 2 - m / 2 * x**2 + x**4 / 4)


def at(m):
    return bf.Energy(jax.tree_util.Partial(action, m=np.float64(m)), SITES, (SITES,), sign_symmetric=True)


@pytest.fixture(scope="module")
def neighbor():
    return bf.fit(at(1.5), config=FEW)


@pytest.fixture(scope="module")
def run(neighbor):
    return bf.fit(at(1.7), seed=1, config=FEW, start=neighbor)


def same(one, other):
    a, b = (jax.tree.leaves(run.trained.transport) for run in (one, other))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    losses = [[row["loss"] for row in run.history] for run in (one, other)]
    assert losses[0] == losses[1]


# --- a neighbor that is near ------------------------------------------------------------------------------------------


def test_a_started_run_is_right_after_few_steps(neighbor, run):
    started = run.trained.started
    assert not started.anew and 0 < started.distance < 0.2
    assert neighbor.trained.cost["steps"] == 240
    assert run.trained.cost["steps"] == run.history[-1]["step"] == started.steps_of(240) < 60
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    assert run.report().route == "flow" and run.report().estimates["reverse_ess"].value > 0.95
    assert disagreement(run.log_z(), exact(bf.DoubleWell(SITES, 1.7).log_z)) < 4


def test_the_report_says_what_it_was_started_from(neighbor, run):
    notes = " ".join(run.report().verdict.notes)
    assert (
        f"Started from the flow of the run of Energy, dim 4, seed 0, preset default ({neighbor.as_start().run[:8]})"
        in notes
    )
    assert "nats away" in notes


def test_the_slope_of_log_z_is_that_of_the_exact_one(run):
    slope = run.log_z_gradient(lambda x: jax.grad(action, 1)(x, jnp.asarray(1.7, x.dtype)))
    up, down = (bf.DoubleWell(SITES, 1.7 + step).log_z for step in (1e-4, -1e-4))
    assert slope.ok and disagreement(slope, exact((up - down) / 2e-4)) < 4


def test_the_same_start_gives_the_same_numbers_from_memory_and_from_a_folder(neighbor, run, tmp_path):
    neighbor.save(tmp_path / "neighbor")
    loaded = bf.load(tmp_path / "neighbor", at(1.5))
    assert loaded.as_start().run == neighbor.as_start().run
    same(bf.fit(at(1.7), seed=1, config=FEW, start=loaded), run)
    run.save(tmp_path / "run")
    assert bf.load(tmp_path / "run", at(1.7)).trained.started == run.trained.started


def test_an_interrupted_run_goes_on_with_the_same_start_alone(neighbor, run, tmp_path):
    def stop(progress):
        if progress.phase == "train" and progress.step == 10:
            raise KeyboardInterrupt

    given = {"seed": 1, "config": FEW, "keep": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        bf.fit(at(1.7), start=neighbor, on_progress=stop, **given)
    for other in (None, run):
        with pytest.raises(bf.InputError, match="give the same start"):
            bf.fit(at(1.7), start=other, **given)
    same(bf.fit(at(1.7), start=neighbor, **given), run)


@pytest.mark.parametrize(
    ("distance", "anew", "steps"), [(0.01, "", 250), (0.3, "", 600), (0.999, "", 2000), (3.0, "far", 2000)]
)
def test_the_share_of_the_steps_grows_with_the_distance(distance, anew, steps):
    assert Started("", "", distance, anew).steps_of(2000) == steps


def test_the_field_of_the_neighbor_is_no_race():
    race = Race("lattice", 0, {}, {})
    assert race.num_steps_in_all == 0
    assert race.sentence.startswith("The field is lattice, as in the run that this one started from.")


def shifted(x, shift):
    return jnp.sum((x - shift) ** 2) * 8 + jnp.sum(x**4)


def likelihood(a, b):
    return -((a + b - 1.0) ** 2) - 0.1 * a**4


@pytest.mark.slow
@pytest.mark.parametrize(
    "targets",
    [
        [bf.Energy(jax.tree_util.Partial(shifted, shift=np.float64(s)), 2, lower=0.0, upper=1.0) for s in (0.3, 0.4)],
        [bf.Posterior(likelihood, {"a": Normal(0.0, s), "b": Normal()}) for s in (1.0, 1.1)],
    ],
    ids=["bounds", "posterior"],
)
def test_targets_in_other_coordinates_are_started_too(targets):
    settings = {**FEW, "num_steps": 30, "width": 8}
    first = bf.fit(targets[0], config=settings)
    assert bf.fit(targets[1], config=settings, start=first).trained.started.anew == ""


# --- a neighbor that is far -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken():
    """A run on two wells far apart, started from nearly one well."""
    return bf.fit(at(3.0), config=FEW, start=bf.fit(at(0.1), config=FEW))


def test_the_flow_is_trained_anew_for_two_wells_from_one(broken):
    assert "nats away" in broken.trained.started.anew and broken.trained.cost["steps"] == 240
    assert 0.3 < np.mean(broken.pilot.points.mean(axis=1) > 0) < 0.7


@pytest.mark.slow
def test_two_wells_are_right_from_one(broken):
    assert "the flow was trained anew" in " ".join(broken.report().verdict.notes)
    assert broken.report().verdict.trustworthy, broken.report().verdict.warnings
    assert disagreement(broken.log_z(), exact(bf.DoubleWell(SITES, 3.0).log_z)) < 4
    assert disagreement(broken.expectation(lambda x: x.mean() > 0), exact(0.5)) < 4


def two_modes(x, share):
    """-log of a normalized mixture: a normal at 0, and a narrower one of this share eight away."""
    near = jnp.log1p(-share) - x @ x / 2
    far = jnp.log(share) - jnp.sum((x - 8.0) ** 2) / (2 * 0.25) - 2 * jnp.log(0.5)
    return -jnp.logaddexp(near, far) + jnp.log(2 * jnp.pi)


@pytest.mark.slow
def test_a_mode_that_the_neighbor_lacks_is_found():
    def mixture(share):
        return bf.Energy(jax.tree_util.Partial(two_modes, share=np.float64(share)), 2)

    one = bf.fit(mixture(1e-30), config=FEW)
    both = bf.fit(mixture(0.3), config=FEW, start=one)
    assert both.trained.started.anew
    assert both.report().verdict.trustworthy, both.report().verdict.warnings
    assert disagreement(both.log_z(), exact(0.0)) < 4
    assert disagreement(both.expectation(lambda x: x.sum() > 8.0), exact(0.3)) < 4


# --- refusals ---------------------------------------------------------------------------------------------------------


def free(x):
    return x @ x


@pytest.mark.parametrize(("code", "says"), STARTS)
def test_a_start_of_no_use_is_refused(neighbor, unchecked, code, says):
    def fit(target, config=None, **given):
        return bf.fit(target, config={**FEW, **(config or {})}, **given)

    with pytest.raises(bf.InputError) as refused:
        eval(code, {**vars(bf), "fit": fit, "free": free, "run": neighbor, "target": at(1.7)})
    assert str(refused.value) == says


def test_other_kinds_of_coordinates_are_refused(neighbor):
    start = dataclasses.replace(neighbor.as_start(), target=bf.Energy(free, 4))
    angles = bf.Energy(lambda x: jnp.cos(x).sum(), 2, periodic=True)
    with pytest.raises(bf.InputError, match="the same number of coordinates: it is 4 of start, 2 here"):
        start.check(angles, neighbor.config, bf.Parts())
    with pytest.raises(bf.InputError, match="the same declaration of a prior: it is False of start, True here"):
        start.check(bf.Energy(free, 4, lower=0.0, upper=1.0), neighbor.config, bf.Parts())


def test_other_settings_than_those_of_the_flow_may_differ(neighbor):
    other = dataclasses.replace(neighbor.config, learning_rate=0.01, num_eval_samples=512, num_steps=10)
    neighbor.as_start().check(at(1.6), other, bf.Parts())
