"""The benchmarks: stored rows, and the tables made of them."""

import functools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import (
    ess_tables,
    forward_ess,
    gpu,
    gpu_checks,
    log_z_error,
    log_z_tables,
    paper_way,
    products,
    summary,
    tables,
)
from benchmarks.common import TASKS
from benchmarks.log_z_error import ALONE, TARGET_ERROR
from benchmarks.store import RESULTS, Store, newest, source_hash
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from boltzflow.config import Config
from boltzflow.storage import files
from boltzflow.studies import markdown
from boltzflow.studies.baselines.common import Answer
from boltzflow.studies.paper.results import reached
from boltzflow.studies.rows import Rows


@pytest.fixture(autouse=True)
def cache_of_the_tests():
    """Restores the cache after a program has set its own cold one, for later tests of this process."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    yield
    if {name: jax.config.values[name] for name in names} != before:
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()


def test_store_resumes_and_loses_nothing(tmp_path):
    calls = []

    def measure(value):
        calls.append(value)
        return {"value": value}

    first = Store("some", tmp_path)
    for seed in range(3):
        first.measured(functools.partial(measure, seed), "old", target="a", seed=seed)
    first.measured(lambda: 1 / 0, "old", target="b", seed=0)  # stored as a failure, and not tried again
    again = Store("some", tmp_path)
    for seed in range(4):
        again.measured(functools.partial(measure, seed), "old", target="a", seed=seed)
    assert calls == [0, 1, 2, 3]
    assert again.measured(pytest.fail, "old", target="b", seed=0)["failure"].startswith("ZeroDivisionError")
    again.measured(functools.partial(measure, 9), "new", target="a", seed=0)  # of another source: measured again
    stored = Rows(tmp_path / "some.json")
    assert [row["value"] for row in stored.rows if "value" in row] == [1, 2, 3, 9]
    assert [row["value"] for row in newest(stored.rows) if "value" in row] == [9]
    assert all(row["machine"] in stored.head["machines"] for row in stored.rows)
    again.measured(pytest.fail, "new", target="a", seed=0)
    again.machine = "other"
    again.machines["other"] = {}
    again.measured(functools.partial(measure, 10), "new", target="a", seed=0)  # of another machine: measured again
    assert calls[-1] == 10 and sorted(Rows(tmp_path / "some.json").head["machines"])[-1] == "other"
    assert not Store("some", tmp_path, fresh=True).rows


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_rows_are_rewritten_without_a_change(path, tmp_path):
    rows = Rows(path)
    rows.path = tmp_path / path.name
    rows.write()
    assert json.loads(rows.path.read_text("utf-8")) == json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("value", [float("nan"), [1.0, [float("inf")]]], ids=["nan", "nested"])
def test_row_that_is_not_finite_is_a_failure(tmp_path, value):
    row = Store("some", tmp_path).measured(lambda: {"fine": 1.0, "bad": value}, "s", target="a")
    assert row["failure"] == "ValueError: bad is not finite"


def test_source_hash_depends_on_code_alone(tmp_path, monkeypatch):
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


def test_time_to_a_target_error_counts_only_rows_with_that_target_error():
    rows = rows_of(TARGET_ERROR, {100: 5e-4, 1000: 2e-3, 10_000: 4e-5})
    with_target = summary.series(rows, "mixture-2", TARGET_ERROR)
    assert summary.time_to_target(with_target, 1e-2).seconds == pytest.approx(0.1)
    # Neither the luckier row with a larger target error nor the row with a smaller one counts.
    assert summary.time_to_target(with_target, 1e-3) is None
    assert summary.time_to_target(with_target, 1e-4).seconds == pytest.approx(10)
    page = log_z_tables.draw_log_z(
        rows + rows_of(ALONE, {100: 1e-3, 1000: 9e-4}) + rows_of("SMC", {100: 0.1, 400: 0.05})
    )
    assert "| not reached: 0.002 |" in page and page.count("| – |") == 4  # 10⁻⁴ of energy alone, and no verdict yet
    assert "of the baselines' times 1 of 1 at 10⁻², 1 of 1 at 10⁻³, 1 of 1 at 10⁻⁴" in page


def test_no_method_is_first_across_machines():
    other = [row | {"machine": "n"} for row in rows_of("SMC", {100: 0.1, 400: 5e-3})]
    rows = rows_of(TARGET_ERROR, {100: 5e-3})
    assert "**" in log_z_tables.draw_log_z(rows + rows_of("SMC", {100: 0.1}))
    page = log_z_tables.draw_log_z(rows + other)
    assert "**" not in page and "The rows of mixture-2 are of several machines" in page


def test_budget_of_a_baseline_grows_until_it_is_good_enough_or_too_slow(tmp_path, monkeypatch):
    def baseline(energy, dim, key, budget, *, std):
        error, x = 2.0 / budget, np.zeros(dim)
        return Answer(
            task.make().log_z + error, x, x, budget / 1000, 0.0, 0, budget, {"beta": 1.0 if budget > 1 else 0.5}
        )

    def budgets_of(name, budgets, limit):
        monkeypatch.setitem(log_z_error.BASELINES, "SMC", (baseline, budgets))
        store = Store(name, tmp_path)
        log_z_error.measure_baseline(store, "s", task, "SMC", 2, limit)
        return store.rows

    task = TASKS["mixture-2"]
    assert {row["key"]["budget"] for row in budgets_of("a", (500, 2000, 8000), 60.0)} == {500, 2000}
    assert {row["key"]["budget"] for row in budgets_of("b", (500, 1000, 8000), 3.0)} == {500, 1000}
    assert "temperature" in budgets_of("c", (1,), 3.0)[0]["failure"]


def test_tables_are_drawn_from_stored_rows(tmp_path):
    facts = {"processor": "P", "cores": 2, "device": "cpu", "python": "3.11", "versions": {"jax": "0.10"}}
    rows = rows_of("SMC", {100: 0.1, 400: 0.05}) + rows_of(TARGET_ERROR, {100: 0.005, 400: 0.002}, fixed=2)
    (tmp_path / "log_z_error.json").write_text(json.dumps({"machines": {"m": facts}, "rows": rows}))
    page = "before\n<!-- table: log_z_error -->\nSTALE\n<!-- end -->\nafter\n<!-- table: sampling -->\n<!-- end -->\n"
    new = markdown.updated(page, lambda name: tables.render(name, tmp_path))
    assert new.startswith("before") and "after" in new and "STALE" not in new
    assert f"| mixture-2 | {TARGET_ERROR} | **2.1 s (1000)** |" in new
    assert "| mixture-2 | SMC | ≈ 10 s (1.0·10⁵) |" in new
    assert "P, 2 cores, cpu; Python 3.11, jax 0.10; 2026-01-01" in new
    assert tables.NOTHING in new  # for the table without rows
    assert markdown.updated(new, lambda name: tables.render(name, tmp_path)) == new


@pytest.mark.parametrize("path", tables.PAGES, ids=lambda path: path.name)
def test_page_shows_the_stored_rows(path):
    if not list(RESULTS.glob("*.json")):
        pytest.skip("no results here: make bench measures them")
    page = path.read_text("utf-8")
    assert markdown.marks(page) and page == markdown.updated(page, tables.render), "run: python -m benchmarks.tables"


def ess_row(seed, target="mixture-2", method="default", **values):
    looks = [[10, 1.0, 0.996], [20, 2.0, 0.9], [30, 3.0, 0.997], [40, 4.0, 0.998]]
    good = {
        "reverse_ess": 0.998,
        "forward_ess": 0.997,
        "seconds": 4.0,
        "steps": 40,
        "evaluations": 50_000,
        "looks": looks,
    }
    key = {"target": target, "method": method, "seed": seed, "steps": 0}
    return {"key": key, "machine": "m", "trusted": True, **good, **values}


def test_seed_meets_the_goal_in_the_end_and_in_time():
    assert reached([[1, 1.0, 0.9], [2, 2.0, 0.8]], 0.95) is None
    bad = [{"forward_ess": 0.9}, {"reverse_ess": 0.9}, {"seconds": 91.0}, {"failure": "no"}]
    rows = [ess_row(seed, **values) for seed, values in enumerate([{}, *bad])]
    del rows[2]["reverse_ess"]  # as where it is NaN
    text = ess_tables.draw_ess(rows)
    assert "| 3 s (3 s); 30; 4.0·10⁴ | 1/5 | 4/5 | 1 |" in text  # 3 s: at 2 s it fell below once more


def test_table_of_the_paper_preset_shows_failures_and_the_range_of_its_ratio():
    name = "double-well N=16 m=1.5"
    paper = {"step_seconds": 9.0, "published_steps": 10_000, "steps": 3, "seconds": 27.0, "reverse_ess": 0.01}
    rows = [
        ess_row(0, name),
        ess_row(0, name, "paper", **paper),
        ess_row(1, name, "paper", failure="TrainingError: no"),
    ]
    text = ess_tables.draw_paper(rows)
    assert (
        "| default | all of its run | 4 s | 0.9980 | 3 s | - |" in text
    )  # without a followed training of the paper preset
    assert "| paper | 3, at least as long | ≈ 27 s | 0.01 | not reached | - |" in text
    assert (
        "1 of the default preset, 1 of the paper preset" in text and "Failed: paper, seed 1: TrainingError: no." in text
    )
    assert ess_tables.draw_paper(rows[2:]).startswith("Failed: paper")
    way = {"key": {"target": name, "method": "way", "seed": 0}, "looks": [[500, 0.2], [1000, 0.94], [1500, 0.96]]}
    text = ess_tables.draw_paper([*rows, way])
    assert "| 3 s | 3,000 to 4,500 |" in text and "followed for 1,500 steps" in text
    assert "| paper | 1,500 of 10,000 | ≈ 3.75 h | 0.960 | ≈ 3.75 h | - |" in text
    assert "| paper | 1,000 of 10,000 | ≈ 2.5 h | 0.940 | not reached | - |" in text
    way["looks"].pop()
    assert "| 3 s | above 3,000 |" in ess_tables.draw_paper([*rows, way])


def test_looks_of_the_paper_preset_are_read_from_its_snapshots(tmp_path):
    """Nothing is trained where the newest snapshot has enough looks."""
    rows = [{"step": f"{step}.0", "loss": "1.0"} | ({"reverse_ess": ess} if ess else {}) for step, ess in
            [(10, ""), (500, "0.25"), (1000, "0.5")]]  # fmt: skip
    for turn, (step, kept) in enumerate([(1010, rows), (990, rows[:2])]):
        files.write(tmp_path / f"state-{turn}.npz", {}, {"step": step, "history": kept})
    found = paper_way.way(TASKS["double-well N=16 m=1.5"], until=1000, snapshots=tmp_path)
    assert found == {"looks": [[500, 0.25], [1000, 0.5]], "published_steps": 10_000}
    assert paper_way.looks_of(tmp_path / "elsewhere") == []


def test_forward_ess_is_taken_over_sets_and_over_all(monkeypatch):
    """For a flow that equals the target up to a constant, q/p is that constant and every forward ESS is 1."""
    task = TASKS["mixture-2"]
    target = task.make()
    flow = SimpleNamespace(log_prob=lambda x: target.log_prob(x) + np.log(3.0))
    estimates = {name: SimpleNamespace(value=0.5) for name in ("reverse_ess", "forward_ess")}
    report = SimpleNamespace(estimates=estimates, verdict=SimpleNamespace(trustworthy=True))
    run = SimpleNamespace(flow=flow, report=lambda: report)
    monkeypatch.setattr(forward_ess.boltzflow, "fit", lambda *_, seed: run)
    row = forward_ess.sets_of(task, 0, num_sets=2)
    assert row["sets"] == [1.0, 1.0] and row["all"] == pytest.approx(1) and row["reported"] == 0.5
    assert row["largest_ratio"] == pytest.approx(3, rel=1e-4)


def test_table_of_forward_ess_shows_sets_tables_and_failures():
    def row(seed, **values):
        return {"key": {"target": "mixture-2", "seed": seed, "sets": 4}, **values}

    good = [
        row(0, reported=0.99, sets=[0.999, 0.999, 0.997, 0.9], all=0.98, largest_ratio=2000.0),
        row(1, reported=0.97, sets=[0.999, 0.997, 0.997, 0.9], all=0.96, largest_ratio=3.0),
    ]
    text = ess_tables.draw_forward([*good, row(2, failure="TrainingError: no")])
    # means over the seeds of each set: 0.999, 0.998, 0.997, 0.9
    cells = "0.9800 (0.9700) | 0.9975 (0.9970) | 0.9975 (0.9291 to 0.9987) | 0.9700 (0.9600) | 2,000"
    assert f"| mixture-2 | {cells} |" in text
    assert "a set of 4096 | mean of 3 seeds, a set each | 16,384 |" in text
    assert text.endswith("Failed: mixture-2, seed 2: TrainingError: no.")


def test_table_of_sites_keeps_rows_of_different_numbers_of_samples():
    rows = [
        {"key": {"sites": 16, "field": "f", "samples": num}, "machine": "m", "seconds": 1.0, "samples_per_second": num}
        for num in (1000, 2000)
    ]
    assert "| f | 1,000 (1,000 in 1 s); 2,000 (2,000 in 1 s) |" in tables.draw_sampling(rows)


def test_table_of_overheads_has_a_row_for_each_kind():
    rows = [
        {"alone": 0.0035, "through": 0.0037, "overhead": 0.06, "lowest": -0.01, "highest": 0.12},
        {"writing": [0.1, 0.2, 0.3], "training": [20.0, 21.0, 22.0], "overhead": 0.0094, "highest": 0.014},
        {"training": 20.0, "first": 10.0, "again": 4.0, "overhead": 0.2},
    ]
    text = tables.draw_overheads([{"key": {"target": name}, **row} for name, row in zip("abc", rows, strict=True)])
    assert "| a | 3.5 ms, the energy by itself | 6.0% | at most 12.0% in a single process |" in text
    assert "| b | 21 s, training | 0.9% | at most 1.4% |" in text
    assert "| c | 20 s, training | 20.0% | 50.0% with compiling, once |" in text
    assert "| d | ValueError: a \\| b |" in tables.draw_overheads(
        [{"key": {"target": "d"}, "failure": "ValueError: a | b"}]
    )


def test_gpu_checks_run_on_a_cpu(tmp_path):
    """On a CPU the card is the CPU: in double precision nothing differs, in single precision next to nothing."""
    store = Store("gpu", tmp_path)
    gpu_checks.correctness(store, num_points=64, size=16, config=Config(num_networks=1))
    rows = {row["key"]["target"].split(",")[0]: row for row in store.rows}
    assert not any("failure" in row for row in rows.values()) and len(rows) == 4
    weights = rows["log-weights of a flow"]
    assert weights["card_double_largest"] == 0 < weights["cpu_largest"] < 1e-4 < weights["spread"]
    assert rows["gradient of the loss"]["card_double"] == 0 < rows["gradient of the loss"]["card"] < 1e-5
    assert rows["products below full precision"]["loose"] == 0 < rows["products below full precision"]["products"]
    text = tables.draw_gpu(store.rows)
    assert "card, TF32" in text and "products in the traced programs 0 may be" in text


def test_products_are_counted_over_loops_and_branches():
    def some(x):
        x = jax.lax.scan(lambda x, _: (x @ jnp.eye(4), None), x, length=5)[0]
        return jax.lax.cond(x.sum() > 0, lambda: x, lambda: jnp.matmul(jnp.eye(4) @ x, x, precision="highest"))

    found = products.products(jax.jit(some), jnp.ones((4, 4)))
    assert products.flops(found) == 7 * 2 * 4**3 and products.num_loose(found) == 2


def test_parts_of_the_gpu_program_share_the_time(monkeypatch):
    clock = iter([0.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr(gpu.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(gpu, "PARTS", {"a": (None, 1.0), "b": (None, 1.0), "c": (None, 2.0)})
    # What a part leaves goes to those after it.
    assert list(gpu.shares(["a", "b", "c"], 40.0)) == [("a", 10.0), ("b", 10.0), ("c", 30.0)]


def test_gpu_program_says_where_there_is_no_card(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", "correctness", "--results", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == 1 and "no GPU here" in done.stderr and not list(tmp_path.iterdir())


def test_rows_of_the_gpu_program_are_drawn():
    chain = "double-well N=16 m=1.5"
    run = {"total_seconds": 9.0, "pilot_seconds": 1.0, "train_seconds": 5.0, "compile_seconds": 4.0, "trusted": True}
    rates = {"flops_highest": 5e13, "flops_default": 4e14, "bytes_per_second": 2e12}
    step = {"flops": 1e9, "step_seconds": 1e-3, "step_bytes": 2**28, "peak_bytes": 2**30, "samples_per_second": 1e6}
    log_z = {"log_z": 1.05, "log_z_stderr": 1e-4, "error": -1e-4, "reverse_ess": 0.999}
    way = {"steps": 900, "published_steps": 10_000, "seconds": 90.0, "step_seconds": 0.1, "looks": [[500, 50.0, 0.25]]}
    rows = [
        {"method": "steps", "target": "the card", **rates},
        {"method": "steps", "target": chain, "compile_seconds": 20.0, **step},
        {"method": "default", "target": chain, **run, **log_z},
        {"method": "paper", "target": chain, **way},
        {"method": "tables", "target": "table1 eq2/continuity_linear", **run, "error": 0.1, "reverse_ess": 0.5},
        {"method": "tables", "target": "table1 eq18/continuity_linear", "failure": "TrainingError: no"},
    ]
    text = tables.draw_gpu([{"key": {name: row.pop(name) for name in ("target", "method")}, **row} for row in rows])
    assert f"| {chain} | 1 ms | 0.02 ms (1.0·10⁹) | 50 | 0.25 GiB | 1,000,000 | 1 GiB | 20 s |" in text
    assert "50 TFlop/s in full precision, 400 by default, 2 TB/s" in text
    assert f"| {chain} | 9 s | 1 s | 5 s | 4 s | 0.9990 | 1.05000 ± 0.0001 (-0.0001) | trusted |" in text
    assert "900 of 10,000 steps in 90 s (10 steps per second), reverse ESS 0.250 at step 500." in text
    assert "| table1 eq2/continuity_linear | 5 s | 9 s | 0.5000 | - | +0.1 | trusted |" in text
    assert "Failed: table1 eq18/continuity_linear: TrainingError: no." in text
