"""Reproducing a table or figure: trains what is missing, keeps each seed as soon as it is measured, draws."""

import dataclasses
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..arguments import did_you_mean
from ..errors import InputError, TrainingError
from ..figures import path_panels
from ..presets import Config
from ..training import Progress
from . import cells, letter
from .cells import Cell
from .experiments import EXPERIMENTS, Experiment, exact_row, is_current, picture_name, pictures
from .results import Results


class Watcher:
    """What is told of the work: `on_progress` while a seed trains, `begin` and `end` of each seed, in words."""

    def on_progress(self, progress: Progress) -> None: ...
    def begin(self, what: str) -> None: ...
    def end(self, what: str) -> None: ...


def reproduce(
    name: str, *, folder: Path, preset: str = "default", num_seeds: int = 0, watcher: Watcher | None = None,
    changes: Mapping[str, Any] | None = None, only: Sequence[str] = (),
) -> list[Path]:  # fmt: skip
    """The table or figure `name` of `EXPERIMENTS`, or "all" of them, into `folder`; the files that were written.

    `num_seeds` 0 takes as many seeds as the paper did (1 for a figure, and for everything in the preset "quick").
    `changes` are settings on top of those of every cell; `only` are the names of the cells to train, if not all. What
    `folder` holds already is not done again, and a training that was interrupted goes on where it stood. A seed whose
    training diverges is told and left out. Raises `InputError` for a name that there is not.
    """
    if name == "all":
        work = list(EXPERIMENTS.items())
    elif name in EXPERIMENTS:
        work = [(name, EXPERIMENTS[name])]
    else:
        raise InputError(f"there is nothing named {name!r} to reproduce; there are {', '.join(EXPERIMENTS)}, all")
    work = _with_cells(name, work, only) if only else work
    watcher = watcher or Watcher()
    written: list[Path] = []
    for name, experiment in work:
        wanted = num_seeds or (1 if preset == "quick" else experiment.num_seeds)
        written += _one(name, experiment, folder, preset, wanted, watcher, changes or {})
    return list(dict.fromkeys([*written, *_redrawn(folder, preset), *letter.picture(folder)]))


def _with_cells(
    name: str, work: Sequence[tuple[str, Experiment]], only: Sequence[str]
) -> list[tuple[str, Experiment]]:  # fmt: skip
    """Those experiments that have one of the cells named, with no others."""
    there = dict.fromkeys(cell.name for _, experiment in work for cell in experiment.cells)
    for wanted in only:
        if wanted not in there:
            has = f"it has {', '.join(there)}" if there else "it trains nothing"
            raise InputError(f"{name} has no cell {wanted!r}{did_you_mean(wanted, there)}; {has}")
    chosen = []
    for title, experiment in work:
        kept = [cell for cell in experiment.cells if cell.name in only]
        if kept:
            chosen.append((title, dataclasses.replace(experiment, cells=kept)))
    return chosen


def _one(
    name: str, experiment: Experiment, folder: Path, preset: str, num_seeds: int, watcher: Watcher,
    changes: Mapping[str, Any],
) -> list[Path]:  # fmt: skip
    written = []
    for cell in experiment.cells:
        written += _fill(cell, folder, preset, num_seeds, watcher, changes)
    if experiment.draw:
        written += _drawn(name, folder, preset)
    return written


def _drawn(name: str, folder: Path, preset: str) -> list[Path]:
    experiment = EXPERIMENTS[name]
    assert experiment.draw
    return pictures(folder, preset, experiment.draw(Results(folder, name), preset), experiment.cells)


def _redrawn(folder: Path, preset: str) -> list[Path]:
    """Those pictures again whose rows another table has replaced."""
    written = []
    for name, experiment in EXPERIMENTS.items():
        there = (folder / picture_name(name, preset)).exists()
        if there and experiment.draw and not is_current(folder, preset, name, experiment.cells):
            written += _drawn(name, folder, preset)
    return written


def _fill(
    cell: Cell, folder: Path, preset: str, num_seeds: int, watcher: Watcher, changes: Mapping[str, Any]
) -> list[Path]:
    """Trains and measures the seeds of a cell that are missing."""
    results, config = Results(folder, cell.table), cells.config_of(cell, preset, changes)
    done = {run["seed"]: run for run in results.seeds(cell, preset, config)}
    written = [results.path]
    for seed in range(num_seeds):
        pictured = seed == 0 and bool(cell.figure)
        if seed in done and not (pictured and not is_current(folder, preset, cell.figure, [cell])):
            continue
        what, keep = f"{cell.target} {cell.method} seed {seed}", _standing(folder, cell, config, seed)
        watcher.begin(what)
        try:
            run = cells.train(cell, config, seed, watcher.on_progress, keep)
        except TrainingError as error:
            _forget(keep)
            watcher.end(f"{what}: {error}")
            continue
        done[seed] = cells.measure(run)
        # Read anew: in the hours that a training may take another process may have added rows of its own.
        results = Results(folder, cell.table)
        results.add(cell, preset, config, [done[number] for number in sorted(done)])
        if pictured:
            written += pictures(folder, preset, {cell.figure: path_panels(run)}, [cell])
        _forget(keep)
        watcher.end(f"{what}: {_in_short(done[seed])}")
    exact = Cell(cell.table, cell.target, "exact")
    if results.find(exact, preset) is None:
        results.put(exact_row(cell.target, preset))
    return written


def _standing(folder: Path, cell: Cell, config: Config, seed: int) -> Path:
    """Where a training keeps where it stands: a folder of its own for each cell, seed and settings."""
    settings = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
    return folder / "training" / f"{cell.table}-{cell.target}-{cell.method}-seed-{seed}-{settings}"


def _forget(keep: Path) -> None:
    shutil.rmtree(keep, ignore_errors=True)
    if keep.parent.exists() and not any(keep.parent.iterdir()):
        keep.parent.rmdir()


def _in_short(result: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in result["metrics"].items())
    return f"{result['train_seconds']:.0f} s, {result['steps']} steps, {numbers}"


def names() -> tuple[str, ...]:
    """What can be reproduced."""
    return (*EXPERIMENTS, "all")
