"""`boltzflow run --seeds K`: several seeds of one target at once, each in a folder of its own, and a table of all."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
from rich.console import Console
from rich.text import Text

from boltzflow import __version__
from boltzflow import run as runs
from boltzflow.cli.finish import DISTRUSTED, DONE, measure, output, stopped
from boltzflow.cli.progress import Display, make_display
from boltzflow.densities.from_file import LoadedTarget
from boltzflow.errors import SeedsError
from boltzflow.numerics.validation import whole_number
from boltzflow.report.report import Report
from boltzflow.report.seeds import compare_seeds, render_seeds
from boltzflow.run import Run
from boltzflow.storage import run_folder
from boltzflow.storage.files import write_text
from boltzflow.storage.run_folder import CHECKPOINT, REPORT_HTML, SEEDS_JSON, RunRecord, check_seed, seed_folder
from boltzflow.training import snapshots
from boltzflow.training.loop import Progress

_MAX_SEEDS = 100  # each holds its pilot's points in memory


def check_num_seeds(number: int) -> int:
    """`number` as it is; raises `InputError` where it is no number of seeds."""
    return whole_number("seeds", number, at_least=1, at_most=_MAX_SEEDS)


def run_seeds(loaded: LoadedTarget, first: RunRecord, num_seeds: int, directory: Path, overwrite: bool) -> int:
    """Claims a folder for each of the `num_seeds` seeds from that of `first` on, and trains them."""
    seeds = range(first.seed, first.seed + num_seeds)
    check_seed(seeds[-1])
    for seed in seeds:
        run_folder.claim(seed_folder(directory, seed), overwrite)
    return train_and_report_seeds(loaded, {seed: dataclasses.replace(first, seed=seed) for seed in seeds}, directory)


def train_and_report_seeds(
    loaded: LoadedTarget, records: Mapping[int, RunRecord], directory: Path, resume: bool = False
) -> int:
    """Trains the seeds side by side; each is saved, measured and reported as a run by itself.

    Raises `SeedsError`, after all this, where some diverged.
    """
    console = output()
    with run_folder.locked(directory), make_display(console) as display:
        finished, error = _train(loaded, records, directory, display, resume)
        reports = {}
        while finished:  # and let go of: each keeps its samples
            run = finished.pop(0)
            reports[run.seed] = _measure(run, directory, records[run.seed], display)
    failures = {seed: str(failure) for seed, failure in error.failures.items()} if error else {}
    status = conclude_seeds(reports, failures, directory, console) if reports else DISTRUSTED
    if error:
        raise error
    return status


def conclude_seeds(
    reports: Mapping[int, Report], failures: Mapping[int, str], directory: Path, console: Console
) -> int:
    """Compares the seeds, writes and prints what follows, and returns the exit status."""
    together = compare_seeds(reports, failures)
    write_text(directory / SEEDS_JSON, together.to_json(__version__))
    console.print()
    render_seeds(together, console)
    console.print(
        Text(f"reports: {directory / 'seed-N' / REPORT_HTML}; all in one: {directory / SEEDS_JSON}"), soft_wrap=True
    )
    return DONE if together.trustworthy else DISTRUSTED


def _train(
    loaded: LoadedTarget, records: Mapping[int, RunRecord], directory: Path, display: Display, resume: bool
) -> tuple[list[Run], SeedsError | None]:
    """The trained runs, saved, and what became of the others. The folders are opened when compiling begins."""
    last: Progress | None = None
    is_open, keep = resume, directory / CHECKPOINT
    record = next(iter(records.values()))

    def on_progress(progress: Progress) -> None:
        nonlocal last, is_open
        if progress.phase in ("compile", "evaluate") and progress.message:
            display.say(progress.message)
        display.show(progress)
        if progress.phase == "pilot":
            return
        if not is_open:
            run_folder.open_seed_folders(directory, records.values())
            is_open = True
        last = progress
        for seed, row in progress.rows.items():
            run_folder.append_metrics(seed_folder(directory, seed), row)

    error = None
    try:
        finished = runs.fit_seeds(
            loaded.target, seeds=list(records), preset=record.config.preset, config=record.config, name=record.target,
            options=dict(record.options), on_progress=on_progress, keep=keep, resume=resume,
        )  # fmt: skip
    except SeedsError as some:
        finished, error = some.runs, some
    except (KeyboardInterrupt, jax.errors.JaxRuntimeError, ValueError) as error:
        raise stopped(error, directory, last) from None
    if not is_open:
        run_folder.open_seed_folders(directory, records.values())
    for run in finished:
        run.save(seed_folder(directory, run.seed))
        run_folder.write_metrics(seed_folder(directory, run.seed), run.history)
    snapshots.clear(keep)
    return finished, error


def _measure(run: Run, directory: Path, record: RunRecord, display: Display) -> Report:
    try:
        return measure(run, seed_folder(directory, run.seed), record, display)
    except KeyboardInterrupt:
        sentence = (
            f"interrupted; the flows are trained and saved, and `boltzflow report {directory}/seed-N` measures each"
        )
        raise KeyboardInterrupt(sentence) from None
