"""The display of a run at work: on a terminal or in a notebook a line that is rewritten in place, else plain lines.

All displays are context managers around the work, and take each `Progress` as it comes. The command line and Python use
the same ones: `make_display` chooses by the console, `make_line` for Python.
"""

import math
import time
from collections.abc import Callable
from html import escape
from typing import Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from boltzflow.training.loop import Progress

_PHASES = {
    "pilot": "looking for modes",
    "race": "choosing the field",
    "compile": "compiling",
    "train": "training",
    "evaluate": "measuring",
}
_ESS_WORDS = (
    (0.01, "no overlap yet"),
    (0.1, "little overlap"),
    (0.5, "partial overlap"),
    (0.9, "good overlap"),
    (0.98, "close"),
    (math.inf, "very close"),
)
_NUM_LINES = 10  # of a training, or more of a slow one
_LINE_EVERY_SECONDS = 30.0
_REDRAWN_EVERY_SECONDS = 0.15  # in a notebook
_LEAST_SHARE = 0.03  # of the training, from which the time left is known
_BAR_WIDTH = 12


def ess_in_words(ess: float) -> str:
    """The overlap of flow and target in two or three words, from the reverse ESS per sample (0 to 1, or NaN)."""
    return next(words for limit, words in _ESS_WORDS if not ess >= limit)


