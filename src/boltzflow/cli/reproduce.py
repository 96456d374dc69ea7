"""`boltzflow reproduce NAME`: a table or figure of the paper, in a folder and on a page."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from boltzflow.cli.finish import DONE, output
from boltzflow.cli.progress import LiveDisplay
from boltzflow.config import make_preset
from boltzflow.numerics.validation import whole_number
from boltzflow.storage import run_folder
from boltzflow.studies import paper
from boltzflow.training.loop import Progress

_MAX_SEEDS, _MAX_JOBS = 1000, 64
FOLDER, PAGE = "results/paper", "docs/paper.md"


def reproduce(
    name: str, preset_name: str, num_seeds: int | None, only: Sequence[str], out: str | None, page: str | None,
    jobs: int | None,
) -> int:  # fmt: skip
    """Reproduces, all cells or `only` some, and says what was written. Quick results are kept apart from others.

    They mostly wait for the compiler, which keeps one core busy: so they are got two at a time where there are the
    cores, and the compiler is asked to optimize less, unless `XLA_FLAGS` says what it is to do.
    """
    make_preset(preset_name)
    whole_number("seeds", 1 if num_seeds is None else num_seeds, at_least=1, at_most=_MAX_SEEDS)
    at_once = min(2, os.cpu_count() or 1) if preset_name == "quick" else 1
    at_once = at_once if jobs is None else whole_number("jobs", jobs, at_least=1, at_most=_MAX_JOBS)
    if preset_name == "quick":
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
    folder = Path(out or ("runs/paper-quick" if preset_name == "quick" else FOLDER))
    path = Path(page) if page else Path(PAGE) if not out and preset_name != "quick" else folder / "paper.md"
    run_folder.check_writable(folder)
    console = output()
    watcher = _Watcher(console)
    with watcher:
        files = paper.reproduce(
            name, folder=folder, preset=preset_name, num_seeds=num_seeds or 0, watcher=watcher, only=only,
            jobs=at_once,
        )  # fmt: skip
    shown = preset_name if preset_name == "quick" else "default"
    paper.write_page(path, folder, shown)
    for file in [*files, path]:
        console.print(Text(f"{file}"), soft_wrap=True)
    return DONE


class _Watcher(paper.Watcher):
    """A line for each seed that begins or is done; on a terminal, where progress is told, the display of a run."""

    def __init__(self, console: Console):
        self._console = console
        self._display: LiveDisplay | None = None

    def __enter__(self) -> "_Watcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self._close(*exception)

    def begin(self, what: str) -> None:
        self._console.print(Text(what, "bold" if self._console.is_terminal else ""), soft_wrap=True)

    def on_progress(self, progress: Progress) -> None:
        if self._console.is_terminal and not self._display:
            self._display = LiveDisplay(self._console).__enter__()
        if self._display:
            self._display.show(progress)

    def end(self, what: str) -> None:
        self._close(None)
        self._console.print(Text(f"  {what}"), soft_wrap=True)

    def _close(self, *exception: object) -> None:
        if self._display:
            self._display.__exit__(*exception)
            self._display = None
