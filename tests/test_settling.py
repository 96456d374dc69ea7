"""Settling: points of the target stay, points that are not of it are carried on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.sampling.settling import FIRST_BATCH, settle

NUM = 2048
SPREAD = 1.5


@pytest.fixture(scope="module")
def gaussian():
    """Five dimensions of widths 0.1 to 10."""
    widths = np.geomspace(0.1, 10, 5)
    points = np.random.default_rng(0).normal(size=(NUM, 5)) * widths
    return bf.Energy(lambda x: 0.5 * jnp.sum((x / widths) ** 2), 5), points


@pytest.fixture(scope="module")
def funnel():
    """x_0 ~ N(0, 1.5²) and three x_i ~ N(0, e^{x_0}), exact points."""
    rng = np.random.default_rng(1)
    neck = SPREAD * rng.normal(size=NUM)
    points = np.concatenate([neck[:, None], np.exp(neck / 2)[:, None] * rng.normal(size=(NUM, 3))], axis=1)

    def energy(x):
        return 0.5 * (x[0] / SPREAD) ** 2 + 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) + 1.5 * x[0]

    return bf.Energy(energy, 4), points


@pytest.mark.parametrize("name", ["gaussian", "funnel"])
def test_exact_points_stay(name, request):
    target, points = request.getfixturevalue(name)
    for seed in range(3):
        settled = settle(target, points, jax.random.key(seed))
        assert settled.num_moves == FIRST_BATCH and not settled.drifted and not settled.drifts


def test_points_without_the_neck_are_carried_into_it(funnel):
    target, points = funnel
    wide = points[points[:, 0] > -1]
    settled = settle(target, np.resize(wide, points.shape), jax.random.key(0))
    assert settled.drifted and settled.num_moves > FIRST_BATCH
    share = np.mean(points[:, 0] < -1)
    assert np.mean(settled.x[:, 0] < -1) > 0.5 * share


@pytest.mark.parametrize("change", [lambda x: 1.1 * x, lambda x: x + np.array([0.02, 0, 0, 0, 0])])
def test_points_of_another_target_drift(gaussian, change):
    target, points = gaussian
    assert settle(target, change(points), jax.random.key(0)).first_drift > 4.5
