"""The display of a run at work: live bars on a terminal, plain lines in a pipe or file.

Both displays are context managers around the work. They take each `Progress` of a training as it comes.
"""

import math
import time
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
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


def ess_in_words(ess: float) -> str:
    """The overlap of flow and target in two or three words, from the reverse ESS per sample (0 to 1, or NaN)."""
    return next(words for limit, words in _ESS_WORDS if not ess >= limit)


def _numbers(loss: float | None, ess: float | None, message: str) -> str:
    parts = [] if loss is None else [f"loss {loss:.4g}"]
    parts += [] if ess is None else [f"reverse ESS {ess:.3f} ({ess_in_words(ess)})"]
    return ", ".join([*parts, message] if message else parts)


class LiveDisplay(Bars):
    """A line for each phase: name, bar of steps, elapsed and remaining time; below them loss and reverse ESS."""

    def __init__(self, console: Console):
        self._phase = ""
        self._numbers = ""
        self._reverse_ess: float | None = None
        super().__init__(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<17}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=8,
        )

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self._finish()
        self.stop()

    def show(self, progress: Progress) -> None:
        """Move the bar. The last ESS stays on display until the next one comes."""
        self.phase(progress.phase)
        self._reverse_ess = progress.reverse_ess if progress.reverse_ess is not None else self._reverse_ess
        self._numbers = _numbers(progress.loss, self._reverse_ess, progress.message)
        if progress.phase == "train":
            steps = f"{progress.step}/{progress.num_steps}"
            self.update(self.task_ids[-1], total=progress.num_steps, completed=progress.step, steps=steps)

    def phase(self, phase: str) -> None:
        """Begin a phase, unless it is the current one."""
        if phase != self._phase:
            self._finish()
            self._phase = phase
            self.add_task(_PHASES.get(phase, phase), total=None, steps="")

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self.console.print(Text(sentence), soft_wrap=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, and the numbers below them."""
        yield self.make_tasks_table(self.tasks)
        yield Text(f"  {self._numbers}", "dim", no_wrap=True, overflow="ellipsis")

    def _finish(self) -> None:
        for task in self.task_ids[-1:]:
            self.update(task, total=1, completed=1)


class PlainDisplay:
    """A line where a phase begins, and in it one for every tenth of the steps or every 30 seconds."""

    def __init__(self, console: Console):
        self._console = console
        self._start = time.perf_counter()
        self._phase = ""
        self._last_step = 0
        self._last_seconds = 0.0

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def show(self, progress: Progress) -> None:
        """Print a line if one is due."""
        self.phase(progress.phase)
        line = f"step {progress.step} of {progress.num_steps}"
        if progress.phase != "train":
            if progress.step > self._last_step:  # a resumed run
                self._last_step = progress.step
                self.say(line)
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
        seconds = time.perf_counter() - self._start
        self._console.print(f"{seconds:6.1f} s  {sentence}", markup=False, highlight=False, soft_wrap=True)


Display = LiveDisplay | PlainDisplay


def make_display(console: Console) -> Display:
    """The live display where the console is a terminal that can move its cursor, plain lines elsewhere."""
    can_move = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if can_move else PlainDisplay(console)
