"""Training end to end on small settings: determinism, frozen targets, saving, and what the verdict says."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset, paper_preset, with_changes
from boltzflow.densities.base import AbstractEnergyDistribution
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import Transport
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import Linear
from boltzflow.report.evaluation import evaluate
from boltzflow.report.report import Verdict
from boltzflow.run import Run
from boltzflow.sampling import pilot as pilot_stages
from boltzflow.sampling.pilot import run_pilot
from boltzflow.training.build import build_transport, with_mean_rate
from boltzflow.training.loop import steps_for
from boltzflow.training.step import _share_of_pilot
from boltzflow.training.trainer import Trainer
from still_run import Hidden, still_run

TINY = dataclasses.replace(
    default_preset(), num_steps=150, width=16, num_networks=2, num_eval_samples=8192, route="flow"
)


def correlated_gaussian():
    return bf.GaussianMixture([1.0], [[1.0, -2.0]], np.array([[[4.0, 1.2], [1.2, 1.0]]]))


@pytest.fixture(scope="module")
def run():
    return bf.fit(correlated_gaussian(), seed=3, config=TINY)


def test_easy_target_is_trusted_and_right(run):
    report = run.report()
    assert report.verdict.trustworthy, report.verdict.warnings
    log_z = report.estimates["log_z"]
    assert abs(log_z.value) < 5 * log_z.stderr + 1e-4
    assert report.estimates["reverse_ess"].value > 0.97
    assert report.exact["log_z"].value == 0
    assert {"train_seconds", "compile_seconds", "total_seconds", "steps", "gradient_evaluations"} <= set(report.cost)
    assert report.cost["gradient_evaluations"] > run.trained.cost["gradient_evaluations"]  # by the annealed route
    mean = run.expectation(lambda x: x)
    assert (np.abs(np.asarray(mean.value) - [1, -2]) < 5 * np.asarray(mean.stderr)).all()


def test_same_seed_gives_the_same_numbers(run):
    again = bf.fit(correlated_gaussian(), seed=3, config=TINY)
    other = bf.fit(correlated_gaussian(), seed=4, config=TINY)
    np.testing.assert_array_equal(again.samples.x, run.samples.x)
    np.testing.assert_array_equal(again.samples.log_weight, run.samples.log_weight)
    assert [row["loss"] for row in again.history] == [row["loss"] for row in run.history]
    assert not np.array_equal(other.samples.x, run.samples.x)


def test_target_base_and_whitening_do_not_move_in_training(run):
    fresh = correlated_gaussian()
    path = run.trained.transport.interpolation
    for mine, theirs in zip(jax.tree.leaves(fresh), jax.tree.leaves(path.target), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(jax.tree.leaves(run.pilot.base), jax.tree.leaves(path.base), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for whitening in (path.whitening, run.flow.field.whitening):
        np.testing.assert_array_equal(whitening.mean, run.pilot.base.mean)
        np.testing.assert_array_equal(whitening.decode, run.pilot.base.scale @ run.pilot.active_subspace)
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(run.flow.field.mlp.networks[0].weights[-1]))


def test_save_and_load_give_the_same_samples_and_report(run, tmp_path):
    run.save(tmp_path)
    loaded = bf.load(tmp_path, correlated_gaussian())
    a, b = run.sample(jax.random.key(9), 500), loaded.sample(jax.random.key(9), 500)
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.log_weight, b.log_weight)
    assert loaded.report().verdict.trustworthy == run.report().verdict.trustworthy
    assert loaded.config == run.config and loaded.history == run.history
    with pytest.raises(bf.InputError, match="of another target"):
        bf.load(tmp_path, bf.GaussianMixture([1.0], [[1.0, -2.0]], np.array([[[4.0, 1.2], [1.2, 1.1]]])))
    with pytest.raises(bf.InputError, match="dimension"):
        bf.load(tmp_path, bf.DoubleWell(4))
    arrays = tmp_path / "checkpoint" / "run.npz"
    arrays.write_bytes(arrays.read_bytes()[:-200])
    with pytest.raises(bf.InputError, match="damaged"):
        bf.load(tmp_path, correlated_gaussian())


class Shear(AbstractVectorField):
    """A field of one's own: V(x) = A x with A strictly upper triangular."""

    slope: jax.Array
    dim: int = eqx.field(static=True, default=2)

    def velocity(self, t, x):
        return jnp.array([self.slope * x[1], 0.0])

    def velocity_and_divergence(self, t, x):
        return self.velocity(t, x), jnp.zeros(())


