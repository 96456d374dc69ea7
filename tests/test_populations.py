"""Independent populations of SMC: log Z and averages against closed forms, the number of moves, alarms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.sampling import populations
from boltzflow.sampling.noncentering import narrowness
from boltzflow.sampling.populations import RISE, grown, run_populations
from boltzflow.sampling.smc import SMCSample


@pytest.fixture(scope="module")
def found():
    """Populations on a shipped mixture whose log Z is 0."""
    with jax.enable_x64(True):
        return run_populations(bf.mixture_4(), WIDE_4, jax.random.key(0), error=0.04, most_gradients=3e7)


WIDE_4 = Gaussian(np.zeros(2), 100.0)


def test_log_z_is_right_and_its_error_is_as_asked(found):
    assert abs(found.log_z.value) < 4 * found.log_z.stderr
    assert found.log_z.stderr <= 0.04
    assert found.last_beta == 1 and found.drift < 4.5 and found.rise < 2


def test_more_particles_of_the_same_kind(found):
    num = found.x.shape[0] * found.x.shape[1]
    with jax.enable_x64(True):
        more = grown(found, bf.mixture_4(), WIDE_4, num + 1)
    assert len(more.x) == len(found.x) + 1
    np.testing.assert_array_equal(more.x[:-1], found.x)
    assert grown(found, bf.mixture_4(), WIDE_4, num) is found


def test_budget_ends_the_search_and_says_so():
    with jax.enable_x64(True):
        found = run_populations(bf.mixture_4(), WIDE_4, jax.random.key(0), error=1e-4, most_gradients=1)
    assert len(found.x) == 4 and found.rise == np.inf


def test_budget_is_spent_on_as_many_populations_as_it_pays_for(found):
    most = 0.8 * found.num_gradients
    with jax.enable_x64(True):
        fewer = run_populations(bf.mixture_4(), WIDE_4, jax.random.key(0), error=1e-4, most_gradients=most)
    assert fewer.num_moves == found.num_moves
    assert most * (1 - 1 / len(fewer.x)) < fewer.num_gradients < most
    np.testing.assert_array_equal(fewer.x, found.x[: len(fewer.x)])


RUN = SMCSample(jax.numpy.zeros((1, 1)), 0.0, 0.1, np.ones(1), np.zeros((1, 1, 1)), 0.7, np.ones(1), 1, 1, 1, 0)


@pytest.mark.parametrize("loss", [0.0, 0.03, 0.06])
def test_mass_lost_for_want_of_moves_is_in_the_error(loss):
    """A quarter of the moves loses twice as much. Of 500 searches that pass, none is four of its errors off.

    A population has a scatter of 0.1, and 0.2 with a quarter of the moves; 32 of them know log Z to 0.018.
    """
    rng = np.random.default_rng(0)

    def runs(num, loss, scatter):
        values = -loss + scatter * rng.normal(size=num) - scatter**2 / 2
        return [dataclasses.replace(RUN, log_z=float(value), log_z_stderr=0.8 * scatter) for value in values]

    sigmas = []
    for _ in range(500):
        before, after = runs(4, 2 * loss, 0.2), runs(4, loss, 0.1)
        while len(after) < 64 and (len(after) < 8 or populations._log_z(before, after).stderr > 0.04):
            num = len(after)
            before, after = before + runs(num, 2 * loss, 0.2), after + runs(num, loss, 0.1)
        if populations._rise(before, after) <= RISE:
            found = populations._log_z(before, after)
            sigmas.append(found.value / found.stderr)
    assert len(sigmas) > 100 and np.max(np.abs(sigmas)) < 4


def test_a_neck_is_seen_by_the_force():
    """Exact samples of a Gaussian, whose force has length √dim, and of Neal's funnel."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(8192, 4))
    neck = np.concatenate([3 * z[:, :1], np.exp(1.5 * z[:, :1]) * z[:, 1:]], axis=1)

    def funnel(x):
        return x[0] ** 2 / 18 + 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) + 1.5 * x[0]

    for energy, x, low, high in ((lambda x: 0.5 * jnp.sum(x**2), z, 1.0, 3.0), (funnel, neck, 10.0, 1000.0)):
        with jax.enable_x64(True):
            found = narrowness(bf.Energy(energy, 4), x)
        assert low < found < high
