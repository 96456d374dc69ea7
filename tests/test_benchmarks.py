"""The benchmarks: rows that are not lost, a page that says what was measured."""

import functools
import json

import numpy as np
import pytest
from benchmarks import common, summary, tables
from benchmarks.log_z_error import TOLD
from benchmarks.store import RESULTS, Store, newest, read, source_hash


def test_store_resumes_and_loses_nothing(tmp_path):
    calls = []

    def measure(value):
        calls.append(value)
        return {"value": value}

    first = Store("some", folder=tmp_path)
    for seed in range(3):
        common.measured(first, "old", functools.partial(measure, seed), target="a", seed=seed)
    common.measured(first, "old", lambda: 1 / 0, target="b", seed=0)  # kept as a failure, and not tried again
    again = Store("some", folder=tmp_path)
    for seed in range(4):
        common.measured(again, "old", functools.partial(measure, seed), target="a", seed=seed)
    assert calls == [0, 1, 2, 3]
    assert again.find("old", target="b", seed=0)["failure"].startswith("ZeroDivisionError")
    common.measured(again, "new", functools.partial(measure, 9), target="a", seed=0)  # of another source: anew
    rows = read(tmp_path / "some.json")["rows"]
    assert [row["value"] for row in rows if "value" in row] == [1, 2, 3, 9]
    assert [row["value"] for row in newest(rows) if "value" in row] == [9]
    assert all(row["machine"] in again.machines for row in rows)
    assert not Store("some", folder=tmp_path, fresh=True).rows


def test_source_hash_sees_code_and_not_words(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.store.ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "a.py"
    hashes = []
    for text in ("x = 1\n", '"""Words."""\n# more\nx  =  1\n', "x = 2\n"):
        file.write_text(text)
        hashes.append(source_hash("src"))
    assert hashes[0] == hashes[1] != hashes[2]
    (tmp_path / "src" / "cli").mkdir()
    (tmp_path / "src" / "cli" / "a.py").write_text("x = 3\n")
    assert source_hash("src") == hashes[2] != source_hash("src/cli")


def rows_of(method, errors, *, seconds_each=0.001, fixed=0.0):
    """Rows of five seeds whose errors at each budget have the root mean square given."""
    signs = np.array([1, -1, 1, -1, 1])
    return [
        {
            "key": {"target": "mixture-2", "method": method, "seed": seed, "budget": budget},
            "error": float(sign * error), "seconds": fixed + seconds_each * budget, "compile_seconds": 1.0,
            "evaluations": 10 * budget, "source": "s", "machine": "m", "date": "2026-01-01",
        }
        for budget, error in errors.items() for seed, sign in enumerate(signs)
    ]  # fmt: skip


def test_time_to_an_error_is_measured_or_extrapolated():
    lucky = summary.series(rows_of("SMC", {100: 0.009, 400: 0.02, 1600: 0.009, 6400: 0.005}), "mixture-2", "SMC")
    assert summary.time_to(lucky, 1e-2).seconds == pytest.approx(1.6)  # not 0.1: a larger budget failed again
    line = summary.series(rows_of("SMC", {100: 0.1, 400: 0.05, 1600: 0.025}), "mixture-2", "SMC")
    way = summary.time_to(line, 1e-3)
    assert not way.measured
    assert way.seconds == pytest.approx(1000, rel=1e-6) and way.evaluations == pytest.approx(1e7, rel=1e-6)
    biased = summary.series(rows_of("SMC", {100: 0.4, 400: 0.1, 1600: 0.025}), "mixture-2", "SMC")  # error ∝ 1/n
    assert summary.time_to(biased, 1e-3).seconds == pytest.approx(1000, rel=1e-6)  # from the largest budget alone
    rows = rows_of("SMC", {100: 0.1, 400: 1e-3})
    rows[-1] = {"key": rows[-1]["key"], "failure": "TrainingError: no"}  # the budget that would meet it
    assert summary.time_to(summary.series(rows, "mixture-2", "SMC"), 1e-2) is None
    assert summary.time_to(summary.series(rows[:5], "mixture-2", "SMC"), 1e-2) is None  # one budget: nothing to go on


def test_tables_are_drawn_from_a_small_file(tmp_path):
    facts = {"processor": "P", "cores": 2, "device": "cpu", "python": "3.11", "versions": {"jax": "0.10"}}
    rows = rows_of("SMC", {100: 0.1, 400: 0.05}) + rows_of(TOLD, {100: 0.005, 400: 0.002}, fixed=2)
    (tmp_path / "log_z_error.json").write_text(json.dumps({"machines": {"m": facts}, "rows": rows}))
    page = "before\n<!-- table: log_z_error -->\nSTALE\n<!-- end -->\nafter\n<!-- table: sampling -->\n<!-- end -->\n"
    new = tables.updated(page, tmp_path)
    assert new.startswith("before") and "after" in new and "STALE" not in new
    assert f"| mixture-2 | {TOLD} | **2.1 s (1000)** |" in new
    assert "| mixture-2 | SMC | ≈ 10 s (1.0·10⁵) |" in new
    assert "P, 2 cores, cpu; Python 3.11, jax 0.10; 2026-01-01" in new
    assert tables.NOTHING in new  # of what was not measured
    assert tables.updated(new, tmp_path) == new


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_page_says_what_was_measured(path):
    if not list(RESULTS.glob("*.json")):
        pytest.skip("no results here: make bench measures them")
    page = path.read_text("utf-8")
    assert "<!-- table: " in page and page == tables.updated(page), "run: python -m benchmarks.tables"


def test_table_of_overheads_has_a_row_for_each_kind():
    rows = [
        {"alone": 0.0035, "through": 0.0037, "overhead": 0.06, "lowest": -0.01, "highest": 0.12},
        {"writing": [0.1, 0.2, 0.3], "training": [20.0, 21.0, 22.0], "overhead": 0.0094, "highest": 0.014},
        {"training": 20.0, "first": 10.0, "again": 4.0, "overhead": 0.2},
    ]
    text = tables.draw_overheads([{"key": {"target": name}, **row} for name, row in zip("abc", rows, strict=True)])
    assert "| a | 3.5 ms, the energy by itself | 6.0% | -1.0% to 12.0% in single processes |" in text
    assert "| b | 21 s, training | 0.9% | at most 1.4% |" in text
    assert "| c | 20 s, training | 20.0% | 50.0% with compiling, once |" in text


def test_tables_of_trust_count_what_was_said():
    def row(target, expected, trusted, *said):
        return {"key": {"target": target, "expected": expected}, "trusted": trusted, "said": list(said)}

    rows = [row("a", "broken", False, "Lost."), row("b", "broken", True), row("c", "healthy", True)]
    assert "| broken (2) | 1 | 1 |" in tables.draw_confusion(rows)
    assert "| healthy (1) | 1 | 0 |" in tables.draw_confusion(rows)
    assert "| broken | a | distrusted | Lost. |" in tables.draw_trust(rows)
    covered = dict.fromkeys(("log_z", "mean", "square", "tail"), 190)
    key = {"target": "a", "repeats": 200, "samples": 10_000}
    text = tables.draw_coverage([{"key": key, "covered": covered, "reverse_ess": 0.99, "not_ok": 0, "trusted": True}])
    assert text.count("95.0 %") == 4 and "is 1.5 %" in text
