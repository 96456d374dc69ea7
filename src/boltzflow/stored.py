"""A finished run back from its folder, its target included."""

from pathlib import Path

from boltzflow import run
from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.from_file import reload_target
from boltzflow.errors import InputError
from boltzflow.run import Run
from boltzflow.storage.run_folder import CHECKPOINT, CONFIG, read_record
from boltzflow.training import checkpoint
from boltzflow.training.build import NO_PARTS, Parts


def load(directory: str | Path, target: AbstractDensity | None = None, parts: Parts = NO_PARTS) -> Run:
    """The run in a folder that `boltzflow run` or `Run.save` wrote.

    Without `target` a shipped one is made again, and one in a file is imported if the file is the same as then; give
    the `target` of a run on a density that only Python knew, and the `parts` that were one's own. Raises `InputError`
    where the folder holds no finished run, or its target cannot be had.
    """
    directory = Path(directory)
    if target is None:
        target = _recorded_target(directory)
    return run.load(directory, target, parts)


def _recorded_target(directory: Path) -> AbstractDensity:
    saved = checkpoint.read_record(directory / CHECKPOINT)
    if not (directory / CONFIG).exists():  # saved from Python
        if saved["name"] not in SHIPPED:
            raise InputError(f"{directory} was saved from Python; give its target: boltzflow.load(dir, target)")
        return make_target(saved["name"], **saved["options"])
    record = read_record(directory)
    return reload_target(record.target, record.options, record.path, record.sha256, where=str(directory))
