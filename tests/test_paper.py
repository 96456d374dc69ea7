"""The paper's tables and figures: their mathematics, the stored rows and their reuse, the page."""

import dataclasses
import json
import multiprocessing
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import numpy as np
import pytest

from boltzflow.errors import InputError, TrainingError
from boltzflow.studies import markdown, paper
from boltzflow.studies.paper import cells, draw
from boltzflow.studies.paper import results as results_module
from boltzflow.studies.paper.cells import Cell, config_of
from boltzflow.studies.paper.experiments import EXPERIMENTS, path_figure
from boltzflow.studies.paper.page import BETTER, EQUAL, PARTS, WORSE, as_printed, compared, draw_paper_preset, published
from boltzflow.studies.paper.reproduce import _side_by_side, _tasks
from boltzflow.studies.paper.results import find, keep, reached, results, seeds, step_seconds
from boltzflow.studies.rows import Rows

TINY = {"num_steps": 2, "width": 4, "depth": 1, "num_networks": 1, "num_eval_samples": 64, "sample_steps": 4}
CELL = Cell("table2", "m1_5", "continuity")
ROOT = Path(__file__).parent.parent


def a_result(seed, **metrics):
    values = {name: 0.5 for name in cells.METRICS} | metrics
    return {
        "seed": seed,
        "metrics": values,
        "errors": dict.fromkeys(values, 0.01),
        "log_z": [1.05, 1e-3],
        "trusted": True,
        "train_seconds": 3.0,
        "compile_seconds": 1.0,
        "total_seconds": 9.0,
        "steps": 2,
        "curve": [[1, 1.0, 0.3, 0.2], [2, 2.0, 0.1, 0.95]],
        "sites": np.full(100, 0.1),
    }


# --- one dimension ----------------------------------------------------------------------------------------------------


