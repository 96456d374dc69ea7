"""Errors that the user can mend: one sentence that states what was expected, what was found, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any


class InputError(ValueError):
    """An input of the user is not valid. The command line prints the sentence alone, with exit status 2."""


class TrainingError(RuntimeError):
    """Training cannot continue: the sentence states since when, and what to change. Exit status 1."""


class SeedsError(TrainingError):
    """Some of several seeds could not be trained: `failures` holds their errors by seed, `runs` the other runs."""

    def __init__(self, failures: Mapping[int, TrainingError], runs: Sequence[Any]):
        self.failures = dict(failures)
        self.runs = list(runs)
        names = " and ".join(map(str, failures))
        first = next(iter(failures.values()))
        super().__init__(f"Of {len(failures) + len(runs)} seeds, number {names} failed. {first}")
