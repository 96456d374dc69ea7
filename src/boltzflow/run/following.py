"""Who is told how far a run is: a line on the terminal or in the notebook, and the caller's own function."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from boltzflow.training.loop import Progress

OnProgress = Callable[[Progress], None]


@contextlib.contextmanager
def followed(progress: bool | None, on_progress: OnProgress | None, title: str = "") -> Iterator[OnProgress]:
    """Give the function that takes each row of the work inside: it shows the row, and hands it on.

    Args:
        progress: Whether to show it; None where standard error is a terminal, or in a notebook.
        on_progress: The caller's own function, called with each row whether it is shown or not.
        title: Words before each phase on display.
    """
    hand_on = on_progress or _nothing
    notebook = in_notebook()
    if not (_is_watched() or notebook if progress is None else progress):
        yield hand_on
        return
    from boltzflow.report.progress import make_line  # it loads Rich

    with make_line(title, notebook) as display:

        def show(row: Progress) -> None:
            display.show(row)
            hand_on(row)

        yield show


def _nothing(row: Progress) -> None:
    """Nobody is told."""


def _is_watched() -> bool:
    """Whether standard error is a terminal that can rewrite a line."""
    try:
        return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    except ValueError:  # it is closed
        return False


def in_notebook() -> bool:
    """Whether this is a notebook: IPython is there, and its shell has a kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and hasattr(shell, "kernel")
