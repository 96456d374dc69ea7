"""Fixtures for the command line with a stand-in for training that records its arguments."""

import dataclasses

import numpy as np
import pytest

import boltzflow
from bad_input import write_files
from boltzflow.cli import main
from boltzflow.report.report import Report, Verdict
from boltzflow.run import Samples
from boltzflow.statistics.estimates import exact
from boltzflow.training import checkpoint
from boltzflow.training.loop import Progress


def save_checkpoint(directory, run, given):
    """A checkpoint without a flow, with the record that `Run.save` writes, for the arguments `given` to `fit`."""
    config = given.get("config") or run.config
    record = {
        "seed": given.get("seed", run.seed),
        "name": given.get("name", "fake"),
        "options": dict(given.get("options", {})),
        "config": dataclasses.asdict(config),
        "parts": [],
        "history": list(run.history),
        "cost": {},
        "pilot": {},
    }
    checkpoint.write(directory / "checkpoint", {"pilot.points": np.zeros((1, 2)), "energies": np.zeros(1)}, record)


@dataclasses.dataclass
class FakeRun:
    """The part of a `Run` that the command line uses."""

    asked: dict
    trustworthy: bool = True

    name, options, seed, config = "fake", {}, 0, boltzflow.Config()
    history = ({"step": 1, "seconds": 0.1, "loss": 2.0},)
    target = None

    def report(self, **how):
        warnings = () if self.trustworthy else ("Something is missing.",)
        target = {"name": self.asked.get("name", "fake")}
        verdict, log_z = Verdict(self.trustworthy, warnings), exact(1.0)
        return Report(target, 0, "default", {}, {"log_z": log_z}, verdict, {}, {"log_z": log_z})

    def figures(self):
        return []

    def save(self, directory):
        save_checkpoint(directory, self, self.asked)

    def sample(self, key, num_samples):
        x = np.zeros((num_samples, 2))
        return Samples(x, x[:, 0], x[:, 0], x[:, 0])


@pytest.fixture
def asked(monkeypatch, tmp_path, unchecked):
    """The arguments of each call of `fit`, the most recent last; the working folder is empty."""
    calls = []

    def fit(target, *, on_progress, **given):
        calls.append({"target": target, **given})
        on_progress(Progress("pilot", 0, 2, 0.0, message="looking"))
        for step in (1, 2):
            on_progress(Progress("train", step, 2, 0.1 * step, loss=1.0, reverse_ess=0.5))
        return FakeRun(calls[-1])

    monkeypatch.setattr("boltzflow.run.fit", fit)
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.fixture
def refused(asked, capsys, tmp_path):
    """A function that asserts: arguments are refused with one line on standard error, and nothing is written."""

    def contents():
        files = (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path: path.read_bytes() for path in files}

    def check(*argv, says):
        before = contents()
        capsys.readouterr()
        status = main(list(argv))
        said = capsys.readouterr()
        assert (status, said.out) == (2, "")
        assert said.err.startswith("boltzflow: ") and said.err.count("\n") == 1
        for sentence in [says] if isinstance(says, str) else says:
            assert sentence in said.err
        assert contents() == before
        assert asked == []

    return check


@pytest.fixture
def files(tmp_path):
    """A folder of energies, most of them unusable."""
    write_files(tmp_path)
    return tmp_path
