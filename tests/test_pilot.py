"""Tempered SMC and the pilot: log Z and modes without a flow, the base, the schedule, and the complaints."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.many_well import many_well
from boltzflow.model.interpolations import Clock, fit_clock
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.numerics.linalg import Circulant, dense
from boltzflow.sampling import pilot as pilot_stages
from boltzflow.sampling.locating import unfinished, wide_base
from boltzflow.sampling.pilot import run_pilot
from boltzflow.sampling.smc import _next_beta, run_smc
from small_pilot import shrink

FULL_PILOT = True

# Two-sided 5 σ; the stated error has itself an error of some 10 %: false alarms below 1e-5 a case.
SIGMA = 5


@pytest.mark.parametrize(
    "target",
    [bf.mixture_2(), bf.mixture_4(), bf.DoubleWell(32, 1.5), bf.DoubleWell(16, 6.0)],
    ids=["mixture-2", "mixture-4", "chain-32", "chain-6"],
)
def test_pilot_measures_log_z_and_the_share_of_each_mode(target):
    pilot = run_pilot(target, jax.random.key(1))
    assert not pilot.complaints
    assert 0.001 < pilot.log_z_stderr < 0.1
    assert abs(pilot.log_z - float(target.log_z)) < SIGMA * pilot.log_z_stderr
    modes = np.asarray(target.modes)
    exact = jax.vmap(lambda k: target.sample_and_log_prob(k)[0])(jax.random.split(jax.random.key(2), 4096))

    def shares(x):
        nearest = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - modes, axis=2), axis=1)
        return np.bincount(nearest, minlength=len(modes)) / len(x)

    # Resampling correlates the particles: the error of their shares is a few times that of 4096 independent draws.
    np.testing.assert_allclose(shares(pilot.points), shares(exact), atol=0.06)
    assert pilot.path_times[0] == 0 and pilot.path_times[-1] == 1
    assert (np.diff(pilot.path_times) > 0).all()
    np.testing.assert_allclose(pilot.path_points[-1].mean(), pilot.points.mean(), atol=0.3)
    directions = pilot.active_subspace
    np.testing.assert_allclose(directions.T @ directions, np.eye(directions.shape[1]), atol=1e-10)
    assert directions.shape[0] == target.dim and (directions.shape[1] < target.dim or target.dim <= 16)


@pytest.mark.parametrize("lattice", [(4, 3), None])
def test_pilot_is_exact_on_a_free_field(lattice):
    """A Gaussian: whatever is left of log Z's error is single precision."""
    along = [2 - 2 * np.cos(2 * np.pi * np.arange(n) / n) for n in (4, 3)]
    precision = 0.3 + along[0][:, None] + along[1]
    inverse = Circulant(precision).matrix()
    target = bf.Energy(lambda x: 0.5 * x @ (jnp.asarray(inverse, x.dtype) @ x), 12, lattice, sign_symmetric=True)
    pilot = run_pilot(target, jax.random.key(3))
    assert not pilot.complaints and pilot.nonfinite_share == 0
    assert isinstance(pilot.base.scale, Circulant) == (lattice is not None)
    scale = dense(pilot.base.scale)
    np.testing.assert_allclose(scale @ scale.T, np.linalg.inv(inverse), atol=1e-4)
    assert (pilot.base.mean == 0).all() and pilot.active_subspace.shape == (12, 8)
    assert pilot.log_z == pytest.approx(6 * np.log(2 * np.pi) - 0.5 * np.log(precision).sum(), abs=1e-3)


def test_base_is_widened_until_the_target_fits_inside():
    far = bf.GaussianMixture([0.5, 0.5], [[200.0, 0.0], [-200.0, 0.0]], 1.0)
    pilot = run_pilot(far, jax.random.key(0))
    assert not pilot.complaints
    # Both modes, 400 widths apart; N(0, 5²) would never have come near them.
    assert abs(np.mean(np.asarray(pilot.points)[:, 0] > 0) - 0.5) < 0.1
    np.testing.assert_allclose(np.sqrt(pilot.base.scale[0, 0] ** 2), 200, rtol=0.05)


@pytest.mark.parametrize("seed", [0, 1])
def test_wide_base_reaches_both_wells_of_every_coordinate(seed):
    """The short run that locates many wells in 64 dimensions ends with the descendants of one to three particles."""
    base, runs, doubts, _ = wide_base(many_well(32), *jax.random.split(jax.random.key(seed)))
    assert not doubts and all(1 / run.concentration[-1] < 10 for run in runs)
    std = np.sqrt(np.sum(np.asarray(base.scale) ** 2, axis=1))
    for well in (-1.7, 1.7):
        assert (np.abs(well - np.asarray(base.mean)) < 2 * std)[::2].all()


