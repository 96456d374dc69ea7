"""`boltzflow run --seeds K`: the folders, the table, the verdict over all; training itself is replaced."""

import json
import math

import numpy as np
import pytest

import boltzflow.run
from boltzflow.cli import main
from boltzflow.errors import TrainingError
from boltzflow.report.report import Report, Verdict
from boltzflow.report.seeds import compare_seeds
from boltzflow.statistics.estimates import Estimate, chi_squared_sigma, exact
from boltzflow.storage import run_folder
from boltzflow.training.loop import Progress
from fake_run import save_checkpoint


def report_of(seed, value=1.0, stderr=0.1, warnings=()):
    estimates = {"log_z": Estimate(value, stderr, 100), "reverse_ess": Estimate(0.9 + 0.01 * seed, 0.001, 100)}
    target = {"name": "mixture-2", "dim": 2}
    return Report(target, seed, "default", {}, estimates, Verdict(not warnings, warnings), {}, {"log_z": exact(1.0)})


class FakeRun:
    """The part of a `Run` that the command line uses."""

    def __init__(self, seed, **answers):
        self.seed, self.answers = seed, answers
        self.given = {}
        self.history = [{"step": 2, "seconds": 0.1, "loss": 2.0 + seed}]

    def report(self, **how):
        return report_of(self.seed, **self.answers)

    def figures(self):
        return []

    def save(self, directory):
        save_checkpoint(directory, self, self.given)


@pytest.fixture
def answers(monkeypatch, tmp_path, unchecked):
    """By seed the estimates of the stand-in, or the error it raises; under "asked" the arguments of each `fit`."""
    by_seed: dict = {"asked": []}

    def fit(target, *, seed, on_progress, **given):
        by_seed["asked"].append({"seed": seed, **given})
        on_progress(Progress("pilot", 0, 2, 0.0, message="looking"))
        if isinstance(by_seed.get(seed), Exception):
            raise by_seed[seed]
        on_progress(Progress("train", 2, 2, 0.1, loss=2.0))
        run = FakeRun(seed, **by_seed.get(seed, {}))
        run.given = given
        return run

    monkeypatch.setattr("boltzflow.run.fit", fit)
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    return by_seed


def test_each_seed_has_the_folder_of_a_run_and_a_row(answers, capsys, tmp_path):
    assert main(["run", "mixture-2", "--seeds", "3", "--seed", "5", "--out", "a"]) == 0
    assert [call["seed"] for call in answers["asked"]] == [5, 6, 7]
    assert [str(call["keep"]) for call in answers["asked"]] == [f"a/seed-{seed}/checkpoint" for seed in (5, 6, 7)]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"seed-5", "seed-6", "seed-7", "seeds.json"}
    for seed in (5, 6, 7):
        folder = tmp_path / "a" / f"seed-{seed}"
        names = {path.name for path in folder.iterdir()}
        assert names == {"config.toml", "metrics.jsonl", "checkpoint", "report.json", "report.html"}
        assert run_folder.read_record(folder).seed == seed
        assert run_folder.read_metrics(folder) == [{"step": 2, "seconds": 0.1, "loss": 2.0 + seed}]
    out = capsys.readouterr().out
    assert "seed 5 (1 of 3)" in out and "seed 7 (3 of 3)" in out
    assert "The seeds agree on log Z: χ² = 0 for 2 degrees of freedom" in out
    assert "Trusted: every check of every seed passed, and they agree." in out
    for row in ("5 ", "6 ", "7 ", "median", "exact", "standard deviation"):
        assert sum(line.startswith(row) for line in out.splitlines()) == 1
    content = json.loads((tmp_path / "a" / "seeds.json").read_text())
    assert content["verdict"] == {"trustworthy": True, "warnings": []}
    assert [each["folder"] for each in content["seeds"]] == ["seed-5", "seed-6", "seed-7"]
    assert content["median"]["reverse_ess"] == pytest.approx(0.96)
    assert content["standard_deviation"]["reverse_ess"] == pytest.approx(0.01)


