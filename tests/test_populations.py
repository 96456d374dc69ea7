"""Independent populations of SMC: log Z and averages against closed forms, the number of moves, alarms."""

import jax
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.sampling.populations import grown, run_populations


@pytest.fixture(scope="module")
def found():
    """Populations on a shipped mixture whose log Z is 0."""
    with jax.enable_x64(True):
        return run_populations(bf.mixture_4(), WIDE_4, jax.random.key(0), error=0.02, most_gradients=3e7)


WIDE_4 = Gaussian(np.zeros(2), 100.0)


def test_log_z_is_right_and_its_error_is_as_asked(found):
    assert abs(found.log_z.value) < 4 * found.log_z.stderr
    assert found.log_z.stderr <= 0.02
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
