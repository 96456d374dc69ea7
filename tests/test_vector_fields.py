"""The fields and the networks they are made of: exact divergences, whitening, time kernels; and the controls."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.errors import InputError
from boltzflow.model.continuity import trainable
from boltzflow.model.fields import AbstractVectorField, TimeMixture, ZeroField
from boltzflow.model.networks import MLP, TimeMixtureMLP, Whitening, time_kernels
from boltzflow.testing.model import check_vector_field, randomize
from gaussian_pair import ExactField, make_pair

LOWER = np.array([[2.0, 0.0, 0.0], [-0.5, 0.1, 0.0], [0.3, 1.0, 5.0]])


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


# --- fields ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_networks_keep_the_contract_of_a_field(depth, key):
    whitening = Whitening([1.0, -1.0, 0.5], LOWER)
    check_vector_field(TimeMixture(3, num_networks=2, width=7, depth=depth, whitening=whitening, key=key), key)


@pytest.mark.parametrize("whitening", [None, Whitening(np.ones(6), np.arange(1.0, 7.0))], ids=["none", "diagonal"])
def test_fields_of_more_dimensions_than_units_keep_their_contract(whitening, key):
    check_vector_field(TimeMixture(6, num_networks=1, width=4, whitening=whitening, key=key), key, scale=2.0)


def test_the_oracle_keeps_the_contract_of_a_field(key):
    check_vector_field(ExactField(make_pair(3), error=0.3), key)


def test_the_field_that_moves_nothing_keeps_the_contract_of_a_field(key):
    check_vector_field(ZeroField(3), key)


def test_field_is_zero_before_training_and_not_after(key):
    field = TimeMixture(3, num_networks=2, width=7, whitening=Whitening(np.ones(3), LOWER), key=key)
    x = jax.random.normal(key, (3,))
    both = eqx.filter_jit(lambda field: field.velocity_and_divergence(jnp.asarray(0.3), x))
    velocity, divergence = both(field)
    assert not np.any(velocity) and divergence == 0
    moved = randomize(field, key)
    velocity, divergence = both(moved)
    assert np.all(np.abs(velocity) > 1e-4) and abs(divergence) > 1e-4
    assert np.array_equal(moved.whitening.decode, field.whitening.decode)


@pytest.mark.parametrize(("weights_in_double", "error"), [(True, 1e-11), (False, 1e-5)])
def test_divergence_at_a_point_in_double_is_exact_in_the_precision_of_the_weights(weights_in_double, error, key):
    """The state of a flow is in double precision, and its networks are functions in the precision of their weights."""
    with jax.enable_x64(weights_in_double):
        field = randomize(TimeMixture(3, num_networks=2, width=7, whitening=Whitening(np.ones(3), LOWER), key=key), key)
    assert field.mlp.networks[0].weights[0].dtype == (jnp.float64 if weights_in_double else jnp.float32)
    with jax.enable_x64(True):
        t = jnp.asarray(0.4)
        x = jax.random.normal(key, (3,))
        velocity, divergence = eqx.filter_jit(field.velocity_and_divergence)(t, x)
        trace = np.trace(eqx.filter_jit(lambda f, t, x: jax.jacfwd(f.velocity, argnums=1)(t, x))(field, t, x))
        assert velocity.dtype == divergence.dtype == jnp.float64
        assert float(divergence) == pytest.approx(float(trace), rel=error)


def test_two_hidden_layers_need_no_tangent_for_each_dimension(key):
    """The cost of the divergence must not grow like the Jacobian's: no array of dim tangents in the program."""
    dim = 97
    width = 11
    field = TimeMixture(dim, num_networks=1, width=width, key=key)
    text = str(jax.make_jaxpr(jax.vmap(field.velocity_and_divergence, (None, 0)))(0.5, jnp.ones((5, dim))))
    assert f"f32[5,{width},{dim}]" not in text and f"f32[5,{dim},{width}]" not in text
    deep = TimeMixture(dim, num_networks=1, width=width, depth=4, key=key)
    text = str(jax.make_jaxpr(jax.vmap(deep.velocity_and_divergence, (None, 0)))(0.5, jnp.ones((5, dim))))
    assert f"f32[5,{width},{dim}]" in text


# --- what they are made of -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2.0, [0.5, 1.0, 3.0], LOWER], ids=["scalar", "diagonal", "matrix"])
def test_whitening_is_the_inverse_of_its_push(scale, key):
    with jax.enable_x64(True):
        whitening = Whitening([1.0, 2.0, 3.0], scale)
        z = jax.random.normal(key, (3,))
        x = whitening.push(z) + jnp.asarray(whitening.mean)
        np.testing.assert_allclose(whitening.whiten(x), z, rtol=1e-13)
        lower = LOWER if np.ndim(scale) == 2 else np.diag(np.broadcast_to(scale, 3))
        np.testing.assert_allclose(x, np.array([1.0, 2.0, 3.0]) + lower @ z, rtol=1e-13)
    single = whitening.whiten(jnp.ones(3, jnp.float32))
    assert single.dtype == jnp.float32


def test_whitening_may_keep_some_directions_only(key):
    directions = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0][:, :2]
    with jax.enable_x64(True):
        whitening = Whitening([1.0, 2.0, 3.0], LOWER, directions)
        y = jax.random.normal(key, (2,))
        assert whitening.size == 2
        x = whitening.push(y) + jnp.asarray(whitening.mean)
        np.testing.assert_allclose(whitening.whiten(x), y, rtol=1e-12)
        np.testing.assert_allclose(x - jnp.asarray(whitening.mean), LOWER @ directions @ y, rtol=1e-12)
    check_vector_field(TimeMixture(3, num_networks=2, width=7, whitening=whitening, key=key), key)