def test_one_distrusted_seed_distrusts_all(answers, capsys):
    answers[1] = {"warnings": ("A mode is missing.",)}
    assert main(["run", "mixture-2", "--seeds", "2"]) == 3
    out = capsys.readouterr().out
    assert "- Seed 1: A mode is missing." in out and "Do not rely on this result." in out


def test_seeds_that_disagree_are_not_trusted(answers, capsys, tmp_path):
    answers[1] = {"value": 1.7}
    assert main(["run", "mixture-2", "--seeds", "2", "--out", "a"]) == 3
    assert "The seeds disagree on log Z (χ² = 24.5 for 1 degree of freedom, 4.9 σ" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "seeds.json").read_text())["agreement"]["sigma"] == pytest.approx(
        4.95, abs=0.01
    )


def test_seed_that_diverges_is_named_and_the_others_are_kept(answers, capsys, tmp_path):
    answers[1] = TrainingError("The loss was not finite.")
    assert main(["run", "mixture-2", "--seeds", "3", "--out", "a"]) == 1
    said = capsys.readouterr()
    assert said.err == "boltzflow: Of 3 seeds, number 1 failed. The loss was not finite.\n"
    assert "Seed 1 failed: The loss was not finite." in said.out and "1         " in said.out
    assert (tmp_path / "a" / "seed-2" / "report.json").exists()
    assert not (tmp_path / "a" / "seed-1" / "checkpoint").exists()
    content = json.loads((tmp_path / "a" / "seeds.json").read_text())
    assert content["failed"] == [{"seed": 1, "reason": "The loss was not finite."}]
    answers[0] = answers[2] = answers[1]
    assert main(["run", "mixture-2", "--seeds", "3", "--out", "b"]) == 1
    assert not (tmp_path / "b" / "seeds.json").exists()
    assert "Of 3 seeds, number 0 and 1 and 2 failed." in capsys.readouterr().err


def test_a_folder_is_replaced_whole_and_only_with_overwrite(answers, capsys, monkeypatch, tmp_path):
    assert main(["run", "mixture-2", "--seeds", "3", "--out", "a"]) == 0
    (tmp_path / "a" / "seed-2" / "mine.txt").write_text("kept")
    assert main(["run", "mixture-2", "--seeds", "2", "--out", "a"]) == 2
    assert main(["run", "mixture-2", "--out", "a"]) == 2
    assert "a holds another run" in capsys.readouterr().err
    assert main(["run", "mixture-2", "--seeds", "2", "--seed", "1", "--out", "a", "--overwrite"]) == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"seed-1", "seed-2", "seeds.json"}
    assert (tmp_path / "a" / "seed-2" / "mine.txt").exists()

    def made(given):
        run = FakeRun(0)
        run.given = given
        return run

    monkeypatch.setattr("boltzflow.run.fit", lambda target, **given: made(given))
    assert main(["run", "mixture-2", "--out", "a", "--overwrite"]) == 0
    assert {"config.toml", "seed-2"} <= {path.name for path in (tmp_path / "a").iterdir()}
    assert [path.name for path in (tmp_path / "a" / "seed-2").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "a" / "seeds.json").exists() and not (tmp_path / "a" / "seed-1").exists()


@pytest.mark.parametrize("command", ["report", "sample --num-samples 3 --out s.npz"])
def test_commands_on_one_run_refuse_a_folder_of_seeds(answers, capsys, command):
    assert main(["run", "mixture-2", "--seeds", "2", "--out", "a"]) == 0
    name, *rest = command.split()
    capsys.readouterr()
    assert main([name, "a", *rest]) == 2
    assert capsys.readouterr().err == "boltzflow: a holds several seeds; give the folder of one, as in a/seed-0\n"


