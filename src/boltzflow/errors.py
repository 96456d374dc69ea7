"""The errors that are the user's to mend: one sentence that says what was expected, what was got, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any


class TrainingError(RuntimeError):
    """Training cannot go on: the sentence says since when, and what to change. On the command line: exit status 1."""


class SeedsError(TrainingError):
    """Of several seeds some could not be trained: `failures` has the error of each of these, `runs` the other runs."""

    def __init__(self, failures: Mapping[int, TrainingError], runs: Sequence[Any]):
        self.failures, self.runs = dict(failures), list(runs)
        names, num_seeds = " and ".join(map(str, failures)), len(failures) + len(runs)
        first = next(iter(failures.values()))
        super().__init__(f"Of {num_seeds} seeds, number {names} failed. {first}")


class InputError(ValueError):
    """Something the user gave is not usable. On the command line: the sentence alone, and exit status 2."""
