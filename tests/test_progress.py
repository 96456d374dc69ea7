"""The two displays: their lines, how often they come, and the live one through phases and an interruption."""

import io

import pytest
from rich.console import Console

from boltzflow.cli.progress import LiveDisplay, PlainDisplay, ess_in_words, make_display
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
    return Progress("train", step, num_steps, seconds, loss=1.0, reverse_ess=ess)


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


def test_the_live_display_shows_phases_steps_and_the_last_ess():
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    with make_display(console) as display:
        assert isinstance(display, LiveDisplay)
        for progress in (Progress("pilot", 0, 10, 0.0), train(5, 1.0, 10, 0.5), train(10, 2.0, 10)):
            display.show(progress)
        display.phase("evaluate")
    shown = console.file.getvalue()
    assert all(part in shown for part in ("looking for modes", "10/10", "reverse ESS 0.500", "measuring"))


def test_the_live_display_restores_the_cursor_when_interrupted():
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), make_display(console) as display:
        display.phase("pilot")
        raise KeyboardInterrupt
    assert console.file.getvalue().endswith(("\x1b[?25h", "\n"))  # the cursor is back
