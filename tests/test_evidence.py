"""The benchmark of evidences: its cases, what it hands to rivals, and its table."""

import jax
import numpy as np
import pytest
from benchmarks.evidence_cases import CASES
from benchmarks.evidence_rivals import Problem, TooLongError
from benchmarks.evidence_tables import calls_needed, draw_evidence
from scipy.special import logsumexp

from boltzflow import Posterior
from boltzflow.priors import Uniform


@pytest.mark.parametrize("name", ["log-gamma, d = 2", "egg box"])
def test_evidence_of_a_shape_is_its_average_over_the_prior(name):
    case = CASES[name]
    with jax.enable_x64(True):
        problem = Problem(case.make(), 60.0)
        side = (np.arange(500) + 0.5) / 500
        u = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        log_likelihood = problem.many(problem.to_normals(u))
    assert logsumexp(log_likelihood) - np.log(len(u)) == pytest.approx(case.log_z, abs=1e-5)


def test_goal_of_a_case():
    case = CASES["egg box"]
    assert case.is_reached(case.log_z + 0.003, 0.001, trusted=True)
    assert not case.is_reached(case.log_z, 0.001, trusted=False)
    assert not case.is_reached(case.log_z, 0.006, trusted=True) and not case.is_reached(case.log_z + 0.005, 0.001, True)
    hard = CASES["Rosenbrock, d = 10"]
    assert hard.is_reached(0.0, 1.0, trusted=False) and not hard.is_reached(hard.log_z + 0.03, 0.02, trusted=True)


def test_rival_gets_the_likelihood_and_a_limit():
    with jax.enable_x64(True):
        problem = Problem(Posterior(lambda x: -x[0] + 3 * x[1], {"x": Uniform(0.0, 4.0, shape=2)}), 60.0)
        z = problem.to_normals(np.array([[0.5, 0.25], [0.0, 1.0], [1e-20, 0.75]]))
        np.testing.assert_allclose(problem.many(z), [1.0, 12.0, 9.0], rtol=1e-12)
        assert problem.one(z[2]) == pytest.approx(9.0, rel=1e-12) and problem.calls == 4
        with pytest.raises(TooLongError, match="not done after 0 minutes and 0 calls"):
            Problem(CASES["egg box"].make(), 0.0).one(z[0])


def row(method, off, error, calls, **values):
    log_z = CASES["egg box"].log_z + off
    key = {"target": "egg box", "method": method, "seed": values.pop("seed", 0)}
    answer = {"log_z": log_z, "error": error, "off": off, "z": off / error}
    return {"key": key, **answer, "calls": calls, "seconds": 9.0, **values}


def test_table_says_where_a_rival_needs_fewer_calls_or_is_alone_right():
    ours = row("boltzflow", 0.001, 0.002, 1_000_000, trusted=True, reached=True, route="smc")
    rows = [ours, row("dynesty", 0.01, 0.1, 20_000), row("nautilus", 0.001, 0.01, 30_000)]
    assert calls_needed(rows[1]) == pytest.approx(2e6)
    page = draw_evidence(rows)
    assert "| egg box | 235.855940 | boltzflow | 235.8569 ± 0.0020 | +0.001 | +0.5 | trusted, smc | 1.0·10⁶ |" in page
    assert "| ≈ 2.0·10⁶ | 9 s |" in page
    assert "Fewer calls than boltzflow at an error of 0.01: nautilus on egg box." in page
    failed = {"key": {"target": "egg box", "method": "nautilus", "seed": 0}, "failure": "TooLongError: not done"}
    page = draw_evidence([ours | {"trusted": False}, *rows[1:2], failed])
    assert "Right within four errors where boltzflow is distrusted or wrong: dynesty on egg box." in page
    assert "Not done, or more than four errors off: nautilus on egg box." in page and "| nautilus | not done |" in page


def test_table_shows_the_worst_seed():
    rows = [row("dynesty", off, 0.1, 20_000, seed=seed) for seed, off in enumerate((0.05, -0.3, 0.1))]
    assert "| −0.3 | −3.0 |" in draw_evidence(rows)
