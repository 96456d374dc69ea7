"""The flow against the Gaussian pair, of which samples, log-densities and log-weights are known exactly.

Moments are compared at 5 standard errors with seeds made from the test's name: a right flow would fail for about one
seed in two million for each number compared.
"""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import sample_batch
from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.errors import InputError
from boltzflow.model.fields import AbstractVectorField, TimeMixture
from boltzflow.model.flow import Flow, with_resolution
from boltzflow.model.networks import Whitening
from boltzflow.numerics.batching import BATCH_SIZE, map_points
from boltzflow.testing.densities import check_distribution
from boltzflow.testing.model import randomize
from gaussian_pair import ExactField, make_pair, make_transport

SIGMAS = 5.0
DIM = 3


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def exact_flow(error=0.0, **settings):
    transport = make_transport(make_pair(DIM), error)
    return Flow(transport.interpolation.base, transport.field, **settings), transport.interpolation.target


def network_flow(key, base, **settings):
    """A flow that is far from the identity and that nobody trained."""
    whitening = Whitening(np.arange(base.dim), np.tril(np.ones((base.dim, base.dim))))
    field = TimeMixture(base.dim, num_networks=2, width=6, depth=1, whitening=whitening, key=key)
    return Flow(base, randomize(field, key), **settings)


draw = eqx.filter_jit(lambda flow, key, num: jax.vmap(flow.sample_and_log_prob)(jax.random.split(key, num)))
energies = eqx.filter_jit(lambda target, x: jax.vmap(target.energy)(x))
log_probs = eqx.filter_jit(lambda flow, x: jax.vmap(flow.log_prob)(x))


# --- the exact flow --------------------------------------------------------------------------------------------------


def test_samples_of_the_exact_flow_have_the_moments_of_the_target(key):
    flow, target = exact_flow(num_steps=32)
    x = np.asarray(draw(flow, key, 20_000)[0], np.float64)
    z = (x - target.mean) @ np.asarray(target.inverse_scale).T
    for power, expected in ((1, 0.0), (2, 1.0), (4, 3.0)):
        error = np.std(z**power, axis=0) / np.sqrt(len(z))
        assert np.all(np.abs(np.mean(z**power, axis=0) - expected) <= SIGMAS * error)
    products = z[:, [0, 0, 1]] * z[:, [1, 2, 2]]
    assert np.all(np.abs(products.mean(axis=0)) <= SIGMAS * products.std(axis=0) / np.sqrt(len(z)))


def test_log_prob_of_the_exact_flow_is_that_of_the_target(key):
    with jax.enable_x64(True):
        flow, target = exact_flow(solver="dopri8", num_steps=64)
        x, _ = draw(target, key, 64)
        wide = jnp.concatenate([x, 3 * x])
        exact = log_probs(target, wide)
        found = log_probs(flow, wide)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-8)


def test_log_weights_of_the_exact_flow_do_not_vary(key):
    with jax.enable_x64(True):
        flow, target = exact_flow(solver="dopri8", num_steps=64)
        x, log_q = draw(flow, key, 256)
        log_weights = -energies(target, x) - log_q
        assert np.std(log_weights) < 1e-8
        assert np.mean(log_weights) == pytest.approx(float(target.log_z), abs=1e-8)
        wrong, _ = exact_flow(0.1, num_steps=64)
        x, log_q = draw(wrong, key, 256)
        assert np.std(-energies(target, x) - log_q) > 0.01


# --- any flow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [Gaussian(np.ones(DIM), 2.0), GeneralizedGaussian(DIM, 1.5, 4.0)])
def test_log_prob_of_a_sample_is_the_one_that_came_with_it(base, key):
    with jax.enable_x64(True):
        flow = network_flow(key, base, solver="tsit5", num_steps=64)
        x, log_q = draw(flow, key, 64)
        assert np.std(log_q - log_probs(base, x)) > 0.1  # the flow does something
        np.testing.assert_allclose(log_probs(flow, x), log_q, rtol=1e-8, atol=1e-8)


