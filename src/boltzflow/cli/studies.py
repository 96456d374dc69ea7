"""The commands `compare` and `reproduce`. The parser imports this file only for them: studies are slow to import."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boltzflow.run
from boltzflow.cli.finish import DONE, output, say
from boltzflow.config import make_preset
from boltzflow.densities.from_file import load_target
from boltzflow.errors import InputError
from boltzflow.numerics.validation import whole_number
from boltzflow.report.console import plain_table
from boltzflow.report.progress import LiveDisplay, make_display
from boltzflow.storage.files import check_writable
from boltzflow.storage.run_folder import check_seed
from boltzflow.studies import paper
from boltzflow.studies.baselines.common import Answer
from boltzflow.studies.baselines.compare import Truth, at_equal_cost, baselines, errors, of_flow, truth_of
from boltzflow.training.loop import Progress

FOLDER = "results/paper"
QUICK_FOLDER = "runs/paper-quick"
PAGE = "docs/paper.md"
_MAX_SEEDS = 1000
_MAX_JOBS = 64
_WORDS = {"reverse_ess": "reverse ESS", "r_hat": "R-hat", "beta": "β reached"}


def compare(target: str | None, options: Mapping[str, int | float], seed: int, preset: str, start_std: float) -> int:
    """Train a flow, then run each baseline at the flow's energy evaluations and at its seconds; print two tables."""
    if not target:
        raise InputError("say which target to compare on, as in mixture-2 or path/to/file.py:name")
    if not 0 < start_std < float("inf"):
        raise InputError(f"--start-std must be above 0, got {start_std:g}")
    seed = check_seed(seed)
    make_preset(preset)
    others = baselines()
    loaded = load_target(target, options)
    with make_display(output()) as display:
        run = boltzflow.run.fit(
            loaded.target,
            seed=seed,
            preset=preset,
            name=loaded.name,
            options=loaded.options,
            progress=False,
            on_progress=display.show,
        )
        display.phase("evaluate")
        flow = of_flow(run)
        truth = truth_of(loaded.target)
    tables = {
        f"At {flow.evaluations:,} energy evaluations": {"flow": flow},
        f"In {flow.seconds:.0f} seconds": {"flow": flow},
    }
    for method, (baseline, smallest) in others.items():
        say(f"{method} …")
        found = at_equal_cost(baseline, smallest, loaded.target, seed, start_std, flow.evaluations, flow.seconds)
        for answers, (_, answer) in zip(tables.values(), found, strict=True):
            answers[method] = answer
    for title, answers in tables.items():
        _print_answers(title, answers, truth)
    if truth is None:
        say("No exact answer of this target is known: where the numbers differ, this table cannot decide.")
    return DONE


def _print_answers(title: str, answers: Mapping[str, Answer], truth: Truth | None) -> None:
    """A row for each method: errors (or log Z where nothing is exact), cost, and diagnostics."""
    table = plain_table()
    table.title = title
    table.title_justify = "left"
    headers = ("error of log Z", "of ⟨x⟩", "of ⟨x²⟩") if truth else ("log Z",)
    table.add_column("method")
    for header in (*headers, "evaluations", "seconds", "compiling"):
        table.add_column(header, justify="right")
    table.add_column("diagnostics")
    for method, answer in answers.items():
        numbers = [f"{value:.2g}" for value in errors(answer, truth)] if truth else [f"{answer.log_z:.6g}"]
        numbers = ["–" if number == "nan" else number for number in numbers]
        cost = [f"{answer.evaluations:,}", f"{answer.seconds:.1f}", f"{answer.compile_seconds:.1f}"]
        table.add_row(method, *numbers, *cost, _diagnostics(answer.detail))
    output().print(table)
    say("")


def _diagnostics(detail: Mapping[str, Any]) -> str:
    if "trusted" in detail:
        return f"not trusted, reverse ESS {detail['reverse_ess']:.3f}"
    return ", ".join(f"{_WORDS.get(name, name)} {value:.3g}" for name, value in detail.items())


def reproduce(
    name: str | None,
    preset: str,
    seeds: int | None,
    cells: str | None,
    jobs: int | None,
    out: str | None,
    page: str | None,
) -> int:
    """Reproduce a table or figure of the paper, and print the files that were written.

    The preset quick spends most of its time in the compiler, which keeps one core busy: it trains two seeds at a time
    and lets the compiler optimize less.
    """
    if not name:
        raise InputError(f"say what to reproduce: {', '.join(paper.names())}")
    make_preset(preset)
    is_quick = preset == "quick"
    if seeds is not None:
        whole_number("seeds", seeds, at_least=1, at_most=_MAX_SEEDS)
    if jobs is None:
        jobs = min(2, os.cpu_count() or 1) if is_quick else 1
    whole_number("jobs", jobs, at_least=1, at_most=_MAX_JOBS)
    if is_quick:
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    folder = Path(out or (QUICK_FOLDER if is_quick else FOLDER))
    path = Path(page or (folder / "paper.md" if out or is_quick else PAGE))
    check_writable(folder)
    only = [cell.strip() for cell in cells.split(",")] if cells is not None else []
    with _ConsoleWatcher() as watcher:
        files = paper.reproduce(
            name, folder=folder, preset=preset, num_seeds=seeds or 0, watcher=watcher, only=only, jobs=jobs
        )
    paper.write_page(path, folder, "quick" if is_quick else "default")
    for file in [*files, path]:
        say(f"{file}")
    return DONE


class _ConsoleWatcher(contextlib.ExitStack, paper.Watcher):
    """A line when a seed begins or ends, and on a terminal the live display."""

    _display: LiveDisplay | None = None

    def begin(self, what: str) -> None:
        say(what, "bold")

    def on_progress(self, progress: Progress) -> None:
        console = output()
        if console.is_terminal and not self._display:
            self._display = self.enter_context(LiveDisplay(console))
        if self._display:
            self._display.show(progress)

    def end(self, what: str) -> None:
        self.close()
        self._display = None
        say(f"  {what}")
