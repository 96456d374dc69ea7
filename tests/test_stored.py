"""The target that a run is loaded with, and when loading is refused. The run itself is a stub."""

import dataclasses
import os

import pytest

from boltzflow import Config, InputError, __version__, run
from boltzflow.cli import recorded
from boltzflow.densities.from_file import file_sha256, load_target
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
    monkeypatch.setattr(checkpoint, "is_of", lambda folder, target, trained: True)
    return targets


@pytest.fixture
def saved(monkeypatch):
    """The record in the checkpoint."""
    options = {"num_sites": 4, "mass": 2.0, "coupling": 1.0, "total_time": 4.0}
    content = {"name": "double-well", "options": options, "seed": 0, "config": dataclasses.asdict(Config())}
    monkeypatch.setattr(checkpoint, "read_record", lambda folder: content)
    return content


def test_load_rebuilds_shipped_target(tmp_path, loaded, saved):
    run_folder.open_folder(tmp_path, RunRecord("double-well", saved["options"], 0, Config(), version=__version__))
    run.load(tmp_path)
    assert (loaded[0].dim, loaded[0].mass) == (4, 2.0)


def test_load_imports_only_unchanged_files(tmp_path, loaded, saved):
    path = tmp_path / "mine.py"
    path.write_text(ENERGY)
    target = load_target(f"{path}:energy", {"dim": 3})
    record = RunRecord(target.name, target.options, 0, Config(), target.path, target.sha256, version=__version__)
    run_folder.open_folder(tmp_path / "a", record)
    saved |= {"name": target.name, "options": target.options}
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
    assert loaded[0].dim == 4
    (tmp_path / "mine.py").write_text("raise RuntimeError('imported')\n")
    saved["name"] = f"{tmp_path}/mine.py:energy"
    with pytest.raises(InputError, match=r"give its target: boltzflow\.load\(dir, target\)"):
        run.load(tmp_path)


def test_load_refuses_folder_without_checkpoint(tmp_path):
    with pytest.raises(InputError, match="holds no finished run"):
        run.load(tmp_path)


# --- files that a record may name -------------------------------------------------------------------------------------

RAISES = "raise RuntimeError('imported')\n"


@pytest.fixture
def stranger(tmp_path, saved):
    """A function: the folder of a run whose record names a file by a path, with that file's checksum."""
    folder = tmp_path / "run"
    folder.mkdir()

    def make(path, file, name="mine.py:energy"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(RAISES)
        record = RunRecord(name, {"dim": 3}, 0, Config(), str(path), file_sha256(file), version=__version__)
        run_folder.write_record(folder, record)
        saved.update(name=name, options={"dim": 3})
        return folder

    return make


def cases(tmp_path):
    """By name the path in the record and the file that it leads to."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    inside, outside = folder / "mine.py", elsewhere / "mine.py"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(folder)
    (elsewhere / "mine-link.py").symlink_to(inside)
    (folder / "out").symlink_to(elsewhere)
    return {
        "relative": ("mine.py", inside),
        "relative to the folder": ("run/mine.py", inside),
        "dots": ("../run/mine.py", inside),
        "absolute": (inside, inside),
        "below": (folder / "checkpoint" / "mine.py", folder / "checkpoint" / "mine.py"),
        "through dots": (f"{elsewhere}/../run/mine.py", inside),
        "through the folder": (f"{folder}/../elsewhere/mine.py", outside),
        "a link to the folder": (tmp_path / "link" / "mine.py", inside),
        "a link to the file": (elsewhere / "mine-link.py", inside),
        "a link inside": (folder / "out" / "mine.py", outside),
        "no path": ("", inside),
    }


@pytest.mark.parametrize(
    "case",
    [
        "relative",
        "relative to the folder",
        "dots",
        "absolute",
        "below",
        "through dots",
        "through the folder",
        "a link to the folder",
        "a link to the file",
        "a link inside",
        "no path",
    ],
)
def test_load_runs_no_file_inside_its_folder(tmp_path, monkeypatch, loaded, stranger, case):
    path, file = cases(tmp_path)[case]
    folder = stranger(path, file)
    for at in (tmp_path, folder):
        monkeypatch.chdir(at)
        with pytest.raises(InputError, match=r"give the target: boltzflow\.load\(dir, target\)"):
            run.load(folder)
        with pytest.raises(InputError, match="--target"):
            recorded.recorded_target(folder, run_folder.read_record(folder))
        given = run_folder.read_settings(folder / "config.toml")
        with pytest.raises(InputError, match="give the target too: boltzflow run"):
            recorded.configured_target(given, folder / "config.toml")
    assert loaded == []


def test_a_seed_is_inside_the_folder_of_all_seeds(tmp_path, stranger):
    stranger(tmp_path / "mine.py", tmp_path / "mine.py").rename(tmp_path / "seed-0")
    (tmp_path / "seeds.json").write_text("{}")
    with pytest.raises(InputError, match="inside its own folder"):
        recorded.recorded_target(tmp_path / "seed-0", run_folder.read_record(tmp_path / "seed-0"))


def test_the_file_that_a_record_runs_is_named(tmp_path, stranger, capsys):
    folder = stranger(tmp_path / "mine.py", tmp_path / "mine.py")
    with pytest.raises(InputError, match="imported"):
        recorded.recorded_target(folder, run_folder.read_record(folder))
    assert capsys.readouterr().err == f"boltzflow: running {tmp_path}/mine.py, the target of {folder}\n"


def test_an_explicit_target_is_taken_wherever_it_lies(tmp_path, stranger):
    folder = stranger(tmp_path / "run" / "mine.py", tmp_path / "run" / "mine.py")
    (folder / "mine.py").write_text(ENERGY)
    found = recorded.recorded_target(folder, run_folder.read_record(folder), f"{folder}/mine.py:energy")
    assert found.target.dim == 3 and found.path == str(folder / "mine.py")


def test_the_text_of_a_file_is_run_and_no_bytecode_of_an_earlier_one(tmp_path):
    path = tmp_path / "mine.py"
    for number in (3, 4):
        path.write_text(f"import boltzflow\nmade = boltzflow.DoubleWell({number})\n")
        os.utime(path, (0, 0))
        assert load_target(f"{path}:made", {}).target.dim == number
