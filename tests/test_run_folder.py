"""`config.toml`, `metrics.jsonl`, and who may write where; nothing here trains."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

import boltzflow
from boltzflow.config import FIELD_TYPES, PRESETS, Config, checked_config, make_preset, with_changes
from boltzflow.errors import InputError
from boltzflow.storage import files, run_folder
from boltzflow.storage.run_folder import RunRecord

RECORD = RunRecord(
    "double-well", {"num_sites": 16, "mass": 1.5}, 7, Config(base_std=1e-30, learning_rate=1e16),
    command='boltzflow run "a\\b" --out ü\x7f\n', version="0.1.0",
)  # fmt: skip


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("target", ["mixture-2", "mixture-4", "double-well", "file.py:energy"])
def test_every_preset_is_valid(name, target):
    assert checked_config(dataclasses.asdict(make_preset(name, target, 32))) == make_preset(name, target, 32)
    assert make_preset(name, target).preset == name


BAD_SETTINGS = {
    "num_steps": [-1, 1.5, "10", True, float("nan")],
    "learning_rate": [-0.1, 0.0, float("inf"), "fast", True],
    "pilot_fraction": [-0.1, 1.1, "half"],
    "warmup_fraction": [2],
    "base_std": [0, -1],
    "clip_norm": [-1.0],
    "loss": ["reverse_kl", 3, None],
    "train_solver": ["rk5"],
    "jitter": [1, "true"],
    "preset": ["fast", 1],
    "width": [0],
    "num_eval_samples": [1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_SETTINGS.items() for value in values]
)
def test_a_bad_setting_is_named(name, value):
    with pytest.raises(InputError, match=name):
        with_changes(Config(), {name: value})


def test_every_number_among_the_settings_has_a_range():
    for name, kind in FIELD_TYPES.items():
        if kind in (int, float):
            with pytest.raises(InputError, match=name):
                with_changes(Config(), {name: -1})


def test_an_unknown_setting_suggests_the_nearest():
    with pytest.raises(InputError, match=r"'learning_rat' \(did you mean 'learning_rate'\?\)"):
        with_changes(Config(), {"learning_rat": 0.1})


def test_whole_numbers_are_floats_where_a_float_is_meant():
    assert isinstance(with_changes(Config(), {"base_std": 2}).base_std, float)


def test_the_parameter_of_a_base_implies_the_base():
    assert with_changes(Config(), {"base_std": 2.0}).base == "gaussian"
    assert with_changes(Config(), {"base_power": 2.0}).base == "generalized-gaussian"
    with pytest.raises(InputError, match="different bases"):
        with_changes(Config(), {"base_std": 2.0, "base_power": 2.0})
    with pytest.raises(InputError, match="does nothing"):
        with_changes(Config(), {"base_std": 2.0, "base": "pilot"})
    assert with_changes(Config(), dataclasses.asdict(Config())) == Config()  # a record of all says nothing by it


@pytest.mark.parametrize("seed", [-1, 1.0, "0", True, 2**32, None])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(InputError, match="seed"):
        run_folder.check_seed(seed)


# --- config.toml ------------------------------------------------------------------------------------------------------


def test_the_record_comes_back_as_it_was(tmp_path):
    run_folder.open_folder(tmp_path / "a" / "b", RECORD)
    assert run_folder.read_record(tmp_path / "a" / "b") == RECORD
    in_file = dataclasses.replace(RECORD, target="x.py:energy", path='/a "b"/x.py', sha256="00")
    run_folder.open_folder(tmp_path, in_file)
    assert run_folder.read_record(tmp_path) == in_file


def test_the_record_serves_as_settings(tmp_path):
    run_folder.open_folder(tmp_path, RECORD)
    given = run_folder.read_settings(tmp_path / "config.toml")
    assert (given.target, given.options, given.seed) == ("double-well", {"num_sites": 16, "mass": 1.5}, 7)
    assert with_changes(Config(), given.settings) == RECORD.config


@pytest.mark.parametrize("table", ["", "[settings]\n"])
def test_settings_stand_at_the_top_or_in_a_table(tmp_path, table):
    path = tmp_path / "mine.toml"
    path.write_text(f'seed = 3\n{table}num_steps = 10\nloss = "reverse-kl"\n')
    given = run_folder.read_settings(path)
    assert (given.settings, given.seed) == ({"num_steps": 10, "loss": "reverse-kl"}, 3)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("num_step = 1", r"'num_step' \(did you mean 'num_steps'\?\)"),
        ("[settings]\nfoo = 1", "'foo'"),
        ("num_steps = -1", "num_steps must be a whole number of at least 0"),
        ("num_steps = 1.0", "num_steps must be a whole number, got 1.0"),
        ("num_steps = '1'", "num_steps must be a whole number"),
        ("learning_rate = nan", "learning_rate must be finite"),
        ("learning_rate = -1", "learning_rate must be above 0"),
        ("pilot_fraction = 1.5", "pilot_fraction must be from 0 to 1"),
        ("jitter = 1", "jitter must be true or false"),
        ("loss = 'kl'", "loss must be one of continuity, reverse-kl"),
        ("loss = ['continuity']", "loss must be one of"),
        ("preset = 'quik'", r"did you mean 'quick'\?"),
        ("seed = -1", "seed must be"),
        ("seed = 1.5", "seed must be"),
        ("settings = 3", "must be tables"),
        ("num_steps = ", "not valid TOML"),
        ("num_steps = 1\nnum_steps = 2", "not valid TOML"),
    ],
)
def test_odd_settings_are_refused_with_the_name_of_the_file(tmp_path, text, complaint):
    path = tmp_path / "odd.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        run_folder.read_settings(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        run_folder.read_settings(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid TOML"):
        run_folder.read_settings(tmp_path / "binary.toml")


@pytest.mark.parametrize("cut", ["seed", "[target]", "name", "command"])
def test_a_damaged_record_is_refused(tmp_path, cut):
    run_folder.open_folder(tmp_path, RECORD)
    path = tmp_path / "config.toml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(cut)))
    with pytest.raises(InputError, match="not the record of a run"):
        run_folder.read_record(tmp_path)


# --- metrics.jsonl ----------------------------------------------------------------------------------------------------


def test_metrics_come_back_and_are_strict_json(tmp_path):
    rows = [{"step": 1, "seconds": 0.5, "loss": float("nan")}, {"step": 2, "loss": float("inf"), "reverse_ess": 0.1}]
    for row in rows:
        run_folder.append_metrics(tmp_path, row)
    back = run_folder.read_metrics(tmp_path)
    assert back[0]["loss"] != back[0]["loss"] and back[1] == rows[1]
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not strict JSON"))
    run_folder.write_metrics(tmp_path, rows[1:])
    assert run_folder.read_metrics(tmp_path) == rows[1:]


def test_a_line_that_was_cut_off_is_left_out_only_at_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert run_folder.read_metrics(tmp_path) == [{"step": 1.0}]
    path.write_text('{"step": 1, "lo\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 1"):
        run_folder.read_metrics(tmp_path)
    assert run_folder.read_metrics(tmp_path / "nowhere") == []


# --- who may write where ----------------------------------------------------------------------------------------------


def test_claiming_writes_nothing(tmp_path):
    run_folder.claim(tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_another_run_needs_overwrite(tmp_path):
    run_folder.open_folder(tmp_path, RECORD)
    with pytest.raises(InputError, match=r"holds another run.*--overwrite"):
        run_folder.claim(tmp_path)
    run_folder.claim(tmp_path, overwrite=True)


@pytest.mark.parametrize("name", ["config.toml", "report.html", "checkpoint"])
def test_what_is_not_ours_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("title = 'not a run'")
    with pytest.raises(InputError, match="not from boltzflow"):
        run_folder.claim(tmp_path, overwrite=True)


def test_a_folder_with_other_files_may_be_used_and_keeps_them(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run_folder.claim(tmp_path)
    run_folder.open_folder(tmp_path, RECORD)
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "checkpoint").mkdir()
    run_folder.open_folder(tmp_path, RECORD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "notes.txt"]


def test_a_file_or_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_folder.claim(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        run_folder.claim(tmp_path / "file" / "below")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)  # tests may run as root, who may write anywhere
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        run_folder.claim(tmp_path / "new")


def test_the_default_folder_is_the_first_that_is_free(tmp_path):
    assert run_folder.free_folder("banana-energy", tmp_path) == tmp_path / "banana-energy-1"
    (tmp_path / "banana-energy-1").mkdir()
    assert run_folder.free_folder("banana-energy", tmp_path) == tmp_path / "banana-energy-2"


def test_package_works_from_a_checkout_without_installation():
    """Another Python may have the dependencies and the sources alone: records then say so instead of a version."""
    program = """
import importlib.metadata as metadata
find = metadata.distribution
def distribution(name):
    if name == "boltzflow":
        raise metadata.PackageNotFoundError(name)
    return find(name)
metadata.distribution = distribution
import boltzflow
from boltzflow.report.evaluation import versions
from boltzflow.cli import main
assert main(["--version"]) == 0
print(boltzflow.__version__, versions()["boltzflow"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "uninstalled uninstalled" and "boltzflow uninstalled" in done.stdout


def test_own_version_is_asked_in_one_place():
    root = Path(boltzflow.__file__).parent
    asks = [path.name for path in root.rglob("*.py") if 'version("boltzflow")' in path.read_text("utf-8")]
    assert asks == ["versions.py"]
