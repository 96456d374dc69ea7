"""The DataTree of a run, and the mixing of chains."""

import jax
import numpy as np
import pytest

from boltzflow.errors import InputError
from boltzflow.interop.arviz import mixing, to_datatree
from boltzflow.report.report import Report, Verdict
from boltzflow.run import Samples
from boltzflow.sampling.corrections import Corrected
from boltzflow.statistics.estimates import exact


def chains(num, shift=0.0):
    """Four chains of independent states of N(0, 1)², the last shifted by `shift`."""
    chain = np.repeat(np.arange(4), -(-num // 4))[:num]
    x = np.asarray(jax.random.normal(jax.random.key(0), (num, 2)), np.float64) + shift * (chain == 3)[:, None]
    return Corrected(x, np.sum(x**2, axis=1) / 2, "metropolis", num, 0.9, chain)


class FakeRun:
    name = "fake"
    target = None

    def correct(self, key, num_samples, method):
        samples = chains(num_samples)
        return samples if method == "metropolis" else Corrected(samples.x, samples.energy, method, num_samples, 0.9)

    def sample(self, key, num_samples):
        x = np.zeros((num_samples, 2))
        return Samples(x, x[:, 0], x[:, 0], x[:, 0])

    def report(self, **how):
        return Report({}, 0, "", {}, {"log_z": exact(1.5)}, Verdict(False, ("Something is missing.",)), {})


@pytest.mark.parametrize(
    ("correct", "shape"), [("metropolis", (4, 249, 2)), ("importance", (1, 1002, 2)), ("", (1, 1002, 2))]
)
def test_datatree_has_chains_and_verdict(correct, shape):
    tree = to_datatree(FakeRun(), jax.random.key(0), 1002, correct)
    assert tree["posterior"]["x"].shape == shape and tree["posterior"]["x"].dims == ("chain", "draw", "x_dim")
    assert ("log_weight" in tree["sample_stats"]) == (not correct)
    assert tree.attrs["log_z"] == 1.5 and tree.attrs["trustworthy"] == 0 and "missing" in tree.attrs["warnings"]


def test_variables_of_a_posterior_have_their_names():
    named = type("Named", (), {"values": lambda self, x: {"mu": x[:, 0], "theta": x}})()
    tree = to_datatree(type("Run", (FakeRun,), {"target": named})(), jax.random.key(0), 1000, "importance")
    assert tree["posterior"]["mu"].shape == (1, 1000) and tree["posterior"]["theta"].shape == (1, 1000, 2)
    assert "x" not in tree["posterior"]


def test_chains_are_separated_for_indivisible_sample_numbers():
    samples = chains(1002, shift=5.0)
    tree = to_datatree(type("Run", (FakeRun,), {"correct": lambda *_: samples})(), jax.random.key(0), 1002)
    means = tree["posterior"]["x"].mean(("draw", "x_dim")).values
    np.testing.assert_allclose(means, [0, 0, 0, 5], atol=0.3)


def test_mixing_detects_a_shifted_chain():
    good, bad = mixing(chains(4000)), mixing(chains(4000, shift=3.0))
    assert good["r_hat"].max() < 1.01 and good["ess"].min() > 3000
    assert bad["r_hat"].min() > 1.3 and bad["ess"].max() < 50


def test_mixing_refuses_independent_samples():
    with pytest.raises(InputError, match="independent"):
        mixing(FakeRun().correct(None, 10, "importance"))
