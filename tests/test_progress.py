"""The displays: their lines, how often they come, the live one through phases and an interruption, the notebook's."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console

from boltzflow.numerics.stages import advance, following, stage
from boltzflow.report.progress import LiveDisplay, Now, PlainDisplay, ess_in_words, make_display, make_line
from boltzflow.run.following import followed
from boltzflow.training.loop import Progress


def lines_of(progresses):
    console = Console(file=io.StringIO(), width=120)
    with make_display(console) as display:
        assert isinstance(display, PlainDisplay)
        for progress in progresses:
            display.show(progress)
        display.phase("evaluate")
    return console.file.getvalue().splitlines()


def train(step, seconds, num_steps=1000, ess=None):
    return Progress("train", step, num_steps, seconds, loss=1.0, reverse_ess=ess, share=step / num_steps)


def test_plain_lines_come_for_each_phase_and_each_tenth():
    lines = lines_of([Progress("pilot", 0, 1000, 0.0), *(train(step, 0.01 * step) for step in range(10, 1001, 10))])
    assert len(lines) == 13
    assert "looking for modes" in lines[0] and "training" in lines[1] and "measuring" in lines[-1]
    assert lines[2].endswith("step 100 of 1000: loss 1") and lines[-2].endswith("step 1000 of 1000: loss 1")


def test_plain_lines_of_a_resumed_run_begin_at_its_step():
    lines = lines_of(
        [Progress("compile", 640, 1000, 0.0), *(train(step, 0.01 * step) for step in range(650, 1001, 10))]
    )
    assert [line[10:] for line in lines[1:4]] == ["step 640 of 1000", "training", "step 700 of 1000: loss 1"]


def test_plain_lines_come_every_half_minute_of_a_long_run():
    lines = lines_of(train(step, 10.0 * step, 100_000) for step in range(1, 13))
    assert [line.split()[3] for line in lines if " of " in line] == ["3", "6", "9", "12"]


def test_plain_line_has_the_ess_in_words():
    assert lines_of([train(1000, 1.0, ess=0.985)])[1].endswith("loss 1, reverse ESS 0.985 (very close)")


@pytest.mark.parametrize(
    ("ess", "words"),
    [(0.001, "no overlap yet"), (0.3, "partial overlap"), (1.0, "very close"), (float("nan"), "no overlap yet")],
)
def test_ess_in_words(ess, words):
    assert ess_in_words(ess) == words


def terminal(width=100):
    return Console(file=io.StringIO(), width=width, force_terminal=True)


def test_the_live_display_shows_phases_steps_and_the_last_ess():
    console = terminal()
    with make_display(console) as display:
        assert isinstance(display, LiveDisplay)
        for progress in (Progress("pilot", 0, 10, 0.0), train(5, 1.0, 10, 0.5), train(10, 2.0, 10)):
            display.show(progress)
        display.phase("evaluate")
    shown = console.file.getvalue()
    assert all(part in shown for part in ("✓ looking for modes", "10/10", "ESS 0.500", "measuring"))


def test_the_live_display_leaves_nothing_behind_where_no_phase_is_kept():
    console = terminal()
    with LiveDisplay(console, keep_phases=False) as display:
        for progress in (Progress("pilot", 0, 10, 0.0), train(5, 1.0, 10, 0.5)):
            display.show(progress)
            display._live.refresh()
    shown = console.file.getvalue()
    assert "training" in shown and "✓" not in shown
    assert shown.count("\n") == 1 and shown.endswith("\x1b[1A\x1b[2K")  # one line, rewritten and at the end erased


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_line_fits_the_terminal(width):
    console = terminal(width)
    display = LiveDisplay(console, title="seed 3 (2 of 5):")
    display.show(Progress("train", 400, 1000, 1.0, 0.0123, 0.985, "a long sentence " * 20, 0.4))
    with console.capture() as drawn:
        console.print(display._line())
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.get())
    assert max(map(cell_len, text.splitlines())) <= width
    assert width == 40 or "400/1000" in text


def test_the_live_display_restores_the_cursor_when_interrupted():
    console = terminal()
    with pytest.raises(KeyboardInterrupt), make_display(console) as display:
        display.phase("pilot")
        raise KeyboardInterrupt
    shown = console.file.getvalue()
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_the_time_left_is_that_of_the_rest_at_the_speed_so_far():
    times = iter([0.0, 0.0, 10.0, 30.0, 30.0, 30.0])
    now = Now(clock=lambda: next(times))
    now.begin("train")
    now.take(train(100, 10.0))  # at t = 10; the time before went to the compiler
    assert now.seconds_left is None
    now.take(train(600, 30.0))
    assert now.seconds_left == pytest.approx(20 / 0.5 * 0.4)


def test_stages_are_told_to_the_innermost_listener_and_to_nobody_without_one():
    told = []
    with following(lambda name, share: told.append((name, share))):
        stage("first", 0.2, 0.6)
        advance(0.5)
        with following(lambda name, share: None):
            stage("inside")
        stage("unknown")
        advance(0.5)
    stage("after")
    assert told == [("first", 0.2), ("first", pytest.approx(0.4)), ("unknown", None), ("unknown", None)]


class Handle:
    """What IPython's `display` returns."""

    def __init__(self):
        self.texts = []

    def update(self, content, raw):
        self.texts.append(content["text/plain"])


def test_a_notebook_has_one_line_that_ends_with_the_time(monkeypatch):
    handle = Handle()
    ipython = SimpleNamespace(display=lambda content, **how: handle.update(content, True) or handle)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=ipython))
    monkeypatch.setitem(sys.modules, "IPython.display", ipython)
    with make_line(notebook=True) as display:
        display.show(Progress("pilot", 0, 10, 0.0, message="descent to minima", share=0.5))
        display.show(train(10, 2.0, 10, 0.97))
    assert handle.texts[0].startswith("looking for modes 50% 0:00 descent to minima")
    assert handle.texts[1].startswith("training 10/10")
    assert handle.texts[-1].startswith("trained in ") and handle.texts[-1].endswith("ESS 0.970 (close)")


@pytest.mark.parametrize(("progress", "shown"), [(None, False), (False, False), (True, True)])
def test_python_is_silent_where_nobody_watches(progress, shown, capsys):
    rows = []
    with followed(progress, rows.append) as show:
        show(train(10, 1.0, 10))
    assert len(rows) == 1
    assert bool(capsys.readouterr().err) == shown
