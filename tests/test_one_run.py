"""A folder tells of one run: what is of another, cut short or changed is refused; an earlier run is not lost."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import boltzflow as bf
from boltzflow.cli import main
from boltzflow.cli.recorded import given_folder
from boltzflow.config import make_preset
from boltzflow.errors import TrainingError
from boltzflow.report.stored import read_report
from boltzflow.storage import files, replacing, run_folder
from boltzflow.training import checkpoint, snapshots
from boltzflow.training.loop import Progress

SMALL = {"num_steps": 20, "width": 8, "num_networks": 2, "num_eval_samples": 2048, "route": "flow"}
FLAGS = ["--preset", "quick", *(f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items())]
SAMPLE = ["--num-samples", "10", "--out", "s.npz", "--overwrite"]
NAMES = {"config.toml", "metrics.jsonl", "checkpoint", "report.json", "report.html"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs of the command line of two seeds in the folders 0 and 1."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for seed in ("0", "1"):
            assert main(["run", "mixture-2", *FLAGS, "--seed", seed, "--out", seed]) in (0, 3)
    return home


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    """A copy of the run 0 as the folder a, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "0", "a")
    return Path("a")


def said(capsys, *argv):
    """The exit status and the lines on standard error."""
    capsys.readouterr()
    return main([str(word) for word in argv]), capsys.readouterr().err


