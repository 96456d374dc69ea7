"""The cases of `benchmarks.trust` and `benchmarks.coverage`, and the tables made of their rows."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import coverage, tables, trust, trust_cases
from benchmarks.trust_cases import Answer, Case, Fit
from benchmarks.trust_cases.case import Changed, Observed, known

import boltzflow
from boltzflow.config import make_preset, with_changes
from boltzflow.errors import InputError


def test_tables_of_trust_count_cases_by_kind():
    def row(target, expected, kind, **values):
        key = {"target": target, "expected": expected, "kind": kind}
        return {"key": key, "trusted": False, "refused": False, "said": [], "ok": False, **values}

    rows = [
        row("a", "broken", "neck", said=["Lost."], log_z=1.0, error=0.1, exact=2.0, z=-10.0),
        row("b", "broken", "neck", trusted=True, log_z=1.0, error=0.1, exact=2.0, z=-10.0, unchecked="small modes"),
        row("c", "broken", "neck", trusted=True, ok=True, log_z=1.95, error=0.1, exact=2.0, z=-0.5),
        row("d", "broken", "improper", trusted=True, log_z=1.0, error=0.1),
        row("e", "broken", "improper", refused=True, said=["refused: no integral"]),
        row("f", "healthy", "banana", trusted=True, ok=True, log_z=1.0, error=0.1, exact=1.0, z=0.0),
        {"key": {"target": "g", "expected": "healthy", "kind": "banana"}, "failure": "ValueError: no"},
    ]
    text = tables.draw_confusion(rows)
    assert "| **broken** | **2 kinds** | 5 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| broken | neck | 3 | 0 | 1 | 1 | 0 | 1 |" in text
    assert "| healthy | banana | 2 | 0 | 0 | 1 | 0 | 1 |" in text
    text = tables.draw_trust(rows)
    assert "| broken | neck | a | distrusted | 1 ± 0.1 | -10 | Lost. |" in text
    assert "| 1 ± 0.1 | -10 | every check passed; not checked: small modes |" in text
    assert "| healthy | banana | g | failed | – | – | ValueError: no |" in text


def test_table_of_coverage_adds_up_routes_by_group():
    def row(target, group, held, **values):
        key = {"target": target, "group": group, "ess": 0.9, "method": "weights", "repeats": 100, "samples": 8192}
        counts = {"ok": {"log_z": 80}, "held": {"log_z": held}, "far": {"log_z": 2}, "rms": {"log_z": 1.0}}
        return {"key": key, **counts, "reverse_ess": 0.9, **values}

    failed = row("c", "judged", 0, failure="ValueError: no")
    text = tables.draw_coverage([row("a", "setting", 76), row("b", "setting", 72), failed])
    assert "| setting | a | 0.90 | weights | 100 | 80 ok: 95 %, 2.5 %, 1.00 | – | – | – |" in text
    assert "| **all of setting** |  |  | weights | 200 | 160 ok: 92 %, 2.5 %, 1.00 | – | – | – |" in text
    assert "| judged | c | 0.90 | weights | 100 | ValueError: no | – | – | – |" in text


@pytest.mark.parametrize("cases", [trust_cases.BROKEN, trust_cases.HEALTHY], ids=["broken", "healthy"])
def test_cases_of_trust_are_many_and_of_many_kinds(cases):
    assert len(cases) >= 60
    assert len({case.kind for case in cases.values()}) >= 15


def test_cases_of_trust_have_different_names():
    assert not set(trust_cases.BROKEN) & set(trust_cases.HEALTHY)


@pytest.mark.parametrize("name", trust.CASES)
def test_case_of_trust_is_made(name):
    """Its target is a density, and its exact answer a finite number; nothing is fitted."""
    ask = trust.CASES[name].ask
    if name == "a gradient by hand, in NumPy":
        with pytest.raises(InputError, match="the gradient is not that of the energy"):
            ask.make()
    elif isinstance(ask, Fit):
        target = ask.make()
        assert isinstance(target, boltzflow.AbstractDensity)
        changes = dict(ask.settings)
        with_changes(make_preset(changes.pop("preset", "default")), changes)
        exact = known(ask.log_z)
        assert exact is None or np.isfinite(exact)
    elif isinstance(ask, Changed):
        fn, dim, change, log_z = ask.make()
        before = float(fn(jnp.ones(dim)))
        change()
        assert float(fn(jnp.ones(dim))) != before and np.isfinite(log_z)
    elif isinstance(ask, Observed):
        assert np.isfinite(ask.exact) and isinstance(ask.make(), boltzflow.AbstractDensity)


def test_case_of_trust_is_right_distrusted_or_refused():
    def asked(trusted, value, error, exact):
        answer = Answer(trusted, [], boltzflow.Estimate(value, error, 100), exact)
        return trust.verdict_on(Case("some", lambda: answer))

    assert asked(True, 1.3, 0.1, 1.0)["ok"]
    assert not asked(True, 1.5, 0.1, 1.0)["ok"] and not asked(True, 1.3, 0.1, None)["ok"]
    assert not asked(False, 1.0, 0.1, 1.0)["ok"]
    assert asked(True, 1.0, 0.0, 1.0)["z"] == 0 and asked(True, 0.0, 0.0, 1.0)["z"] == -1e6
    assert "log_z" not in asked(False, float("nan"), 0.1, 1.0) and "error" not in asked(False, 0.0, float("inf"), 1.0)

    def refuse():
        raise InputError("no")

    assert trust.verdict_on(Case("some", refuse))["said"] == ["refused: no"]


def test_targets_of_coverage_are_many_and_in_halves():
    groups = [task.group for task in coverage.TASKS.values()]
    assert (
        len(groups) >= 15
        and set(groups) == {"setting", "judged"}
        and abs(2 * groups.count("judged") - len(groups)) <= 1
    )


@pytest.mark.parametrize("name", [name for name in coverage.TASKS if not name.startswith("double-well")])
def test_flow_of_coverage_has_the_density_that_it_says(name):
    """The path ends at the target, and starts from the base; at no perturbation the flow is near the target."""
    task = coverage.TASKS[name]
    target = task.target()
    with jax.enable_x64(True):
        transport = task.transport(target, 0.0)
        path = transport.interpolation
        x = path.base.sample_and_log_prob(jax.random.key(0))[0]
        assert path.energy(1.0, x) == pytest.approx(float(target.energy(x)), rel=1e-9)
        assert path.energy(0.0, x) == pytest.approx(float(path.base.energy(x)), rel=1e-9)
        flow = boltzflow.Flow(path.base, transport.field, num_steps=64)
        end, log_prob = flow.sample_and_log_prob(jax.random.key(1))
        own = path._own(1.0, end) + float(path.base.log_z)
        assert -own == pytest.approx(float(log_prob), abs=1e-4)
    assert np.isfinite(task.exact()).all()


def test_coverage_counts_what_is_ok(monkeypatch):
    def route(made, repeats):
        for value in (0.0, 0.1, 0.5):
            yield {"log_z": boltzflow.Estimate(value, 0.1, 10), "mean": boltzflow.Estimate(0.0, 0.1, 10, ok=False)}

    monkeypatch.setitem(coverage.ROUTES, "weights", route)
    made = SimpleNamespace(target=boltzflow.mixture_4(), reverse_ess=0.9)
    row = coverage.cover(coverage.TASKS["mixture-4"], lambda level: made, 0.9, "weights", 3)
    assert row["ok"] == {"log_z": 3, "mean": 0} and row["held"]["log_z"] == 2 and row["far"]["log_z"] == 1
    assert row["rms"]["log_z"] == pytest.approx((26 / 3) ** 0.5) and row["reverse_ess"] == 0.9
