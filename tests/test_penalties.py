"""The four functions L of the residual, their contract, and that it can fail."""

import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.model.losses import PENALTIES
from boltzflow.testing.model import check_penalty


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_keep_their_contract(name):
    check_penalty(PENALTIES[name])


def test_penalties_are_those_of_the_paper():
    r = np.array([-3.0, 0.0, 0.5])
    found = {name: np.asarray(penalty(jnp.asarray(r))) for name, penalty in PENALTIES.items()}
    expected = {"abs": abs(r), "square": r**2, "abs+square": abs(r) + r**2, "log1p": np.log1p(abs(r))}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


@pytest.mark.parametrize(
    "penalty, sentence",
    [
        (lambda r: r**3, "must be even"),
        (lambda r: -jnp.abs(r), "must not decrease"),
        (lambda r: jnp.sqrt(jnp.abs(r)), "gradient of a penalty must be finite, not so at"),
        (lambda r: jnp.exp(jnp.abs(r)), "must be finite, got"),
        (lambda r: 0 * r, "must be larger far from r = 0"),
        (lambda r: jnp.sum(r**2), "must be elementwise"),
    ],
)
def test_wrong_penalty_fails(penalty, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_penalty(penalty)
