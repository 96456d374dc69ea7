"""The folder of a run: `config.toml`, which repeats the run, and `metrics.jsonl`; and the folders of several seeds.

`checkpoint/`, `report.json` and `report.html` lie beside these two and are written elsewhere. A folder is claimed
before anything is computed. It is opened, which is the first write, when the input has proved usable.
"""

import contextlib
import dataclasses
import json
import math
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from boltzflow.config import FIELD_TYPES, Config, checked_config
from boltzflow.errors import InputError
from boltzflow.numerics.validation import did_you_mean, shown, whole_number
from boltzflow.storage.files import append_text, check_writable, write_text

CONFIG = "config.toml"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint"
CHECKPOINT_FILE = "run.npz"  # in that folder
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
SEEDS_JSON = "seeds.json"  # in the folder of several seeds, beside the folder of each seed
_CONTENTS = (CONFIG, METRICS, CHECKPOINT, REPORT_JSON, REPORT_HTML, SEEDS_JSON)
_MAX_SEED = 2**32 - 1  # jax.random.key keeps 32 bits in single precision
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The content of `config.toml`: everything that determines a run, and how the run was started."""

    target: str  # its name
    options: Mapping[str, int | float]  # complete
    seed: int
    config: Config
    path: str = ""  # of the file that defines the target; empty for a shipped one
    sha256: str = ""  # of that file
    command: str = ""  # as typed
    version: str = ""  # of boltzflow
    run: str = ""  # the identity of the run, which is known when it is trained


def check_seed(seed: Any) -> int:
    """`seed` as an int; raises `InputError` where it is not a whole number from 0 to 2³² - 1."""
    return whole_number("seed", seed, at_least=0, at_most=_MAX_SEED)


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """`seeds` as different whole numbers; raises `InputError` for anything else."""
    if not isinstance(seeds, Iterable):
        raise InputError(f"seeds must be a sequence of whole numbers, as in range(5), got {seeds!r}")
    checked = [whole_number("a seed", seed, at_least=0, at_most=_MAX_SEED) for seed in seeds]
    if not checked or len(set(checked)) < len(checked):
        raise InputError(f"seeds must be one or more different whole numbers, got {checked}")
    return checked


# --- config.toml ------------------------------------------------------------------------------------------------------


def record_to_toml(record: RunRecord) -> str:
    """The record as the text of `config.toml`."""
    source = {"path": record.path, "sha256": record.sha256} if record.path else {}
    run = {"run": record.run} if record.run else {}
    head = {"boltzflow": record.version, "command": record.command, **run, "seed": record.seed}
    tables = {
        "target": {"name": record.target, **source},
        "target.options": record.options,
        "settings": dataclasses.asdict(record.config),
    }
    lines = ["# Repeat this run with: boltzflow run --config THIS_FILE --out ANOTHER_FOLDER", *_lines(head)]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml_value(value)}" for key, value in table.items()]


def _toml_value(value: Any) -> str:
    """A string, bool, int or float in TOML; JSON writes the first three alike, and Python the last.

    TOML knows no surrogates: text stands as it is, and a byte of a file's name that is no text becomes U+FFFD.
    """
    if isinstance(value, float):
        return repr(value)
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def read_record(directory: Path) -> RunRecord:
    """The record in `config.toml`; raises `InputError` where there is none or it cannot be read."""
    path = directory / CONFIG
    if not path.is_file():
        raise InputError(f"{directory} holds no run: there is no {CONFIG} in it")
    content = _read_toml(path)
    try:
        target = dict(content["target"])
        settings = content["settings"]
        _check_settings(path, settings)
        return RunRecord(
            target=str(target["name"]),
            options=dict(target["options"]),
            seed=check_seed(content["seed"]),
            config=checked_config(settings),
            path=str(target.get("path", "")),
            sha256=str(target.get("sha256", "")),
            command=str(content["command"]),
            version=str(content["boltzflow"]),
            run=str(content.get("run", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is not the record of a run: {what}") from error


@dataclasses.dataclass(frozen=True)
class GivenSettings:
    """The content of a file given with `--config`: settings, and perhaps a seed and a target, as in a `RunRecord`."""

    settings: Mapping[str, Any]
    seed: int | None = None
    target: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    path: str = ""
    sha256: str = ""


def read_settings(path: Path) -> GivenSettings:
    """The settings in a TOML file of the user's own, or in the `config.toml` of another run.

    Settings stand at the top or in a table `settings`; `seed` stands beside them. Raises `InputError`, naming the file,
    where the file cannot be read, a key is no setting, or a value is of the wrong type or out of range.
    """
    content = _read_toml(path)
    target = content.pop("target", {})
    settings = content.pop("settings", {})
    if not isinstance(target, dict) or not isinstance(settings, dict):
        raise InputError(f"{path}: target and settings must be tables")
    seed = content.pop("seed", None)
    if "boltzflow" in content:  # the record of a run
        content = {key: value for key, value in content.items() if key not in ("boltzflow", "command", "run")}
    settings = {**content, **settings}
    _check_settings(path, settings)
    try:
        checked_config(settings)
        seed = None if seed is None else check_seed(seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    name = target.get("name", "")
    options = target.get("options", {})
    file = target.get("path", "")
    sha256 = target.get("sha256", "")
    if not isinstance(options, dict) or not all(isinstance(text, str) for text in (name, file, sha256)):
        raise InputError(f"{path}: a target has a name and a table of options")
    return GivenSettings(settings, seed, name, options, file, sha256)


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key not in FIELD_TYPES:
            raise InputError(f"{path}: there is no setting {shown(key)}{did_you_mean(key, FIELD_TYPES)}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError:
        raise InputError(f"{path} is not valid TOML: its tables are nested too deep") from None
    except ValueError as error:  # TOML, UTF-8, or an integer of thousands of digits
        raise InputError(f"{path} is not valid TOML: {error}") from error


# --- metrics.jsonl ----------------------------------------------------------------------------------------------------


def append_metrics(directory: Path, row: Mapping[str, float | None]) -> None:
    """One more line of `metrics.jsonl`, whole or, where it raises `OSError`, not at all."""
    append_text(directory / METRICS, _json_line(row))


def write_metrics(directory: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """All of `metrics.jsonl`, in place of what was there."""
    write_text(directory / METRICS, "".join(map(_json_line, rows)))


def cut_metrics(directory: Path, step: int) -> None:
    """Keep the rows of `metrics.jsonl` up to a step, from where they are written again; none of a damaged file."""
    if not (directory / METRICS).exists():
        return
    try:
        rows = read_metrics(directory)
    except (InputError, UnicodeDecodeError):
        rows = []
    write_metrics(directory, [row for row in rows if row.get("step", math.inf) <= step])


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`; a last line that was cut off by an interruption is left out."""
    path = directory / METRICS
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append({key: float(value) for key, value in json.loads(line).items()})
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if number < len(lines):
                raise InputError(f"{path}, line {number}, is not a row of numbers") from error
    return rows


