"""Several seeds side by side: each is what it would be alone, and one that fails leaves the others as they are."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import Clock, Linear
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.numerics.linalg import Circulant
from boltzflow.training.cohort import Member, _stack, _stack_points, divide, with_full_block
from boltzflow.training.step import _pilot_points

FEW = dataclasses.replace(
    default_preset(), num_steps=20, width=16, num_networks=2, batch_size=64, num_eval_samples=1000, warmup_fraction=0.5
)
SEEDS = [0, 3, 6]


def two_wells():
    """Pilots of these seeds differ in the clock fitted to their temperatures."""
    return bf.GaussianMixture([0.5, 0.5], [[3.5, 0.0], [-3.5, 0.0]], 0.1)


@pytest.fixture(scope="module")
def runs():
    return bf.fit_seeds(two_wells(), seeds=SEEDS, config=FEW)


def test_a_seed_in_company_is_the_seed_alone(runs):
    """Both halves of the training, warm-up and own trajectories; rounding grows with every further step."""
    rates = {float(run.pilot.clock.rate) for run in runs}
    assert len(rates) > 1, "choose seeds whose pilots differ: the test would be blind"
    assert [run.seed for run in runs] == SEEDS
    for run in runs[:2]:
        alone = bf.fit(two_wells(), seed=run.seed, config=FEW)
        np.testing.assert_array_equal(run.pilot.points, alone.pilot.points)
        for name in ("loss", "reverse_ess"):
            ours, theirs = ([row[name] for row in r.history if name in row] for r in (run, alone))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4)
        together, single = run.trained.transport, alone.trained.transport
        assert jax.tree.structure(together) == jax.tree.structure(single)
        for mine, its in zip(jax.tree.leaves(together), jax.tree.leaves(single), strict=True):
            assert type(mine) is type(its) and mine.dtype == its.dtype
            np.testing.assert_allclose(mine, its, atol=1e-3 * max(1e-2, np.abs(its).max()))


def test_each_run_is_an_ordinary_one(runs, tmp_path):
    for run in runs:
        run.save(tmp_path / str(run.seed))
        loaded = bf.load(tmp_path / str(run.seed), two_wells())
        key = jax.random.key(9)
        np.testing.assert_array_equal(loaded.sample(key, 50).log_weight, run.sample(key, 50).log_weight)
        assert run.trained.cost["num_seeds"] == 3 and loaded.seed == run.seed
        assert len({run.trained.cost["train_seconds"] for run in runs}) == 1  # nobody waited for a third of it
    assert runs[0].report().cost["num_seeds"] == 3
    assert not np.array_equal(runs[0].samples.x, runs[1].samples.x)


def test_bases_on_a_lattice_are_stacked_and_kept(tmp_path):
    """A covariance in Fourier space is an array among others."""
    bases = [Gaussian(np.zeros(4), scale_tril=Circulant([0.5, side, 0.4, side])) for side in (0.3, 0.6)]
    stacked, axes = _stack(bases)
    assert stacked.scale.eigenvalues.shape == (2, 4) and (axes.scale.eigenvalues, axes.mean) == (0, 0)
    config, parts = dataclasses.replace(FEW, num_steps=10), bf.Parts(base=bases[0])
    run = bf.fit_seeds(bf.DoubleWell(4, 1.5), seeds=[0, 1], config=config, parts=parts)[1]
    run.save(tmp_path)
    loaded, key = bf.load(tmp_path, bf.DoubleWell(4, 1.5), parts), jax.random.key(2)
    np.testing.assert_array_equal(loaded.sample(key, 50).log_weight, run.sample(key, 50).log_weight)


class Stretch(AbstractVectorField):
    """V(x) = slope x."""

    slope: jax.Array
    dim: int = eqx.field(static=True, default=2)

    def velocity(self, t, x):
        return self.slope * x

    def velocity_and_divergence(self, t, x):
        return self.slope * x, self.slope * x.shape[0]


def test_a_seed_that_diverges_leaves_the_others_as_they_are():
    config = dataclasses.replace(FEW, num_steps=60, optimizer="adam", learning_rate=1e-3)
    slopes, looks = iter([0.0, np.nan, 0.0]), []
    parts = bf.Parts(make_field=lambda base, key: Stretch(jnp.asarray(next(slopes))))
    with pytest.raises(
        bf.SeedsError, match=r"Of 3 seeds, number 3 failed\. The loss was not finite for 50 steps"
    ) as caught:
        bf.fit_seeds(two_wells(), seeds=SEEDS, config=config, parts=parts, on_progress=looks.append)
    assert list(caught.value.failures) == [3] and isinstance(caught.value, bf.TrainingError)
    healthy = bf.Parts(make_field=lambda base, key: Stretch(jnp.zeros(())))
    assert [run.seed for run in caught.value.runs] == [0, 6]
    alone = bf.fit(two_wells(), seed=6, config=config, parts=healthy)
    ours, theirs = ([row["loss"] for row in run.history] for run in (caught.value.runs[1], alone))
    assert np.isfinite(ours).all() and len(ours) == 6
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert "median of 3" in looks[2].message and set(looks[-1].rows) == {0, 6} and "1 of 3 failed" in looks[-1].message
    assert looks[-1].loss == pytest.approx(np.median([run.history[-1]["loss"] for run in caught.value.runs]))


def test_when_all_seeds_diverge_training_ends():
    config = dataclasses.replace(FEW, num_steps=10_000, learning_rate=1e30, optimizer="adam")
    with pytest.raises(bf.SeedsError, match="Of 2 seeds, number 3 and 4 failed") as caught:
        bf.fit_seeds(two_wells(), seeds=[3, 4], config=config)
    assert not caught.value.runs


@pytest.mark.parametrize("last", [1.0, 0.6], ids=["to the end", "stopped early"])
def test_added_knots_change_no_draw(last):
    times = jnp.asarray([0.0, 0.1, 0.5, last]).at[2].set(last / 2)
    points = jax.random.normal(jax.random.key(0), (4, 32, 2))
    longer = (jnp.linspace(0, 1, 9), jnp.zeros((9, 32, 2)))
    stacked_times, stacked_points = _stack_points([(times, points), longer])
    assert stacked_times.shape == (2, 9)
    for number in range(3):
        key = jax.random.key(number)
        mine, theirs = (
            _pilot_points(each, key, 5000) for each in ((times, points), (stacked_times[0], stacked_points[0]))
        )
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])


def member(seed, transport, num_knots=3):
    points = (jnp.linspace(0, 1, num_knots), jnp.zeros((num_knots, 8, 2)))
    return Member(seed, 20, transport, points, jax.random.key(0), jax.random.key(1))


def test_numbers_of_knots_are_few():
    for num_knots, padded in [(2, 8), (8, 8), (9, 16)]:
        times, points = with_full_block(jnp.linspace(0, 1, num_knots), jnp.ones((num_knots, 4, 2)))
        assert times.shape == (padded,) and points.shape == (padded, 4, 2) and (np.diff(times) > 0).all()


def test_paths_whose_clocks_differ_are_one_program():
    base, target = Gaussian(np.zeros(2), 1.0), bf.mixture_2()
    one, other = (Linear(base, target, Clock(rate)) for rate in (0.0, 4.3))
    assert [[m.seed for m in group] for group in divide([member(0, one), member(1, other)])] == [[0, 1]]
    watch = Stopwatch()

    def halfway(path):
        return path.clock(jnp.asarray(0.5))

    assert watch.run(halfway, one) == 0.5
    seconds = watch.compile_seconds
    np.testing.assert_allclose(watch.run(halfway, other), np.expm1(2.15) / np.expm1(4.3), rtol=1e-6)
    assert watch.compile_seconds == seconds


def test_seeds_whose_parts_differ_in_kind_are_not_stacked():
    full, diagonal = Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.zeros(2), np.ones(2))
    other = Gaussian(np.ones(2), 2 * np.eye(2))
    members = [member(0, full), member(1, diagonal), member(2, other), member(3, full, 5)]
    assert [[m.seed for m in group] for group in divide(members)] == [[0, 2, 3], [1]]


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        ([], "one or more different"),
        ([1, 1], "one or more different"),
        (4, r"as in range\(5\), got 4"),
        ([0, -1], "a seed must be a whole number"),
        ([0.5], "a seed must be a whole number"),
        ([2**32], "a seed must be a whole number"),
    ],
)
def test_seeds_that_cannot_be_used(seeds, says):
    with pytest.raises(bf.InputError, match=says):
        bf.fit_seeds(two_wells(), seeds=seeds, config=FEW)
