"""What `boltzflow check` says of energies that can be run."""

import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.cli.check import check_target
from boltzflow.densities.energy import Energy

TIMES = np.linspace(0, 1, 20)
DAYS = 2.457e6 + np.sort(np.random.default_rng(0).uniform(0, 50, 30))


def told(fn, dim=2):
    return "\n".join(check_target(Energy(fn, dim)))


def test_numpy_data_of_a_model_are_checked_in_both_precisions():
    """JAX fails with an MLIR error where it mixes the array's single form, cached, into the double trace."""
    found = told(lambda x: jnp.sum((x[0] - x[1] * TIMES) ** 2) + x @ x)
    assert "float64 values agree" in found and "advice" not in found


def trend(days):
    """A line through observations at times that are large against their differences."""
    return lambda x: 1e-3 * jnp.sum((x[0] + (days * x[1] - 2.457e6 * x[1]) / 50) ** 2) + x @ x


@pytest.mark.parametrize(
    ("days", "expected"),
    [(DAYS, False), (jnp.asarray(DAYS, jnp.float32), True), (DAYS.astype(np.float32), True)],
)
def test_times_in_single_precision_are_told(days, expected):
    found = told(trend(days))
    assert ("30 data in single precision, up to 24570" in found and "0.25 away" in found) == expected


@pytest.mark.parametrize("data", [np.arange(30.0), np.linspace(-1, 1, 30), 1e5 + 300 * np.linspace(-1, 1, 30)])
def test_data_whose_rounding_does_not_matter_are_not_told(data):
    single = jnp.asarray(data, jnp.float32)
    assert "single precision" not in told(lambda x: 1e-6 * jnp.sum((x[0] - single / 300) ** 2) + x @ x)


def test_rounding_of_the_point_is_told():
    assert "converts values to single precision" in told(lambda x: jnp.sum(x.astype(jnp.float32) ** 2))


def test_wall_and_slow_growth_have_advice():
    assert "boltzflow.Energy(fn, dim, lower=..., upper=...)" in told(lambda x: jnp.where(x[0] > -20, x @ x, jnp.inf))
