"""The files around a checkpoint, and whether all are of one run.

The checkpoint is the run: its identity is computed from its content. Every other file is compared with it: report.json
states the identity and a checksum of itself, report.html and config.toml state the identity, config.toml repeats what
determines the run, metrics.jsonl repeats its history, and seeds.json states the identities of all seeds. A checkpoint
of an older version states no identity; beside it a report is taken for its own by seed and cost, and the other files as
they are.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from boltzflow.config import Config
from boltzflow.errors import InputError
from boltzflow.report.html import run_mark
from boltzflow.report.report import Report, dump
from boltzflow.report.seeds import SeedsReport, seeds_warnings
from boltzflow.storage import run_folder
from boltzflow.storage.files import write_text
from boltzflow.storage.run_folder import CHECKPOINT, CONFIG, METRICS, REPORT_HTML, REPORT_JSON, SEEDS_JSON, RunRecord
from boltzflow.training import checkpoint, snapshots
from boltzflow.training.checkpoint import Stored

_RUN = "run"
_RUNS = "runs"
_CHECKSUM = "sha256"
_OF_ANOTHER = f"is of another run than {CHECKPOINT}/{checkpoint.FILE}"
_COSTS = ("train_seconds", "compile_seconds", "steps")  # in a report as in its checkpoint
_UNREADABLE = (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


# --- one run ----------------------------------------------------------------------------------------------------------


def check_one_run(folder: Path) -> None:
    """Raise `InputError` where a file in the folder of a trained run is of another run, cut short, or changed.

    Files that are missing are no fault. For one of several seeds the report of all is checked, too.
    """
    check_files(folder)
    if around := run_folder.seeds_around(folder):
        check_seeds(around)


def check_files(folder: Path) -> None:
    """The same without the report of all seeds."""
    run = checkpoint.read(folder / CHECKPOINT)
    if (folder / CONFIG).exists():
        check_record(folder, run_folder.read_record(folder), run.record)
    for name, fault in _faults(folder, run).items():
        if fault:
            raise InputError(f"{folder / name} {fault}: boltzflow report {folder} writes it anew")


def check_record(folder: Path, record: RunRecord, kept: Mapping[str, Any]) -> None:
    """Raise `InputError` unless `record`, of config.toml, is that of the run whose checkpoint has the record `kept`."""
    ours = (record.target, dict(record.options), record.seed, record.config)
    theirs = (kept.get("name"), kept.get("options"), kept.get("seed"), Config(**kept["config"]))
    if ours != theirs or record.run not in ("", kept.get(_RUN, record.run)):
        raise InputError(
            f"{folder / CONFIG} {_OF_ANOTHER}: put back that of this run, or remove it and give a target that is not "
            "shipped with --target, in Python boltzflow.load(dir, target)"
        )


def state_identity(folder: Path) -> str:
    """Write the identity of the trained run into config.toml, and metrics of another run anew; return the identity."""
    run = checkpoint.read(folder / CHECKPOINT)
    if (folder / CONFIG).exists():
        record = run_folder.read_record(folder)
        if record.run != run.run:
            run_folder.write_record(folder, dataclasses.replace(record, run=run.run))
    if _fault_of_metrics(folder, run):
        run_folder.write_metrics(folder, run.record["history"])
    return run.run


def write_report(folder: Path, report: Report, page: str, run: str) -> None:
    """Write report.html, which bears the mark of the run, and report.json."""
    write_text(folder / REPORT_HTML, page)
    write_text(folder / REPORT_JSON, _sealed(report.to_json(), {_RUN: run}))


def write_numbers(folder: Path, report: Report) -> None:
    """Write report.json of the trained run in the folder, without its page."""
    run = checkpoint.read(folder / CHECKPOINT).run
    write_text(folder / REPORT_JSON, _sealed(report.to_json(), {_RUN: run}))


def own_report(folder: Path) -> Report | None:
    """The report of the trained run in the folder; None where there is none, or it is damaged or of another run."""
    if not (folder / REPORT_JSON).exists() or _fault_of_report(folder, checkpoint.read(folder / CHECKPOINT)):
        return None
    return read_report(folder)


def read_report(folder: Path) -> Report:
    """The report in the folder of a run."""
    return Report.from_json((folder / REPORT_JSON).read_text(encoding="utf-8"))


def has_report(folder: Path) -> bool:
    """Whether the report of a run is there, its numbers and its page."""
    return (folder / REPORT_JSON).exists() and (folder / REPORT_HTML).exists()


def remove_others(folder: Path) -> None:
    """Remove what another run has left beside a checkpoint."""
    run = checkpoint.read(folder / CHECKPOINT)
    if (folder / CONFIG).exists():
        try:
            check_record(folder, run_folder.read_record(folder), run.record)
        except InputError:
            (folder / CONFIG).unlink()
            snapshots.clear(folder / CHECKPOINT)
    for name, fault in _faults(folder, run).items():
        if fault:
            (folder / name).unlink()
    (folder / SEEDS_JSON).unlink(missing_ok=True)


def _faults(folder: Path, run: Stored) -> dict[str, str]:
    """For each file what is wrong with it, as the end of a sentence; empty where nothing is, or the file is missing."""
    return {
        REPORT_JSON: _fault_of_report(folder, run),
        REPORT_HTML: _fault_of_page(folder, run),
        METRICS: _fault_of_metrics(folder, run),
    }


def _fault_of_report(folder: Path, run: Stored) -> str:
    path = folder / REPORT_JSON
    if not path.exists():
        return ""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        report = read_report(folder)
    except _UNREADABLE:
        return "is damaged"
    if _RUN in content or run.is_stated:
        if content.get(_RUN) != run.run:
            return _OF_ANOTHER
        return "" if _is_sealed(content) else "was changed after it was written"
    kept = run.record["cost"]
    same = report.seed == run.record["seed"] and all(report.cost.get(name) == kept.get(name) for name in _COSTS)
    return "" if same else _OF_ANOTHER


def _fault_of_page(folder: Path, run: Stored) -> str:
    path = folder / REPORT_HTML
    if not path.exists():
        return ""
    page = path.read_text(encoding="utf-8", errors="replace")
    if not page.rstrip().endswith("</html>"):
        return "is damaged"
    is_marked = run_mark("").partition('""')[0] in page
    return _OF_ANOTHER if (is_marked or run.is_stated) and run_mark(run.run) not in page else ""


def _fault_of_metrics(folder: Path, run: Stored) -> str:
    if not (folder / METRICS).exists() or not run.is_stated:
        return ""
    try:
        rows = run_folder.read_metrics(folder)
    except _UNREADABLE:
        return "is damaged"
    return "" if _without_times(rows) == _without_times(run.record["history"]) else _OF_ANOTHER


def _without_times(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{name: repr(float(value)) for name, value in row.items() if name != "seconds"} for row in rows]


# --- several seeds ----------------------------------------------------------------------------------------------------


def write_seeds(folder: Path, together: SeedsReport, version: str) -> None:
    """Write seeds.json."""
    runs = {seed: run.run for seed, run in _seeds(folder).items()}
    write_text(folder / SEEDS_JSON, _sealed(together.to_json(version), {_RUNS: runs}))


def read_seeds_warnings(folder: Path) -> list[str]:
    """The reasons in seeds.json not to rely on the seeds."""
    return seeds_warnings((folder / SEEDS_JSON).read_text(encoding="utf-8"))


def check_seeds(folder: Path) -> None:
    """Raise `InputError` where seeds.json is of other runs than the seeds in the folder, cut short, or changed."""
    path = folder / SEEDS_JSON
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        read_seeds_warnings(folder)
    except _UNREADABLE:
        fault = "is damaged"
    else:
        fault = _fault_of_seeds(content, _seeds(folder))
    if fault:
        raise InputError(f"{path} {fault}: boltzflow resume {folder} writes it anew")


def _fault_of_seeds(content: Mapping[str, Any], seeds: Mapping[str, Stored]) -> str:
    if _RUNS not in content and not any(run.is_stated for run in seeds.values()):
        return ""
    if content.get(_RUNS) != {seed: run.run for seed, run in seeds.items()}:
        return "is of other runs than the seeds beside it"
    return "" if _is_sealed(content) else "was changed after it was written"


def _seeds(folder: Path) -> dict[str, Stored]:
    """The trained seeds in a folder by their numbers."""
    found = {}
    for each in run_folder.seed_folders(folder):
        if (each / CHECKPOINT / checkpoint.FILE).exists():
            found[each.name.removeprefix("seed-")] = checkpoint.read(each / CHECKPOINT)
    return found


# --- seals ------------------------------------------------------------------------------------------------------------


def _sealed(text: str, more: Mapping[str, Any]) -> str:
    """The text of a JSON file with more in it, and a checksum of all."""
    content = {**json.loads(text), **more}
    return dump({**content, _CHECKSUM: _checksum(content)})


def _is_sealed(content: Mapping[str, Any]) -> bool:
    return content.get(_CHECKSUM) == _checksum({name: value for name, value in content.items() if name != _CHECKSUM})


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
