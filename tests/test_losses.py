"""The losses: what carries gradient and what does not, energies from outside JAX, bounded memory."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.energy import Energy
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import LogZRate, Transport, continuity_residual, trainable
from boltzflow.model.fields import TimeMixture
from boltzflow.model.flow import Flow
from boltzflow.model.interpolations import Trainable
from boltzflow.model.losses import PENALTIES, continuity_loss, reverse_kl_loss, stratified_times, trajectory
from boltzflow.testing.model import randomize
from boltzflow.training import step as training_step
from gaussian_pair import ExactField, make_pair, make_transport

SIZES = {"num_networks": 2, "width": 7}


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def quartic(x):
    return jnp.sum(0.25 * x**4 - x**2) + 0.3 * x[0]


def small_transport(key, fn=quartic, dim=2):
    """A transport whose networks are anywhere but at their start."""
    field_key, path_key, rate_key, noise_key = jax.random.split(key, 4)
    path = Trainable(Gaussian(np.zeros(dim), 1.0), Energy(fn, dim), key=path_key, **SIZES)
    field = TimeMixture(dim, key=field_key, **SIZES)
    return randomize(Transport(field, path, LogZRate(width=7, depth=2, key=rate_key)), noise_key)


residuals = eqx.filter_jit(jax.vmap(continuity_residual, (None, 0, 0)))
loss_at = eqx.filter_jit(continuity_loss)
reverse_kl_at = eqx.filter_jit(reverse_kl_loss)


def split(transport):
    params, fixed = eqx.partition(transport, trainable(transport))
    return params, lambda params: eqx.combine(params, fixed)


def flat(path, times):
    return jnp.repeat(times, path.shape[1]), path.reshape(-1, path.shape[2])


# --- times and trajectories ------------------------------------------------------------------------------------------


def test_stratified_times_have_one_in_each_stratum_and_see_every_time(key):
    times = jax.jit(jax.vmap(lambda k: stratified_times(k, 8)))(jax.random.split(key, 2000))
    assert times.shape == (2000, 8) and np.all(np.diff(times, axis=1) > 0)
    assert np.all(times >= 0) and np.all(times <= 1)
    assert np.array_equal(np.floor(np.asarray(times) * 8 - 1e-6).clip(0), np.tile(np.arange(8), (2000, 1)))
    # The offset is uniform: its mean is 1/2 within 5 standard errors, its ends are reached.
    offset = 8 * np.asarray(times[:, 0])
    assert abs(offset.mean() - 0.5) < 5 / np.sqrt(12 * 2000) and offset.min() < 0.01 and offset.max() > 0.99


def test_trajectory_goes_where_the_exact_flow_goes(key):
    with jax.enable_x64(True):
        pair = make_pair(3)
        times = stratified_times(key, 64)
        x0 = jax.random.normal(key, (5, 3))
        path = jax.jit(lambda x: trajectory(make_transport(pair), x, times, "rk4"))(x0)
        exact = jax.vmap(jax.vmap(pair.carry, (None, 0)), (0, None))(times, x0)
        assert path.shape == (64, 5, 3)
        np.testing.assert_allclose(path, exact, atol=1e-5)


def test_trajectory_carries_no_gradient(key):
    params, build = split(small_transport(key))
    x0 = jax.random.normal(key, (4, 2))
    times = jnp.linspace(0, 1, 5)[1:]

    def path_at(params, x0):
        return trajectory(build(params), x0, times, "heun")

    ones = jax.tree.map(np.ones_like, (params, x0))
    path, tangent = jax.jit(lambda primals, tangents: jax.jvp(path_at, primals, tangents))((params, x0), ones)
    assert not np.any(tangent) and np.all(path[-1] != x0)

    def own_loss(params):
        return continuity_loss(build(params), *flat(path_at(params, x0), times), "square")

    def loss_on_given_points(params):
        return continuity_loss(build(params), *flat(path, times), "square")

    through = jax.jit(jax.grad(own_loss))(params)
    around = jax.jit(jax.grad(loss_on_given_points))(params)
    for a, b in zip(jax.tree.leaves(through), jax.tree.leaves(around), strict=True):
        assert np.any(a)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.max(np.abs(b)))


# --- the continuity loss ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
def test_continuity_loss_is_the_mean_penalty_of_the_residual(penalty, key):
    transport = make_transport(make_pair(2), error=0.4)
    t = jax.random.uniform(key, (6,))
    x = jax.random.normal(key, (6, 2))
    r = np.asarray(residuals(transport, t, x))
    expected = np.mean({"abs": abs(r), "square": r**2, "abs+square": abs(r) + r**2, "log1p": np.log1p(abs(r))}[penalty])
    assert float(loss_at(transport, t, x, penalty)) == pytest.approx(float(expected), rel=1e-5)
    assert expected > 0.1


def test_continuity_loss_vanishes_on_the_exact_transport(key):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        t = jnp.asarray(rng.uniform(size=64))
        x = jnp.asarray(rng.normal(size=(64, 2)))
        assert loss_at(make_transport(make_pair(2)), t, x, "abs+square") < 1e-8


def numpy_value(x):
    x = np.asarray(x)
    return (np.sum(0.25 * x**4 - x**2, axis=-1) + 0.3 * x[..., 0]).astype(x.dtype)


def numpy_gradient(x):
    x = np.asarray(x)
    return (x**3 - 2 * x + np.array([0.3, 0.0])).astype(x.dtype)


def call(fn, x, shape):
    return jax.pure_callback(fn, jax.ShapeDtypeStruct(shape, x.dtype), x, vmap_method="expand_dims")


@jax.custom_jvp
def outside(x):
    """`quartic` computed by NumPy, with a derivative that cannot be differentiated again."""
    return call(numpy_value, x, ())


@outside.defjvp
def _(primals, tangents):
    (x,) = primals
    return outside(x), jnp.sum(call(numpy_gradient, x, x.shape) * tangents[0])


def test_energy_from_outside_of_jax_trains_as_well_as_one_inside(key):
    """First derivatives are enough: the gradient is that of the same energy in JAX."""
    times = jnp.linspace(0, 1, 4)
    x0 = jax.random.normal(key, (8, 2))

    def loss_and_gradient(fn):
        params, build = split(small_transport(key, fn))

        def loss(params):
            path = trajectory(build(params), x0, times[1:], "heun")
            return continuity_loss(build(params), *flat(path, times[1:]), "abs+square")

        return jax.jit(jax.value_and_grad(loss))(params)

    value, gradient = loss_and_gradient(outside)
    exact_value, exact_gradient = loss_and_gradient(quartic)
    assert float(value) == pytest.approx(float(exact_value), rel=1e-5) and value > 0.1
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.max(np.abs(b)))


def test_that_energy_has_no_second_derivative():
    """The control of the test above."""
    with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
        jax.hessian(outside)(jnp.ones(2))


# --- the reverse KL divergence ---------------------------------------------------------------------------------------


def test_reverse_kl_of_the_exact_flow_is_minus_log_z(key):
    with jax.enable_x64(True):
        transport = make_transport(make_pair(2))
        flow = Flow(transport.interpolation.base, transport.field, num_steps=64)
        target = transport.interpolation.target
        keys = jax.random.split(key, 64)
        assert float(reverse_kl_at(flow, target, keys)) == pytest.approx(-float(target.log_z), abs=1e-6)
        wrong = Flow(flow.base, ExactField(flow.field.pair, 0.5), num_steps=64)
        assert reverse_kl_at(wrong, target, keys) > -target.log_z + 0.01


def test_gradient_of_the_reverse_kl_goes_through_the_solve(key):
    transport = small_transport(key)
    params, fixed = eqx.partition(transport.field, trainable(transport.field))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    direction = jax.tree.map(lambda a: rng.normal(size=a.shape), params)
    above, below = (jax.tree.map(lambda a, d: a + h * d, params, direction) for h in (1e-5, -1e-5))  # noqa: B023
    with jax.enable_x64(True):
        keys = jax.random.split(key, 4)

        @jax.jit
        def loss(params):
            flow = Flow(transport.interpolation.base, eqx.combine(params, fixed), solver="rk4", num_steps=4)
            return reverse_kl_loss(flow, transport.interpolation.target, keys)

        gradient = jax.jit(jax.grad(loss))(params)
        slope = sum(np.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert float(slope) == pytest.approx(float(loss(above) - loss(below)) / 2e-5, rel=1e-6)


def test_memory_of_the_reverse_kl_holds_the_states_and_one_step(key):
    """One more step costs the state of the batch, not the activations of four evaluations of the networks."""
    batch = 64
    dim = 2
    width = 32
    field = TimeMixture(dim, num_networks=1, width=width, key=key)
    params, fixed = eqx.partition(field, trainable(field))

    def temporary_bytes(num_steps):
        def loss(params, keys):
            flow = Flow(Gaussian(np.zeros(dim), 1.0), eqx.combine(params, fixed), num_steps=num_steps)
            return reverse_kl_loss(flow, Energy(quartic, dim), keys)

        compiled = jax.jit(jax.grad(loss)).lower(params, jax.random.split(key, batch)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    growth = (temporary_bytes(96) - temporary_bytes(32)) / 64
    state = 4 * batch * (dim + 1)
    activations = 4 * 2 * 4 * batch * width  # RK4 stages, layers, bytes
    assert growth <= 4 * state < activations / 4


# --- in blocks of points ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [60, 61], ids=["divisible", "prime"])
def test_gradient_over_blocks_of_points_is_that_of_all_at_once(num, key, monkeypatch):
    with jax.enable_x64(True):
        params, build = split(small_transport(key))
        times = jnp.linspace(0, 1, num)
        x = jax.random.normal(key, (num, 2))

        def gradient(block):
            monkeypatch.setattr(training_step, "_POINT_BLOCK", block)
            loss = lambda params, times, x: continuity_loss(build(params), times, x, "abs+square")  # noqa: E731
            return jax.jit(lambda p: training_step._in_blocks(loss, p, times, x))

        whole = gradient(num)
        blocked = gradient(16)
        assert ("scan" in str(jax.make_jaxpr(blocked)(params))) == (num == 60 and jax.default_backend() == "cpu")
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), blocked(params), whole(params)
        )
