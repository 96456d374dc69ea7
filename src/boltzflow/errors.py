"""Errors that the user can mend: one sentence that states what was expected, what was found, and what to do."""

import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_INSTALLED = (Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))

_LONGEST = 300  # characters of another library's message


class InputError(ValueError):
    """An input of the user is not valid. The command line prints the sentence alone, with exit status 2."""


class TrainingError(RuntimeError):
    """Training cannot continue: the sentence states since when, and what to change. Exit status 1."""


class SeedsError(TrainingError):
    """Some of several seeds could not be trained.

    Args:
        failures: The error of each seed that failed, by seed; kept as an attribute.
        runs: The runs of the other seeds; kept as an attribute.
    """

    def __init__(self, failures: Mapping[int, TrainingError], runs: Sequence[Any]):
        self.failures = dict(failures)
        self.runs = list(runs)
        names = " and ".join(map(str, failures))
        first = next(iter(failures.values()))
        super().__init__(f"Of {len(failures) + len(runs)} seeds, number {names} failed. {first}")


def place(error: BaseException) -> str:
    """The innermost line of an error's traceback that is in no installed package, as in `model.py, line 3`, or ""."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.resolve().is_relative_to(root) for root in _INSTALLED):
            return f"{path.name}, line {frame.lineno}"
    return ""


def summary(error: BaseException) -> str:
    """What a user's code raised, on one line: type, message, and the file and line of that code where it is known."""
    message = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    if len(message) > _LONGEST:  # as of JAX, whose first line says it
        message = message.splitlines()[0][:_LONGEST]
    message = " ".join(message.split())
    where = place(error)
    return type(error).__name__ + (f": {message}" if message else "") + (f" ({where})" if where else "")
