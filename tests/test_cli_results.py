"""The commands `sample --correct`, `expect` and `reproduce`, with a stand-in for training."""

import io
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from boltzflow.cli import main
from boltzflow.sampling.corrections import Corrected
from boltzflow.statistics.estimates import Estimate
from boltzflow.studies.paper import cells
from boltzflow.training.loop import Progress
from fake_run import FakeRun


class MeasuredRun(FakeRun):
    """A run whose corrections and expectations are known."""

    def correct(self, key, num_samples, method):
        x = jnp.ones((num_samples, 2))
        chain = np.arange(num_samples) % 4 if method == "metropolis" else None
        return Corrected(x, x[:, 0], method, num_samples - 1, 0.87, chain)

    def expectation(self, fn, num_samples=0):
        assert fn(jnp.ones(2)) == 2.0
        self.asked["num_samples"] = num_samples
        return {"a": Estimate(1.5, 0.01, 10), "b": Estimate(np.array([2.0, 3.0]), np.array([0.1, 0.2]), 10, "", *BAD)}


BAD = (False, "Heavy tail.")


@pytest.fixture
def finished(asked, monkeypatch, tmp_path):
    """A finished run in the folder a, and a file of observables."""
    assert main(["run", "mixture-2", "--out", "a"]) == 0
    run = MeasuredRun({})
    monkeypatch.setattr("boltzflow.run.load", lambda folder: run)
    (tmp_path / "o.py").write_text("number = 3\ndef total(x):\n    return x.sum()\n")
    asked.clear()
    return run


def test_samples_of_a_run_without_report_are_not_trusted(finished, capsys, tmp_path):
    (tmp_path / "a" / "report.json").unlink()
    assert main(["sample", "a", "--num-samples", "8", "--out", "s.npz"]) == 3
    assert "This run has no report yet; run `boltzflow report a`." in capsys.readouterr().out
    assert (tmp_path / "s.npz").exists()


@pytest.mark.parametrize("method", ["importance", "metropolis", "annealed"])
def test_corrected_samples_have_equal_weights(finished, capsys, tmp_path, method):
    capsys.readouterr()
    assert main(["sample", "a", "--num-samples", "8", "--out", "s.npz", "--correct", method]) == 0
    assert f"corrected by {method}: 7 different points, acceptance 87%" in capsys.readouterr().out
    with np.load(tmp_path / "s.npz") as file:
        assert file["x"].shape == (8, 2) and not file["log_weight"].any()
        assert ("chain" in file.files) == (method == "metropolis")


def test_expect_prints_every_number_and_every_doubt(finished, capsys):
    capsys.readouterr()
    assert main(["expect", "a", "o.py:total", "--num-samples", "500"]) == 3
    said = capsys.readouterr().out
    for words in ("total['a']", "1.500", "± 0.010", "total['b'][1]", "Heavy tail."):
        assert words in said
    assert finished.asked == {"num_samples": 500}


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("sample a --num-samples 3 --out s.npz --correct magic", "importance, metropolis, annealed, got 'magic'"),
        ("expect a", "say what to average"),
        ("expect a o.py", "name a function in a file"),
        ("expect a none.py:f", "no file none.py"),
        ("expect a o.py:totl", "did you mean 'total'"),
        ("expect a o.py:number", "no function 'number'"),
        ("expect a o.py:total --num-samples -1", "num-samples"),
        ("reproduce", "say what to reproduce"),
        ("reproduce table3", "nothing named 'table3'"),
        ("reproduce table1 --seeds 0", "seeds must be a whole number from 1"),
        ("reproduce table1 --seeds few", "--seeds must be a whole number"),
        ("reproduce table1 --preset papr", "did you mean 'paper'"),
        ("reproduce table1 --cells eq2/continuity_trainabel", "did you mean 'eq2/continuity_trainable'"),
        ("reproduce table1 --cells eq2/continuity_linear,eq3", "table1 has no cell 'eq3'"),
        ("reproduce table1 --cells ,", "table1 has no cell ''; it has eq2/reverse_kl_loss"),
        ("reproduce fig5 --cells eq2/continuity", "fig5 has no cell 'eq2/continuity'; it trains nothing"),
    ],
)
def test_bad_arguments(refused, finished, argv, says):
    refused(*argv.split(), says=says)


def test_reproduce_writes_rows_and_a_page(monkeypatch, asked, capsys, tmp_path):
    def train(cell, config, seed, on_progress, keep):
        on_progress(Progress("train", 1, 1, 0.1))
        return SimpleNamespace(seed=seed, draws=None)

    result = {"metrics": {"hausdorff": 0.1}, "errors": {}, "train_seconds": 1.0, "total_seconds": 2.0, "steps": 3,
              "trusted": True}  # fmt: skip
    monkeypatch.setattr(cells, "train", train)
    monkeypatch.setattr(cells, "measure", lambda run: {"seed": run.seed, **result})
    png = io.BytesIO()
    Image.new("RGB", (3, 2)).save(png, "PNG")
    drawn = SimpleNamespace(png=png.getvalue)
    monkeypatch.setattr(sys.modules["boltzflow.studies.paper.reproduce"], "path_panels", lambda draws: drawn)
    assert main(["reproduce", "fig2"]) == 0
    assert (tmp_path / "results/paper/table1.json").exists() and (tmp_path / "docs/paper.md").exists()
    with Image.open(tmp_path / "results/paper/fig2.png") as image:
        assert image.size == (3, 2)
    said = capsys.readouterr().out
    assert "eq2 reverse_kl_loss seed 0: 1 s, 3 steps, hausdorff 0.1" in said and "docs/paper.md" in said
    assert main(["reproduce", "fig2", "--preset", "quick", "--jobs", "1"]) == 0
    assert (tmp_path / "runs/paper-quick/table1.json").exists() and (tmp_path / "runs/paper-quick/paper.md").exists()


def test_the_folder_of_another_process_at_work_is_refused(finished, capsys, tmp_path):
    command = "import sys, time; from pathlib import Path; from boltzflow.storage.files import locked\n"
    command += "with locked(Path('a')):\n    print('in', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"in\n"
        before = sorted(tmp_path.rglob("*"))
        for argv in (["run", "mixture-2", "--out", "a", "--overwrite"], ["report", "a"]):
            assert main(argv) == 2
            assert "another process is at work in a" in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        process.kill()
        process.wait()
    assert main(["run", "mixture-2", "--out", "a", "--overwrite"]) == 0


LABELS = [
    "speed [m/s]",
    "rate [/s]",
    "[bold]x[/bold]",
    "[red]",
    ":warning:",
    "[link=https://a.b]c[/link]",
    "a\\[b]",
    "σ",
]


def test_a_label_is_printed_as_it_is(finished, monkeypatch, capsys, tmp_path):
    """Brackets and colons are no markup; a name, a path and a doubt are the user's too."""
    found = {label: Estimate(1.5, 0.01, 10, "", False, f"Not {label} yet.") for label in LABELS}
    monkeypatch.setattr(finished, "expectation", lambda fn, num_samples: found, raising=False)
    assert main(["expect", "a", "o.py:total"]) == 3
    out = capsys.readouterr().out
    for label in LABELS:
        assert f"total[{label!r}]" in out and f"Not {label} yet." in out