def test_parts_of_ones_own_are_trained_saved_and_asked_for(tmp_path):
    parts = bf.Parts(
        base=Gaussian(np.array([1.0, -2.0]), np.array([4.0, 1.0])),
        make_field=lambda base, key: Shear(jnp.zeros(())),
        make_interpolation=lambda base, target, key: Linear(base, target),
    )
    run = bf.fit(correlated_gaussian(), config=dataclasses.replace(TINY, num_steps=20), parts=parts)
    assert float(run.flow.field.slope) != 0 and run.flow.base.scale.shape == (2,)
    run.save(tmp_path)
    with pytest.raises(bf.InputError, match="parts of its own"):
        bf.load(tmp_path, correlated_gaussian())
    loaded = bf.load(tmp_path, correlated_gaussian(), parts)
    assert float(loaded.flow.field.slope) == float(run.flow.field.slope)


RATE = 1.5


class Twist(AbstractVectorField):
    """V(x) = 1.5 tanh(x): no solver is exact on it."""

    dim: int = eqx.field(static=True, default=2)

    def velocity(self, t, x):
        return RATE * jnp.tanh(x)

    def velocity_and_divergence(self, t, x):
        return self.velocity(t, x), RATE * jnp.sum(1 - jnp.tanh(x) ** 2)


class Twisted(AbstractEnergyDistribution):
    """The image of N(0, I) under `Twist`, where sinh x₁ = exp(1.5) sinh x₀ in each coordinate."""

    dim: int = eqx.field(static=True, default=2)
    log_z: float = eqx.field(static=True, default=0.0)

    def energy(self, x):
        size = jnp.abs(x)  # in exponentials that do not overflow
        half = -jnp.expm1(-2 * size) / 2
        start = size - RATE + jnp.log(half + jnp.sqrt(half**2 + jnp.exp(-2 * (size - RATE))))
        expansion = RATE + log_cosh(start) - log_cosh(size)
        return jnp.sum(start**2 / 2 + jnp.log(2 * jnp.pi) / 2 + expansion)

    def sample_and_log_prob(self, key):
        x = jnp.arcsinh(jnp.exp(RATE) * jnp.sinh(jax.random.normal(key, (2,))))
        return x, self.log_prob(x)


def log_cosh(x):
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - jnp.log(2)


@pytest.fixture(scope="module")
def twisted():
    """A flow that is exact up to its solver, on the exact image of its base."""
    base = Gaussian(jnp.zeros(2), 1.0)
    target = Twisted()
    run = still_run(target, base, num_eval_samples=65536, pilot_base=base, route="flow")
    transport = run.trained.transport
    run.trained.transport = Transport(Twist(), transport.interpolation, transport.log_z_rate)
    return run


@pytest.fixture(scope="module")
def truth():
    """The mean of x₀² by quadrature."""
    start = np.linspace(-9, 9, 20_001)
    density = np.exp(-(start**2) / 2) / np.sqrt(2 * np.pi)
    return np.trapezoid(density * np.arcsinh(np.exp(RATE) * np.sinh(start)) ** 2, start)


@pytest.mark.parametrize(("solver", "steps", "trusted"), [("euler", 4, False), ("heun", 2, False), ("rk4", 8, True)])
def test_the_solver_is_in_every_error_and_its_own_check(twisted, truth, solver, steps, trusted):
    """Of weights that are nearly equal, so that nothing else gives it away. log Z is 0 and its error the solver's."""
    config = dataclasses.replace(twisted.config, sample_solver=solver, sample_steps=steps)
    run = Run(twisted.target, config, 0, twisted.trained, "twisted")
    report = run.report()
    warned = any("use more sampling steps" in warning for warning in report.verdict.warnings)
    assert warned != trusted
    log_z = report.estimates["log_z"]
    assert abs(log_z.value) < 2 * log_z.stderr
    second = run.expectation(lambda x: x[0] ** 2)
    assert second.stderr < (0.03 if trusted else 0.3)
    assert abs(second.value - truth) < 4 * second.stderr


