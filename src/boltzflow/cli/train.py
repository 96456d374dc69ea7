"""The commands `run` and `resume`: from a command line to trained flows in their folders, with reports.

The folder of one run is DIR itself; of several seeds, trained one after another, each has a folder DIR/seed-N.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import boltzflow
import boltzflow.run
from boltzflow.cli.finish import (
    ClosedOutput,
    conclude,
    conclude_seeds,
    measure,
    output,
    program_failure,
    say,
    standing,
)
from boltzflow.cli.recorded import configured_target, given_folder, put_back, recorded_target
from boltzflow.config import Config, make_preset, with_changes
from boltzflow.densities.catalog import SHIPPED
from boltzflow.densities.from_file import LoadedTarget, load_target
from boltzflow.errors import InputError, SeedsError, TrainingError
from boltzflow.numerics.validation import whole_number
from boltzflow.report import stored
from boltzflow.report.progress import Display, make_display
from boltzflow.report.report import Report
from boltzflow.run import Run
from boltzflow.storage import files, replacing, run_folder
from boltzflow.storage.run_folder import CHECKPOINT, REPORT_HTML, GivenSettings, RunRecord, check_seed
from boltzflow.training import checkpoint, snapshots
from boltzflow.training.loop import Progress

_MAX_SEEDS = 100


def run(
    target: str | None,
    seed: int | None,
    seeds: int,
    out: str | None,
    preset: str | None,
    config: str | None,
    overwrite: bool,
    options: Mapping[str, int | float],
    settings: Mapping[str, Any],
    command: str,
) -> int:
    """Train a flow, or one for each seed, and report; the file `config` gives what the command line leaves out."""
    if seed is not None:
        check_seed(seed)
    whole_number("seeds", seeds, at_least=1, at_most=_MAX_SEEDS)
    given = run_folder.read_settings(Path(config)) if config else GivenSettings({})
    loaded = _target(target, options, given, config)
    in_file = given.settings.get("preset")
    if preset and in_file and preset != in_file:
        raise InputError(f"--preset {preset} and preset = {in_file!r} in {config} differ; give one")
    start = make_preset(preset or in_file or "default", loaded.name, loaded.target.dim)
    record = RunRecord(
        target=loaded.name,
        options=loaded.options,
        seed=seed if seed is not None else given.seed or 0,
        config=_merged(start, given.settings, settings),
        path=loaded.path,
        sha256=loaded.sha256,
        command=command,
        version=boltzflow.__version__,
    )
    directory = Path(out) if out else run_folder.free_folder(loaded.short_name)
    records = {directory: record}
    if seeds > 1:
        check_seed(record.seed + seeds - 1)
        several = [dataclasses.replace(record, seed=record.seed + i) for i in range(seeds)]
        records = {run_folder.seed_folder(directory, each.seed): each for each in several}
    put_back(directory)
    for folder in dict.fromkeys([directory, *records]):
        run_folder.claim(folder, overwrite)
    return _do(_Work(loaded, directory, records))


def _target(
    name: str | None, options: Mapping[str, int | float], given: GivenSettings, config: str | None
) -> LoadedTarget:
    """The target of the command line, or else of the file `config`, whose options hold for the same target."""
    if not (name or given.target):
        raise InputError(f"say which target to run: {', '.join(SHIPPED)}, or path/to/file.py:name")
    if name and name not in (given.target, f"{given.path}:{given.target.rpartition(':')[2]}"):
        return load_target(name, options)
    together = {**given.options, **options}
    if name or not config:
        return load_target(name or given.target, together)
    return configured_target(dataclasses.replace(given, options=together), Path(config))


def _merged(start: Config, in_file: Mapping[str, Any], given: Mapping[str, Any]) -> Config:
    """A preset, changed by the file, changed by the options. Values implied by a loss in the file go with that loss."""
    in_file = dict(in_file)
    given = dict(given)
    old_loss = in_file.get("loss", start.loss)
    loss = given.pop("loss", old_loss)
    if loss != old_loss:
        implied = with_changes(start, {"loss": old_loss})
        in_file = {name: value for name, value in in_file.items() if value != getattr(implied, name)} | {"loss": loss}
    return with_changes(with_changes(start, in_file), given)


def resume(directory: str | None, target: str | None) -> int:
    """Finish an interrupted run, or several seeds, with the numbers of an undisturbed run, bit for bit."""
    folder = given_folder(directory)
    seeds = run_folder.seed_folders(folder)
    records = {each: run_folder.read_record(each) for each in seeds or [folder]}
    for each in filter(_is_trained, records):
        stored.check_files(each)
    if all(_is_trained(each) and stored.has_report(each) for each in records):
        say(f"{folder} is finished; nothing to resume.")
        if not seeds:
            return standing(folder)
        return conclude_seeds({records[each].seed: stored.read_report(each) for each in seeds}, {}, folder)
    files.check_writable(folder)
    loaded = recorded_target(folder, next(iter(records.values())), target)
    if target:  # now the record of what is still to be trained
        for each in [each for each in records if not _is_trained(each)]:
            records[each] = dataclasses.replace(
                records[each],
                target=loaded.name,
                options=loaded.options,
                path=loaded.path,
                sha256=loaded.sha256,
            )
    return _do(_Work(loaded, folder, records, is_open=True))


def _is_trained(folder: Path) -> bool:
    return (folder / CHECKPOINT / checkpoint.FILE).exists()


@dataclasses.dataclass
class _Work:
    """The runs of one target, by folder, and how far the work on them is."""

    loaded: LoadedTarget
    directory: Path
    records: Mapping[Path, RunRecord]  # of one run in `directory`, or of seeds below it
    is_open: bool = False  # the folders exist, and what they hold belongs to these runs
    stage: str = "before the first step"  # for the sentence of an interruption, as in "at step 3 of 10"
    left: str = "nothing was written"  # for the same sentence, where the folders are not open
    begun: set[Path] = dataclasses.field(default_factory=set)  # the folders of which this process has trained the run


def _do(work: _Work) -> int:
    """Do the work and print the report; return the exit status."""
    with files.locked(work.directory), _how_to_go_on(work), _earlier_run_kept(work):
        if work.directory not in work.records:
            return _do_seeds(work)
        with make_display(output()) as display:
            report = _report(work, work.directory, display)
    return conclude(report, work.directory)


def _do_seeds(work: _Work) -> int:
    """Do one seed after another, then compare them; raises `SeedsError` at the end if a seed diverged."""
    reports: dict[int, Report] = {}
    failures: dict[int, TrainingError] = {}
    for number, (folder, record) in enumerate(work.records.items(), start=1):
        seed = record.seed
        say(f"seed {seed} ({number} of {len(work.records)})", "bold")
        try:
            with files.locked(folder), make_display(output()) as display:
                reports[seed] = _report(work, folder, display)
            word = "trusted" if reports[seed].verdict.trustworthy else "not trusted"
            say(f"seed {seed} is {word}: {folder / REPORT_HTML}")
        except TrainingError as failure:
            failures[seed] = failure
            say(f"seed {seed} failed: {failure}", "red")
    texts = {seed: str(failure) for seed, failure in failures.items()}
    status = conclude_seeds(reports, texts, work.directory) if reports else 0
    if failures:
        raise SeedsError(failures, list(reports))
    return status


def _report(work: _Work, folder: Path, display: Display) -> Report:
    """The report of one run, after the steps that the run still lacks: training, saving, measuring."""
    work.stage = "before the first step"
    if not (work.is_open and _is_trained(folder)):
        finished = _train(work, folder, display)
    elif stored.has_report(folder):
        return stored.read_report(folder)
    elif work.loaded.path:
        finished = boltzflow.run.load(folder, work.loaded.target)
    else:
        finished = boltzflow.run.load(folder)
    work.stage = "while measuring"
    return measure(finished, folder, display)


def _train(work: _Work, folder: Path, display: Display) -> Run:
    """The trained run, saved. The folders are opened after the pilot, which has shown that the energy is usable."""
    record = work.records[folder]

    def on_progress(progress: Progress) -> None:
        if progress.phase in ("compile", "evaluate") and progress.message:
            display.say(progress.message)
        if progress.phase != "pilot":
            _begin(work, folder, progress.step)
        if progress.phase == "train":
            if snapshots.has_state(folder / CHECKPOINT):
                replacing.discard(work.directory)
            work.stage = f"at step {progress.step} of {progress.num_steps}"
            row = {name: getattr(progress, name) for name in ("step", "seconds", "loss", "reverse_ess")}
            try:
                run_folder.append_metrics(folder, row)
            except OSError as error:  # a full disk does not end a training; the file is written anew after it
                trouble = f"the metrics cannot be kept: {error.strerror}"
                message = "; ".join(filter(None, [progress.message, trouble]))
                progress = dataclasses.replace(progress, message=message)
        display.show(progress)

    finished = boltzflow.run.fit(
        work.loaded.target,
        seed=record.seed,
        preset=record.config.preset,
        config=record.config,
        name=record.target,
        options=dict(record.options),
        progress=False,
        on_progress=on_progress,
        keep=folder / CHECKPOINT,
        resume=work.is_open,
    )
    _begin(work, folder, 0)
    run_folder.write_metrics(folder, finished.history)
    finished.save(folder)
    replacing.discard(work.directory)
    snapshots.clear(folder / CHECKPOINT)
    return finished


def _begin(work: _Work, folder: Path, step: int) -> None:
    """Make the folders of all runs, each with its config.toml; of a resumed run bring both files to its `step`.

    An earlier run is set aside until this one has its first snapshot.
    """
    if folder in work.begun:
        return
    work.begun.add(folder)
    if work.is_open:
        run_folder.write_record(folder, work.records[folder])
        run_folder.cut_metrics(folder, step)
        return
    replacing.set_aside(work.directory)
    if work.directory in work.records:
        run_folder.open_folder(work.directory, work.records[work.directory])
    else:
        run_folder.open_seed_folders(work.directory, work.records.values())
    work.is_open = True


@contextlib.contextmanager
def _earlier_run_kept(work: _Work) -> Iterator[None]:
    """Put the earlier run back into its place where this one ends before its first snapshot."""
    try:
        yield
    except BaseException:
        if replacing.is_aside(work.directory):
            replacing.put_back(work.directory)
            work.is_open = False
            work.left = "the earlier run is back in its place"
        raise


@contextlib.contextmanager
def _how_to_go_on(work: _Work) -> Iterator[None]:
    """Add the stage of the work and the next command to whatever ends it: an interruption, the energy, a full disk."""
    go_on = f"go on with: boltzflow resume {work.directory}"
    try:
        yield
    except KeyboardInterrupt:
        raise _interruption(work, go_on) from None
    except BrokenPipeError:
        if not work.is_open:
            raise
        raise ClosedOutput(f"standard output was closed {work.stage}; {go_on}") from None
    except (jax.errors.JaxRuntimeError, ValueError, MemoryError, OSError) as error:
        try:
            failure = str(error) if isinstance(error, OSError) else program_failure(error)
        except KeyboardInterrupt:
            raise _interruption(work, go_on) from None
        if failure is None or not work.is_open:
            raise
        raise TrainingError(f"{failure} ({work.stage}; when this is mended, {go_on})") from None


def _interruption(work: _Work, go_on: str) -> KeyboardInterrupt:
    return KeyboardInterrupt(f"interrupted {work.stage}; {go_on if work.is_open else work.left}")
