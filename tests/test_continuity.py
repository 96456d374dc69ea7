"""The one equation, against paths on which it is solved in closed form, and what counts as trainable."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from boltzflow.densities.base import AbstractDensity, AbstractFixed
from boltzflow.densities.catalog import mixture_2
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.gaussian import GeneralizedGaussian
from boltzflow.model.continuity import LogZRate, Transport, continuity_residual, trainable
from boltzflow.model.fields import TimeMixture
from boltzflow.model.integrate import solve
from boltzflow.model.interpolations import Linear, Trainable
from boltzflow.model.losses import continuity_loss, stratified_times, trajectory
from boltzflow.model.networks import Whitening
from boltzflow.testing.model import randomize
from gaussian_pair import make_pair, make_transport

residuals = eqx.filter_jit(jax.vmap(continuity_residual, (None, 0, 0)))


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def points(key, num, dim, scale=3.0):
    rng = np.random.default_rng(np.ravel(jax.random.key_data(key)))
    return jnp.asarray(np.append([0.0, 1.0], rng.uniform(size=num - 2))), jnp.asarray(
        scale * rng.normal(size=(num, dim))
    )


# --- the residual ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 16])
def test_residual_vanishes_on_the_gaussian_pair(dim, key):
    with jax.enable_x64(True):
        t, x = points(key, 256, dim)
        r = residuals(make_transport(make_pair(dim, seed=dim)), t, x)
        assert r.dtype == jnp.float64
        assert np.max(np.abs(r)) < 1e-8


def test_residual_of_a_wrong_field_is_what_the_error_adds(key):
    pair = make_pair(3)
    with jax.enable_x64(True):
        t, x = points(key, 64, 3)
        transport = make_transport(pair, error=0.5)
        r = residuals(transport, t, x)
        _, grad = jax.jit(jax.vmap(lambda t, x: transport.interpolation.derivatives(t, x)))(t, x)
        np.testing.assert_allclose(r, 0.5 * np.sum(grad * np.sin(x) - np.cos(x), axis=1), atol=1e-8)
        assert np.max(np.abs(r)) > 1


def test_rate_of_the_pair_is_the_slope_of_its_log_z():
    with jax.enable_x64(True):
        pair = make_pair(4)
        transport = make_transport(pair)
        t = jnp.linspace(0, 1, 21)
        both = jax.jit(jax.vmap(lambda t: (transport.log_z_rate(t), jax.grad(pair.log_z)(t), pair.log_z(t))))
        by_hand, slope, log_z = both(t)
        np.testing.assert_allclose(by_hand, slope, rtol=1e-10, atol=1e-10)
        ends = log_z[0], log_z[-1]
        exact = transport.interpolation.base.log_z, transport.interpolation.target.log_z
        np.testing.assert_allclose(ends, exact, rtol=1e-12)


# --- the residual is the log-weight rate -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_log_weight_is_the_integral_of_rate_minus_residual(error, key):
    """d/dt log(exp(-f_t) / q_t) = C_t - r_t for any field, and constant log-weights for the exact one."""
    pair = make_pair(3)
    with jax.enable_x64(True):
        transport = make_transport(pair, error)
        base = transport.interpolation.base
        target = transport.interpolation.target

        def rates(t, state):
            velocity, divergence = transport.field.velocity_and_divergence(t, state[0])
            return velocity, -divergence, transport.log_z_rate(t) - continuity_residual(transport, t, state[0])

        @jax.jit
        @jax.vmap
        def log_weights(key):
            x, log_p = base.sample_and_log_prob(key)
            x, log_q, integral = solve(rates, (x, log_p, jnp.zeros(())), jnp.linspace(0, 1, 65), solver="dopri8")
            return -target.energy(x) - log_q - base.log_z, integral

        along_the_flow, integral = log_weights(jax.random.split(key, 32))
        np.testing.assert_allclose(integral, along_the_flow, atol=1e-8)
        spread = np.std(along_the_flow)
        if error:
            assert spread > 0.1
        else:
            assert spread < 1e-8
            assert np.mean(along_the_flow) == pytest.approx(target.log_z - base.log_z, abs=1e-8)


# --- what is trained -------------------------------------------------------------------------------------------------


class JaxTarget(AbstractDensity):
    """A target with JAX arrays, which by their dtype alone would be trained."""

    center: jax.Array
    dim: int = eqx.field(static=True, default=2)

    def energy(self, x):
        return 0.5 * jnp.sum((x - self.center) ** 2 / jnp.asarray([0.5, 2.0]))


def small_transport(key, target):
    field_key, path_key, rate_key = jax.random.split(key, 3)
    whitening = Whitening(jnp.ones(target.dim), 2 * jnp.eye(target.dim))
    sizes = {"num_networks": 2, "width": 7}
    field = TimeMixture(target.dim, whitening=whitening, key=field_key, **sizes)
    path = Trainable(GeneralizedGaussian(target.dim, 2.0), target, whitening=whitening, key=path_key, **sizes)
    return Transport(field, path, LogZRate(width=7, depth=2, key=rate_key))


def fixed_arrays(transport):
    return jax.tree.leaves((transport.interpolation.base, transport.interpolation.target, transport.field.whitening))


@pytest.mark.parametrize("target", [JaxTarget(jnp.ones(2)), mixture_2(), DoubleWell(4)], ids=["jax", "numpy", "chain"])
def test_trainable_marks_the_networks_and_nothing_else(target, key):
    transport = small_transport(key, target)
    trained, _ = eqx.partition(transport, trainable(transport))
    networks = [transport.field.mlp.networks, transport.interpolation.mlp.networks, transport.log_z_rate.mlp]
    assert [id(a) for a in jax.tree.leaves(trained)] == [
        id(a) for a in jax.tree.leaves((networks[0], networks[1], networks[2]))
    ]
    assert all(eqx.is_inexact_array(a) for a in jax.tree.leaves(trained))
    marks = trainable(transport)
    for part in (marks.interpolation.base, marks.interpolation.target, marks.field.whitening):
        assert not any(jax.tree.leaves(part))


def test_trainable_goes_by_type_and_not_by_dtype():
    class Data(AbstractFixed):
        a: jax.Array

    class Model(eqx.Module):
        data: list[Data]
        a: jax.Array
        count: jax.Array

    model = Model([Data(jnp.ones(2))], jnp.ones(2), jnp.ones(2, int))
    marks = trainable(model)
    assert (marks.data[0].a, marks.a, marks.count) == (False, True, False)


def test_training_lowers_the_loss_and_leaves_base_and_target_as_they_are(key):
    target = JaxTarget(jnp.asarray([1.0, -1.0]))
    transport = small_transport(key, target)
    before = [np.array(a) for a in fixed_arrays(transport)]
    params, fixed = eqx.partition(transport, trainable(transport))
    optimizer = optax.adam(5e-3)

    def loss_at(params, key):
        transport = eqx.combine(params, fixed)
        draw_key, time_key = jax.random.split(key)
        x0, _ = jax.vmap(transport.interpolation.base.sample_and_log_prob)(jax.random.split(draw_key, 64))
        times = stratified_times(time_key, 8)
        path = trajectory(transport, x0, times, "heun")
        return continuity_loss(transport, jnp.repeat(times, 64), path.reshape(-1, 2), "abs+square")

    def step(carry, key):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_at)(params, key)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), loss

    keys = jax.random.split(key, 300)
    (params, _), losses = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), keys))(params)
    assert np.mean(losses[-20:]) < 0.25 * np.mean(losses[:20])
    after = fixed_arrays(eqx.combine(params, fixed))
    assert len(before) == len(after) == 5
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old, np.asarray(new))


# --- the rate --------------------------------------------------------------------------------------------------------


def test_rate_is_zero_at_first_and_a_function_of_time_only(key):
    rate = LogZRate(width=7, depth=2, key=key)
    assert float(rate(jnp.asarray(0.3))) == 0.0
    noisy = randomize(rate, key)
    values = eqx.filter_jit(lambda rate, t: jax.vmap(rate)(t))(noisy, np.linspace(0, 1, 5))
    assert values.shape == (5,) and np.all(np.isfinite(values)) and np.std(values) > 0


def test_residual_before_training_is_the_time_derivative(key):
    transport = small_transport(key, mixture_2())
    t, x = points(key, 8, 2)
    linear = Linear(transport.interpolation.base, mixture_2())
    slopes = jax.jit(jax.vmap(lambda t, x: linear.derivatives(t, x)[0]))(t, x)
    np.testing.assert_allclose(residuals(transport, t, x), slopes, rtol=1e-5)
