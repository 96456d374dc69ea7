"""Expectations of observables: pytrees of numbers, and invalid results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.errors import InputError
from boltzflow.statistics.expectations import expect

KEY = jax.random.key(0)


def batches(num=3, size=5_000):
    """x ~ N(0, 1.2²) in two dimensions, weights for N(0, 1)."""
    for key in jax.random.split(KEY, num):
        x = 1.2 * jax.random.normal(key, (size, 2))
        yield x, -0.5 * jnp.sum(x**2, axis=1) * (1 - 1 / 1.2**2)


def test_tree_of_observables_in_one_pass():
    found = expect(
        lambda x: {"mean": x, "square": (x**2).sum(), "tail": x[0] > 2, "outer": jnp.outer(x, x)}, 2, batches()
    )
    exact = {"mean": np.zeros(2), "square": 2.0, "tail": 0.02275, "outer": np.eye(2)}
    for name, value in exact.items():
        assert found[name].ok and found[name].n == 15_000
        assert np.all(np.abs(found[name].value - value) < 4.5 * found[name].stderr)
    assert found["outer"].value.shape == (2, 2)


def raises(x):
    raise KeyError("nothing here")


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (raises, "KeyError: 'nothing here'"),
        (lambda x: x[0] + x.reshape(7), "fails on a point of shape"),
        (lambda x: "word", "fails on a point"),
        (lambda x: None, "returns nothing"),
        (lambda x: x[0] * 1j, "real numbers"),
        (lambda x: jnp.log(x[0]), "NaN or infinite"),
    ],
)
def test_invalid_observable_is_refused_in_one_sentence(fn, words):
    with pytest.raises(InputError, match=words) as error:
        expect(fn, 2, batches())
    assert "\n" not in str(error.value)