@pytest.mark.parametrize("known", [True, False], ids=["exactly known", "energy only"])
def test_collapsed_flow_is_not_reported_as_good(known, monkeypatch):
    """All of the flow sits on one of four modes: reverse ESS is perfect, and the run must be distrusted.

    With 4096 particles the share of a mode of a quarter errs by 0.01.
    """
    for stage in ("_WIDE", "_PATH"):
        monkeypatch.setattr(pilot_stages, stage, getattr(pilot_stages, stage)._replace(particles=4096))
    target = bf.mixture_4() if known else Hidden(bf.mixture_4(), 2)
    report = evaluate(still_run(target, Gaussian(np.array([8.0, 8.0]), 1.0)).draws)
    assert report.estimates["reverse_ess"].value > 0.999
    assert not report.verdict.trustworthy
    missing = [w for w in report.verdict.warnings if "is not covered" in w]
    assert len(missing) == 3 and all("2" in w.split("%")[0] for w in missing)  # three regions of about a quarter each
    assert any("disagree" in w for w in report.verdict.warnings)
    assert ("forward_ess" in report.estimates) == known


def test_mode_outside_a_base_of_ones_own_is_found_from_a_wide_one():
    """From N(0, 1) even the pilot's second SMC run sees half of the target, and agrees with the flow."""
    target = Hidden(bf.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [30.0, 0.0]], 1.0), 2)
    base = Gaussian(np.zeros(2), 1.0)
    run = still_run(target, base, pilot_base=base, route="flow")
    assert run.report().estimates["reverse_ess"].value > 0.999 and abs(run.pilot.log_z - np.log(0.5)) < 0.01
    assert any("x = (30" in w or "x = (29.9" in w or "x = (30.0" in w for w in run.report().verdict.warnings)
    assert not run.log_z().ok and "not covered" in run.log_z().reason
    assert not run.expectation(lambda x: x[0]).ok


def test_one_of_two_wells_of_the_chain_is_not_reported_as_good():
    target = bf.DoubleWell(8, 6.0)
    x = jax.vmap(lambda k: target.sample_and_log_prob(k)[0])(jax.random.split(jax.random.key(1), 4000))
    right = np.asarray(x)[np.asarray(x).mean(axis=1) > 0]
    report = evaluate(still_run(target, Gaussian(right.mean(axis=0), np.cov(right.T))).draws)
    assert not report.verdict.trustworthy
    assert any("not covered" in warning for warning in report.verdict.warnings)


def test_wide_base_is_distrusted_for_its_weights():
    report = evaluate(still_run(bf.mixture_4(), Gaussian(np.zeros(2), 1e6)).draws)
    assert not report.verdict.trustworthy
    assert not report.estimates["log_z"].ok


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "reverse-kl", "optimizer": "adam", "learning_rate": 1e-3, "clip_norm": 1.0},
        {"interpolation": "linear"},
        {"interpolation": "trigonometric", "pilot_fraction": 0.0, "warmup_fraction": 0.0},
        {
            "interpolation": "diffusion",
            "base": "gaussian",
            "base_std": 2.0,
            "points_per_step": 0,
            "warmup_fraction": 0.0,
        },
        {"base": "generalized-gaussian", "base_scale": 4.0, "penalty": "log1p", "jitter": False},
    ],
    ids=lambda changes: next(iter(changes.values())),
)
def test_every_setting_trains(changes):
    config = dataclasses.replace(TINY, num_steps=20, num_eval_samples=1000, **changes)
    run = bf.fit(bf.mixture_2(), config=config)
    assert np.isfinite([row["loss"] for row in run.history]).all()
    assert np.isfinite(np.asarray(run.samples.x)).all()


def test_paper_preset_is_the_papers():
    chain, far = paper_preset("double-well", 64), paper_preset("mixture-2")
    assert (chain.num_steps, chain.width, chain.depth, chain.base_power) == (250_000, 128, 3, 4.0)
    assert (far.num_steps, far.width, far.depth, far.base_std) == (10_000, 64, 2, 2.0)
    for config in (chain, far):
        assert (config.num_intervals, config.train_solver, config.batch_size) == (50, "rk4", 256)
        assert (config.optimizer, config.learning_rate, config.penalty) == ("adam", 3e-3, "abs+square")
        assert not config.jitter and config.points_per_step == 0 and config.pilot_fraction == 0
    small = dataclasses.replace(far, num_steps=2, batch_size=16)
    run = bf.fit(bf.mixture_2(), config=small, name="mixture-2")
    assert len(run.history) == 1 and run.pilot.clock.rate == 0


def test_settings_that_belong_together():
    changed = with_changes(default_preset(), {"loss": "reverse-kl", "num_steps": 7})
    assert (changed.optimizer, changed.train_solver, changed.num_steps) == ("muon", "rk4", 7)
    assert with_changes(paper_preset(), {"loss": "reverse-kl"}).num_steps == 10_000
    with pytest.raises(bf.InputError, match="centered Gaussian"):
        with_changes(default_preset(), {"interpolation": "diffusion"})


