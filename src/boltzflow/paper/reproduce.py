"""Reproducing a table or figure: trains what is missing, keeps each seed as soon as it is measured, draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, TrainingError
from ..figures import path_panels
from ..training import Progress
from . import cells, letter
from .cells import Cell
from .experiments import EXPERIMENTS, Experiment, exact_row, picture_name, pictures
from .results import Results


class Watcher:
    """What is told of the work: `on_progress` while a seed trains, `begin` and `end` of each seed, in words."""

    def on_progress(self, progress: Progress) -> None: ...
    def begin(self, what: str) -> None: ...
    def end(self, what: str) -> None: ...


def reproduce(
    name: str, *, folder: Path, preset: str = "default", num_seeds: int = 0, watcher: Watcher | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[Path]:  # fmt: skip
    """The table or figure `name` of `EXPERIMENTS`, or "all" of them, into `folder`; the files that were written.

    `num_seeds` 0 takes as many seeds as the paper did (1 for a figure, and for everything in the preset "quick").
    `changes` are settings on top of those of every cell. What `folder` holds already is not done again. A seed whose
    training diverges is told and left out. Raises `InputError` for a name that there is not.
    """
    if name == "all":
        work = list(EXPERIMENTS.items())
    elif name in EXPERIMENTS:
        work = [(name, EXPERIMENTS[name])]
    else:
        raise InputError(f"there is nothing named {name!r} to reproduce; there are {', '.join(EXPERIMENTS)}, all")
    watcher = watcher or Watcher()
    written: list[Path] = []
    for name, experiment in work:
        wanted = num_seeds or (1 if preset == "quick" else experiment.num_seeds)
        written += _one(name, experiment, folder, preset, wanted, watcher, changes or {})
    return list(dict.fromkeys([*written, *letter.picture(folder)]))


def _one(
    name: str, experiment: Experiment, folder: Path, preset: str, num_seeds: int, watcher: Watcher,
    changes: Mapping[str, Any],
) -> list[Path]:  # fmt: skip
    written = []
    for cell in experiment.cells:
        written += _fill(cell, folder, preset, num_seeds, watcher, changes)
    if experiment.draw:
        written += pictures(folder, preset, experiment.draw(Results(folder, name), preset))
    return written


def _fill(
    cell: Cell, folder: Path, preset: str, num_seeds: int, watcher: Watcher, changes: Mapping[str, Any]
) -> list[Path]:
    """Trains and measures the seeds of a cell that are missing."""
    results, config = Results(folder, cell.table), cells.config_of(cell, preset, changes)
    done = {run["seed"]: run for run in results.seeds(cell, preset, config)}
    written = [results.path]
    for seed in range(num_seeds):
        wants_picture = bool(cell.figure) and seed == 0 and not (folder / picture_name(cell.figure, preset)).exists()
        if seed in done and not wants_picture:
            continue
        what = f"{cell.target} {cell.method} seed {seed}"
        watcher.begin(what)
        try:
            run = cells.train(cell, config, seed, watcher.on_progress)
        except TrainingError as error:
            watcher.end(f"{what}: {error}")
            continue
        done[seed] = cells.measure(run)
        if wants_picture:
            written += pictures(folder, preset, {cell.figure: path_panels(run)})
        results.add(cell, preset, config, [done[number] for number in sorted(done)])
        watcher.end(f"{what}: {_in_short(done[seed])}")
    exact = Cell(cell.table, cell.target, "exact")
    if results.find(exact, preset) is None:
        results.put(exact_row(cell.target, preset))
    return written


def _in_short(result: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in result["metrics"].items())
    return f"{result['train_seconds']:.0f} s, {result['steps']} steps, {numbers}"


def names() -> tuple[str, ...]:
    """What can be reproduced."""
    return (*EXPERIMENTS, "all")