def test_fit_clock_finds_rate_of_evenly_spaced_betas():
    times = np.arange(1, 31) / 30
    for rate in (0.0, 1.5, 3.9):
        betas = np.asarray(Clock(rate)(jnp.asarray(times)))
        assert abs(fit_clock(betas).rate - rate) < 0.25
    assert fit_clock(np.array([1.0])).rate == 0  # base equals target: one step


def test_custom_base_and_paper_schedule_are_kept():
    base = Gaussian(np.zeros(2), 64.0 * np.eye(2))
    pilot = run_pilot(bf.mixture_2(), jax.random.key(1), base=base, pace=False)
    assert pilot.base is base and pilot.clock.rate == 0 and pilot.active_subspace is None
    assert abs(pilot.log_z) < SIGMA * pilot.log_z_stderr


def test_energy_without_normalization_raises_or_complains(monkeypatch):
    shrink(monkeypatch.setattr)  # eight widenings of all
    falling = bf.Energy(lambda x: -jnp.sum(x), 2)  # exp(-energy) cannot be normalized
    try:
        complaints = run_pilot(falling, jax.random.key(0)).complaints
    except bf.InputError as error:
        complaints = (str(error),)
    assert complaints


def test_energy_of_another_function_is_compiled_anew():
    one, seven = (bf.Energy(lambda x, c=c: c * jnp.sum(x**2), 2) for c in (1.0, 7.0))

    @eqx.filter_jit
    def energy(target, x):
        return target.energy(x)

    x = jnp.ones(2)
    with Stopwatch() as watch:
        assert float(energy(one, x)) == 2.0
        first = watch.compile_seconds
        assert float(energy(seven, x)) == 14.0
        second = watch.compile_seconds
        assert float(energy(one, x)) == 2.0 and watch.compile_seconds == second > first > 0


def test_next_beta_is_right_for_energies_beyond_single_precision():
    """An energy of 10⁹ with a scatter of 10⁸: the weights of β = 1 are those of one particle."""
    difference = -(1e9 + 1e8 * jax.random.normal(jax.random.key(0), (4096,)))
    step = float(_next_beta(jnp.asarray(1e-9), difference, jnp.asarray(0.8)))
    # Gaussian weights of scatter s keep exp(-s²) of effective samples.
    np.testing.assert_allclose((step - 1e-9) * 1e8, np.sqrt(-np.log(0.8)), rtol=0.1)


def test_smc_run_that_stops_before_beta_one_is_doubted():
    base = Gaussian(np.zeros(2), 25.0 * np.eye(2))
    short, whole = (
        run_smc(base, bf.mixture_2(), jax.random.key(0), 0.8, num_particles=64, max_steps=most) for most in (2, 400)
    )
    assert "that located the target stopped at inverse temperature" in unfinished(short, "that located the target")[0]
    assert not unfinished(whole, "that located the target")


def test_run_with_few_effective_ancestors_is_doubted(unchecked):
    """A hundred first particles have descendants, but nearly all particles descend from five of them."""

    def complaints(effective):
        run = SimpleNamespace(betas=[1.0], acceptance=0.7, num_ancestors=100, concentration=[1 / effective])
        return pilot_stages._complaints(run, "from a wide base")

    assert complaints(5.2) == ["The pilot's particles from a wide base descend from only 5 starting points."]
    assert complaints(12.0) == []


def test_runs_of_few_ancestors_agree_within_their_errors(unchecked):
    """Descendants of one first particle share its mode: the largest difference of averages is below 4 in 199 of 200."""
    rng = np.random.default_rng(0)

    def run():
        descendants = rng.multinomial(2000, rng.dirichlet(np.full(200, 0.3)))
        mode = np.repeat(rng.uniform(size=200) < 0.3, descendants)
        x = (10.0 * mode + rng.normal(size=2000))[:, None]
        return SimpleNamespace(x=x, concentration=[np.sum((descendants / 2000) ** 2)])

    apart = np.array([pilot_stages._apart(run(), run()) for _ in range(200)])
    assert np.mean(apart > pilot_stages._MOST_APART) <= 0.005 and 0.5 < np.median(apart) < 2
