"""Interrupted training goes on to the last bit; what cannot be continued says why."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset
from boltzflow.model.interpolations import Linear
from boltzflow.storage import files
from boltzflow.training import snapshots
from boltzflow.training.snapshots import TrainingState
from boltzflow.training.step import initial_state

TINY = dataclasses.replace(
    default_preset(), num_steps=60, width=16, num_networks=2, num_eval_samples=2048, route="flow"
)
TARGET = bf.GaussianMixture(np.array([0.5, 0.5]), np.array([[-2.0, 0.0], [2.0, 1.0]]), 1.0)


class Killed(BaseException):
    """The machine stops: nobody gets to write anything."""


def fit(stop_at=None, error=KeyboardInterrupt, target=TARGET, config=TINY, said=None, **kwargs):
    """A run that is stopped by `error` after the step `stop_at`; what is said of its progress goes into `said`."""

    def on_progress(progress):
        if said is not None:
            said.append(progress)
        if progress.phase == "train" and progress.step == stop_at:
            raise error

    return bf.fit(target, config=config, on_progress=on_progress, **kwargs)


def same(one, other):
    a, b = (jax.tree.leaves(run.trained.transport) for run in (one, other))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.history] for run in (one, other)]
    assert rows[0] == rows[1]
    assert [row["seconds"] for row in one.history] == sorted(row["seconds"] for row in one.history)


@pytest.fixture(scope="module")
def undisturbed():
    return fit()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run that was killed after step 50, with a snapshot after every chunk."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "_MIN_INTERVAL", 0.0)
        patch.setattr(snapshots, "_MAX_SHARE", 1e9)
        with pytest.raises(Killed):
            fit(stop_at=50, error=Killed, keep=folder)
    return folder


@pytest.fixture
def folder(killed, tmp_path):
    """A copy of the killed run's folder."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


def test_interrupted_run_ends_with_the_same_bits(undisturbed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(stop_at=30, keep=tmp_path)
    said = []
    same(fit(keep=tmp_path, said=said), undisturbed)
    steps = [(progress.phase, progress.step) for progress in said]
    assert ("train", 40) in steps and ("train", 30) not in steps
    said.clear()
    same(fit(keep=tmp_path, said=said), undisturbed)  # finished: read, not trained
    assert not any(progress.phase == "train" for progress in said)


def test_interrupted_seeds_continue_where_they_stopped(undisturbed, tmp_path):
    def stop(progress):
        if progress.phase == "train" and progress.step == 30:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        bf.fit_seeds(TARGET, seeds=(0, 1), config=TINY, keep=tmp_path, on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["seed-0"]
    first, second = bf.fit_seeds(TARGET, seeds=(0, 1), config=TINY, keep=tmp_path)
    same(first, undisturbed)
    same(second, fit(seed=1))


def test_killed_run_continues_from_its_last_snapshot(undisturbed, folder):
    said = []
    same(fit(keep=folder, said=said), undisturbed)
    assert min(progress.step for progress in said if progress.phase == "train") == 60  # step 50 was kept


def damaged(folder, damage):
    """Damages the newest snapshot; its path."""
    newest = max(folder.glob("state-?.npz"), key=lambda path: files.read(path)[1]["step"])
    data = bytearray(newest.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 512)  # more than what zip leaves unused between two arrays
    data[middle] = bytes(byte ^ 0xFF for byte in data[middle])
    newest.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    return newest


def untrained():
    """The shape of the state that the snapshots hold."""
    params = jnp.zeros(3)
    return initial_state(params, TINY, 60, jax.random.key(0))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_snapshot_is_passed_over_for_the_other(tmp_path, damage, unchecked):
    kept = snapshots.Snapshots(tmp_path, TARGET, TINY, 0)
    for step in (10, 20):
        kept.write(TrainingState(step, 1.0, untrained(), [{"step": step, "loss": np.nan}], 0))
    newest = damaged(tmp_path, damage)
    again = snapshots.Snapshots(tmp_path, TARGET, TINY, 0)
    found = again.read(untrained())
    assert found.step == 10 and np.isnan(found.history[0]["loss"])
    assert newest.name in again.notes[0] and "the other one is used" in again.notes[0]


def test_run_with_a_damaged_snapshot_ends_with_the_same_bits(undisturbed, folder):
    newest, said = damaged(folder, "flip"), []
    same(fit(keep=folder, said=said), undisturbed)
    assert any(newest.name in progress.message and "the other one is used" in progress.message for progress in said)


def test_arrays_that_were_altered_are_damaged(tmp_path):
    path = tmp_path / "a.npz"
    files.write(path, {"x": np.arange(5)}, {"n": 1})
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    np.savez(path, **{**content, "x": np.arange(5) + 1})
    with pytest.raises(bf.InputError, match="not those that were written"):
        files.read(path)


def test_snapshots_of_something_else_are_refused(folder):
    with pytest.raises(bf.InputError, match="other settings or seeds"):
        fit(keep=folder, config=dataclasses.replace(TINY, learning_rate=0.01))
    with pytest.raises(bf.InputError, match="other settings or seeds"):
        fit(keep=folder, seed=1)
    with pytest.raises(bf.InputError, match="other settings or seeds"):
        fit(keep=folder, parts=bf.Parts(make_interpolation=lambda base, target, key: Linear(base, target)))
    with pytest.raises(bf.InputError, match="of another target"):
        fit(keep=folder, target=bf.GaussianMixture(np.array([0.5, 0.5]), np.array([[-2.0, 0.0], [3.0, 1.0]]), 1.0))


def test_full_disk_ends_no_training(undisturbed, tmp_path, monkeypatch):
    write, said = files.write, []
    monkeypatch.setattr(snapshots, "_MIN_INTERVAL", 0.0)

    def full(path, arrays, record):
        if path.name.startswith("state"):
            raise OSError(28, "No space left on device")
        write(path, arrays, record)

    monkeypatch.setattr(files, "write", full)
    same(fit(keep=tmp_path, said=said), undisturbed)
    assert "cannot be kept: [Errno 28] No space left on device" in said[-1].message


def test_without_resume_it_starts_anew(undisturbed, folder):
    said = []
    same(fit(keep=folder, resume=False, said=said), undisturbed)
    assert min(progress.step for progress in said if progress.phase == "train") == 10
