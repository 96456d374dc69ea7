"""Interrupted training goes on to the last bit; what cannot be continued says why."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.cli import main
from boltzflow.config import default_preset
from boltzflow.model.interpolations import Linear
from boltzflow.storage import files as storage
from boltzflow.training import snapshots

TINY = dataclasses.replace(default_preset(), num_steps=60, width=8, num_networks=2, num_eval_samples=2048)
TARGET = bf.GaussianMixture(np.array([0.5, 0.5]), np.array([[-2.0, 0.0], [2.0, 1.0]]), 1.0)
SETTINGS = ["--num-steps", "400", "--width", "8", "--num-networks", "2", "--num-eval-samples", "2048"]


class Killed(BaseException):
    """The machine stops: nobody gets to write anything."""


def fit(seeds=(0,), stop_at=None, error=KeyboardInterrupt, target=TARGET, config=TINY, **kwargs):
    def on_progress(progress):
        if progress.phase == "train" and progress.step == stop_at:
            raise error

    return bf.fit_seeds(target, seeds=seeds, config=config, on_progress=on_progress, **kwargs)


def same(runs, others):
    for one, other in zip(runs, others, strict=True):
        a, b = (jax.tree.leaves(run.trained.transport) for run in (one, other))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.history] for run in (one, other)]
        assert rows[0] == rows[1]
        assert [row["seconds"] for row in one.history] == sorted(row["seconds"] for row in one.history)


@pytest.fixture(scope="module")
def undisturbed():
    return {seeds: fit(seeds) for seeds in [(0,), (0, 1)]}


@pytest.fixture
def often(monkeypatch):
    """A snapshot after every chunk."""
    monkeypatch.setattr(snapshots, "_MIN_INTERVAL", 0.0)
    monkeypatch.setattr(snapshots, "_MAX_SHARE", 1e9)


@pytest.mark.parametrize(("seeds", "error"), [((0,), KeyboardInterrupt), ((0, 1), RuntimeError)])
def test_interrupted_run_ends_with_the_same_bits(undisturbed, seeds, error, tmp_path):
    with pytest.raises(error):
        fit(seeds, stop_at=30, error=error, keep=tmp_path)
    steps = []
    resumed = bf.fit_seeds(
        TARGET, seeds=seeds, config=TINY, keep=tmp_path, on_progress=lambda p: steps.append((p.phase, p.step))
    )
    assert ("train", 40) in steps and ("train", 30) not in steps
    same(resumed, undisturbed[seeds])
    same(fit(seeds, keep=tmp_path), undisturbed[seeds])  # finished: read, not trained


def test_killed_run_goes_on_from_its_last_snapshot(undisturbed, often, tmp_path):
    for stop in (20, 50):
        with pytest.raises(Killed):
            fit(stop_at=stop, error=Killed, keep=tmp_path)
    same(fit(keep=tmp_path), undisturbed[(0,)])


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_snapshot_is_passed_over_for_the_one_before(undisturbed, often, tmp_path, damage):
    with pytest.raises(Killed):
        fit(stop_at=50, error=Killed, keep=tmp_path)
    newest = max(tmp_path.glob("state-?.npz"), key=lambda path: storage.read(path)[1]["step"])
    data = bytearray(newest.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 512)  # more than what zip leaves unused between two arrays
    data[middle] = bytes(byte ^ 0xFF for byte in data[middle])
    newest.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    messages = []
    resumed = bf.fit_seeds(
        TARGET, seeds=[0], config=TINY, keep=tmp_path, on_progress=lambda p: messages.append(p.message)
    )
    assert any(newest.name in message and "the other one is used" in message for message in messages)
    same(resumed, undisturbed[(0,)])


def test_arrays_that_were_altered_are_damaged(tmp_path):
    path = tmp_path / "a.npz"
    storage.write(path, {"x": np.arange(5)}, {"n": 1})
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    np.savez(path, **{**content, "x": np.arange(5) + 1})
    with pytest.raises(bf.InputError, match="not those that were written"):
        storage.read(path)


def test_snapshots_of_something_else_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(stop_at=20, keep=tmp_path)
    with pytest.raises(bf.InputError, match="other settings or seeds"):
        fit(keep=tmp_path, config=dataclasses.replace(TINY, learning_rate=0.01))
    with pytest.raises(bf.InputError, match="other settings or seeds"):
        fit(keep=tmp_path, parts=bf.Parts(make_interpolation=lambda base, target, key: Linear(base, target)))
    with pytest.raises(bf.InputError, match="of another target"):
        fit(keep=tmp_path, target=bf.GaussianMixture(np.array([0.5, 0.5]), np.array([[-2.0, 0.0], [3.0, 1.0]]), 1.0))


def test_full_disk_ends_no_training(undisturbed, tmp_path, monkeypatch, often):
    write, messages = storage.write, []

    def full(path, arrays, record):
        if path.name.startswith("state"):
            raise OSError(28, "No space left on device")
        write(path, arrays, record)

    monkeypatch.setattr(storage, "write", full)
    runs = bf.fit_seeds(
        TARGET, seeds=(0,), config=TINY, keep=tmp_path, on_progress=lambda progress: messages.append(progress.message)
    )
    same(runs, undisturbed[(0,)])
    assert "cannot be kept: [Errno 28] No space left on device" in messages[-1]


def test_without_resume_it_starts_anew(undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(stop_at=20, keep=tmp_path)
    same(fit(keep=tmp_path, resume=False), undisturbed[(0,)])


# --- the command ------------------------------------------------------------------------------------------------------


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_killed_process_is_resumed_and_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = [sys.executable, "-m", "boltzflow", "run", "mixture-2", *SETTINGS, "--out"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"]}
    process = subprocess.Popen([*whole, "killed"], env=environment, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 8):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "checkpoint" / "run.npz").exists()
    status = main(["resume", "killed"])
    assert status in (0, 3)
    assert main(["run", "mixture-2", *SETTINGS, "--out", "whole"]) in (0, 3)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    one, other = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("killed", "whole"))
    assert one["estimates"] == other["estimates"] and one["verdict"] == other["verdict"]
    assert not list((tmp_path / "killed" / "checkpoint").glob("state*"))
    capsys.readouterr()
    assert main(["resume", "killed"]) == status
    assert "nothing to resume" in capsys.readouterr().out
    (tmp_path / "killed" / "report.json").unlink()
    assert main(["resume", "killed"]) in (0, 3)
    assert (tmp_path / "killed" / "report.json").exists()
