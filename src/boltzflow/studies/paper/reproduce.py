"""Reproducing a table or figure: trains missing seeds, stores each seed when it is measured, draws."""

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from boltzflow.config import Config
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.validation import did_you_mean
from boltzflow.report.figures import path_panels
from boltzflow.studies.paper import cells, experiments, results
from boltzflow.studies.paper.cells import Cell
from boltzflow.studies.paper.experiments import EXPERIMENTS, Experiment, path_figure, picture
from boltzflow.studies.paper.page import draw_paper_preset
from boltzflow.training.loop import Progress


class Watcher:
    """Callbacks: `begin` and `end` of each seed with a description, `on_progress` during its training."""

    def on_progress(self, progress: Progress) -> None: ...
    def begin(self, what: str) -> None: ...
    def end(self, what: str) -> None: ...


def names() -> tuple[str, ...]:
    """The names that `reproduce` accepts."""
    return (*EXPERIMENTS, "all")


def reproduce(
    name: str,
    *,
    folder: Path,
    preset: str = "default",
    num_seeds: int = 0,  # of each cell; 0: as many as in the paper, 1 in the preset "quick"
    watcher: Watcher | None = None,
    changes: Mapping[str, Any] | None = None,  # settings on top of those of every cell
    only: Sequence[str] = (),  # names of the cells to train; () for all
    jobs: int = 1,  # seeds trained at a time, each in its own process; a row of more than one records the number
) -> list[Path]:
    """Trains the seeds of a table or figure that are not stored, draws its pictures, and returns the written files.

    An interrupted training resumes. A seed whose training diverges is reported to the watcher and left out. Pictures
    of other experiments are drawn again when their rows change.
    """
    if name not in names():
        raise InputError(f"there is nothing named {name!r} to reproduce; there are {', '.join(EXPERIMENTS)}, all")
    work = dict(EXPERIMENTS) if name == "all" else {name: EXPERIMENTS[name]}
    if only:
        work = _with_cells(name, work, only)
    watcher = watcher or Watcher()
    wanted: dict[Cell, int] = {}
    for experiment in work.values():
        for cell in experiment.cells:
            count = num_seeds or (1 if preset == "quick" else experiment.num_seeds)
            wanted[cell] = max(count, wanted.get(cell, 0))
    written = [results.results(folder, cell.table).path for cell in wanted]
    tasks = _tasks(wanted, folder, preset, changes or {})
    jobs = min(jobs, len(tasks))
    changed: set[Cell] = set()
    for task, outcome in _side_by_side(tasks, jobs, watcher) if jobs > 1 else _in_turn(tasks, watcher):
        files = _keep(task, outcome, folder, preset, watcher)
        if files:
            changed.add(task.cell)
        written += files
    for cell in wanted:
        if results.find(folder, Cell(cell.table, cell.target, "exact"), preset) is None:
            results.put_exact(folder, cell.table, cell.target, preset)
    for figure, experiment in EXPERIMENTS.items():
        is_outdated = picture(folder, figure, preset).exists() and not changed.isdisjoint(experiment.cells)
        if figure in work or is_outdated:
            written += experiments.draw_from_rows(folder, figure, preset)
    return list(dict.fromkeys([*written, *draw_paper_preset(folder, changed)]))


def _with_cells(name: str, work: Mapping[str, Experiment], only: Sequence[str]) -> dict[str, Experiment]:
    """The experiments with one of the named cells, without their other cells."""
    there = dict.fromkeys(cell.name for experiment in work.values() for cell in experiment.cells)
    for wanted in only:
        if wanted not in there:
            has = f"it has {', '.join(there)}" if there else "it trains nothing"
            raise InputError(f"{name} has no cell {wanted!r}{did_you_mean(wanted, there)}; {has}")
    kept = {title: [cell for cell in experiment.cells if cell.name in only] for title, experiment in work.items()}
    return {title: dataclasses.replace(work[title], cells=chosen) for title, chosen in kept.items() if chosen}


@dataclasses.dataclass(frozen=True)
class _Task:
    """A seed to train."""

    cell: Cell
    config: Config
    seed: int
    keep: Path  # the folder of its snapshots
    figure: str  # of its path, "" where none is drawn

    @property
    def what(self) -> str:
        """The seed in words."""
        return f"{self.cell.target} {self.cell.method} seed {self.seed}"


