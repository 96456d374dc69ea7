"""The race between fields: who takes part, what it decides, and that a run goes on with what it decided."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset, paper_preset, with_changes
from boltzflow.model.fields import TimeMixture
from boltzflow.training import race as races
from boltzflow.training.build import NO_PARTS
from boltzflow.training.race import Race, candidates, with_field

TINY = dataclasses.replace(
    default_preset(), num_steps=60, width=16, num_networks=2, num_eval_samples=2048, route="flow"
)


def action(x):
    """A field on a lattice of 4 x 4 with two wells."""
    p = x.reshape(4, 4)
    return sum(jnp.sum((jnp.roll(p, 1, axis) - p) ** 2) for axis in (0, 1)) + jnp.sum(-4 * p**2 + 5 * p**4)


TARGET = bf.Energy(action, 16, lattice_shape=(4, 4), sign_symmetric=True)


class Killed(BaseException):
    """The machine stops: nobody gets to write anything."""


def fit(config=TINY, said=None, stop=None, error=Killed, **kwargs):
    """A run that `error` ends at the phase and step `stop`; what is said of its progress goes into `said`."""

    def on_progress(progress):
        if said is not None:
            said.append(progress)
        if (progress.phase, progress.step) == stop:
            raise error

    return bf.fit(TARGET, config=config, on_progress=on_progress, **kwargs)


def same(one, other):
    a, b = (jax.tree.leaves(run.trained.transport) for run in (one, other))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert one.trained.race == other.trained.race


@pytest.fixture(autouse=True, scope="module")
def all_are_tried():
    """No candidate comes so close that no other is tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(races, "_CLOSE", -np.inf)
        yield


@pytest.fixture(scope="module")
def run(all_are_tried):
    return fit()


def test_one_candidate_is_no_race():
    plain = bf.Energy(action, 16)
    own = bf.Parts(make_field=lambda base, key: TimeMixture(16, key=key))
    assert candidates(TINY, NO_PARTS, plain) == ["time-mixture"] == candidates(TINY, own, TARGET)
    assert candidates(with_changes(TINY, {"field": "lattice"}), NO_PARTS, TARGET) == ["lattice"]
    assert candidates(paper_preset("double-well", 16), NO_PARTS, bf.DoubleWell(16)) == ["time-mixture"]
    assert candidates(TINY, NO_PARTS, TARGET) == ["time-mixture", "lattice"]


def test_winner_trains_as_if_it_had_been_named(run):
    race = run.trained.race
    assert race.field == max(race.log_z_lower, key=race.log_z_lower.get) and len(race.log_z_lower) == 2
    config = with_field(TINY, race)
    named = fit(config)
    a, b = (jax.tree.leaves(one.trained.transport) for one in (run, named))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)) and named.trained.race is None
    raced = race.num_steps_in_all
    costs = [one.trained.cost["gradient_evaluations"] for one in (run, named)]
    assert raced > 0 and costs[0] - costs[1] == raced * config.points_per_step


def test_interrupted_run_keeps_its_field(run, tmp_path):
    with pytest.raises(Killed):
        fit(keep=tmp_path, stop=("race", 0))  # the pilot is not looked for again
    with pytest.raises(KeyboardInterrupt):
        fit(keep=tmp_path, stop=("train", 30), error=KeyboardInterrupt)
    said = []
    same(fit(keep=tmp_path, said=said), run)
    assert not any(progress.phase == "race" for progress in said)
    assert min(progress.step for progress in said if progress.phase == "train") == 40
    (tmp_path / "race.npz").write_bytes(b"damaged")
    said.clear()
    same(fit(keep=tmp_path, said=said), run)
    assert any("compared again" in progress.message for progress in said)


def test_first_candidate_that_comes_close_is_taken(run, monkeypatch):
    monkeypatch.setattr(races, "_CLOSE", np.inf)
    keys = jax.random.split(jax.random.key(0), 5)[1:4]
    said = []
    with run.programs.training(False):
        race = races.run_race(
            candidates(TINY, NO_PARTS, TARGET), TARGET, TINY, NO_PARTS, run.pilot, 60, keys, said.append
        )
    assert list(race.log_z_lower) == ["time-mixture"] and said == ["field time-mixture: step 0 of 10"]
    assert race.log_z_lower["time-mixture"] == run.trained.race.log_z_lower["time-mixture"]


def test_saved_run_loads_with_its_field(run, tmp_path):
    run.save(tmp_path)
    loaded = bf.load(tmp_path, TARGET)
    same(loaded, run)
    assert loaded.config.field == "auto" and type(loaded.trained.transport.field) is type(run.trained.transport.field)


def test_closest_bound_wins_and_a_good_first_candidate_is_enough():
    worst = -sys.float_info.max
    assert races.choice({"time-mixture": -1.0, "lattice": 0.5}) == "lattice"
    assert races.choice({"time-mixture": worst, "lattice": worst}) == "time-mixture"
    alone = Race("time-mixture", 20, {"time-mixture": 0.5}, {"time-mixture": 1.0})
    assert "that no other field was tried" in alone.sentence and alone.num_steps_in_all == 20
    both = Race("lattice", 20, {"time-mixture": 0.1, "lattice": 0.2}, {"time-mixture": 0.5, "lattice": 1.0})
    assert "1 (reverse ESS 0.2), against 0.5 (reverse ESS 0.1) of time-mixture" in both.sentence
    assert Race(**both.record()) == both
