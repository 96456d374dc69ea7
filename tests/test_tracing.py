"""Indices beyond an array's end, constants in single precision, and what a traced function depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.energy import Energy
from boltzflow.densities.energy_checks import check_energy
from boltzflow.errors import InputError
from boltzflow.numerics.constants import rounds_its_point, separate_precisions, single_constants
from boltzflow.numerics.indexing import out_of_range
from boltzflow.numerics.tracing import depends_on_input, scan_sizes

POINTS = jax.random.normal(jax.random.key(0), (8, 4))
DATA = np.linspace(0.1, 1.3, 40).reshape(10, 4)
TABLE = jnp.arange(3.0)


@jax.custom_jvp
def fifth(x):
    return x[5] ** 2


fifth.defjvp(lambda primals, tangents: (fifth(*primals), tangents[0][0]))


@pytest.mark.parametrize(
    ("fn", "index", "length"),
    [
        (lambda x: x[5], 5, 4),
        (lambda x: x[-6], -6, 4),
        (lambda x: x[jnp.array([0, 7])], 7, 4),
        (lambda x: x[np.array([0, -7])], -7, 4),
        (lambda x: x @ x + 1e-6 * x[4], 4, 4),
        (lambda x: x.reshape(2, 2)[:, 2], 2, 2),
        (lambda x: x.reshape(2, 2)[jnp.array([0, 1]), jnp.array([1, 2])], 2, 2),
        (lambda x: x[jnp.arange(3) + 2], 4, 4),
        (lambda x: x.at[7].get(), 7, 4),
        (lambda x: x.at[7].set(1.0), 7, 4),
        (lambda x: jnp.take(x, jnp.array([1, 9])), 9, 4),
        (lambda x: jnp.take_along_axis(x, jnp.array([8]), 0), 8, 4),
        (lambda x: jax.lax.dynamic_slice(x, (3,), (2,)), 4, 4),
        (lambda x: jax.lax.dynamic_index_in_dim(x, 7), 7, 4),
        (lambda x: x[0] * TABLE[5], 5, 3),
        (lambda x: x[0] * jnp.array([1, 2])[2], 2, 2),
        (lambda x: x[jnp.array([0, 1, 2])[9]], 9, 3),
        (lambda x: jax.lax.fori_loop(0, 5, lambda i, s: s + x[i], 0.0 * x[0]), 4, 4),
        (lambda x: jax.lax.scan(lambda s, i: (s + x[i], None), 0 * x[0], jnp.arange(6))[0], 4, 4),
        (lambda x: jax.lax.map(lambda i: x[i + 1], jnp.arange(4)), 4, 4),
        (
            lambda x: jax.lax.while_loop(lambda s: s[0] < 6, lambda s: (s[0] + 1, s[1] + x[s[0]]), (0, 0 * x[0]))[1],
            4,
            4,
        ),
        (lambda x: jax.lax.cond(x[0] > 0, lambda: x[6], lambda: x[6] + 1), 6, 4),
        (lambda x: jax.vmap(lambda i: x[i])(jnp.arange(6)), 4, 4),
        (jax.jit(lambda x: x[5]), 5, 4),
        (jax.checkpoint(lambda x: x[5]), 5, 4),
        (fifth, 5, 4),
        (lambda x: jax.grad(lambda y: y[5] ** 2)(x), 5, 4),
        (lambda x: {"rate": x[0], "event": (x[9] > 2, 1)}, 9, 4),
    ],
)
def test_index_beyond_the_end_is_named(fn, index, length):
    words = out_of_range(fn, POINTS)
    assert words == (f"uses index {index} of an axis with {length} entries" if length else "")


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: (x[-1], x[3], x[jnp.array([0, 3, -4])], x[2:9], x[np.array([True, False, True, False])]),
        lambda x: sum(jnp.sum((x[i] - x[i + 1 :]) ** 2) for i in range(4)),
        lambda x: jax.vmap(lambda i: jnp.where(i < 3, x[i + 1] - x[i], 0.0))(jnp.arange(4)),  # left out
        lambda x: x.at[jnp.array([1, 7])].get(mode="fill", fill_value=0.0),
        lambda x: jnp.take(x, 7, mode="clip"),
        lambda x: jnp.interp(x[0], TABLE, TABLE),
        lambda x: TABLE[jnp.searchsorted(TABLE, x[0])],  # depends on the point
        lambda x: jax.ops.segment_sum(x, jnp.array([0, 1, 5, 1]), 2),
        lambda x: jnp.linalg.slogdet(jnp.eye(4) + x[:, None] * x)[1],
        lambda x: (jnp.sort(x)[3], jnp.roll(x, 1), jnp.quantile(x, 0.3), jnp.median(x)),
        lambda x: jax.random.normal(jax.random.key(0), (4,)) @ x,
    ],
)
def test_indices_in_range_and_meant_pass(fn):
    assert out_of_range(fn, POINTS) == ""


@pytest.mark.parametrize(
    "fn", [lambda x: x @ x + x[5] ** 2, lambda x: x @ x * TABLE[3], lambda x: jnp.take(x @ x * x, 9)]
)
def test_energy_with_an_index_beyond_is_refused(fn):
    with pytest.raises(InputError, match=r"uses index \d of an axis with \d entries, .* dimension 4") as raised:
        check_energy(Energy(fn, 4), POINTS)
    assert "\n" not in str(raised.value)


def mean_square(data):
    """An energy of NumPy data that fails in JAX, and one that is silently single, once `data` was traced in single."""
    return [lambda x: jnp.sum((x * data) ** 2), lambda x: jnp.sum((data @ x) ** 2)]


@pytest.mark.parametrize("which", [0, 1])
def test_numpy_data_are_double_after_single_and_single_after_double(which):
    assert separate_precisions()
    data = DATA.copy()
    fn = mean_square(data)[which]
    x = np.array([0.3, -1.1, 0.7, 0.2])
    exact = np.sum((x * data) ** 2) if which == 0 else np.sum((data @ x) ** 2)
    single = jax.jit(fn)
    with jax.enable_x64(False):
        assert single(jnp.asarray(x, jnp.float32)).dtype == np.float32
    with jax.enable_x64(True):
        double = jax.jit(lambda x: fn(x))
        assert abs(double(jnp.asarray(x)) / exact - 1) < 1e-14
    with jax.enable_x64(False):
        assert abs(jax.jit(lambda x: 1 * fn(x))(jnp.asarray(x, jnp.float32)) / exact - 1) < 1e-5


def test_numpy_data_changed_in_place_are_traced_anew():
    separate_precisions()
    data = DATA.copy()
    first = jax.jit(lambda x: jnp.sum(x * data))
    before = float(first(POINTS[0]))
    data[:] *= 2
    assert abs(float(jax.jit(lambda x: jnp.sum(x * data))(POINTS[0])) / before - 2) < 1e-5


SINGLE = DATA.astype(np.float32)
DEVICE = jnp.asarray(SINGLE)


@pytest.mark.parametrize(
    ("fn", "shapes"),
    [
        (lambda x: jnp.sum(DATA @ x), []),
        (lambda x: 0.1 * x[0] + x[jnp.array([1, 2])][0], []),
        (lambda x: jnp.sum(DEVICE @ x), [(10, 4)]),
        (lambda x: jnp.sum(SINGLE @ x), [(10, 4)]),
        (lambda x: jnp.sum(jnp.asarray(DATA, jnp.float32) @ x), [(10, 4)]),
        (lambda x: jnp.sum(jnp.asarray(DATA).astype(jnp.float32) @ x), [(10, 4)]),
        (jax.jit(lambda x: jnp.sum(DEVICE @ x)), [(10, 4)]),
        (lambda x: jax.lax.scan(lambda s, row: (s + row @ x, None), 0 * x[0], DEVICE)[0], [(10, 4)]),
        (lambda x: jax.lax.cond(x[0] > 0, lambda: jnp.sum(DEVICE @ x), lambda: 0 * x[0]), [(10, 4)]),
    ],
)
def test_single_precision_constants_are_found(fn, shapes):
    separate_precisions()
    found = single_constants(fn, POINTS[0])
    assert [c.shape for c in found] == shapes and all(c.dtype == np.float32 for c in found)


def test_rounding_of_the_point_is_found():
    assert rounds_its_point(lambda x: jnp.sum(x.astype(jnp.float32) ** 2), POINTS[0])
    assert rounds_its_point(jax.jit(lambda x: jnp.sum((2 * x).astype(jnp.float32))), POINTS[0])
    assert not rounds_its_point(lambda x: jnp.sum(jnp.asarray(DATA, jnp.float32) @ x), POINTS[0])


def test_dependence_on_the_point():
    def fn(x):
        loop = jax.lax.fori_loop(0, 3, lambda i, s: (s[1], x[0] * s[0]), (1.0 + 0 * TABLE[0], 1.0 + 0 * TABLE[0]))
        steps = jax.lax.while_loop(lambda s: s < x[0], lambda s: s + 1, 0.0 * TABLE[0])
        return {"a": 1.0, "b": jnp.ones_like(x), "c": jnp.sum(TABLE), "d": x[0] > 9, "e": loop, "f": steps}

    assert depends_on_input(fn, POINTS[0]) == [False, False, False, True, True, True, True]


@pytest.mark.parametrize("points", [POINTS[0], POINTS])
def test_constants_state_and_rows_of_a_scan_are_told_apart(points):
    def step(x, state, row):
        total, last = state
        return (total + row @ last, row + last), (total, row * x)

    def fn(x):
        return jax.lax.scan(lambda state, row: step(x, state, row), (0 * x[0], 1 + x), DEVICE)

    program = jax.make_jaxpr(fn if points.ndim == 1 else jax.vmap(fn))(points)
    [eqn] = [eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "scan"]
    assert scan_sizes(eqn) == (1, 2)
    batch = points.shape[:-1]
    assert [var.aval.shape for var in eqn.invars] == [(*batch, 4), batch, (*batch, 4), (10, 4)]
