"""Minima by descent, and the wells around those to which a flow does not come."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import SubspaceMixture
from boltzflow.numerics.batching import map_points
from boltzflow.sampling.coverage import weigh_missed_modes
from boltzflow.sampling.minima import descend, far_apart
from boltzflow.sampling.pilot import run_pilot

NEAR, FAR = -6 * np.ones(5), 6 * np.ones(5)


def wells(share: float, width: float = 0.5) -> bf.Energy:
    """A wide well of weight 1 - share around -6 and a narrow one of weight `share` around 6; log Z = 0."""
    near, far = Gaussian(NEAR, 2.25 * np.ones(5)), Gaussian(FAR, width**2 * np.ones(5))

    def energy(x):
        return -jnp.logaddexp(jnp.log(1 - share) + near.log_prob(x), jnp.log(share) + far.log_prob(x))

    return bf.Energy(energy, 5)


WIDE_ALONE = Gaussian(NEAR, 2.25 * np.ones(5))


@pytest.mark.parametrize(("least", "typical", "worst"), [(0.3, 1e-3, 1e-2), (0.1, 5.0, 100.0)])
def test_descent_comes_down_to_the_minimum_of_widths_that_differ(least, typical, worst):
    """Tenfold: to the minimum. A hundredfold, in 100 steps from 10⁵: to where the target is, whose mean energy is 5."""
    widths = jnp.geomspace(least, 1 / least, 10)
    target = bf.Energy(lambda x: 0.5 * jnp.sum((x / widths) ** 2), 10)
    x, f = jax.jit(lambda x: descend(target, x))(20 * jax.random.normal(jax.random.key(0), (256, 10)))
    np.testing.assert_allclose(f, jax.vmap(target.energy)(x), rtol=1e-4, atol=1e-4)
    assert float(jnp.median(f)) < typical and float(jnp.max(f)) < worst


def test_descent_leaves_points_without_an_energy_where_they_are():
    target = bf.Energy(lambda x: jnp.where(x[0] > 1, jnp.nan, 0.5 * jnp.sum(x**2)), 2)
    x, f = descend(target, jnp.array([[2.0, 0.0], [-3.0, 1.0]]))
    np.testing.assert_array_equal(x[0], [2.0, 0.0])
    assert jnp.isinf(f[0]) and f[1] < 1e-6


def test_far_apart_points_are_of_every_place():
    rng = np.random.default_rng(0)
    places = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 50.0]])
    x = np.concatenate([places[0] + 1e-4 * rng.normal(size=(500, 2)), places[1:], places[1:]])
    chosen = x[far_apart(x, np.ones(2), 3)]
    assert np.linalg.norm(chosen[:, None] - places, axis=2).min(axis=0).max() < 1e-2
    assert len(far_apart(x, np.ones(2), 100)) == 3  # no more where all others lie within a thousandth


@pytest.mark.parametrize("seed", range(3))
def test_pilot_descends_into_the_well_that_annealing_loses_and_keeps_it(seed):
    """Shares of 4096 particles that were resampled once err by a few binomial errors of 0.006."""
    pilot = run_pilot(wells(0.2), jax.random.key(seed))
    minima = np.asarray(pilot.minima)
    assert np.linalg.norm(minima - FAR, axis=1).min() < 0.5 and np.linalg.norm(minima - NEAR, axis=1).min() < 1
    assert not pilot.complaints and isinstance(pilot.base, SubspaceMixture)
    for points in (pilot.points, pilot.wide_points):
        assert abs(float(np.mean(np.asarray(points)[:, 0] > 0)) - 0.2) < 0.05
    assert abs(pilot.log_z) < 5 * pilot.log_z_stderr


@pytest.mark.slow
def test_a_well_that_annealing_loses_is_learned():
    run = bf.fit(wells(0.2), config=bf.Config(num_steps=300, num_eval_samples=20_000))
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    log_z, share = run.log_z(), run.expectation(lambda x: x[0] > 0)
    assert abs(log_z.value) < 5 * log_z.stderr + 1e-4 and abs(share.value - 0.2) < 5 * share.stderr


def test_a_well_that_was_found_is_not_lost():
    """A single Gaussian over both wells does not come to the narrow one, but points of it are there."""
    target, cover = wells(0.2), Gaussian(np.zeros(5), 49.0 * np.ones(5))
    x = np.concatenate([NEAR + 1.5 * np.random.default_rng(0).normal(size=(800, 5)),
                        FAR + 0.5 * np.random.default_rng(1).normal(size=(200, 5))])  # fmt: skip
    minima = jnp.asarray(np.stack([NEAR, FAR]), jnp.float32)
    excess = -np.asarray(map_points(target.energy, minima) + map_points(cover.log_prob, minima))
    assert excess[1] > 5
    asked = (target, cover.log_prob, minima, excess, 0.0, 7 * np.ones(5), jax.random.key(1))
    assert any(np.linalg.norm(region.center - FAR) < 1 for region in weigh_missed_modes(*asked)[0])
    assert weigh_missed_modes(*asked, found=x)[0] == []


def lost(share, log_prob, log_z, width=0.5):
    """Asked with the two minima and three points beside them."""
    target = wells(share, width)
    minima = np.concatenate([[NEAR, FAR], FAR + 0.1 * np.random.default_rng(0).normal(size=(3, 5))])
    x = jnp.asarray(minima, jnp.float32)
    excess = -np.asarray(map_points(target.energy, x) + map_points(log_prob, x)) - log_z
    regions, left = weigh_missed_modes(target, log_prob, minima, excess, log_z, 1.5 * np.ones(5), jax.random.key(1))
    assert left == 0
    return regions


@pytest.mark.parametrize("width", [0.5, 0.01])
def test_a_lost_well_is_weighed(width):
    (region,) = lost(0.2, WIDE_ALONE.log_prob, np.log(0.8), width)
    # 4096 draws from a Gaussian wider by 1.22, fitted to 256 points: 5 errors.
    assert abs(region.share - 0.2) < 0.016
    np.testing.assert_allclose(region.center, FAR, atol=0.05)


def test_a_lost_well_that_holds_next_to_nothing_is_weighed_too():
    (region,) = lost(1e-4, WIDE_ALONE.log_prob, 0.0)
    assert 0.5e-4 < region.share < 2e-4


def test_nothing_is_lost_where_the_flow_comes_to_both_wells():
    target = wells(0.2)
    assert lost(0.2, lambda x: -target.energy(x), 0.0) == []


def test_minima_beyond_the_eighth_well_are_said_to_be_left():
    """Of twelve equal wells far apart, none of which the flow comes to."""
    minima = 40.0 * np.stack([np.arange(12), np.arange(12) % 3], axis=1)
    target, excess = bf.GaussianMixture(np.full(12, 1 / 12), minima, 1.0), np.full(12, np.inf)
    regions, left = weigh_missed_modes(
        target, lambda x: -1e4 + 0 * x[0], minima, excess, 0.0, np.ones(2), jax.random.key(0)
    )
    assert len(regions) == 8 and left == 4
    np.testing.assert_allclose([region.share / (1 - region.share) for region in regions], 1 / 12, rtol=0.1)


@pytest.mark.slow
def test_a_flow_that_never_comes_to_a_well_is_distrusted():
    """By the reverse KL from a base in the wide well: the weights are perfect, and nothing exact is known."""
    base = Gaussian(NEAR, 9 * np.ones(5))
    config = bf.Config(loss="reverse-kl", num_steps=150, num_eval_samples=8192)
    verdict = bf.fit(wells(0.2), config=config, parts=bf.Parts(base=base)).report().verdict
    assert not verdict.trustworthy
    said = re.search(r"about (\d+)% of the probability near x = \((\S+),", " ".join(verdict.warnings))
    assert said and abs(float(said[2]) - 6) < 0.2
    assert abs(int(said[1]) - 20) <= 6  # 1024 probe points: five binomial errors
