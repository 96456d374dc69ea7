"""Expectations over independent groups of dependent samples: coverage, bounds, messages."""

import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.errors import InputError
from boltzflow.statistics.groups import _Groups, expect_over_groups


def groups_of(rng, num_groups, num=64, copies=16, scatter=0.0):
    """Normal samples in groups, each in `copies` equal copies as after resampling, and log-weights of the groups."""
    x = np.repeat(rng.normal(size=(num_groups, num // copies, 2)), copies, axis=1)
    return x, scatter * rng.normal(size=num_groups)


@pytest.mark.parametrize("num_groups", [4, 12])
def test_intervals_hold_the_truth(num_groups):
    """95 % of 400 intervals, within four of their own standard deviations (4.4 %)."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        x, _ = groups_of(rng, num_groups)
        groups = _Groups(np.full(num_groups, 1 / num_groups), 4)
        value, stderr, _ = groups.mean(np.stack([x[..., 0], x[..., 1] ** 2], axis=-1), "x")
        held.append(np.abs(value - np.array([0.0, 1.0])) < 1.96 * stderr)
    assert np.all(np.abs(np.mean(held, axis=0) - 0.95) < 0.06), np.mean(held, axis=0)


def test_weights_of_groups_count():
    x = np.stack([np.zeros((8, 1)), np.ones((8, 1)), np.zeros((8, 1)), np.ones((8, 1))])
    found = expect_over_groups(lambda x: x[0], x, np.log([3.0, 1.0, 3.0, 1.0]), 8)
    assert found.value == pytest.approx(0.25) and found.n == 32
    assert found.stderr > np.sqrt(0.25 * 0.75 / 32)


def test_one_group_that_outweighs_the_others_is_no_error_bar():
    x, _ = groups_of(np.random.default_rng(1), 8)
    found = expect_over_groups(lambda x: x[0], x, np.array([9.0, 0, 0, 0, 0, 0, 0, 0]), 4)
    assert not found.ok and "effective populations" in found.reason


def test_unseen_event_gets_a_bound_and_a_constant_is_exact():
    x, log_z = groups_of(np.random.default_rng(2), 10)
    found = expect_over_groups(lambda x: {"far": x[0] > 9, "two": 2.0, "same": 0 * x[0] + 0.5}, x, log_z, 5)
    assert found["far"].value == 0 and found["far"].stderr == pytest.approx(3 / 50) and not found["far"].ok
    assert found["two"].value == 2 and found["two"].stderr == 0 and found["two"].ok
    assert not found["same"].ok and "same value" in found["same"].reason


def test_event_of_one_population_is_in_doubt():
    x, log_z = groups_of(np.random.default_rng(3), 8)
    x[0, :32, 0] = 9.0
    found = expect_over_groups(lambda x: x[0] > 8, x, log_z, 4)
    assert not found.ok and "populations" in found.reason


def test_values_that_are_not_finite_are_refused():
    x, log_z = groups_of(np.random.default_rng(4), 4)
    with pytest.raises(InputError, match="NaN at"):
        expect_over_groups(lambda x: jnp.log(x[0]), x, log_z, 4)
