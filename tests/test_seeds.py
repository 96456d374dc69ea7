"""Several seeds one after another: each run is that of `fit`, and a seed that fails leaves the others as they are."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import Clock, Linear
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.numerics.linalg import Circulant
from boltzflow.training.step import PilotPath, _pilot_points, padded_path

FEW = dataclasses.replace(
    bf.Config(), num_steps=20, width=16, num_networks=2, num_eval_samples=1000, warmup_fraction=0.5, route="flow"
)
SEEDS = [0, 3]


def two_wells():
    return bf.GaussianMixture([0.5, 0.5], [[3.5, 0.0], [-3.5, 0.0]], 0.1)


@pytest.fixture(scope="module")
def runs():
    return bf.fit_seeds(two_wells(), seeds=SEEDS, config=FEW)


def test_fit_seeds_matches_single_fit(runs):
    """Bit for bit, in both halves of the training: warm-up and own trajectories."""
    assert [run.seed for run in runs] == SEEDS
    assert not np.array_equal(runs[0].samples.x, runs[1].samples.x)
    for run in runs:
        alone = bf.fit(two_wells(), seed=run.seed, config=FEW)
        np.testing.assert_array_equal(run.pilot.points, alone.pilot.points)
        for name in ("loss", "reverse_ess"):
            ours, theirs = ([row[name] for row in r.history if name in row] for r in (run, alone))
            assert ours == theirs
        together, single = run.trained.transport, alone.trained.transport
        assert jax.tree.structure(together) == jax.tree.structure(single)
        for mine, its in zip(jax.tree.leaves(together), jax.tree.leaves(single), strict=True):
            assert type(mine) is type(its) and mine.dtype == its.dtype
            np.testing.assert_array_equal(mine, its)


def same_weights(one, other, key):
    """The flow's samples; those of `Run.sample` ask for a report first."""
    np.testing.assert_array_equal(one.draws.sample(key, 50).log_weight, other.draws.sample(key, 50).log_weight)


def test_each_seed_has_its_own_run_and_cost(runs, tmp_path):
    for run in runs:
        run.save(tmp_path / str(run.seed))
        loaded = bf.load(tmp_path / str(run.seed), two_wells())
        key = jax.random.key(9)
        same_weights(loaded, run, key)
        assert loaded.seed == run.seed
    seconds = [run.trained.cost["train_seconds"] for run in runs]
    assert len(set(seconds)) == len(seconds)
    first, second = (run.trained.cost["compile_seconds"] for run in runs)
    assert second < first  # programs are compiled once for all seeds
    assert runs[1].report().cost["total_seconds"] >= seconds[1]


def test_a_base_on_a_lattice_comes_back_with_its_run(tmp_path):
    """A covariance in Fourier space is an array among others."""
    base = Gaussian(np.zeros(4), scale_tril=Circulant([0.5, 0.3, 0.4, 0.3]))
    config, parts = dataclasses.replace(FEW, num_steps=10), bf.Parts(base=base)
    run = bf.fit_seeds(bf.DoubleWell(4, 1.5), seeds=[1], config=config, parts=parts)[0]
    run.save(tmp_path)
    same_weights(bf.load(tmp_path, bf.DoubleWell(4, 1.5), parts), run, jax.random.key(2))


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
    slopes = iter([np.nan, 0.0])
    parts = bf.Parts(make_field=lambda base, key: Stretch(jnp.asarray(next(slopes))))
    with pytest.raises(
        bf.SeedsError, match=r"Of 2 seeds, number 3 failed\. The loss was not finite for 50 steps"
    ) as caught:
        bf.fit_seeds(two_wells(), seeds=[3, 6], config=config, parts=parts)
    assert list(caught.value.failures) == [3] and isinstance(caught.value, bf.TrainingError)
    [healthy] = caught.value.runs
    assert healthy.seed == 6
    ours = [row["loss"] for row in healthy.history]
    alone = bf.fit(
        two_wells(), seed=6, config=config, parts=bf.Parts(make_field=lambda base, key: Stretch(jnp.zeros(())))
    )
    assert np.isfinite(ours).all() and ours == [row["loss"] for row in alone.history]


def test_when_all_seeds_diverge_there_are_no_runs():
    config = dataclasses.replace(FEW, num_steps=10_000, learning_rate=1e30, optimizer="adam")
    with pytest.raises(bf.SeedsError, match="Of 2 seeds, number 3 and 4 failed") as caught:
        bf.fit_seeds(two_wells(), seeds=[3, 4], config=config)
    assert not caught.value.runs


# --- few programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1.0, 0.6], ids=["to the end", "stopped early"])
def test_padding_a_path_changes_no_draw(last):
    times = jnp.asarray([0.0, 0.1, 0.5, last]).at[2].set(last / 2)
    path = PilotPath(times, jax.random.normal(jax.random.key(0), (4, 32, 2)))
    padded = padded_path(*path)
    assert padded.times.shape == (8,)
    for number in range(3):
        key = jax.random.key(number)
        for mine, theirs in zip(_pilot_points(path, key, 5000), _pilot_points(padded, key, 5000), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_paths_are_padded_to_few_lengths():
    for num_knots, padded in [(2, 8), (8, 8), (9, 16)]:
        times, points = padded_path(jnp.linspace(0, 1, num_knots), jnp.ones((num_knots, 4, 2)))
        assert times.shape == (padded,) and points.shape == (padded, 4, 2) and (np.diff(times) > 0).all()


def test_paths_whose_clocks_differ_are_one_program():
    base, target = Gaussian(np.zeros(2), 1.0), bf.mixture_2()
    one, other = (Linear(base, target, Clock(rate)) for rate in (0.0, 4.3))

    @eqx.filter_jit
    def halfway(path):
        return path.clock(jnp.asarray(0.5))

    with Stopwatch() as watch:
        assert halfway(one) == 0.5
        seconds = watch.compile_seconds
        there = float(halfway(other))
        assert watch.compile_seconds == seconds
    np.testing.assert_allclose(there, np.expm1(2.15) / np.expm1(4.3), rtol=1e-6)


# --- seeds that cannot be used ----------------------------------------------------------------------------------------


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
def test_unusable_seeds_are_refused(seeds, says, unchecked):
    with pytest.raises(bf.InputError, match=says):
        bf.fit_seeds(two_wells(), seeds=seeds, config=FEW)
