"""The end of a run: its report in its folder and on the console, and the exit status."""

import sys
from collections.abc import Mapping
from pathlib import Path

import jax
from rich.console import Console
from rich.text import Text

import boltzflow
from boltzflow.errors import InputError
from boltzflow.report import stored
from boltzflow.report.console import render_console, render_seeds
from boltzflow.report.html import html_page
from boltzflow.report.progress import Display
from boltzflow.report.report import Report
from boltzflow.report.seeds import compare_seeds
from boltzflow.run import Run
from boltzflow.storage import run_folder
from boltzflow.storage.run_folder import REPORT_HTML, REPORT_JSON, SEEDS_JSON, RunRecord

DONE = 0
DISTRUSTED = 3
_PLAIN_WIDTH = 120  # columns of a pipe or file
_OUT_OF_MEMORY = "out of memory: lower --batch-size, --points-per-step or --num-eval-samples"


class ClosedOutput(Exception):
    """Standard output was closed while a run was under way; the message says how to go on."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise the `BrokenPipeError` itself; Rich would end the process, and the state of training would be lost."""
        raise


def output() -> Console:
    """Standard output: a terminal at its own width, a pipe or file with 120 columns.

    Text is printed as it is: brackets and colons in a label or a path are no markup.
    """
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return _Output(width=None if is_terminal else _PLAIN_WIDTH, markup=False, emoji=False)


def say(sentence: str, style: str = "") -> None:
    """Print a line, which only the terminal breaks."""
    output().print(Text(sentence, style), soft_wrap=True)


def measure(run: Run, folder: Path, display: Display) -> Report:
    """The report of a run that is saved, written to its folder as report.html and, last, report.json."""
    display.phase("evaluate")
    report = run.report(again=True, progress=False, on_progress=display.show)
    identity = stored.state_identity(folder)
    if (folder / run_folder.CONFIG).exists():
        record = run_folder.read_record(folder)
    else:  # saved from Python
        version = boltzflow.__version__
        record = RunRecord(run.name, run.options, run.seed, run.config, version=version, run=identity)
    page = html_page(report, run.figures(), record.command, run_folder.record_to_toml(record), identity)
    stored.write_report(folder, report, page, identity)
    return report


def conclude(report: Report, folder: Path) -> int:
    """Print the report and its place; return the exit status."""
    console = output()
    console.print()
    render_console(report, console)
    say(f"report: {folder / REPORT_HTML}")
    say(f"samples: boltzflow sample {folder} --num-samples 10000 --out samples.npz")
    return DONE if report.verdict.trustworthy else DISTRUSTED


def conclude_seeds(reports: Mapping[int, Report], failures: Mapping[int, str], folder: Path) -> int:
    """Compare the seeds, write seeds.json, print the table of all seeds; return the exit status."""
    together = compare_seeds(reports, failures)
    stored.write_seeds(folder, together, boltzflow.__version__)
    console = output()
    console.print()
    render_seeds(together, console)
    say(f"reports: {folder / 'seed-N' / REPORT_HTML}; all in one: {folder / SEEDS_JSON}")
    return DONE if together.trustworthy else DISTRUSTED


def standing(folder: Path, run: Run | None = None) -> int:
    """The exit status of samples and averages from a finished run, which are no better than its report.

    `stored.check_one_run` has shown that the report is of this run. A `run` on a target of other energies measures it.
    """
    doubt = _doubt(folder, run)
    if doubt:
        say(doubt, "red")
    return DISTRUSTED if doubt else DONE


def _doubt(folder: Path, run: Run | None) -> str:
    if not (folder / REPORT_JSON).exists():
        return f"This run has no report yet; run `boltzflow report {folder}`."
    verdict = (run.report() if run else stored.read_report(folder)).verdict
    if not verdict.trustworthy:
        return f"The report distrusts this run: {' '.join(verdict.warnings)}"
    if around := run_folder.seeds_around(folder):
        warnings = stored.read_seeds_warnings(around)
        return f"The report of all seeds distrusts them: {' '.join(warnings)}" if warnings else ""
    return ""


def program_failure(error: BaseException) -> str | None:
    """The sentence for an error of a compiled program: the energy's own, or too little memory. None for other errors.

    JAX raises such an error as a `JaxRuntimeError`, or, from a program that has run before, as a plain `ValueError`. An
    interruption in a callback, which is such an error too, is raised as `KeyboardInterrupt` again.
    """
    text = str(error)
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY
    if isinstance(error, InputError) or not (isinstance(error, jax.errors.JaxRuntimeError) or "INTERNAL:" in text):
        return None
    if "KeyboardInterrupt" in text:
        raise KeyboardInterrupt
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return _OUT_OF_MEMORY
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = next((line.split("InputError: ", 1)[1] for line in reversed(lines) if "InputError: " in line), "")
    return own or (lines[0] if lines else "the compiled program failed")