def _json_line(row: Mapping[str, float | None]) -> str:
    """Strict JSON: what is not finite is a string, as in `report.json`; what is None is left out."""
    plain = {
        key: value if math.isfinite(value) else str(float(value)) for key, value in row.items() if value is not None
    }
    return json.dumps(plain, allow_nan=False) + "\n"


# --- folders ----------------------------------------------------------------------------------------------------------


def free_folder(short_name: str, parent: Path = Path("runs")) -> Path:
    """The first of the folders `runs/NAME-1`, `runs/NAME-2`, ... that does not exist."""
    number = 1
    while (parent / f"{short_name}-{number}").exists():
        number += 1
    return parent / f"{short_name}-{number}"


def claim(directory: Path, overwrite: bool = False) -> None:
    """Raise `InputError` unless a run may be written to this folder; write nothing.

    A folder that holds another run needs `overwrite`. A folder with files of these names that are not from boltzflow is
    refused in any case.
    """
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; --out must name a folder")
    if foreign := _foreign(directory):
        raise InputError(f"{directory} holds a {foreign} that is not from boltzflow; give another folder with --out")
    if contents(directory) and not overwrite:
        raise InputError(f"{directory} holds another run; give another folder with --out, or --overwrite to replace it")
    check_writable(directory)


def claim_for_checkpoint(directory: Path) -> None:
    """Raise `InputError` where a checkpoint saved in this folder would lie among files that are not of a run."""
    if seed_folders(directory):
        raise InputError(f"{directory} holds several seeds; save this run to another folder")
    if (foreign := _foreign(directory)) and not (directory / foreign).is_dir():
        raise InputError(f"{directory} holds a {foreign} that is not from boltzflow; save to another folder")


