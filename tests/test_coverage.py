"""Coverage: modes that a flow misses, around minima of the energy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics.batching import map_points
from boltzflow.sampling.coverage import weigh_missed_modes
from two_wells import FAR, NEAR, wells

FULL_PILOT = True

WIDE_ALONE = Gaussian(NEAR, 2.25 * np.ones(5))


def test_mode_with_known_points_is_not_missed():
    """A single Gaussian over both wells does not cover the narrow one, but the known points do."""
    target = wells(0.2)
    cover = Gaussian(np.zeros(5), 49.0 * np.ones(5))
    x = np.concatenate(
        [
            NEAR + 1.5 * np.random.default_rng(0).normal(size=(800, 5)),
            FAR + 0.5 * np.random.default_rng(1).normal(size=(200, 5)),
        ]
    )
    minima = jnp.asarray(np.stack([NEAR, FAR]), jnp.float32)
    log_ratio = -np.asarray(map_points(target.energy, minima) + map_points(cover.log_prob, minima))
    assert log_ratio[1] > 5
    log_prob = functools.partial(map_points, cover.log_prob)
    arguments = (target, log_prob, minima, log_ratio, 0.0, 7 * np.ones(5), jax.random.key(1))
    assert any(np.linalg.norm(region.center - FAR) < 1 for region in weigh_missed_modes(*arguments)[0])
    assert weigh_missed_modes(*arguments, known_points=x)[0] == []


def missed(share, log_prob, log_z, width=0.5):
    """The missed modes, from the two minima and three points beside one of them."""
    target = wells(share, width)
    minima = np.concatenate([[NEAR, FAR], FAR + 0.1 * np.random.default_rng(0).normal(size=(3, 5))])
    x = jnp.asarray(minima, jnp.float32)
    log_ratio = -np.asarray(map_points(target.energy, x) + map_points(log_prob, x)) - log_z
    regions, left = weigh_missed_modes(
        target,
        functools.partial(map_points, log_prob),
        minima,
        log_ratio,
        log_z,
        1.5 * np.ones(5),
        jax.random.key(1),
    )
    assert left == 0
    return regions


@pytest.mark.parametrize("width", [0.5, 0.01])
def test_missed_mode_is_weighed(width):
    (region,) = missed(0.2, WIDE_ALONE.log_prob, np.log(0.8), width)
    # 4096 draws from a Gaussian wider by 1.22, fitted to 256 points: 5 errors.
    assert abs(region.share - 0.2) < 0.016
    np.testing.assert_allclose(region.center, FAR, atol=0.05)


def test_missed_mode_of_tiny_share_is_weighed():
    (region,) = missed(1e-4, WIDE_ALONE.log_prob, 0.0)
    assert 0.5e-4 < region.share < 2e-4


def test_flow_that_covers_both_modes_misses_none():
    target = wells(0.2)
    assert missed(0.2, lambda x: -target.energy(x), 0.0) == []


def test_minima_beyond_the_eighth_mode_are_counted():
    """Twelve equal wells far apart, none of which the flow covers."""
    minima = 40.0 * np.stack([np.arange(12), np.arange(12) % 3], axis=1)
    target = bf.GaussianMixture(np.full(12, 1 / 12), minima, 1.0)
    log_ratio = np.full(12, np.inf)
    regions, left = weigh_missed_modes(
        target, lambda x: np.full(len(x), -1e4), minima, log_ratio, 0.0, np.ones(2), jax.random.key(0)
    )
    assert len(regions) == 8 and left == 4
    np.testing.assert_allclose([region.share / (1 - region.share) for region in regions], 1 / 12, rtol=0.1)


@pytest.mark.slow
def test_flow_that_misses_a_mode_is_distrusted():
    """By the reverse KL from a base in the wide well: the weights are perfect, and nothing exact is known."""
    base = Gaussian(NEAR, 9 * np.ones(5))
    config = bf.Config(loss="reverse-kl", num_steps=150, num_eval_samples=8192)
    verdict = bf.fit(wells(0.2), config=config, parts=bf.Parts(base=base)).report().verdict
    assert not verdict.trustworthy
    warning = re.search(r"about (\d+)% of the probability near x = \((\S+),", " ".join(verdict.warnings))
    assert warning and abs(float(warning[2]) - 6) < 0.2
    assert abs(int(warning[1]) - 20) <= 6  # 1024 points: five binomial errors
