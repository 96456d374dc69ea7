"""The stored rows of the paper's tables: within the wanted bands, and shown by the page."""

import json
from pathlib import Path

import numpy as np
import pytest

from boltzflow.studies import markdown, paper
from boltzflow.studies.paper.cells import MASSES, TARGETS, Cell
from boltzflow.studies.paper.experiments import EXPERIMENTS, picture
from boltzflow.studies.paper.page import NOT_RUN, PAPER_PRESET, PARTS, published, tolerance
from boltzflow.studies.paper.results import find

ROOT = Path(__file__).parent.parent
FOLDER, PAGE = ROOT / "results" / "paper", ROOT / "docs" / "paper.md"
OURS = ("continuity", "continuity_trainable")
TABLES = [(name, cell) for name in ("table1", "table2") for cell in EXPERIMENTS[name].cells]
REVERSE_ESS = {"m1_5": 0.995, "m3_0": 0.99, "m4_5": 0.985, "m6_0": 0.985}

pytestmark = pytest.mark.skipif(
    not (FOLDER / "table1.json").exists(), reason="boltzflow reproduce all has not been run"
)


def found(table, cell):
    """The default row of a cell and the exact one of its target."""
    row = find(FOLDER, cell, "default")
    exact = find(FOLDER, Cell(table, cell.target, "exact"), "default")
    assert row and exact, f"{table} {cell.target} {cell.method} has not been run"
    return row, exact


def value(row, metric):
    return float(row["metrics"][metric][0])


@pytest.mark.parametrize(("table", "cell"), TABLES, ids=lambda part: getattr(part, "method", part))
def test_every_cell_of_the_tables_has_its_seeds(table, cell):
    row, _ = found(table, cell)
    assert row["seeds"] == (5 if table == "table1" else 3) == len(row["runs"])
    assert {"versions", "device", "config", "date"} <= set(row)


@pytest.mark.parametrize(
    ("table", "cell"),
    [
        (table, cell)
        for table, cell in TABLES
        if cell.method in OURS or cell == Cell("table1", "eq2", "continuity_linear")
    ],
    ids=lambda part: getattr(part, "target", part),
)
def test_continuity_is_nowhere_worse_than_published(table, cell):
    """Within the spread of both and the printed digits; the best value needed is that of exact samples."""
    row, exact = found(table, cell)
    for metric, theirs in published(cell).items():
        bound, allowed = theirs[0], tolerance(theirs, 3 if table == "table1" else 2)
        mean, spread = (float(v) for v in row["metrics"][metric])
        if metric.endswith("ess"):
            assert mean >= bound - allowed - spread, metric
        else:
            best, scatter = exact["metrics"][metric] if metric in ("reverse_kl", "hausdorff") else (bound, 0.0)
            allowed += scatter if bound < best else 0.0
            assert mean <= max(bound, best) + allowed + spread, metric


@pytest.mark.parametrize("target", MASSES)
def test_table_2_reaches_the_wanted_ess_and_gap(target):
    row, exact = found("table2", Cell("table2", target, "continuity"))
    assert value(row, "reverse_ess") >= REVERSE_ESS[target]
    assert abs(value(row, "reverse_kl") - value(exact, "reverse_kl")) < 0.01


@pytest.mark.parametrize(("table", "cell"), TABLES, ids=lambda part: getattr(part, "method", part))
def test_no_reverse_kl_is_below_its_bound(table, cell):
    row, exact = found(table, cell)
    for run in row["runs"]:
        gap = float(run["metrics"]["reverse_kl"]) - value(exact, "reverse_kl")
        assert gap > -3 * float(run["errors"]["reverse_kl"]) - 1e-4  # and single precision


def test_baselines_that_fail_in_the_paper_fail_here():
    """The reverse KL drops modes, and the linear path on Eq. (18) one of two."""
    for target, method in (("eq2", "reverse_kl_loss"), ("eq18", "reverse_kl_loss"), ("eq18", "continuity_linear")):
        cell = next(cell for cell in EXPERIMENTS["table1"].cells if (cell.target, cell.method) == (target, method))
        row, _ = found("table1", cell)
        assert value(row, "forward_ess") < 0.5 and value(row, "hausdorff") > 1.0


def test_page_states_the_forward_ess_over_as_many_samples_as_in_the_paper():
    """Tables of one set of 4096 exact samples for each seed: how many have a mean equal to what was published, or one
    that prints so, and how many have all seeds equal."""
    rows = json.loads((ROOT / "results" / "benchmarks" / "forward_ess.json").read_text("utf-8"))["rows"]
    said = []
    for target in ("eq18", "eq2"):
        theirs = published(Cell("table1", target, "continuity_trainable"))["forward_ess"]
        sets = np.array([row["sets"] for row in rows if row["key"]["target"] == TARGETS[target][0]])
        means, enough = sets.mean(axis=0), theirs[0] - tolerance(theirs, 3)
        counts = [means >= enough, np.round(means, 3) >= theirs[0], sets.min(axis=0) >= enough]
        said.append([round(float(np.median(means)), 4), len(means), *(int(one.sum()) for one in counts)])
        said[-1].append(round(float(means.min()), 3))
    assert said == [[0.9991, 64, 39, 19, 18, 0.961], [0.9991, 64, 47, 40, 28, 0.899]]
    text = " ".join(PAGE.read_text("utf-8").split())
    for words in (
        "the mean over the seeds is 0.9991 on Eq. (18) and 0.9991 on Eq. (2), in the median of 64 such tables",
        "in 39 of the 64 tables on Eq. (18), and prints as 1.000 in 19. On Eq. (2) it is within 0.001 in 47, and "
        "prints as 0.999 or 1.000 in 40. All five seeds are within 0.001 in 18 and in 28 tables. The worst tables have "
        "means of 0.961 and 0.899.",
    ):
        assert words in text


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.startswith("fig")])
def test_every_figure_has_its_picture(name):
    assert picture(FOLDER, name, "default").read_bytes().startswith(b"\x89PNG"), f"run: boltzflow reproduce {name}"


def test_paper_preset_has_its_pictures():
    for path in (FOLDER / f"{PAPER_PRESET}.png", picture(FOLDER, "fig8", "paper")):
        assert path.read_bytes().startswith(b"\x89PNG"), path


def test_page_shows_the_stored_rows():
    text = PAGE.read_text(encoding="utf-8")
    assert text == paper.page(FOLDER, "default", "../results/paper", text), "run: boltzflow reproduce table1"
    assert sorted(markdown.marks(text)) == sorted(PARTS) and NOT_RUN not in text