def contents(directory: Path) -> list[Path]:
    """The files and folders of a run that lie in this folder, or of the seeds in it that are no links elsewhere."""
    folders = [directory, *(folder for folder in seed_folders(directory) if not folder.is_symlink())]
    return [folder / name for folder in folders for name in _CONTENTS if (folder / name).exists()]


def seed_folder(directory: Path, seed: int) -> Path:
    """The folder of one of several seeds, which is a run's folder like any other."""
    return directory / f"seed-{seed}"


def seed_folders(directory: Path) -> list[Path]:
    """The folders of the seeds in this folder, in the order of the seeds."""
    seeds = [path for path in directory.glob("seed-*") if is_seed_folder(path) and _is_run(path)]
    return sorted(seeds, key=lambda path: int(path.name[5:]))


def is_seed_folder(path: Path) -> bool:
    """Whether a folder has the name of one of several seeds."""
    return path.name.startswith("seed-") and path.name[5:].isdecimal()


def seeds_around(directory: Path) -> Path | None:
    """The folder of several seeds, with their report, of which this folder has one; None where there is none."""
    around = directory.parent if directory.name else directory.absolute().parent
    return around if is_seed_folder(directory.absolute()) and (around / SEEDS_JSON).exists() else None


def write_record(directory: Path, record: RunRecord) -> None:
    """Write `config.toml`."""
    write_text(directory / CONFIG, record_to_toml(record))


def open_folder(directory: Path, record: RunRecord) -> None:
    """Make the folder, write `config.toml`, and remove what an earlier run left there."""
    directory.mkdir(parents=True, exist_ok=True)
    write_record(directory, record)
    clear(directory, keep=CONFIG)


def open_seed_folders(directory: Path, records: Iterable[RunRecord]) -> None:
    """Open a folder for each of several seeds; remove an earlier run and earlier seeds."""
    directory.mkdir(parents=True, exist_ok=True)
    clear(directory)
    for record in records:
        open_folder(seed_folder(directory, record.seed), record)


def clear(directory: Path, keep: str = "") -> None:
    """Remove the files of a run in this folder, and of the seeds in it, except one of the name `keep`."""
    seeds = seed_folders(directory)
    for path in contents(directory):
        if path == directory / keep:
            continue
        if path.name == CHECKPOINT:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    for folder in seeds:
        with contextlib.suppress(OSError):  # it holds files of somebody's own
            folder.rmdir()


def _foreign(directory: Path) -> str:
    """The name of a file or folder that has a name of ours and is not from boltzflow, or an empty string."""
    if _is_run(directory):
        return ""
    if (directory / CONFIG).exists():
        return CONFIG
    if (directory / CHECKPOINT / CHECKPOINT_FILE).is_file() or seed_folders(directory):
        return ""
    return next((path.name for path in contents(directory)), "")


def _is_run(directory: Path) -> bool:
    try:
        return "boltzflow" in _read_toml(directory / CONFIG)
    except InputError:
        return False