@pytest.mark.parametrize("directions", [np.ones((3, 2)), np.eye(4), np.ones(3)], ids=["skew", "size", "vector"])
def test_directions_must_be_orthonormal_columns(directions):
    with pytest.raises(InputError, match="subspace must"):
        Whitening(np.zeros(3), 1.0, directions)


@pytest.mark.parametrize(
    "scale, sentence",
    [
        (0.0, "positive diagonal"),
        (np.ones((3, 3)), "lower triangular"),
        (np.ones(2), r"shape \(\), \(3,\) or \(3, 3\)"),
        (np.inf, "must be finite"),
    ],
)
def test_whitening_that_cannot_be_inverted_is_refused(scale, sentence):
    with pytest.raises(InputError, match=sentence):
        Whitening(np.zeros(3), scale)


@pytest.mark.parametrize("num", [1, 2, 4, 7])
def test_time_kernels_sum_to_one_and_take_turns(num):
    kernels = jax.jit(jax.vmap(lambda t: time_kernels(t, num)))
    weights = kernels(np.linspace(0, 1, 25))
    assert weights.shape == (25, num) and np.all(weights > 0)
    np.testing.assert_allclose(np.sum(weights, axis=1), 1.0, rtol=1e-6)
    centers = kernels(np.linspace(0, 1, num))
    assert np.array_equal(np.argmax(centers, axis=1), np.arange(num))


def test_mixture_is_the_weighted_sum_of_its_networks(key):
    mixture = randomize(TimeMixtureMLP(3, 3, num_networks=2, width=7, depth=2, key=key), key)
    t = jnp.asarray(0.7)
    x = jnp.asarray([0.3, -1.0, 2.0])
    expected = sum(w * mlp(t, x) for w, mlp in zip(time_kernels(t, 2), mixture.networks, strict=True))
    np.testing.assert_allclose(mixture(t, x), expected, rtol=1e-6)


def test_network_is_the_stated_formula_with_swish(key):
    mlp = randomize(MLP(3, 3, width=7, depth=2, key=key), key)
    t = 0.25
    x = np.array([0.5, -2.0, 1.0], np.float32)
    a = np.append(x, t)
    for weight, bias in zip(mlp.weights[:-1], mlp.biases[:-1], strict=True):
        pre = np.asarray(weight) @ a + np.asarray(bias)
        a = pre / (1 + np.exp(-pre))
    expected = np.asarray(mlp.weights[-1]) @ a + np.asarray(mlp.biases[-1])
    np.testing.assert_allclose(mlp(jnp.asarray(t), jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("sizes", [{"width": 0, "depth": 2}, {"width": 4, "depth": 0}])
def test_networks_of_no_size_are_refused(sizes, key):
    with pytest.raises(ValueError, match="must be at least 1"):
        MLP(2, 2, key=key, **sizes)
    with pytest.raises(ValueError, match="num_networks must be at least 1, got 0"):
        TimeMixtureMLP(2, 2, num_networks=0, width=4, depth=1, key=key)


def test_randomize_moves_what_is_trained_and_nothing_else(key):
    field = TimeMixture(3, num_networks=2, width=7, whitening=Whitening(np.ones(3), LOWER), key=key)
    moved = randomize(field, key, 0.5)
    marks = trainable(field)
    assert jax.tree.structure(moved) == jax.tree.structure(field)
    for old, new, mark in zip(*map(jax.tree.leaves, (field, moved, marks)), strict=True):
        assert np.all(np.asarray(old) != np.asarray(new)) == mark
    noise = np.concatenate([np.ravel(w) for mlp in moved.mlp.networks for w in mlp.weights[-1:] + mlp.biases])
    assert 0.2 < np.std(noise) < 1.0


# --- negative controls -----------------------------------------------------------------------------------------------


class Broken(AbstractVectorField):
    """A small network in which one thing at a time is made wrong."""

    mlp: TimeMixtureMLP
    fault: str = eqx.field(static=True)
    dim: int = eqx.field(static=True, default=2)

    def velocity(self, t, x):
        return self.mlp(t, x)

    def velocity_and_divergence(self, t, x):
        velocity, divergence = self.mlp.value_and_divergence(t, x)
        match self.fault:
            case "divergence":
                divergence = divergence * (1 + 1e-6)
            case "forgotten":
                divergence = jnp.zeros((), x.dtype)
            case "velocity":
                velocity = velocity + 1e-6
            case "shape":
                divergence = divergence[None]
            case "type":
                velocity = velocity.astype(jnp.float16)
            case "infinite":
                velocity = velocity / t
            case "eager":
                divergence = divergence + 0.1 * isinstance(x, jax.core.Tracer)
        return velocity, divergence


@pytest.mark.parametrize(
    "fault, sentence",
    [
        ("divergence", "the divergence of Broken must be the trace of its Jacobian"),
        ("forgotten", "the divergence of Broken must be the trace of its Jacobian"),
        ("velocity", "both methods of Broken must give the same velocity"),
        ("shape", r"the divergence of Broken must have shape \(\), got shape \(1,\)"),
        ("type", "the velocity of Broken must keep the type of x, float32, got float16"),
        ("infinite", "the velocity of Broken is not finite"),
        ("eager", "the divergence of Broken with and without jax.vmap must agree"),
        ("", None),
    ],
)
def test_wrong_field_fails(fault, sentence):
    """The network is zero at first: were it not moved, a forgotten divergence would pass."""
    key = jax.random.key(5)
    field = Broken(TimeMixtureMLP(2, 2, num_networks=1, width=4, depth=1, key=key), fault)
    if sentence is None:
        check_vector_field(field, key)
    else:
        with pytest.raises(AssertionError, match=sentence):
            check_vector_field(field, key)
