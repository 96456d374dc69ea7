"""`boltzflow run`: from what was asked for to a trained flow in its folder, with a report."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from boltzflow import __version__
from boltzflow import run as runs
from boltzflow.cli.finish import conclude, measure, output, stopped
from boltzflow.cli.progress import Display, make_display
from boltzflow.cli.seeds import run_seeds
from boltzflow.config import Config, make_preset, with_changes
from boltzflow.densities.catalog import SHIPPED
from boltzflow.densities.from_file import LoadedTarget, load_target
from boltzflow.errors import InputError
from boltzflow.run import Run
from boltzflow.storage import run_folder
from boltzflow.storage.run_folder import CHECKPOINT, GivenSettings, RunRecord
from boltzflow.training import snapshots
from boltzflow.training.loop import Progress


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """What `boltzflow run` was asked for; None or an empty text is what was not given."""

    target: str
    options: Mapping[str, int | float] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    num_seeds: int = 1
    out: str | None = None
    preset: str | None = None
    config: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    overwrite: bool = False
    command: str = ""


def run(request: RunRequest) -> int:
    """Trains a flow, writes the run's folder, prints the report. Nothing is written before the input is validated."""
    given = run_folder.read_settings(Path(request.config)) if request.config else GivenSettings({})
    name = request.target or given.target
    if not name:
        raise InputError(f"say which target to run: {', '.join(SHIPPED)}, or path/to/file.py:name")
    recorded = given.options if name == given.target else {}
    loaded = load_target(name, {**recorded, **request.options})
    config = _settle(request, given, loaded)
    seed = request.seed if request.seed is not None else given.seed or 0
    directory = Path(request.out) if request.out else run_folder.free_folder(loaded.short_name)
    run_folder.claim(directory, request.overwrite)
    record = RunRecord(
        loaded.name, loaded.options, seed, config, loaded.path, loaded.sha256, request.command, __version__
    )  # fmt: skip
    if request.num_seeds > 1:
        return run_seeds(loaded, record, request.num_seeds, directory, request.overwrite)
    return train_and_report(loaded, record, directory)


def train_and_report(loaded: LoadedTarget, record: RunRecord, directory: Path, resume: bool = False) -> int:
    """Trains, from where it was interrupted if it is to `resume`, saves, measures and prints."""
    console = output()
    with run_folder.locked(directory), make_display(console) as display:
        finished = _train(loaded, record, directory, display, resume)
        report = measure(finished, directory, record, display)
    return conclude(report, directory, console)


def _settle(request: RunRequest, given: GivenSettings, loaded: LoadedTarget) -> Config:
    """The preset, changed by the file, changed by the options. What the file's loss implied goes with that loss."""
    name = given.settings.get("preset")
    if request.preset and name and request.preset != name:
        raise InputError(f"--preset {request.preset} and preset = {name!r} in {request.config} differ; give one")
    config = make_preset(request.preset or name or "default", loaded.name, loaded.target.dim)
    in_file, typed = dict(given.settings), dict(request.settings)
    old_loss = in_file.get("loss", config.loss)
    loss = typed.pop("loss", old_loss)
    if loss != old_loss:
        implied = with_changes(config, {"loss": old_loss})
        in_file = {name: value for name, value in in_file.items() if value != getattr(implied, name)} | {"loss": loss}
    return with_changes(with_changes(config, in_file), typed)


def _train(loaded: LoadedTarget, record: RunRecord, directory: Path, display: Display, resume: bool) -> Run:
    """The trained run, saved. The folder is opened when the pilot has used the energy, and compiling begins."""
    last: Progress | None = None
    is_open, keep = resume, directory / CHECKPOINT

    def on_progress(progress: Progress) -> None:
        nonlocal last, is_open
        if progress.phase in ("compile", "evaluate") and progress.message:
            display.say(progress.message)
        display.show(progress)
        if progress.phase == "pilot":
            return
        if not is_open:
            run_folder.open_folder(directory, record)
            is_open = True
        last = progress
        if progress.phase == "train":
            row = {"step": progress.step, "seconds": progress.seconds}
            measured = {"loss": progress.loss, "reverse_ess": progress.reverse_ess}
            run_folder.append_metrics(directory, row | {k: v for k, v in measured.items() if v is not None})

    try:
        finished = runs.fit(
            loaded.target, seed=record.seed, preset=record.config.preset, config=record.config, name=record.target,
            options=dict(record.options), on_progress=on_progress, keep=keep, resume=resume,
        )  # fmt: skip
    except (KeyboardInterrupt, jax.errors.JaxRuntimeError, ValueError) as error:
        raise stopped(error, directory, last) from None
    if not is_open:
        run_folder.open_folder(directory, record)
    finished.save(directory)
    run_folder.write_metrics(directory, finished.history)
    snapshots.clear(keep)
    return finished