def test_flow_keeps_the_contract_of_a_distribution(key):
    """Among others: it integrates to one, its samples belong to it, and the round trip holds in single precision."""
    pair = make_pair(1)
    flow = Flow(Gaussian(np.zeros(1), pair.base_variance), ExactField(pair, error=0.4), num_steps=16)
    check_distribution(flow, key, num_samples=2048, num_sigma=SIGMAS)


class WrongDivergence(AbstractVectorField):
    """The exact field with a divergence that is off by one percent."""

    field: AbstractVectorField

    @property
    def dim(self):
        return self.field.dim

    def velocity(self, t, x):
        return self.field.velocity(t, x)

    def velocity_and_divergence(self, t, x):
        velocity, divergence = self.field.velocity_and_divergence(t, x)
        return velocity, 1.01 * divergence


def test_a_wrong_divergence_makes_a_wrong_log_prob(key):
    """The control: what the tests above compare depends on the divergence."""
    with jax.enable_x64(True):
        flow, target = exact_flow(num_steps=64)
        x = jax.random.normal(key, (4, DIM))
        found = log_probs(Flow(flow.base, WrongDivergence(flow.field), num_steps=64), x)
        assert np.min(np.abs(found - log_probs(target, x))) > 1e-4


def test_a_field_that_is_zero_leaves_the_base_as_it_is(key):
    base = Gaussian(np.ones(DIM), np.diag([0.5, 1.0, 2.0]))
    flow = Flow(base, TimeMixture(DIM, num_networks=2, width=6, depth=1, key=key), num_steps=2)
    x, log_q = draw(flow, key, 4)
    exact_x, exact_log_q = draw(base, key, 4)
    assert np.array_equal(x, exact_x)
    np.testing.assert_allclose(log_q, exact_log_q, rtol=1e-6)
    np.testing.assert_allclose(log_probs(flow, x), log_q, rtol=1e-6)


def test_path_starts_at_the_base_and_ends_at_the_sample(key):
    flow, _ = exact_flow(num_steps=8)
    path = eqx.filter_jit(flow.sample_path)(key)
    assert path.shape == (9, DIM)
    np.testing.assert_array_equal(path[0], flow.base.sample_and_log_prob(key)[0])
    np.testing.assert_allclose(path[-1], eqx.filter_jit(flow.sample_and_log_prob)(key)[0], rtol=1e-5)
    exact = jax.jit(lambda t, x: jax.vmap(flow.field.pair.carry, (0, None))(t, x))(np.linspace(0, 1, 9), path[0])
    np.testing.assert_allclose(path, exact, atol=0.02)


def test_resolution_changes_the_number_of_steps_and_nothing_else(key):
    flow, target = exact_flow(solver="heun", num_steps=8)
    finer = with_resolution(flow, 32)
    assert (finer.num_steps, finer.solver, finer.base, finer.field) == (32, "heun", flow.base, flow.field)
    x = jax.random.normal(key, (16, DIM))
    errors = [np.max(np.abs(log_probs(f, x) - log_probs(target, x))) for f in (flow, finer)]
    assert errors[1] < 0.15 * errors[0]


@pytest.mark.parametrize("num", [1, BATCH_SIZE + 1])
def test_batches_have_the_length_asked_for_and_do_not_repeat(num, key):
    base = Gaussian(np.ones(DIM), 2.0)
    x, log_q = sample_batch(base, key, num)
    assert x.shape == (num, DIM) and log_q.shape == (num,)
    assert len(np.unique(x[:, 0])) > 0.99 * num  # in single precision a few of 8193 numbers are the same
    assert np.array_equal(x, sample_batch(base, key, num)[0])
    np.testing.assert_allclose(map_points(base.log_prob, x), log_q, rtol=1e-5)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"solver": "rk5"}, "Unknown solver 'rk5': expected one of euler, heun, rk4"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"base": Gaussian(np.zeros(2), 1.0)}, "The base has dimension 2 and the field 3"),
    ],
)
def test_invalid_flow_is_refused(settings, sentence):
    base = settings.pop("base", Gaussian(np.zeros(DIM), 1.0))
    with pytest.raises(ValueError, match=sentence):
        Flow(base, ExactField(make_pair(DIM)), **settings)


def test_batch_is_refused():
    flow, _ = exact_flow()
    with pytest.raises((InputError, TypeError)):
        flow.log_prob(jnp.zeros((4, DIM)))
