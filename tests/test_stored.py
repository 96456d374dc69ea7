"""The target that a run is loaded with, and when loading is refused. The run itself is a stub."""

import pytest

from boltzflow import Config, InputError, __version__, run
from boltzflow.densities.from_file import load_target
from boltzflow.storage import run_folder
from boltzflow.storage.run_folder import RunRecord
from boltzflow.training import checkpoint

ENERGY = "def energy(x):\n    return (x**2).sum()\n"


@pytest.fixture
def loaded(monkeypatch, unchecked):
    """The targets that runs were loaded with."""
    targets = []

    def load(folder, target, parts):
        targets.append(target)
        return None, {"config": {}, "seed": 0, "name": "", "options": {}}

    monkeypatch.setattr(checkpoint, "load", load)
    return targets


@pytest.fixture
def saved(monkeypatch):
    """The record of the target in the checkpoint."""
    content = {"name": "double-well", "options": {"num_sites": 3}}
    monkeypatch.setattr(checkpoint, "read_record", lambda folder: content)
    return content


def test_load_rebuilds_shipped_target(tmp_path, loaded, saved):
    options = {"num_sites": 4, "mass": 2.0, "coupling": 1.0, "total_time": 4.0}
    run_folder.open_folder(tmp_path, RunRecord("double-well", options, 0, Config(), version=__version__))
    run.load(tmp_path)
    assert (loaded[0].dim, loaded[0].mass) == (4, 2.0)


def test_load_imports_only_unchanged_files(tmp_path, loaded, saved):
    path = tmp_path / "mine.py"
    path.write_text(ENERGY)
    target = load_target(f"{path}:energy", {"dim": 3})
    record = RunRecord(target.name, target.options, 0, Config(), target.path, target.sha256, version=__version__)
    run_folder.open_folder(tmp_path / "a", record)
    run.load(tmp_path / "a")
    assert loaded[0].dim == 3
    path.write_text("raise RuntimeError('imported')\n")
    with pytest.raises(InputError, match="has changed since"):
        run.load(tmp_path / "a")
    path.unlink()
    with pytest.raises(InputError, match="is gone"):
        run.load(tmp_path / "a")
    run.load(tmp_path / "a", target.target)
    assert loaded[1] is target.target


def test_load_needs_target_that_is_not_shipped(tmp_path, loaded, saved):
    run.load(tmp_path)
    assert loaded[0].dim == 3
    (tmp_path / "mine.py").write_text("raise RuntimeError('imported')\n")
    saved["name"] = f"{tmp_path}/mine.py:energy"
    with pytest.raises(InputError, match=r"give its target: boltzflow\.load\(dir, target\)"):
        run.load(tmp_path)


def test_load_refuses_folder_without_checkpoint(tmp_path):
    with pytest.raises(InputError, match="holds no finished run"):
        run.load(tmp_path)