# The record of a seed and the PNG of its path (empty where none is drawn), or the failure.
Outcome = tuple[dict[str, Any], bytes] | TrainingError
# The settings of JAX that a process takes over from its parent.
_INHERITED = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_x64")


def _tasks(wanted: Mapping[Cell, int], folder: Path, preset: str, changes: Mapping[str, Any]) -> list[_Task]:
    """The seeds that are not stored, and the first seeds whose picture is missing."""
    tasks = []
    for cell, num_seeds in wanted.items():
        config = cells.config_of(cell, preset, changes)
        settings = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
        done = {run["seed"] for run in results.seeds(folder, cell, preset, config)}
        for seed in range(num_seeds):
            figure = path_figure(cell) if seed == 0 else ""
            if seed not in done or (figure and not picture(folder, figure, preset).exists()):
                keep = folder / "training" / f"{cell.table}-{cell.target}-{cell.method}-seed-{seed}-{settings}"
                tasks.append(_Task(cell, config, seed, keep, figure))
    return tasks


def _outcome(task: _Task, on_progress: Callable[[Progress], None], jobs: int = 1) -> Outcome:
    try:
        run = cells.train(task.cell, task.config, task.seed, on_progress, task.keep)
    except TrainingError as error:
        return error
    result = cells.measure(run) | ({"jobs": jobs} if jobs > 1 else {})
    return result, path_panels(run.draws).png() if task.figure else b""


def _in_turn(tasks: Sequence[_Task], watcher: Watcher) -> Iterator[tuple[_Task, Outcome]]:
    for task in tasks:
        watcher.begin(task.what)
        yield task, _outcome(task, watcher.on_progress)


def _side_by_side(tasks: Sequence[_Task], jobs: int, watcher: Watcher) -> Iterator[tuple[_Task, Outcome]]:
    """Tasks in the order in which they end, without their progress."""
    running: dict[Future[Outcome], _Task] = {}
    fresh = multiprocessing.get_context("spawn")  # the threads of JAX do not survive a fork
    settings = {name: jax.config.values[name] for name in _INHERITED}
    with ProcessPoolExecutor(jobs, fresh, initializer=_inherit, initargs=(settings,)) as pool:
        try:
            for task in tasks:
                if len(running) == jobs:
                    yield _first_ended(running)
                watcher.begin(task.what)
                with _deaf_children():
                    running[pool.submit(_outcome, task, Watcher().on_progress, jobs)] = task
            while running:
                yield _first_ended(running)
        except BaseException:  # an interruption: the trainings have their snapshots
            for child in multiprocessing.active_children():
                child.terminate()
            raise


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started here ignore Ctrl-C, which the terminal sends to all: the parent ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _first_ended(running: dict[Future[Outcome], _Task]) -> tuple[_Task, Outcome]:
    """Waits for a task to end, and removes it."""
    future = next(as_completed(running))
    task = running.pop(future)
    try:
        return task, future.result()
    except BrokenProcessPool:
        raise TrainingError(
            f"{task.what}: a training process was killed, perhaps for lack of memory; run the command again with one "
            "job, and interrupted trainings resume"
        ) from None


def _inherit(settings: Mapping[str, Any]) -> None:
    """Sets JAX in a new process as in its parent, and ends the process with its parent."""
    # JAX writes its cache in place: a process that reads an unfinished entry compiles the program itself, and warns.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
    for name, value in settings.items():
        jax.config.update(name, value)
    parent = multiprocessing.parent_process()
    assert parent

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _keep(task: _Task, outcome: Outcome, folder: Path, preset: str, watcher: Watcher) -> list[Path]:
    """Writes the row and the picture of a seed. Returns the files, [] after a failed training."""
    files = []
    if isinstance(outcome, TrainingError):
        said = f"{outcome}"
    else:
        result, png = outcome
        # The file is read again here: another process may have added rows during the training.
        files.append(results.keep(folder, task.cell, preset, task.config, result))
        if png:
            files.append(experiments.write_picture(folder, task.figure, preset, png))
        numbers = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in result["metrics"].items()]
        said = ", ".join([f"{result['train_seconds']:.0f} s", f"{result['steps']} steps", *numbers])
    shutil.rmtree(task.keep, ignore_errors=True)
    with contextlib.suppress(OSError):  # other trainings keep theirs there
        task.keep.parent.rmdir()
    watcher.end(f"{task.what}: {said}")
    return files
