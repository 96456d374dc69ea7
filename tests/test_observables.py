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
        (lambda x: jnp.log(x[0]), r"the observable is NaN at \d+ of 5000 samples"),
        (lambda x: {"a": x, "rate": [x, jnp.sqrt(x)]}, r"the observable's leaf \['rate'\]\[1\] is NaN at \d+ of 5000"),
        (lambda x: (x[0], 1 / (x[0] * 0)), r"the observable's leaf \[1\] is infinite at 5000 of 5000 samples"),
        (lambda x: {"z": x[0] * 1j}, r"leaf \['z'\] returns complex64"),
        (lambda x: x[9], "the observable uses index 9 of an axis with 2 entries, .* dimension 2"),
        (lambda x: {"event": x[-3] > 9}, "uses index -3 of an axis with 2 entries"),
        (lambda x: jnp.take(x, 9), "uses index 9 of an axis with 2 entries"),
    ],
)
def test_invalid_observable_is_refused_in_one_sentence(fn, words):
    with pytest.raises(InputError, match=words) as error:
        expect(fn, 2, batches())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("as_number", [False, True])
def test_event_that_no_sample_or_every_sample_saw_is_bounded(as_number):
    def event(x):
        return jnp.where(x[0] > 50, 1.0, 0.0) if as_number else x[0] > 50

    found = expect(lambda x: {"never": event(x), "always": 1 - event(x) * 1.0}, 2, batches())
    for name, value in (("never", 0), ("always", 1)):
        estimate = found[name]
        assert not estimate.ok and estimate.value == value and f"leaf ['{name}']" in estimate.reason
        assert 3 / 15_000 < estimate.stderr < 3 / 10_000
    assert "no sample saw it, and its probability is at most 0.00" in found["never"].reason
    assert "every sample saw it, and its probability is at least 0.999" in found["always"].reason


def test_entry_without_spread_is_named_and_leaves_the_others_their_error():
    found = expect(lambda x: jnp.array([[x[0], 7 + 0 * x[1]], [x[1] > 40, x[1] ** 2]]), 2, batches())
    assert not found.ok and "entry [0, 1], is 7 at all 15000 samples, which shows no error" in found.reason
    assert np.isinf(found.stderr[0, 1]) and 0 < found.stderr[1, 0] < 3e-4 and 0 < found.stderr[0, 0] < 0.1


def test_values_at_samples_without_weight_do_not_count_as_spread():
    x = jnp.stack([jnp.arange(4000.0), jnp.ones(4000)], axis=1)
    log_weight = jnp.where(x[:, 0] > 3990, -jnp.inf, 0.0)
    assert not expect(lambda x: x[0] > 3990, 2, [(x, log_weight)]).ok


@pytest.mark.parametrize(
    "fn", [lambda x: 1.0, lambda x: jnp.sum(jnp.ones_like(x)) + 5, lambda x: x.shape[0], lambda x: True]
)
def test_constant_is_exact(fn):
    estimate = expect(fn, 2, batches())
    assert estimate.ok and estimate.stderr == 0 and estimate.value == float(fn(jnp.zeros(2)))
