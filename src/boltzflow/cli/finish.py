"""The end of a run: its report on the console and in its folder, and what exit status it deserves."""

import sys
from pathlib import Path

import jax
from rich.console import Console
from rich.text import Text

from boltzflow.cli.progress import Display
from boltzflow.errors import InputError, TrainingError
from boltzflow.report.formatting import render_console
from boltzflow.report.html import html_page
from boltzflow.report.report import Report
from boltzflow.report.seeds import seeds_warnings
from boltzflow.run import Run
from boltzflow.storage import run_folder
from boltzflow.storage.files import write_text
from boltzflow.storage.run_folder import REPORT_HTML, REPORT_JSON, SEEDS_JSON, RunRecord, is_seed_folder
from boltzflow.training.loop import Progress

DONE, DISTRUSTED = 0, 3
_PLAIN_WIDTH = 120  # of what is not a terminal


def output() -> Console:
    """Standard output: a terminal as wide as it is, a pipe or file of 120 columns."""
    return Console() if sys.stdout.isatty() else Console(width=_PLAIN_WIDTH)


def measure(finished: Run, directory: Path, record: RunRecord, display: Display) -> Report:
    """The report of a run that is saved, written to its folder."""
    display.phase("evaluate")
    try:
        report = finished.report()
        write_text(directory / REPORT_JSON, report.to_json())
        text = run_folder.record_to_toml(record)
        write_text(directory / REPORT_HTML, html_page(report, finished.figures(), record.command, text))
    except KeyboardInterrupt:
        sentence = f"interrupted; the flow is trained and saved, and `boltzflow report {directory}` measures it"
        raise KeyboardInterrupt(sentence) from None
    return report


def conclude(report: Report, directory: Path, console: Console) -> int:
    """Prints the report and where it lies; returns the exit status."""
    console.print()
    render_console(report, console)
    console.print(Text(f"report: {directory / REPORT_HTML}"), soft_wrap=True)
    hint = f"samples: boltzflow sample {directory} --num-samples 10000 --out samples.npz"
    console.print(Text(hint), soft_wrap=True)
    return DONE if report.verdict.trustworthy else DISTRUSTED


def standing(folder: Path, console: Console) -> int:
    """The exit status of what comes from a run: samples of one that its report distrusts, that disagrees with other
    seeds, or that nobody has measured are no better than it."""
    if not (folder / REPORT_JSON).exists():
        console.print(Text(f"Nobody has measured this run yet: boltzflow report {folder}", "red"), soft_wrap=True)
        return DISTRUSTED
    verdict = Report.from_json((folder / REPORT_JSON).read_text(encoding="utf-8")).verdict
    if not verdict.trustworthy:
        console.print(Text(f"The report of this run does not trust it: {' '.join(verdict.warnings)}", "red"))
        return DISTRUSTED
    together = folder.parent / SEEDS_JSON
    if is_seed_folder(folder) and together.exists() and (warnings := seeds_warnings(together.read_text("utf-8"))):
        console.print(Text(f"The report of all seeds does not trust them: {' '.join(warnings)}", "red"))
        return DISTRUSTED
    return DONE


def stopped(error: BaseException, directory: Path, last: Progress | None) -> BaseException:
    """What to raise in place of what ended a training: where it stands, and how to go on."""
    go_on = f"go on with: boltzflow resume {directory}"
    if isinstance(error, KeyboardInterrupt):
        if last is None:
            return KeyboardInterrupt("interrupted before the first step; nothing was written")
        return KeyboardInterrupt(f"interrupted at step {last.step} of {last.num_steps}; {go_on}")
    said = of_program(error)
    if said is None or last is None or last.phase != "train":
        return error
    return TrainingError(f"{said} (at step {last.step} of {last.num_steps}; when this is mended, {go_on})")


def of_program(error: BaseException) -> str | None:
    """What lies beneath an error of a compiled program: an energy's own, or too little memory. None for other errors.

    JAX raises such an error as a `JaxRuntimeError`, or, from a program that has run before, as a plain `ValueError`.
    """
    text = str(error)
    if isinstance(error, InputError) or not (isinstance(error, jax.errors.JaxRuntimeError) or "INTERNAL:" in text):
        return None
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return "out of memory: lower --batch-size, --points-per-step or --num-eval-samples"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = next((line.split("InputError: ", 1)[1] for line in reversed(lines) if "InputError: " in line), "")
    return own or (lines[0] if lines else "the compiled program failed")