def test_training_that_diverges_says_so():
    config = dataclasses.replace(TINY, num_steps=400, learning_rate=1e30, optimizer="adam")
    with pytest.raises(
        bf.errors.TrainingError, match=r"not finite for 50 steps.* learning rate.* point is t = .*, x = \(.*energy is"
    ):
        bf.fit(correlated_gaussian(), config=config)


def test_training_returns_to_the_last_good_state_with_a_lower_rate():
    pilot = run_pilot(correlated_gaussian(), jax.random.key(0))
    transport = build_transport(
        TINY, bf.Parts(), pilot.base, correlated_gaussian(), pilot.clock, jax.random.key(1), None
    )
    trainer = Trainer(transport, pilot, TINY, 100, jax.random.key(2), jax.random.key(3))
    assert np.isfinite(trainer.take_steps(10)) and trainer.state.rate == 1.0
    good = trainer.state.good
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, trainer.state.params)
    trainer.state = eqx.tree_at(lambda state: state.params, trainer.state, broken)
    assert np.isnan(trainer.take_steps(10)) and trainer.num_skipped == 10
    t, x, energy = trainer.nonfinite_point()
    assert 0 <= t <= 1 and x.shape == (2,) and (np.isfinite(energy) == np.isfinite(x).all())
    assert trainer.state.rate == pytest.approx(0.3) and trainer.state.step == 20
    for now, then in zip(jax.tree.leaves(trainer.state.params), jax.tree.leaves(good[0]), strict=True):
        np.testing.assert_array_equal(now, then)
    assert np.isfinite(trainer.take_steps(10)) and trainer.state.rate == pytest.approx(0.3)
    assert trainer.num_skipped == 10 and trainer.nonfinite_point() is None


def test_the_flow_comes_in_by_degrees_after_the_warm_up():
    config = dataclasses.replace(TINY, warmup_fraction=0.2, pilot_fraction=0.25)
    shares = [float(_share_of_pilot(jnp.asarray(done), config)) for done in (0.0, 0.2, 0.3, 0.4, 1.0)]
    np.testing.assert_allclose(shares, [1, 1, 0.625, 0.25, 0.25], rtol=1e-6)
    assert shares[0] == 1.0  # exactly: no point is the flow's
    assert _share_of_pilot(jnp.asarray(0.0), paper_preset()) == 0.0


def test_steps_compile_once(run):
    """A state of the types that a step returns: a weak type at the start would compile the steps again."""
    transport = build_transport(TINY, bf.Parts(), run.pilot.base, run.target, run.pilot.clock, jax.random.key(1), None)
    state = Trainer(with_mean_rate(transport, 1.5), run.pilot, TINY, 100, jax.random.key(2), jax.random.key(3)).state
    assert not [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, "weak_type", False)]  # keys have none


def test_unusable_targets_are_refused_with_a_sentence(unchecked):
    with pytest.raises(bf.InputError, match="Energy"):
        bf.fit(lambda x: 0.5 * jnp.sum(x**2))
    with pytest.raises(bf.InputError):
        bf.fit(bf.Energy(lambda x: jnp.nan * jnp.sum(x), 2), config=TINY)
    with pytest.raises(bf.InputError, match="preset"):
        bf.fit(correlated_gaussian(), preset="fast")


def test_the_pilot_says_how_many_steps_the_target_needs(run):
    def with_betas(num):
        points = np.zeros((num + 1, 1, 2))
        return dataclasses.replace(run.pilot, path_times=np.linspace(0, 1, num + 1), path_points=points)

    assert [steps_for(with_betas(num)) for num in (3, 18, 90)] == [1000, 3600, 8000]
    assert run.trained.cost["steps"] == TINY.num_steps  # what is asked for is what is done


def test_a_flow_right_to_single_precision_is_trusted_without_a_word():
    """Of a Gaussian the pilot's base is the target: what is left is rounding, which all averages of weights share."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    target = Gaussian(rng.normal(size=10), rotation @ np.diag(np.geomspace(0.1, 10, 10)) @ rotation.T)
    config = dataclasses.replace(TINY, num_steps=40, sample_steps=4, num_eval_samples=100_000)
    report = bf.fit(target, config=config).report()
    assert report.verdict == Verdict(True, (), (), checks=report.verdict.checks)
    assert all(check.passed for check in report.verdict.checks)
    assert report.estimates["reverse_kl"].stderr > 1e-7