def test_resume_trains_only_the_seeds_that_lack_something(answers, monkeypatch, capsys, tmp_path):
    """Seed 3 is finished, seed 4 not measured, seed 5 interrupted, seed 6 not begun."""
    assert main(["run", "mixture-2", "--seeds", "4", "--seed", "3", "--out", "a"]) == 0
    capsys.readouterr()
    assert main(["resume", "a"]) == 0
    out = capsys.readouterr().out
    assert "nothing to resume" in out and "Trusted: every check of every seed passed" in out
    together = (tmp_path / "a" / "seeds.json").read_text()
    for seed in (4, 5, 6):
        (tmp_path / "a" / f"seed-{seed}" / "report.json").unlink()
    for seed in (5, 6):  # the stand-in makes them again
        (tmp_path / "a" / f"seed-{seed}" / "checkpoint" / "run.npz").unlink()
        (tmp_path / "a" / f"seed-{seed}" / "checkpoint").rmdir()
    (tmp_path / "a" / "seeds.json").unlink()
    monkeypatch.setattr("boltzflow.run.load", lambda folder: FakeRun(4))
    kept = (tmp_path / "a" / "seed-3" / "report.json").stat()
    answers["asked"].clear()
    assert main(["resume", "a"]) == 0
    assert [(call["seed"], call["resume"]) for call in answers["asked"]] == [(5, True), (6, True)]
    assert (tmp_path / "a" / "seed-3" / "report.json").stat() == kept
    assert (tmp_path / "a" / "seeds.json").read_text() == together


def test_resume_names_the_seed_that_diverged(answers, capsys, tmp_path):
    answers[1] = TrainingError("The loss was not finite.")
    assert main(["run", "mixture-2", "--seeds", "2", "--out", "a"]) == 1
    capsys.readouterr()
    answers["asked"].clear()
    assert main(["resume", "a"]) == 1
    assert capsys.readouterr().err == "boltzflow: Of 2 seeds, number 1 failed. The loss was not finite.\n"
    assert [call["seed"] for call in answers["asked"]] == [1]


def test_seeds_interrupted_while_measuring_are_compared_by_resume(answers, monkeypatch, capsys, tmp_path):
    """The order is that of the seeds' numbers, not of the folders' names."""
    answers |= {9: {"value": 1.0}, 10: {"value": 3.0}}
    assert main(["run", "mixture-2", "--seeds", "2", "--seed", "9", "--out", "a"]) == 3
    assert [path.name for path in run_folder.seed_folders(tmp_path / "a")] == ["seed-9", "seed-10"]
    together = (tmp_path / "a" / "seeds.json").read_text()
    (tmp_path / "a" / "seeds.json").unlink()
    (tmp_path / "a" / "seed-10" / "report.json").unlink()
    monkeypatch.setattr("boltzflow.run.load", lambda folder: FakeRun(10, value=3.0))
    capsys.readouterr()
    assert main(["resume", "a"]) == 3
    assert "The seeds disagree on log Z" in capsys.readouterr().out
    assert (tmp_path / "a" / "seeds.json").read_text() == together
    monkeypatch.setattr(FakeRun, "expectation", lambda self, fn, num: Estimate(1.0, 0.1, 10), raising=False)
    (tmp_path / "o.py").write_text("def one(x):\n    return 1.0\n")
    assert main(["expect", "a/seed-9", "o.py:one"]) == 3  # trusted alone
    assert "The report of all seeds distrusts them: The seeds disagree" in " ".join(capsys.readouterr().out.split())