def rewritten(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- files of another run ---------------------------------------------------------------------------------------------


def test_all_files_of_a_run_state_its_identity(folder):
    run = checkpoint.read(folder / "checkpoint").run
    assert run_folder.read_record(folder).run == run == json.loads((folder / "report.json").read_text())["run"]
    assert f'content="{run}"' in (folder / "report.html").read_text()
    bf.load(folder).save("b")
    assert checkpoint.read(Path("b/checkpoint")).run == run
    assert checkpoint.read(folder / "checkpoint").record["run"] == run


DAMAGES = {
    "of another run": ("report.json", lambda path, other: shutil.copy(other, path), "is of another run than"),
    "cut short": ("report.json", lambda path, other: path.write_text(path.read_text()[:-300]), "is damaged"),
    "empty": ("report.json", lambda path, other: path.write_text(""), "is damaged"),
    "a list": ("report.json", lambda path, other: path.write_text("[]"), "is damaged"),
    "not text": ("report.json", lambda path, other: path.write_bytes(b"\xff\xfe"), "is damaged"),
    "trusted by hand": (
        "report.json",
        lambda path, other: rewritten(path, lambda c: c["verdict"].update(trustworthy=True, warnings=[])),
        "was changed after it was written",
    ),
    "a number by hand": (
        "report.json",
        lambda path, other: rewritten(path, lambda c: c["estimates"]["log_z"].update(value=1.0)),
        "was changed after it was written",
    ),
    "without its identity": (
        "report.json",
        lambda path, other: rewritten(path, lambda c: [c.pop(name) for name in ("run", "sha256")]),
        "is of another run than",
    ),
    "page of another run": ("report.html", lambda path, other: shutil.copy(other, path), "is of another run than"),
    "page cut short": ("report.html", lambda path, other: path.write_text(path.read_text()[:-300]), "is damaged"),
    "metrics of another run": ("metrics.jsonl", lambda path, other: shutil.copy(other, path), "is of another run than"),
    "a row too many": ("metrics.jsonl", lambda path, other: path.write_text(path.read_text() * 2), "of another run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_match_is_refused_by_name_and_written_anew(home, folder, capsys, damage):
    name, change, words = DAMAGES[damage]
    change(folder / name, home / "1" / name)
    for argv in (["sample", folder, *SAMPLE], ["expect", folder, "o.py:one"], ["resume", folder]):
        Path("o.py").write_text("def one(x):\n    return 1.0\n")
        status, error = said(capsys, *argv)
        assert status == 2 and error.count("\n") == 1, (argv, error)
        assert f"a/{name}" in error and words in error and "boltzflow report a writes it anew" in error
    assert not Path("s.npz").exists()
    if damage == "of another run":
        shutil.copy(home / "1" / "metrics.jsonl", folder)
        assert main(["report", "a"]) == 3
        assert said(capsys, "resume", folder) == (3, "")


def test_a_checkpoint_of_another_run_is_refused(home, folder, capsys):
    shutil.copy(home / "1" / "checkpoint" / "run.npz", folder / "checkpoint" / "run.npz")
    for argv in (["sample", folder, *SAMPLE], ["report", folder], ["resume", folder]):
        status, error = said(capsys, *argv)
        assert status == 2 and "a/config.toml is of another run than checkpoint/run.npz" in error
    with pytest.raises(bf.InputError, match=r"a/config\.toml is of another run"):
        bf.load("a")
    (folder / "config.toml").unlink()
    assert "a/report.json is of another run" in said(capsys, "sample", folder, *SAMPLE)[1]
    assert main(["report", "a"]) in (0, 3) and main(["sample", "a", *SAMPLE]) in (0, 3)


def test_a_changed_record_is_refused(folder, capsys):
    text = (folder / "config.toml").read_text()
    for old, new in (("seed = 0", "seed = 7"), ("width = 8", "width = 9"), ("mixture-2", "gmm-40")):
        (folder / "config.toml").write_text(text.replace(old, new))
        assert "a/config.toml is of another run" in said(capsys, "sample", folder, *SAMPLE)[1]


@pytest.mark.parametrize("missing", ["report.html", "report.json"])
def test_resume_writes_what_is_missing_of_a_report(folder, capsys, missing):
    before = json.loads((folder / "report.json").read_text())
    (folder / missing).unlink()
    assert main(["resume", "a"]) == 3
    assert "nothing to resume" not in capsys.readouterr().out
    after = json.loads((folder / "report.json").read_text())
    assert (folder / "report.html").exists() and after["estimates"] == before["estimates"]
    assert main(["resume", "a"]) == 3 and "nothing to resume" in capsys.readouterr().out


def test_a_folder_of_an_older_version_is_taken_as_it_is(home, folder, capsys):
    arrays, record = files.read(folder / "checkpoint" / "run.npz")
    del record["run"], record["config"]["jitter"]  # neither was known
    files.write(folder / "checkpoint" / "run.npz", arrays, record)
    rewritten(folder / "report.json", lambda content: [content.pop(name) for name in ("run", "sha256")])
    for name in ("config.toml", "report.html"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(x for x in lines if not x.startswith(("run = ", '<meta name="boltzflow'))))
    assert main(["sample", "a", *SAMPLE]) == 3 and main(["resume", "a"]) == 3
    other = json.loads((home / "1" / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps({k: v for k, v in other.items() if k not in ("run", "sha256")}))
    assert "a/report.json is of another run" in said(capsys, "sample", folder, *SAMPLE)[1]
    assert main(["report", "a"]) == 3 and main(["sample", "a", *SAMPLE]) == 3
    assert run_folder.read_record(folder).run == checkpoint.read(folder / "checkpoint").run


# --- Run.save ---------------------------------------------------------------------------------------------------------


def test_save_leaves_nothing_of_another_run(home, folder, capsys):
    Path("a/notes.txt").write_text("mine")
    other = bf.load(home / "1")
    other.save("a")
    assert {path.name for path in folder.iterdir()} == {"checkpoint", "notes.txt", "report.json"}
    assert read_report(folder).seed == 1 == bf.load("a").report().seed
    Path("a/report.json").unlink()
    assert main(["sample", "a", *SAMPLE]) == 3 and "no report yet" in capsys.readouterr().out
    bf.load(home / "0").save("a")
    assert bf.load("a").seed == 0


def test_a_report_is_of_the_energies_that_it_was_measured_on(folder):
    Path("near.py").write_text("import boltzflow as bf\n\ndef energy(x):\n    return bf.mixture_2().energy(x) + 1e-5\n")
    main(["report", "a", "--target", "near.py:energy"])
    assert bf.load("a").measured is None


def test_save_keeps_the_files_of_the_same_run(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    bf.load("a").save("a")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    changed = bf.load("a")
    changed = dataclasses.replace(changed, trained=dataclasses.replace(changed.trained, history=[]), measured=None)
    changed.save("a")
    assert {path.name for path in folder.iterdir()} == {"checkpoint"}


def test_save_refuses_a_folder_of_others(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = bf.load(home / "0")
    for name in ("config.toml", "report.html", "seeds.json"):
        Path(name).write_text("mine = 1")
        with pytest.raises(bf.InputError, match=f"holds a {name} that is not from boltzflow; save to another folder"):
            run.save(".")
        Path(name).unlink()
    shutil.copytree(home / "0", "seed-0")
    with pytest.raises(bf.InputError, match="holds several seeds"):
        run.save(".")
    assert [path.name for path in Path().iterdir()] == ["seed-0"]


# --- several seeds ----------------------------------------------------------------------------------------------------


def test_the_report_of_all_seeds_is_of_these_seeds(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        shutil.copytree(home / str(seed), f"s/seed-{seed}")
    assert main(["resume", "s"]) == 3
    assert said(capsys, "sample", "s/seed-0", *SAMPLE) == (3, "")
    rewritten(Path("s/seeds.json"), lambda content: content["verdict"].update(trustworthy=True, warnings=[]))
    status, error = said(capsys, "sample", "s/seed-0", *SAMPLE)
    assert status == 2 and "s/seeds.json was changed after it was written: boltzflow resume s writes it anew" in error
    assert main(["resume", "s"]) == 3
    shutil.rmtree("s/seed-1")
    shutil.copytree(home / "0", "s/seed-1")
    for words, change in (
        ("is of other runs", lambda: None),
        ("is of other runs", lambda: shutil.rmtree("s/seed-1")),
        ("is damaged", lambda: Path("s/seeds.json").write_text('{"verdict"')),
    ):
        change()
        assert words in said(capsys, "sample", "s/seed-0", *SAMPLE)[1]
        monkeypatch.chdir("s/seed-0")
        assert words in said(capsys, "sample", ".", *SAMPLE)[1]
        monkeypatch.chdir(tmp_path)
    assert main(["resume", "s"]) == 3 and main(["sample", "s/seed-0", *SAMPLE]) == 3


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_states_of_another_training_are_passed_over(tmp_path):
    """Two trainings that differ in their target alone, and from those of `home` in no shape."""
    config = dataclasses.replace(make_preset("quick", "", 2), **SMALL)

    def fit(shift, keep):
        return bf.fit(bf.GaussianMixture([0.5, 0.5], [[4.0 + shift, 4.0], [-8.0, -8.0]], 1.0), config=config, keep=keep)

    one, _ = fit(0.0, tmp_path / "one"), fit(3.0, tmp_path / "other")
    for path in (tmp_path / "other").glob("state-?.npz"):
        shutil.copy(path, tmp_path / "one")
    again = fit(0.0, tmp_path / "one")
    assert all(np.array_equal(*pair) for pair in zip(*map(leaves, (one, again)), strict=True))


def leaves(run):
    import jax

    return jax.tree.leaves(run.trained.transport)


# --- an earlier run ---------------------------------------------------------------------------------------------------


def tree(folder):
    """The content of every file below a folder."""
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.mark.parametrize("ends", [KeyboardInterrupt, TrainingError("lost"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("seeds", ["1", "2"])
def test_an_earlier_run_survives_what_ends_before_the_first_snapshot(folder, monkeypatch, capsys, ends, seeds):
    Path("a/notes.txt").write_text("mine")
    before = tree("a")

    def fit(target, *, keep, on_progress, **given):
        on_progress(Progress("compile", 0, 10, 0.0))
        Path(keep).mkdir(parents=True, exist_ok=True)
        (Path(keep) / "pilot.npz").write_bytes(b"new")
        assert run_folder.read_record(Path(keep).parent).seed == given["seed"] and given["seed"] >= 5
        raise ends

    monkeypatch.setattr("boltzflow.run.fit", fit)
    run = ["run", "mixture-2", "--seed", "5", "--seeds", seeds, "--out", "a", "--overwrite"]
    status, error = said(capsys, *run)
    assert status in (1, 130) and error.count("\n") == 1
    if status == 130:
        assert "before the first step; the earlier run is back in its place" in error
    assert tree("a") == before and {path.name for path in folder.iterdir()} == {*NAMES, "notes.txt"}


def test_earlier_seeds_survive_too(home, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        shutil.copytree(home / str(seed), f"s/seed-{seed}")
    Path("s/seed-1/mine.txt").write_text("mine")
    main(["resume", "s"])
    before = tree("s")
    monkeypatch.setattr(snapshots.Snapshots, "write_pilot", interrupted)
    for seeds in ("1", "3"):
        assert said(capsys, "run", "mixture-2", *FLAGS, "--seeds", seeds, "--out", "s", "--overwrite")[0] == 130
        assert tree("s") == before


def interrupted(self, *_):
    raise KeyboardInterrupt


def test_an_earlier_run_is_gone_with_the_first_snapshot(folder, monkeypatch, capsys):
    def stop(self, now):
        write(self, now)
        assert replacing.is_aside(folder)
        stopped.append(now.step)

    write, stopped = snapshots.Snapshots.write, []
    monkeypatch.setattr(snapshots.Snapshots, "write", stop)
    append = run_folder.append_metrics

    def interrupt(*row):
        append(*row)
        assert not replacing.is_aside(folder) and set(os.listdir("a")) == {"config.toml", "metrics.jsonl", "checkpoint"}
        monkeypatch.setattr(snapshots.Snapshots, "write", write)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "append_metrics", interrupt)
    status, error = said(capsys, "run", "mixture-2", *FLAGS, "--seed", "5", "--out", "a", "--overwrite")
    assert status == 130 and "go on with: boltzflow resume a" in error and stopped == [10]
    monkeypatch.setattr(run_folder, "append_metrics", append)
    assert main(["resume", "a"]) in (0, 3) and bf.load("a").seed == 5
    assert {path.name for path in folder.iterdir()} == NAMES


@pytest.mark.parametrize("renames", range(7))
def test_a_process_killed_while_it_replaces_loses_nothing(folder, monkeypatch, renames):
    """Killed after so many renames, out of the way and, by the next command, back."""

    class Killed(BaseException):
        pass

    def kill_after(number):
        left = [number]

        def rename(*paths):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            os_rename(*paths)

        monkeypatch.setattr(replacing.os, "rename", rename)

    os_rename = os.rename
    before = tree("a")
    for number in (renames, 6 - renames):
        kill_after(renames)
        with pytest.raises(Killed):
            replacing.set_aside(folder)
            run_folder.open_folder(folder, dataclasses.replace(run_folder.RunRecord("x", {}, 9, bf.Config())))
            raise Killed
        kill_after(number)
        with pytest.raises(Killed):
            replacing.put_back(folder)
            raise Killed
        monkeypatch.setattr(replacing.os, "rename", os_rename)
        given_folder("a")
        assert tree("a") == before


def test_links_in_a_stranger_s_folder_are_not_followed_when_an_earlier_run_is_put_back(home, folder):
    shutil.copytree(home / "1", "own/seed-1")
    before = tree("own")
    Path("a/.replaced").mkdir()
    for name in ("a/.replaced/seed-1", "a/seed-1"):
        Path(name).symlink_to(Path("own/seed-1").absolute())
    given_folder("a")
    Path("b").mkdir()
    Path("b/.replaced").symlink_to(Path("own").absolute())
    given_folder("b")
    assert tree("own") == before
