"""Reproducing a table or figure: trains what is missing, keeps each seed as soon as it is measured, draws."""

import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from boltzflow.config import Config
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.validation import did_you_mean
from boltzflow.report.figures import path_panels
from boltzflow.studies.paper import cells, letter
from boltzflow.studies.paper.cells import Cell
from boltzflow.studies.paper.experiments import EXPERIMENTS, Experiment, exact_row, is_current, picture_name, pictures
from boltzflow.studies.paper.results import Results
from boltzflow.training.loop import Progress


class Watcher:
    """What is told of the work: `on_progress` while a seed trains, `begin` and `end` of each seed, in words."""

    def on_progress(self, progress: Progress) -> None: ...
    def begin(self, what: str) -> None: ...
    def end(self, what: str) -> None: ...


def reproduce(
    name: str, *, folder: Path, preset: str = "default", num_seeds: int = 0, watcher: Watcher | None = None,
    changes: Mapping[str, Any] | None = None, only: Sequence[str] = (), jobs: int = 1,
) -> list[Path]:  # fmt: skip
    """The table or figure `name` of `EXPERIMENTS`, or "all" of them, into `folder`; the files that were written.

    `num_seeds` 0 takes as many seeds as the paper did (1 for a figure, and for everything in the preset "quick").
    `changes` are settings on top of those of every cell; `only` are the names of the cells to train, if not all. With
    more than one of `jobs`, as many seeds are trained at a time, each in a process of its own: sooner done, but the
    seconds of each are then no longer those of a training alone, which its row says.

    What `folder` holds already is not done again, and a training that was interrupted goes on where it stood. A seed
    whose training diverges is told and left out. Raises `InputError` for a name that there is not.
    """
    if name == "all":
        work = list(EXPERIMENTS.items())
    elif name in EXPERIMENTS:
        work = [(name, EXPERIMENTS[name])]
    else:
        raise InputError(f"there is nothing named {name!r} to reproduce; there are {', '.join(EXPERIMENTS)}, all")
    work = _with_cells(name, work, only) if only else work
    watcher = watcher or Watcher()
    wanted: dict[Cell, int] = {}
    for _, experiment in work:
        for cell in experiment.cells:
            seeds = num_seeds or (1 if preset == "quick" else experiment.num_seeds)
            wanted[cell] = max(seeds, wanted.get(cell, 0))
    written = [Results(folder, cell.table).path for cell in wanted]
    tasks = _tasks(wanted, folder, preset, changes or {})
    jobs = min(jobs, len(tasks))
    for task, outcome in _side_by_side(tasks, jobs, watcher) if jobs > 1 else _in_turn(tasks, watcher):
        written += _keep(task, outcome, folder, preset, watcher)
    for cell in wanted:
        results = Results(folder, cell.table)
        if results.find(Cell(cell.table, cell.target, "exact"), preset) is None:
            results.put(exact_row(cell.target, preset))
    for name, experiment in work:
        if experiment.draw:
            written += _drawn(name, folder, preset)
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


# --- trainings --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Task:
    """A seed to train: `keep` is where the training keeps where it stands, `pictured` whether its path is drawn."""

    cell: Cell
    config: Config
    seed: int
    keep: Path
    pictured: bool

    @property
    def what(self) -> str:
        """It in words."""
        return f"{self.cell.target} {self.cell.method} seed {self.seed}"


_INHERITED = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_x64")
"""Settings of JAX that a process takes over from the one that started it."""

Outcome = tuple[dict[str, Any], dict[str, bytes]] | TrainingError
"""Of a task: what is kept of the seed and pictures by name, or why there is nothing."""


def _tasks(wanted: Mapping[Cell, int], folder: Path, preset: str, changes: Mapping[str, Any]) -> list[_Task]:
    """The seeds that are missing, each once: two experiments may share a cell, and one of them draw its path."""
    tasks: dict[Path, _Task] = {}
    for cell, num_seeds in wanted.items():
        config = cells.config_of(cell, preset, changes)
        done = {run["seed"] for run in Results(folder, cell.table).seeds(cell, preset, config)}
        for seed in range(num_seeds):
            pictured = seed == 0 and bool(cell.figure)
            if seed not in done or (pictured and not is_current(folder, preset, cell.figure, [cell])):
                keep = _standing(folder, cell, config, seed)
                if pictured or keep not in tasks:
                    tasks[keep] = _Task(cell, config, seed, keep, pictured)
    return list(tasks.values())


def _outcome(task: _Task, on_progress: Callable[[Progress], None], jobs: int = 1) -> Outcome:
    """Trains, measures and draws."""
    try:
        run = cells.train(task.cell, task.config, task.seed, on_progress, task.keep)
    except TrainingError as error:
        return error
    result = cells.measure(run) | ({"jobs": jobs} if jobs > 1 else {})
    return result, {task.cell.figure: path_panels(run.draws)} if task.pictured else {}


def _in_turn(tasks: Sequence[_Task], watcher: Watcher) -> Iterator[tuple[_Task, Outcome]]:
    for task in tasks:
        watcher.begin(task.what)
        yield task, _outcome(task, watcher.on_progress)


def _side_by_side(tasks: Sequence[_Task], jobs: int, watcher: Watcher) -> Iterator[tuple[_Task, Outcome]]:
    """As they end. The progress of each stays in its process."""
    waiting, at_work = deque(tasks), dict[Future[Outcome], _Task]()
    fresh = multiprocessing.get_context("spawn")  # the threads of JAX do not survive a fork
    settings = {name: jax.config.values[name] for name in _INHERITED}
    with ProcessPoolExecutor(jobs, fresh, initializer=_inherit, initargs=(settings,)) as pool:
        while waiting or at_work:
            while waiting and len(at_work) < jobs:
                task = waiting.popleft()
                watcher.begin(task.what)
                at_work[pool.submit(_outcome, task, _unwatched, jobs)] = task
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                task = at_work.pop(future)
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    raise TrainingError(
                        f"{task.what}: a process that trained was killed, perhaps for want of memory; ask for one job, "
                        "and what was begun goes on where it stood"
                    ) from None


def _inherit(settings: Mapping[str, Any]) -> None:
    """Sets JAX in a fresh process as it was set in the one that started it, and lets no process outlive that one."""
    # JAX writes its cache in place: a process that reads what another is writing compiles it itself, and warns.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
    for name, value in settings.items():
        jax.config.update(name, value)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


def _unwatched(progress: Progress) -> None: ...


def _keep(task: _Task, outcome: Outcome, folder: Path, preset: str, watcher: Watcher) -> list[Path]:
    """Writes the row and the pictures of a seed; the files."""
    if isinstance(outcome, TrainingError):
        _forget(task.keep)
        watcher.end(f"{task.what}: {outcome}")
        return []
    result, drawn = outcome
    # Read anew: in the hours that a training may take another process may have added rows of its own.
    results = Results(folder, task.cell.table)
    runs = {run["seed"]: run for run in results.seeds(task.cell, preset, task.config)} | {task.seed: result}
    results.add(task.cell, preset, task.config, [runs[seed] for seed in sorted(runs)])
    written = pictures(folder, preset, drawn, [task.cell])
    _forget(task.keep)
    watcher.end(f"{task.what}: {_in_short(result)}")
    return [results.path, *written]


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