def test_one_seed_is_an_ordinary_run(answers, tmp_path):
    assert main(["run", "mixture-2", "--seeds", "1", "--seed", "4", "--out", "a"]) == 0
    assert [call["seed"] for call in answers["asked"]] == [4] and not (tmp_path / "a" / "seed-4").exists()
    assert run_folder.read_record(tmp_path / "a").seed == 4


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("--seeds 0", "seeds must be a whole number from 1 to 100, got 0"),
        ("--seeds -1", "seeds must be a whole number from 1 to 100, got -1"),
        ("--seeds 2.5", "--seeds must be a whole number, got '2.5'"),
        ("--seeds many", "--seeds must be a whole number, got 'many'"),
        ("--seeds=", "--seeds must be a whole number, got ''"),
        ("--seeds 1000000000", "seeds must be a whole number from 1 to 100"),
        ("--seeds 2 --seed 4294967295", "seed must be a whole number from 0 to 4294967295, got 4294967296"),
        ("--seeds 2 --preset best", "preset must be one of"),
    ],
)
def test_bad_numbers_of_seeds(answers, capsys, tmp_path, argv, says):
    assert main(["run", "mixture-2", *argv.split()]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and says in said.err
    assert answers["asked"] == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seed", "steps"), [(0, 0), (0, 3), (1, 0), (1, 3)])
def test_an_interruption_gives_its_step_and_the_next_command(answers, capsys, monkeypatch, tmp_path, seed, steps):
    def interrupted(target, *, on_progress, **given):
        if given["seed"] != seed:
            return fit(target, on_progress=on_progress, **given)
        on_progress(Progress("pilot", 0, 10, 0.0))
        for step in range(1, steps + 1):
            on_progress(Progress("train", step, 10, 0.1, loss=1.0))
        raise KeyboardInterrupt

    fit = boltzflow.run.fit
    monkeypatch.setattr("boltzflow.run.fit", interrupted)
    assert main(["run", "mixture-2", "--seeds", "2", "--out", "a"]) == 130
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("at step 3 of 10" if steps else "before the first step") in said
    is_open = seed > 0 or steps > 0
    assert ("go on with: boltzflow resume a" if is_open else "nothing was written") in said
    assert (tmp_path / "a").exists() == is_open
    if not is_open:
        return
    assert (tmp_path / "a" / "seed-0" / "report.json").exists() == (seed == 1)
    assert len(run_folder.read_metrics(tmp_path / "a" / f"seed-{seed}")) == steps
    assert {run_folder.read_record(tmp_path / "a" / f"seed-{number}").seed for number in (0, 1)} == {0, 1}
    monkeypatch.setattr("boltzflow.run.fit", fit)
    answers["asked"].clear()
    assert main(["resume", "a"]) == 0
    assert [call["seed"] for call in answers["asked"]] == list(range(seed, 2))


def test_an_interruption_while_measuring_a_seed_says_how_to_go_on(answers, capsys, monkeypatch, tmp_path):
    def interrupted(self, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeRun, "report", interrupted)
    assert main(["run", "mixture-2", "--seeds", "2", "--out", "a"]) == 130
    assert "interrupted while measuring; go on with: boltzflow resume a" in capsys.readouterr().err
    assert (tmp_path / "a" / "seed-0" / "checkpoint").is_dir()


def test_help_mentions_seeds(answers, capsys):
    assert main(["run", "--help"]) == 0
    assert "--seeds" in capsys.readouterr().out


@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 3, 4, 9, 10])
@pytest.mark.parametrize("chi_squared", [1.0, 16.0, 60.0])
def test_sigma_of_chi_squared(chi_squared, degrees_of_freedom):
    """Against the tail of the density, summed up."""
    half = degrees_of_freedom / 2
    x, step = np.linspace(chi_squared, chi_squared + 200, 200_001, retstep=True)
    density = np.exp((half - 1) * np.log(x) - x / 2 - half * math.log(2) - math.lgamma(half))
    probability = step * (density.sum() - density[0] / 2)
    sigma = chi_squared_sigma(chi_squared, degrees_of_freedom)
    assert math.erfc(sigma / math.sqrt(2)) == pytest.approx(probability, rel=1e-5)
    if degrees_of_freedom == 1:
        assert sigma == pytest.approx(math.sqrt(chi_squared))


def test_sigma_at_the_ends():
    assert chi_squared_sigma(0.0, 3) == 0 and chi_squared_sigma(math.inf, 3) == math.inf == chi_squared_sigma(1e5, 2)


def test_agreement_of_what_cannot_be_compared():
    together = compare_seeds({0: report_of(0, math.nan), 1: report_of(1)}, {})
    assert together.agreement is None and json.loads(together.to_json("1"))["median"]["log_z"]
    same = compare_seeds({0: report_of(0, 1.0, 0.0), 1: report_of(1, 1.0 + 1e-15, 0.0)}, {})
    assert same.agreement and same.agreement.sigma < 1 and same.trustworthy
    assert not compare_seeds({0: report_of(0)}, {1: "lost"}).trustworthy
