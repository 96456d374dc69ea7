"""A flow pooled with itself from a Student t: bounded weights, exact answers for any flow, the price of a good one.

The flows here are Gaussians that no field moves, so that their densities are known. Answers are compared at 4.5 of
their errors with fixed keys.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import sample_batch
from boltzflow.densities.energy import Energy
from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.densities.student_t import StudentT
from boltzflow.model.fields import ZeroField
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.pooling import SHARE, heavy_tailed, num_heavy, pool
from boltzflow.statistics.estimates import log_z_importance, log_z_pooled, pareto_k, reverse_ess
from boltzflow.statistics.expectations import expect

DIM = 3
NUM = 20_000


def make_pool(target, std=1.0, key=0):
    """The pool of a Gaussian flow of this width."""
    flow = Flow(Gaussian(np.zeros(target.dim), std**2), ZeroField(target.dim), num_steps=1)
    flow_key, heavy_key = jax.random.split(jax.random.key(key))
    x, log_prob = sample_batch(flow, flow_key, NUM - num_heavy(NUM))
    energy = map_points(target.energy, x)
    return pool(x, log_prob, energy, flow, target, heavy_tailed(flow, None, heavy_key), heavy_key, num_heavy(NUM))


def student(degrees):
    return StudentT(np.zeros(DIM), degrees, scale_tril=1.0)


@pytest.mark.parametrize("degrees", [3.0, 5.0])
def test_student_t_target_is_exact_where_the_flow_is_a_gaussian(degrees):
    """The Gaussian's own weights have no variance; those of the pool are bounded."""
    target = student(degrees)
    own, log_prob = sample_batch(Gaussian(np.zeros(DIM), 1.2**2), jax.random.key(7), NUM)
    assert not log_z_importance(np.asarray(-map_points(target.energy, own) - log_prob, np.float64)).ok
    mixed = make_pool(target, std=1.2)
    estimate = log_z_pooled(mixed.log_weight, mixed.control, mixed.bound)
    assert estimate.ok and abs(estimate.value - float(target.log_z)) < 4.5 * estimate.stderr
    assert pareto_k(mixed.log_weight).value < 0.5 and np.exp(mixed.log_weight - target.log_z).max() < 30
    square = expect(lambda x: jnp.minimum(x[0] ** 2, 9.0), DIM, [(mixed.x, mixed.log_weight, mixed.bound)])
    exact = np.minimum(np.asarray(sample_batch(target, jax.random.key(5), 2**19)[0])[:, 0] ** 2, 9.0)
    assert square.ok and abs(square.value - exact.mean()) < 4.5 * np.hypot(square.stderr, exact.std() / 2**9.5)


def test_light_bound_clears_the_tail_of_a_narrow_body():
    """A flow that is right but for its tails: its pooled weights are a narrow body with a rare part of up to 1/SHARE.

    k̂ takes that part for a heavy tail. The weights of the t alone bound it. With weights that are heavy themselves, as
    of a target with heavier tails than the t, the doubt stays.
    """
    rng = np.random.default_rng(0)
    log_weight = 1e-3 * rng.normal(size=NUM)
    log_weight[:40] = np.log(rng.uniform(1, 5, size=40))
    light, heavy = np.full(NUM, -np.inf), np.full(NUM, -np.inf)
    light[:4000] = np.log(rng.uniform(size=4000))
    heavy[:4000] = 0.9 * rng.exponential(size=4000)
    control = np.exp(1e-3 * rng.normal(size=NUM))
    assert not log_z_importance(log_weight).ok
    assert log_z_pooled(log_weight, control, light).ok and not log_z_pooled(log_weight, control, heavy).ok
    x = jnp.asarray(rng.normal(size=(NUM, 1)), jnp.float32)
    for bound, ok in ((light, True), (heavy, False)):
        assert expect(lambda x: x[0], 1, [(x, log_weight, bound)]).ok == ok


def test_intervals_of_pooled_log_z_hold_the_truth():
    target = student(4.0)
    pulls = []
    for key in range(40):
        mixed = make_pool(target, std=1.1, key=key)
        estimate = log_z_pooled(mixed.log_weight, mixed.control, mixed.bound)
        pulls.append((estimate.value - float(target.log_z)) / estimate.stderr)
    assert np.mean(np.abs(pulls) < 1.96) >= 0.85 and abs(np.mean(pulls)) < 4.5 / np.sqrt(40)


