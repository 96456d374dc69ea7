"""The run in a folder, for the commands on it: an earlier one put back, its target made again, its files checked."""

import sys
from pathlib import Path

import boltzflow.run
from boltzflow.densities.catalog import SHIPPED
from boltzflow.densities.from_file import FILE_OPTIONS, LoadedTarget, load_target, reload_target
from boltzflow.errors import InputError
from boltzflow.report.stored import check_one_run, check_record
from boltzflow.run import Run
from boltzflow.storage import replacing, run_folder
from boltzflow.storage.files import locked
from boltzflow.storage.run_folder import CHECKPOINT, CONFIG, GivenSettings, RunRecord
from boltzflow.training import checkpoint


def given_folder(directory: str | None) -> Path:
    """The folder that a command was given, or `InputError`."""
    if not directory:
        raise InputError("give the folder of a run, as in runs/double-well-1")
    folder = Path(directory)
    put_back(folder)
    return folder


def put_back(folder: Path) -> None:
    """Put the earlier run back where a process that was to replace it, or seeds around it, was killed too early."""
    for each in (folder, folder.absolute().parent):
        if replacing.is_aside(each):
            with locked(each):
                replacing.put_back(each)


def load_run(folder: Path, target: str | None, measure_again: bool = False) -> Run:
    """The trained run in a folder, on the target that is given, or else on the one in its record.

    All files there must be of this run; with `measure_again` those may be of another that a report writes anew.
    """
    run = checkpoint.read(folder / CHECKPOINT)
    if not measure_again:
        check_one_run(folder)
    elif (folder / CONFIG).exists():
        check_record(folder, run_folder.read_record(folder), run.record)
    if target:
        return boltzflow.run.load(folder, _given(target, dict(run.record["options"]), run.dim).target)
    if (folder / CONFIG).exists():
        record = run_folder.read_record(folder)
        if record.path or record.target not in SHIPPED:
            return boltzflow.run.load(folder, recorded_target(folder, record).target)
    return boltzflow.run.load(folder)


def recorded_target(folder: Path, record: RunRecord, target: str | None = None) -> LoadedTarget:
    """The target of the run in a folder: the one that is given, or else that of its record."""
    if target:
        return _given(target, dict(record.options), record.options.get("dim"))
    return reload_target(
        record.target,
        record.options,
        record.path,
        record.sha256,
        folder=run_folder.seeds_around(folder) or folder,
        where=str(folder),
        advice="give the target with --target path/to/file.py:name",
        say=lambda path: say_what_runs(path, str(folder)),
    )


def configured_target(given: GivenSettings, config: Path) -> LoadedTarget:
    """The target that a file given with `--config` names."""
    return reload_target(
        given.target,
        given.options,
        given.path,
        given.sha256,
        folder=run_folder.seeds_around(config.parent) or config.parent,
        where=str(config),
        advice=f"give the target too: boltzflow run path/to/file.py:name --config {config}",
        say=lambda path: say_what_runs(path, str(config)),
    )


def say_what_runs(path: str, where: str) -> None:
    """Say on standard error which file a record makes this process run."""
    print(f"boltzflow: running {path}, the target of {where}", file=sys.stderr)


def _given(name: str, options: dict[str, int | float], dim: object) -> LoadedTarget:
    """The target with this name, with the recorded options. One in a file takes the dimension of the run.

    With periods `dim`, that of the points of the run, is larger than the recorded one.
    """
    of_file: dict[str, object] = {option: options[option] for option in FILE_OPTIONS if option in options}
    if "periodic" not in of_file:
        of_file["dim"] = dim
    return load_target(name, options if name in SHIPPED else of_file)