def test_velocity_between_gaussians_is_exact():
    """f_t = ½ a_t (x - μ_t)² has V_t = μ_t' - ½ (a_t'/a_t) (x - μ_t)."""
    mean, precision = 2.0, 3.0
    times = np.array([0.0, 0.3, 0.7, 1.0])
    path = draw.linear_path(lambda x: x**2 / 2, lambda x: precision * (x - mean) ** 2 / 2, times)
    a, b = 1 + times * (precision - 1), times * precision * mean
    center = b / a
    center_rate = (precision * mean * a - b * (precision - 1)) / a**2
    for i in range(len(times)):
        exact = center_rate[i] - 0.5 * (precision - 1) / a[i] * (path.x - center[i])
        near = np.abs(path.x - center[i]) < 4 / np.sqrt(a[i])
        np.testing.assert_allclose(path.velocity[i, near], exact[near], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(path.norm**2, center_rate**2 + 0.25 * (precision - 1) ** 2 / a**3, rtol=1e-6)


def test_velocity_explodes_where_mass_changes_mode():
    even = draw.linear_path(draw.base_energy, draw.even_modes)
    uneven = draw.linear_path(draw.base_energy, draw.uneven_modes)
    np.testing.assert_allclose(even.velocity, -even.velocity[:, ::-1], atol=1e-6 * np.abs(even.velocity).max())
    assert uneven.norm.max() > 5 * even.norm.max()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_every_cell_of_the_tables_is_published():
    for name in ("table1", "table2"):
        for cell in EXPERIMENTS[name].cells:
            assert {"hausdorff", "reverse_kl", "reverse_ess"} <= set(published(cell))


def test_baselines_keep_the_base_of_the_paper():
    assert config_of(Cell("t", "eq2", "reverse_kl_loss"), "default").base_std == 1.0
    linear = config_of(Cell("t", "eq18", "continuity_linear"), "default")
    assert (linear.base, linear.base_std, linear.interpolation) == ("gaussian", 2.0, "linear")
    chain = config_of(Cell("t", "m6_0", "reverse_kl_loss"), "default")
    assert (chain.base, chain.base_power, chain.loss) == ("generalized-gaussian", 4.0, "reverse-kl")
    assert config_of(CELL, "default").base == "pilot"


def test_preset_paper_changes_nothing_but_the_method():
    config = config_of(Cell("t", "eq18", "continuity_trainable"), "paper")
    assert (config.num_steps, config.num_intervals, config.base_std, config.optimizer) == (10_000, 50, 2.0, "adam")
    assert config_of(Cell("t", "n64", "continuity"), "paper").num_steps == 250_000


# --- stored rows ------------------------------------------------------------------------------------------------------


def test_rows_store_numbers_that_are_not_finite_as_text(tmp_path):
    config = config_of(CELL, "default")
    keep(tmp_path, CELL, "default", config, a_result(0, forward_kl=np.inf), a_result(1))
    text = (tmp_path / "table2.json").read_text()
    row = json.loads(text, parse_constant=pytest.fail)["rows"][0]
    assert row["metrics"]["forward_kl"] == ["Infinity", "NaN"]
    assert row["metrics"]["reverse_ess"] == [0.5, 0.0] and row["seeds"] == 2
    again = seeds(tmp_path, CELL, "default", config)
    assert [run["seed"] for run in again] == [0, 1]
    assert not seeds(tmp_path, CELL, "default", dataclasses.replace(config, width=3))
    assert not seeds(tmp_path, CELL, "quick", config)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_file_without_rows_is_refused(tmp_path, text):
    (tmp_path / "table2.json").write_text(text)
    with pytest.raises(InputError, match="move it away"):
        results(tmp_path, "table2")


def test_stored_rows_are_rewritten_without_a_change(tmp_path):
    """The format of the files stays that of the stored ones."""
    rows = Rows(ROOT / "results" / "paper" / "table1.json")
    text = rows.path.read_text("utf-8")
    rows.path = tmp_path / "table1.json"
    rows.write()
    assert rows.path.read_text("utf-8") == text


@eqx.filter_jit
def few_exact_samples(density, key):
    return jax.vmap(density.sample_and_log_prob)(jax.random.split(key, 64))


@pytest.fixture
def trained(monkeypatch):
    """The seeds and cells that would be trained; nothing is trained, and rows of exact samples are of few."""
    seen = []
    monkeypatch.setattr(results_module, "sample_batch", lambda density, key, num: few_exact_samples(density, key))

    def train(cell, config, seed, on_progress, keep):
        seen.append((cell.target, cell.method, seed))
        if seed == 1 and cell.method == "reverse_kl_loss":
            raise TrainingError("diverged")
        return SimpleNamespace(seed=seed, draws=None)

    monkeypatch.setattr(cells, "train", train)
    monkeypatch.setattr(cells, "measure", lambda run: a_result(run.seed))
    return seen


def test_stored_seeds_are_not_trained_again(tmp_path, trained):
    paper.reproduce("table2", folder=tmp_path, num_seeds=1)
    assert len(trained) == 8
    paper.reproduce("table2", folder=tmp_path, num_seeds=2)
    assert len(trained) == 16 and all(seed == 1 for *_, seed in trained[8:])
    paper.reproduce("fig10", folder=tmp_path)
    assert len(trained) == 16 and (tmp_path / "fig10.png").exists()


def test_diverging_seed_is_left_out_and_reported(tmp_path, trained):
    ended = []

    class Watcher(paper.Watcher):
        def end(self, what):
            ended.append(what)

    paper.reproduce("table2", folder=tmp_path, num_seeds=3, watcher=Watcher())
    assert sum("diverged" in line for line in ended) == 4
    row = find(tmp_path, Cell("table2", "m6_0", "reverse_kl_loss"), "default")
    assert row["seeds"] == 2 and [run["seed"] for run in row["runs"]] == [0, 2]


def test_only_the_named_cells_are_trained(tmp_path, trained):
    paper.reproduce("table2", folder=tmp_path, num_seeds=1, only=["m6_0/continuity", "m1_5/continuity"])
    assert trained == [("m1_5", "continuity", 0), ("m6_0", "continuity", 0)]
    paper.reproduce("all", folder=tmp_path, num_seeds=1, only=["n4/continuity"])
    assert trained[2:] == [("n4", "continuity", 0)] and not (tmp_path / "fig5.png").exists()


def test_rows_added_by_another_process_during_training_are_kept(tmp_path, trained, monkeypatch):
    other, config = Cell("table2", "m6_0", "continuity"), config_of(CELL, "default")

    def measure(run):
        keep(tmp_path, other, "paper", config, a_result(run.seed))
        return a_result(run.seed)

    monkeypatch.setattr(cells, "measure", measure)
    paper.reproduce("table2", folder=tmp_path, num_seeds=1, only=["m1_5/continuity"])
    assert find(tmp_path, CELL, "default") and find(tmp_path, other, "paper")


def test_picture_of_rows_is_drawn_with_its_experiment_and_when_a_row_changes(tmp_path, trained, monkeypatch):
    drawn = dataclasses.replace(EXPERIMENTS["fig10"], draw=lambda rows: b"png")
    monkeypatch.setitem(EXPERIMENTS, "fig10", drawn)
    fig10 = tmp_path / "fig10.png"
    settings = {"folder": tmp_path, "only": [CELL.name]}
    assert fig10 not in paper.reproduce("table2", num_seeds=1, **settings)
    assert fig10 in paper.reproduce("fig10", **settings) and fig10.read_bytes() == b"png"
    assert fig10 not in paper.reproduce("table2", num_seeds=1, **settings)  # no row changes
    assert fig10 in paper.reproduce("table2", num_seeds=2, **settings)


def test_picture_of_a_path_is_drawn_with_its_seed_0_or_where_it_is_missing(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(
        sys.modules["boltzflow.studies.paper.reproduce"], "path_panels", lambda run: SimpleNamespace(png=lambda: b"png")
    )
    fig3 = tmp_path / "fig3.png"
    assert fig3 in paper.reproduce("fig3", folder=tmp_path) and fig3.read_bytes() == b"png"
    assert fig3 not in paper.reproduce("fig3", folder=tmp_path, num_seeds=2)
    fig3.unlink()
    assert fig3 in paper.reproduce("fig3", folder=tmp_path)
    assert [seed for *_, seed in trained] == [0, 1, 0]


def test_unknown_name_is_refused(tmp_path):
    with pytest.raises(InputError, match="table1, table2"):
        paper.reproduce("table3", folder=tmp_path)


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metric, printed, ours, floor, expected",
    [
        ("reverse_ess", [0.991, 0.0], [0.999, 0.998], None, BETTER),
        ("reverse_ess", [0.966, 0.01], [0.960, 0.975], None, EQUAL),
        ("reverse_ess", [0.966, 0.01], [0.960, 0.900, 0.99], None, f"1 {BETTER}, 1 {EQUAL}, 1 {WORSE}"),
        ("hausdorff", [0.678, 0.02], [0.9, 0.8], None, WORSE),
        ("forward_kl", [110.6, 97.6], [float("inf"), float("nan")], None, WORSE),
        ("hausdorff", [2.329, 0.124], [2.7, 640.0], None, WORSE),  # however far apart
        ("hausdorff", [0.335, 0.0], [0.405], [0.401, 0.018], EQUAL),  # no nearer than exact samples
        ("hausdorff", [0.335, 0.0], [0.5], [0.401, 0.018], WORSE),
        ("forward_ess", [1.0, 0.0], [0.9997, 0.988], None, f"1 {EQUAL}, 1 {WORSE}"),
        ("reverse_kl", [-1.2, 0.0], [-1.0505], [-1.0509, 0.0], EQUAL),  # what was published lies below the floor
    ],
)
def test_comparison_with_the_published_number(metric, printed, ours, floor, expected):
    assert compared(metric, printed, ours, 2, floor) == expected


def test_published_numbers_keep_their_digits():
    printed = [([19.26, 0.333], 3), ([110.6, 97.6], 3), ([37.68, 6.99], 3), ([-9.058, 0.0], 2), ([13.61, 0.49], 2)]
    texts = ["19.26 ± 0.333", "110.6 ± 97.6", "37.68 ± 6.99", "−9.058 ± 0.00", "13.61 ± 0.49"]
    assert [as_printed(*each) for each in printed] == texts


def test_ess_is_reached_where_it_stays():
    curve = [[10 * i, i, 0.0, ess] for i, ess in enumerate([0.1, 0.96, 0.8, 0.95, 0.97], start=1)]
    assert reached(curve, 0.95) == (40, 4.0) and reached(curve, 0.98) is None
    curve[2][1] = 1000  # a stretch in which the machine did something else
    assert step_seconds(curve[:2] + curve[3:]) == pytest.approx(0.1)


def test_page_without_rows_has_every_part_and_says_not_run(tmp_path):
    text = paper.page(tmp_path, "default", "../results/paper")
    assert "Not run yet." in text and "a small cell takes about an hour" in text
    assert sorted(markdown.marks(text)) == sorted(PARTS)


def test_written_page_keeps_its_prose(tmp_path, trained):
    path = tmp_path / "docs" / "paper.md"
    path.parent.mkdir()
    path.write_text(f"Prose.\n\n{markdown.mark('table2')}\n\nMore.\n")
    paper.write_page(path, tmp_path, "default")
    assert path.read_text().startswith("Prose.\n\n<!-- table: table2 -->\n**m = 1.5**")
    assert path.read_text().endswith("<!-- end -->\n\nMore.\n")
    path.write_text(markdown.mark("time_to_ess"))
    with pytest.raises(InputError, match="unknown part 'time_to_ess'"):
        paper.write_page(path, tmp_path, "default")
    path.write_text("A page of an earlier version, without marks.")
    paper.write_page(path, tmp_path, "default")
    assert path.read_text() == paper.page(tmp_path, "default", "..")


def test_page_shows_published_ours_and_exact(tmp_path, trained):
    paper.reproduce("table2", folder=tmp_path, num_seeds=1)
    paper.reproduce("fig11", folder=tmp_path)
    text = paper.page(tmp_path, "default", "figures")
    assert "0.991 ± 0.00 | 0.5000 | 1.0000" in text
    assert "−1.0509" in text and "(figures/fig11.png)" in text


def test_paper_preset_stands_beside_published_and_default(tmp_path):
    config = config_of(CELL, "default")
    done = a_result(0, reverse_ess=0.875) | {"steps": 10_000, "train_seconds": 3600.0}
    keep(tmp_path, CELL, "paper", config, done)
    keep(tmp_path, CELL, "default", config, a_result(0), a_result(1, reverse_ess=0.75))
    stopped = Cell("fig11", "n4", "continuity")
    keep(tmp_path, stopped, "paper", config, a_result(0) | {"steps": 4000})
    [file] = draw_paper_preset(tmp_path, ())
    assert file.name == "paper-preset.png" and 5_000 < file.stat().st_size < 300_000
    assert not draw_paper_preset(tmp_path, [Cell("penalties", "eq18", "penalty_abs")])
    assert draw_paper_preset(tmp_path, [CELL]) == [file]
    text = paper.page(tmp_path, "default", "figures").split("## The paper preset")[1]
    assert "| N = 16, m = 1.5 | continuity, trainable path | steps | 10000 | 10000 | 2 |" in text
    assert "|  |  | training | – | 60 min | 3 s |" in text and "|  |  | a step, median | – | 1 s | 1 s |" in text
    assert "| reverse ESS ↑ | 0.991 ± 0.00 | 0.8750 | 0.6250 ± 0.1768 |" in text
    assert (
        "| N = 4, m = 1.5 | continuity, trainable path | steps | 10000 | 4000, **stopped before 10000** | – |" in text
    )
    assert "(figures/paper-preset.png)" in text
    left = text[text.index("Not run with this preset") :]
    assert "N = 4, m = 1.5: reverse KL;" in left and "N = 16, m = 1.5: reverse KL;" in left
    assert "N = 64, m = 1.5: reverse KL and continuity, trainable path" in left


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_cell_resumes_with_the_same_numbers(tmp_path):
    """To the last bit, and its snapshots are removed once it is measured."""

    class Interrupted(paper.Watcher):
        def __init__(self, at):
            self.at, self.steps = at, []

        def on_progress(self, progress):
            if progress.phase == "train":
                self.steps.append(progress.step)
                if progress.step == self.at:
                    raise KeyboardInterrupt

    def reproduce(folder, watcher):
        settings = {"preset": "quick", "changes": {**TINY, "num_steps": 40}, "only": [CELL.name]}
        paper.reproduce("table2", folder=tmp_path / folder, watcher=watcher, **settings)
        return find(tmp_path / folder, CELL, "quick")["runs"][0]

    whole = reproduce("whole", Interrupted(0))
    with pytest.raises(KeyboardInterrupt):
        reproduce("cut", Interrupted(20))
    assert len(list((tmp_path / "cut" / "training").iterdir())) == 1
    rest = Interrupted(0)
    resumed = reproduce("cut", rest)
    assert rest.steps == [30, 40] and not (tmp_path / "cut" / "training").exists()
    assert resumed["metrics"] == whole["metrics"] and resumed["sites"] == whole["sites"]
    assert [[look[0], *look[2:]] for look in resumed["curve"]] == [[look[0], *look[2:]] for look in whole["curve"]]


def test_experiments_that_share_a_cell_train_it_once_and_draw_its_path(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(
        sys.modules["boltzflow.studies.paper.reproduce"], "path_panels", lambda run: SimpleNamespace(png=lambda: b"png")
    )
    paper.reproduce("all", folder=tmp_path, only=["eq18/continuity_linear"])  # of table1, fig4 and paths
    assert trained == [("eq18", "continuity_linear", seed) for seed in range(5)] and (tmp_path / "fig4.png").exists()
    cell = Cell("table1", "eq18", "continuity_linear")
    tasks = _tasks({cell: 3}, tmp_path, "quick", {})
    assert [(task.seed, task.figure) for task in tasks] == [(0, "fig4"), (1, ""), (2, "")]
    assert path_figure(Cell("penalties", "eq18", "penalty_abs")) == ""


def test_one_cell_and_its_figure_for_real(tmp_path):
    """In its own process: the record and the picture come back."""
    tasks = _tasks({EXPERIMENTS["fig2"].cells[0]: 1}, tmp_path, "quick", TINY)
    [(task, outcome)] = _side_by_side(tasks, 2, paper.Watcher())
    result, png = outcome
    assert task.config.loss == "reverse-kl" and set(result["metrics"]) == set(cells.METRICS) and result["jobs"] == 2
    assert task.figure == "fig2" and png.startswith(b"\x89PNG")


@pytest.mark.slow
def test_seeds_side_by_side_match_seeds_one_after_another(tmp_path):
    settings = {"preset": "quick", "changes": TINY, "num_seeds": 2, "only": ["eq2/reverse_kl_loss"]}
    for jobs in (1, 2):
        paper.reproduce("table1", folder=tmp_path / str(jobs), jobs=jobs, **settings)
    cell = Cell("table1", "eq2", "reverse_kl_loss")
    one, two = (find(tmp_path / str(jobs), cell, "quick")["runs"] for jobs in (1, 2))
    assert [run["metrics"] for run in one] == [run["metrics"] for run in two]
    assert [run["seed"] for run in two] == [0, 1] and not any("jobs" in run for run in one)
    assert [run["jobs"] for run in two] == [2, 2] and not (tmp_path / "2" / "training").exists()
    said = "up to 2 at a time"
    assert said in paper.page(tmp_path / "2", "quick", "") and said not in paper.page(tmp_path / "1", "quick", "")


@pytest.mark.slow
def test_killed_process_is_reported_in_one_line(tmp_path):
    class Watcher(paper.Watcher):
        def begin(self, what):
            threading.Timer(2.0, lambda: [child.kill() for child in multiprocessing.active_children()]).start()

    with pytest.raises(TrainingError, match="a training process was killed"):
        paper.reproduce("fig2", folder=tmp_path, preset="quick", changes=TINY, num_seeds=2, jobs=2, watcher=Watcher())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_everything_reproduces(name, tmp_path):
    paper.reproduce(name, folder=tmp_path, preset="quick", changes=TINY)
    paper.write_page(tmp_path / "paper.md", tmp_path, "quick")
    assert (tmp_path / "paper.md").exists()
