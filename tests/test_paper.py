"""The paper's tables and figures: their mathematics, what is kept and not done again, and what the page makes of it."""

import dataclasses
import json
import multiprocessing
import threading

import numpy as np
import pytest

from boltzflow.errors import InputError, TrainingError
from boltzflow.studies import paper
from boltzflow.studies.paper import cells, letter, one_dimension
from boltzflow.studies.paper.cells import Cell, config_of
from boltzflow.studies.paper.experiments import EXPERIMENTS
from boltzflow.studies.paper.page import BETTER, EQUAL, WORSE, mark
from boltzflow.studies.paper.reproduce import _side_by_side, _tasks
from boltzflow.studies.paper.results import Results, reached, step_seconds
from boltzflow.studies.paper.words import as_printed, published

TINY = {"num_steps": 2, "width": 4, "depth": 1, "num_networks": 1, "num_eval_samples": 64, "sample_steps": 4}
CELL = Cell("table2", "m1_5", "continuity")


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


def test_velocity_between_gaussians_is_the_exact_one():
    """f_t = ½ a_t (x - μ_t)² has V_t = μ_t' - ½ (a_t'/a_t) (x - μ_t)."""
    mean, precision = 2.0, 3.0
    times = np.array([0.0, 0.3, 0.7, 1.0])
    path = one_dimension.linear_path(lambda x: x**2 / 2, lambda x: precision * (x - mean) ** 2 / 2, times)
    a, b = 1 + times * (precision - 1), times * precision * mean
    center = b / a
    center_rate = (precision * mean * a - b * (precision - 1)) / a**2
    for i in range(len(times)):
        exact = center_rate[i] - 0.5 * (precision - 1) / a[i] * (path.x - center[i])
        near = np.abs(path.x - center[i]) < 4 / np.sqrt(a[i])
        np.testing.assert_allclose(path.velocity[i, near], exact[near], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(path.norm**2, center_rate**2 + 0.25 * (precision - 1) ** 2 / a**3, rtol=1e-6)


def test_velocity_explodes_where_mass_changes_mode():
    even = one_dimension.linear_path(one_dimension.base_energy, one_dimension.even_modes)
    uneven = one_dimension.linear_path(one_dimension.base_energy, one_dimension.uneven_modes)
    np.testing.assert_allclose(even.velocity, -even.velocity[:, ::-1], atol=1e-6 * np.abs(even.velocity).max())
    assert uneven.norm.max() > 5 * even.norm.max()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_every_cell_of_the_tables_is_published():
    for name in ("table1", "table2"):
        for cell in EXPERIMENTS[name].cells:
            assert {"hausdorff", "reverse_kl", "reverse_ess"} <= set(published()[name][cell.target][cell.method])


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


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_results_come_back_with_what_is_not_finite(tmp_path):
    config = config_of(CELL, "default")
    Results(tmp_path, "table2").add(CELL, "default", config, [a_result(0, forward_kl=np.inf), a_result(1)])
    text = (tmp_path / "table2.json").read_text()
    row = json.loads(text, parse_constant=pytest.fail)["rows"][0]
    assert row["metrics"]["forward_kl"] == ["Infinity", "NaN"]
    assert row["metrics"]["reverse_ess"] == [0.5, 0.0] and row["seeds"] == 2
    again = Results(tmp_path, "table2").seeds(CELL, "default", config)
    assert [run["seed"] for run in again] == [0, 1]
    assert not Results(tmp_path, "table2").seeds(CELL, "default", dataclasses.replace(config, width=3))
    assert not Results(tmp_path, "table2").seeds(CELL, "quick", config)


def test_file_that_is_no_result_is_refused(tmp_path):
    (tmp_path / "table2.json").write_text("{")
    with pytest.raises(InputError, match="move it away"):
        Results(tmp_path, "table2")


@pytest.fixture
def trained(monkeypatch):
    """Which seeds of which cells were trained; nothing is."""
    seen = []

    def train(cell, config, seed, on_progress, keep):
        seen.append((cell.target, cell.method, seed))
        if seed == 1 and cell.method == "reverse_kl_loss":
            raise TrainingError("diverged")
        return seed

    monkeypatch.setattr(cells, "train", train)
    monkeypatch.setattr(cells, "measure", a_result)
    return seen


def test_what_is_there_is_not_done_again(tmp_path, trained):
    paper.reproduce("table2", folder=tmp_path, num_seeds=1)
    assert len(trained) == 8
    paper.reproduce("table2", folder=tmp_path, num_seeds=2)
    assert len(trained) == 16 and all(seed == 1 for *_, seed in trained[8:])
    paper.reproduce("fig10", folder=tmp_path)
    assert len(trained) == 16 and (tmp_path / "fig10.png").exists()


def test_seed_that_diverges_is_left_out_and_told(tmp_path, trained):
    told = []

    class Watcher(paper.Watcher):
        def end(self, what):
            told.append(what)

    paper.reproduce("table2", folder=tmp_path, num_seeds=3, watcher=Watcher())
    assert sum("diverged" in line for line in told) == 4
    row = Results(tmp_path, "table2").find(Cell("table2", "m6_0", "reverse_kl_loss"), "default")
    assert row["seeds"] == 2 and [run["seed"] for run in row["runs"]] == [0, 2]


def test_only_the_cells_that_were_asked_for_are_trained(tmp_path, trained):
    paper.reproduce("table2", folder=tmp_path, num_seeds=1, only=["m6_0/continuity", "m1_5/continuity"])
    assert trained == [("m1_5", "continuity", 0), ("m6_0", "continuity", 0)]
    paper.reproduce("all", folder=tmp_path, num_seeds=1, only=["n4/continuity"])
    assert trained[2:] == [("n4", "continuity", 0)] and not (tmp_path / "fig5.png").exists()


def test_rows_that_another_process_adds_meanwhile_are_kept(tmp_path, trained, monkeypatch):
    other, config = Cell("table2", "m6_0", "continuity"), config_of(CELL, "default")

    def measure(seed):
        Results(tmp_path, "table2").add(other, "paper", config, [a_result(seed)])
        return a_result(seed)

    monkeypatch.setattr(cells, "measure", measure)
    paper.reproduce("table2", folder=tmp_path, num_seeds=1, only=["m1_5/continuity"])
    results = Results(tmp_path, "table2")
    assert results.find(CELL, "default") and results.find(other, "paper")


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
def test_marks(metric, printed, ours, floor, expected):
    assert mark(metric, printed, ours, 2, floor) == expected


def test_published_numbers_keep_their_digits():
    printed = [([19.26, 0.333], 3), ([110.6, 97.6], 3), ([37.68, 6.99], 3), ([-9.058, 0.0], 2), ([13.61, 0.49], 2)]
    texts = ["19.26 ± 0.333", "110.6 ± 97.6", "37.68 ± 6.99", "−9.058 ± 0.00", "13.61 ± 0.49"]
    assert [as_printed(*each) for each in printed] == texts


def test_an_ess_is_reached_where_it_stays():
    curve = [[10 * i, i, 0.0, ess] for i, ess in enumerate([0.1, 0.96, 0.8, 0.95, 0.97], start=1)]
    assert reached(curve, 0.95) == (40, 4.0) and reached(curve, 0.98) is None
    curve[2][1] = 1000  # a stretch in which the machine did something else
    assert step_seconds(curve[:2] + curve[3:]) == pytest.approx(0.1)


def test_page_of_nothing_says_so(tmp_path):
    text = paper.page(tmp_path, "default", "../results/paper")
    assert "Not run yet." in text and "No cell of it has been run" in text


def test_page_shows_published_ours_and_exact(tmp_path, trained):
    paper.reproduce("table2", folder=tmp_path, num_seeds=1)
    paper.reproduce("fig11", folder=tmp_path)
    text = paper.page(tmp_path, "default", "figures")
    assert "0.991 ± 0.00 | 0.5000 | 1.0000" in text
    assert "−1.0509" in text and "(figures/fig11.png)" in text


def test_paper_preset_stands_beside_published_and_default(tmp_path):
    config = config_of(CELL, "default")
    done = a_result(0, reverse_ess=0.875) | {"steps": 10_000, "train_seconds": 3600.0}
    Results(tmp_path, "table2").add(CELL, "paper", config, [done])
    Results(tmp_path, "table2").add(CELL, "default", config, [a_result(0), a_result(1, reverse_ess=0.75)])
    stopped = Cell("fig11", "n4", "continuity")
    Results(tmp_path, "fig11").add(stopped, "paper", config, [a_result(0) | {"steps": 4000}])
    [file] = letter.picture(tmp_path)
    assert file.name == "letter.png" and 5_000 < file.stat().st_size < 300_000
    text = paper.page(tmp_path, "default", "figures").split("## The paper's procedure to the letter")[1]
    assert "| N = 16, m = 1.5 | continuity, trainable path | steps | 10000 | 10000 | 2 |" in text
    assert "|  |  | training | – | 60 min | 3 s |" in text and "|  |  | a step, median | – | 1 s | 1 s |" in text
    assert "| reverse ESS ↑ | 0.991 ± 0.00 | 0.8750 | 0.6250 ± 0.1768 |" in text
    assert (
        "| N = 4, m = 1.5 | continuity, trainable path | steps | 10000 | 4000, **stopped before 10000** | – |" in text
    )
    assert "(figures/letter.png)" in text
    left = text[text.index("Not run in this preset") :]
    assert "N = 4, m = 1.5: reverse KL;" in left and "N = 16, m = 1.5: reverse KL;" in left
    assert "N = 64, m = 1.5: reverse KL and continuity, trainable path" in left


# --- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_cell_goes_on_where_it_stood(tmp_path):
    """With the same numbers to the last bit, and nothing left of it in the folder once it is measured."""

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
        return Results(tmp_path / folder, "table2").find(CELL, "quick")["runs"][0]

    whole = reproduce("whole", Interrupted(0))
    with pytest.raises(KeyboardInterrupt):
        reproduce("cut", Interrupted(20))
    assert len(list((tmp_path / "cut" / "training").iterdir())) == 1
    rest = Interrupted(0)
    resumed = reproduce("cut", rest)
    assert rest.steps == [30, 40] and not (tmp_path / "cut" / "training").exists()
    assert resumed["metrics"] == whole["metrics"] and resumed["sites"] == whole["sites"]
    assert [[look[0], *look[2:]] for look in resumed["curve"]] == [[look[0], *look[2:]] for look in whole["curve"]]


def test_experiments_that_share_a_cell_train_it_once_and_draw_its_path(tmp_path):
    plain, pictured = Cell("t", "eq18", "continuity_linear"), Cell("t", "eq18", "continuity_linear", "fig4")
    for wanted in ({plain: 1, pictured: 3}, {pictured: 3, plain: 1}):
        tasks = _tasks(wanted, tmp_path, "quick", {})
        assert [(task.seed, task.pictured) for task in tasks] == [(0, True), (1, False), (2, False)]
        assert tasks[0].cell.figure == "fig4"


def test_one_cell_and_its_figure_for_real(tmp_path):
    """In a process of its own, of which what comes back tells."""
    tasks = _tasks({EXPERIMENTS["fig2"].cells[0]: 1}, tmp_path, "quick", TINY)
    [(task, outcome)] = _side_by_side(tasks, 2, paper.Watcher())
    result, drawn = outcome
    assert task.config.loss == "reverse-kl" and set(result["metrics"]) == set(cells.METRICS) and result["jobs"] == 2
    assert list(drawn) == ["fig2"] and drawn["fig2"].startswith(b"\x89PNG")


@pytest.mark.slow
def test_seeds_side_by_side_are_those_of_one_after_the_other(tmp_path):
    settings = {"preset": "quick", "changes": TINY, "num_seeds": 2, "only": ["eq2/reverse_kl_loss"]}
    for jobs in (1, 2):
        paper.reproduce("table1", folder=tmp_path / str(jobs), jobs=jobs, **settings)
    cell = Cell("table1", "eq2", "reverse_kl_loss")
    one, two = (Results(tmp_path / str(jobs), "table1").find(cell, "quick")["runs"] for jobs in (1, 2))
    assert [run["metrics"] for run in one] == [run["metrics"] for run in two]
    assert [run["seed"] for run in two] == [0, 1] and not any("jobs" in run for run in one)
    assert [run["jobs"] for run in two] == [2, 2] and not (tmp_path / "2" / "training").exists()
    said = "up to 2 at a time"
    assert said in paper.page(tmp_path / "2", "quick", "") and said not in paper.page(tmp_path / "1", "quick", "")


@pytest.mark.slow
def test_process_that_is_killed_is_said_in_a_line(tmp_path):
    class Watcher(paper.Watcher):
        def begin(self, what):
            threading.Timer(2.0, lambda: [child.kill() for child in multiprocessing.active_children()]).start()

    with pytest.raises(TrainingError, match="a process that trained was killed"):
        paper.reproduce("fig2", folder=tmp_path, preset="quick", changes=TINY, num_seeds=2, jobs=2, watcher=Watcher())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_everything_reproduces(name, tmp_path):
    paper.reproduce(name, folder=tmp_path, preset="quick", changes=TINY)
    paper.write_page(tmp_path / "paper.md", tmp_path, "quick")
    assert (tmp_path / "paper.md").exists()
