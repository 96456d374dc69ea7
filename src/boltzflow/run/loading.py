"""The run in a folder: `load`."""

from pathlib import Path

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.from_file import reload_target
from boltzflow.errors import InputError
from boltzflow.report.stored import check_record, own_report
from boltzflow.run.run import Run, programs_for
from boltzflow.storage import run_folder
from boltzflow.storage.files import folder_path
from boltzflow.storage.run_folder import CHECKPOINT, CONFIG, read_record
from boltzflow.training import checkpoint
from boltzflow.training.build import NO_PARTS, Parts


def load(
    directory: str | Path,
    target: AbstractDensity | None = None,
    parts: Parts = NO_PARTS,
    *,
    progress: bool | None = None,
) -> Run:
    """Load the run in a folder that `boltzflow run` or `Run.save` wrote.

    The report that lies in the folder is the run's, and is not measured again; `run.report(again=True)` does so. On a
    target whose energies at 64 of the pilot's points differ by more than rounding it is measured when it is asked for.

    Args:
        directory: The folder.
        target: The target of a run on a density that only Python knew. Without it a shipped target is made again, and a
            target in a file is imported if the file is unchanged and lies outside the folder.
        parts: The user's own parts, the same as in training.
        progress: Whether a report that is measured shows how far it is, as in `fit`.

    Raises:
        InputError: The folder holds no finished run, or its target cannot be made.
    """
    directory = folder_path(directory)
    if target is None:
        target = _recorded_target(directory)
    config = Config(**checkpoint.read_record(directory / CHECKPOINT)["config"])
    programs = programs_for(target, config, parts)
    with programs.answering():
        trained, record = checkpoint.load(directory / CHECKPOINT, target, parts)
        is_measured = checkpoint.is_of(directory / CHECKPOINT, target, trained)
    return Run(
        target=target,
        config=config,
        seed=record["seed"],
        trained=trained,
        name=record["name"],
        options=record["options"],
        parts=parts,
        programs=programs,
        measured=own_report(directory) if is_measured else None,
        progress=progress,
    )


def _recorded_target(directory: Path) -> AbstractDensity:
    saved = checkpoint.read_record(directory / CHECKPOINT)
    if not (directory / CONFIG).exists():  # saved from Python
        if saved["name"] not in SHIPPED:
            raise InputError(
                f"{directory} was saved from Python; give its target: boltzflow.load(dir, target), or --target "
                "path/to/file.py:name on the command line"
            )
        return make_target(saved["name"], **saved["options"])
    record = read_record(directory)
    check_record(directory, record, saved)
    return reload_target(
        record.target,
        record.options,
        record.path,
        record.sha256,
        folder=run_folder.seeds_around(directory) or directory,
        where=str(directory),
        advice="give the target: boltzflow.load(dir, target)",
    ).target