def test_control_variate_takes_back_the_price_of_the_t():
    """Of a perfect flow the pooled weights scatter, and the corrected ones do not."""
    target = Gaussian(np.zeros(DIM), 1.0)
    mixed = make_pool(target)
    assert 0.8 < reverse_ess(mixed.log_weight).value < 0.99
    plain = log_z_importance(mixed.log_weight)
    corrected = log_z_pooled(mixed.log_weight, mixed.control, mixed.bound)
    assert corrected.ok and corrected.stderr < 0.01 * plain.stderr
    assert abs(corrected.value - float(target.log_z)) < 1e-5


def test_flow_whose_density_is_wrong_is_not_ok():
    """A density that is 30 % too large everywhere: the mean of the control variate is not 1."""
    target = Gaussian(np.zeros(DIM), 1.0)
    mixed = make_pool(target)
    inflated = 1.3 * mixed.control
    inflated /= 1 + (1 - SHARE) * (inflated - mixed.control)
    estimate = log_z_pooled(mixed.log_weight, inflated, mixed.bound)
    assert not estimate.ok and "does not integrate to 1" in estimate.reason


class HalfField(ZeroField):
    """No motion, and NaN where x_0 is above 1: the flow cannot be integrated backward there."""

    def velocity_and_divergence(self, t, x):
        return jnp.where(x[0] > 1, jnp.nan, 0.0) * x, jnp.zeros(())


def test_flow_that_cannot_be_inverted_has_no_density_there():
    target = Gaussian(np.zeros(DIM), 1.0)
    flow = Flow(Gaussian(np.zeros(DIM), 1.0), HalfField(DIM), num_steps=1)
    heavy = heavy_tailed(Flow(flow.base, ZeroField(DIM), num_steps=1), None, jax.random.key(1))
    x, log_prob = sample_batch(flow.base, jax.random.key(2), 900)
    mixed = pool(x, log_prob, map_points(target.energy, x), flow, target, heavy, jax.random.key(3), 100)
    new = np.asarray(mixed.x[900:])
    assert np.isfinite(mixed.log_weight).all()
    assert (mixed.control[900:][new[:, 0] > 1] == 0).all() and (mixed.control[900:][new[:, 0] < 1] > 0).all()


def test_heavy_tailed_is_as_wide_as_any_base():
    """A Gaussian base gives its own scale; of another one, samples do, on a lattice the same at every site."""
    ring = Circulant([2.0, 1.0, 0.5, 1.0])
    flow = Flow(Gaussian(np.full(4, 3.0), scale_tril=ring), ZeroField(4), num_steps=3)
    heavy = heavy_tailed(flow, (4,), jax.random.key(4))
    assert heavy.base.gaussian.scale is ring and heavy.num_steps == 3
    other = Flow(GeneralizedGaussian(4, 1.5, 4.0), ZeroField(4), num_steps=3)
    std = np.sqrt(1.5**2 * math.gamma(0.75) / math.gamma(0.25))
    for lattice, scale in (((4,), np.full(4, std)), (None, std * np.eye(4))):
        found = heavy_tailed(other, lattice, jax.random.key(4)).base.gaussian
        np.testing.assert_allclose(found.scale.eigenvalues if lattice else found.scale, scale, atol=0.05)
        np.testing.assert_allclose(found.mean, 0, atol=0.05)


def test_laplace_like_tails_are_bounded():
    """exp(-2 √(1 + x²)) in each direction against a Gaussian flow."""
    target = Energy(lambda x: jnp.sum(2 * jnp.sqrt(1 + x**2)), DIM)
    grid = np.linspace(-30, 30, 200_001)
    log_z = DIM * np.log(np.exp(-2 * np.sqrt(1 + grid**2)).sum() * (grid[1] - grid[0]))
    mixed = make_pool(target, std=0.85)
    estimate = log_z_pooled(mixed.log_weight, mixed.control, mixed.bound)
    assert estimate.ok and abs(estimate.value - log_z) < 4.5 * estimate.stderr