def _numbers(loss: float | None, ess: float | None, message: str, label: str = "reverse ESS") -> str:
    parts = [] if loss is None else [f"loss {loss:.4g}"]
    parts += [] if ess is None else [f"{label} {ess:.3f} ({ess_in_words(ess)})"]
    return ", ".join([*parts, message] if message else parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


class Now:
    """Where a run is: its phase, the share of it that is done, the last numbers, the time so far or left.

    Args:
        title: Words before the phase, such as "seed 1 of 5".
        clock: Gives the time in seconds.
    """

    def __init__(self, title: str = "", clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self.title = title
        self.phase = ""
        self.share: float | None = None
        self.steps = ""
        self.numbers = ""
        self._reverse_ess: float | None = None
        self._start = self._first_time = clock()
        self._first_share = 0.0

    def begin(self, phase: str) -> None:
        """Begin a phase."""
        self.phase = phase
        self.share = None
        self.steps = ""
        self._start = self._clock()

    def take(self, progress: Progress) -> None:
        """Take the numbers of a row of the current phase. The last ESS stays until the next one comes."""
        if progress.share is None or self.share is None or progress.share < self.share:
            self._first_time = self._clock()
            self._first_share = progress.share or 0.0
        self.share = progress.share
        self._reverse_ess = progress.reverse_ess if progress.reverse_ess is not None else self._reverse_ess
        ess = self._reverse_ess if progress.phase == "train" else None
        self.numbers = _numbers(progress.loss, ess, progress.message, "ESS")
        self.steps = f"{progress.step}/{progress.num_steps}" if progress.phase == "train" else ""

    @property
    def words(self) -> str:
        """The title and the phase in words."""
        return " ".join(filter(None, [self.title, _PHASES.get(self.phase, self.phase)]))

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began."""
        return self._clock() - self._start

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of the training, at the speed since its first row.

        None elsewhere: the share of another phase grows in steps, of which some wait for the compiler.
        """
        if not self.steps or self.share is None or self.share - self._first_share < _LEAST_SHARE:
            return None
        spent = self._clock() - self._first_time
        return max(0.0, spent * (1 - self.share) / (self.share - self._first_share))

    @property
    def time(self) -> str:
        """The time that is left where it is known, else the time of the phase so far."""
        left = self.seconds_left
        return _clock(self.elapsed) if left is None else f"{_clock(left)} left"

    @property
    def line(self) -> str:
        """All of it in one line of text."""
        share = "" if self.share is None or self.steps else f"{self.share:.0%}"
        return " ".join(filter(None, [self.words, self.steps, share, self.time, self.numbers]))


class LiveDisplay:
    """One line on a terminal that is rewritten in place: phase, bar, steps, time left, loss and ESS.

    Args:
        console: The terminal.
        keep_phases: Whether a line with its time stays for each phase that is done. Else nothing stays.
        title: Words before each phase.
    """

    def __init__(self, console: Console, keep_phases: bool = True, title: str = ""):
        self.console = console
        self._keeps = keep_phases
        self._now = Now(title)
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._line, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> "LiveDisplay":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self._finish()
        self._now.phase = ""
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show a row."""
        self.phase(progress.phase)
        self._now.take(progress)

    def phase(self, phase: str) -> None:
        """Begin a phase, unless it is the current one."""
        if phase != self._now.phase:
            self._finish()
            self._now.begin(phase)

    def say(self, sentence: str) -> None:
        """Print a sentence above the line."""
        self.console.print(Text(sentence), soft_wrap=True)

    def _finish(self) -> None:
        """Print the line that stays of the phase that ends."""
        if self._keeps and self._now.phase:
            numbers = self._now.numbers if self._now.phase == "train" else ""
            parts = [f"✓ {self._now.words:<18}", f"{_clock(self._now.elapsed):>7}", self._now.steps, numbers]
            self.console.print(Text("  ".join(filter(None, parts)), no_wrap=True, overflow="ellipsis"))

    def _line(self) -> Table:
        now = self._now
        grid = Table.grid(padding=(0, 1))
        if not now.phase:
            return grid
        share = now.share
        bar = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, width=_BAR_WIDTH)
        cells = [now.words, now.steps, now.time]
        used = 2 + _BAR_WIDTH + 1 + sum(cell_len(cell) + 1 for cell in cells if cell)
        numbers = Text(now.numbers, "dim", no_wrap=True, overflow="ellipsis")
        numbers.truncate(max(self.console.width - used, 0), overflow="ellipsis")
        parts: list[RenderableType] = [
            self._spinner,
            Text(cells[0]),
            bar,
            *(Text(cell) for cell in cells[1:] if cell),
            numbers,
        ]
        for _ in parts:
            grid.add_column(no_wrap=True)
        grid.add_row(*parts)
        return grid


class NotebookDisplay:
    """One line in the output of a notebook's cell, rewritten in place; at the end it tells the time of the work.

    Args:
        title: Words before each phase.
    """

    def __init__(self, title: str = ""):
        self._now = Now(title)
        self._handle: Any = None
        self._due = 0.0
        self._start = time.perf_counter()

    def __enter__(self) -> "NotebookDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        seconds = f"{time.perf_counter() - self._start:.1f} s"
        if exception[0] is None:
            done = {"train": "trained", "evaluate": "measured"}.get(self._now.phase, "done")
            parts = [self._now.title, f"{done} in {seconds}", self._now.numbers if done == "trained" else ""]
            text = ": ".join(filter(None, parts))
        else:
            text = f"ended after {seconds}: {self._now.line}"
        self._draw(text, f"<small>{escape(text)}</small>")

    def show(self, progress: Progress) -> None:
        """Show a row, unless the last one came just before it."""
        if progress.phase != self._now.phase:
            self._now.begin(progress.phase)
            self._due = 0.0
        self._now.take(progress)
        if time.perf_counter() >= self._due:
            self._due = time.perf_counter() + _REDRAWN_EVERY_SECONDS
            share = "" if self._now.share is None else f' value="{self._now.share:.3f}"'
            line = self._now.line
            self._draw(line, f'<progress max="1"{share} style="width: 8em"></progress> <small>{escape(line)}</small>')

    def _draw(self, text: str, html: str) -> None:
        from IPython.display import display  # there is one where there is a notebook

        content = {"text/plain": text, "text/html": html}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class PlainDisplay:
    """A line where a phase begins, and in it one for every tenth of the steps or every 30 seconds."""

    def __init__(self, console: Console):
        self._console = console
        self._start = time.perf_counter()
        self._phase = ""
        self._last_step = 0
        self._last_seconds = 0.0
        self._last_line = self._start

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, progress: Progress) -> None:
        """Print a line if one is due."""
        self.phase(progress.phase)
        line = f"step {progress.step} of {progress.num_steps}"
        if progress.phase != "train":
            if progress.phase != "evaluate" and progress.step > self._last_step:  # a resumed run
                self._last_step = progress.step
                self.say(line)
            elif progress.message and time.perf_counter() - self._last_line >= _LINE_EVERY_SECONDS:
                share = "" if progress.share is None else f", {progress.share:.0%} of {_PHASES[progress.phase]} done"
                self.say(f"{progress.message}{share}")
            return
        tenths, last_tenths = (_NUM_LINES * step // progress.num_steps for step in (progress.step, self._last_step))
        if tenths > last_tenths or progress.seconds - self._last_seconds >= _LINE_EVERY_SECONDS:
            self._last_step = progress.step
            self._last_seconds = progress.seconds
            self.say(f"{line}: {_numbers(progress.loss, progress.reverse_ess, progress.message)}")

    def phase(self, phase: str) -> None:
        """Print the name of a phase that begins."""
        if phase != self._phase:
            self._phase = phase
            self.say(_PHASES.get(phase, phase))

    def say(self, sentence: str) -> None:
        """Print a sentence after the elapsed time."""
        self._last_line = time.perf_counter()
        seconds = self._last_line - self._start
        self._console.print(f"{seconds:6.1f} s  {sentence}", markup=False, highlight=False, soft_wrap=True)


Display = LiveDisplay | PlainDisplay


def make_display(console: Console) -> Display:
    """The live display where the console is a terminal that can move its cursor, plain lines elsewhere."""
    can_move = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if can_move else PlainDisplay(console)


def make_line(title: str = "", notebook: bool = False) -> LiveDisplay | NotebookDisplay | PlainDisplay:
    """The display of a call in Python: one line in a notebook or on the terminal of standard error.

    Where standard error is no such terminal, as where progress is asked for in a pipe, it is plain lines there.
    """
    if notebook:
        return NotebookDisplay(title)
    console = Console(stderr=True, markup=False, emoji=False)
    can_move = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console, keep_phases=False, title=title) if can_move else PlainDisplay(console)
