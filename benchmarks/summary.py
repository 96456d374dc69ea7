"""The time of a method to a stated error of log Z, measured or extrapolated, from rows of errors.

A series is one method on one target with growing budgets. For a method with a target error only the budget 1/error
counts. For any other method a budget meets an error if its root mean square over the seeds does, no seed failed, and
every larger budget meets it too, so that a lucky small budget does not count. Without such a budget the error is
extrapolated as 1/√budget and the seconds as linear in the budget: from the largest budget or from the average of the
three largest, whichever gives less time, because the error of biased small budgets falls faster at first.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from benchmarks.store import Row


@dataclass(frozen=True)
class Budget:
    """One budget over its seeds: root-mean-square error (infinite where a seed failed), median seconds and cost."""

    budget: int
    error: float
    seconds: float
    compile_seconds: float
    evaluations: float
    num_seeds: int


@dataclass(frozen=True)
class TimeTo:
    """The cost of a method to reach an error, `measured` or extrapolated."""

    seconds: float
    evaluations: float
    measured: bool


_COSTS = ("seconds", "evaluations")


def series(rows: list[Row], target: str, method: str) -> list[Budget]:
    """The budgets of a method on a target, from small to large, without budgets of fewer seeds than others."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if (row["key"]["target"], row["key"]["method"]) == (target, method):
            groups[row["key"]["budget"]].append(row)
    budgets = [pooled(budget, group) for budget, group in sorted(groups.items())]
    most = max((b.num_seeds for b in budgets), default=0)
    return [b for b in budgets if b.num_seeds == most]


def pooled(budget: int, rows: list[Row]) -> Budget:
    """One budget from its rows, one for each seed."""
    good = [row for row in rows if not row.get("failure")]
    error = float(np.sqrt(np.mean([row["error"] ** 2 for row in good]))) if len(good) == len(rows) else np.inf
    seconds, evaluations = (float(np.median([row[name] for row in good] or [np.inf])) for name in _COSTS)
    compile_seconds = max([row["compile_seconds"] for row in good] or [np.inf])  # the first seed's
    return Budget(budget, error, seconds, compile_seconds, evaluations, len(rows))


def asked_for(budgets: list[Budget], error: float) -> Budget | None:
    """The budget of a method with this target error; None where there is none."""
    return next((b for b in budgets if b.budget == round(1 / error)), None)


def time_to_target(budgets: list[Budget], error: float) -> TimeTo | None:
    """The cost of a method with the target error `error`; None without such rows or where its error is larger."""
    asked = asked_for(budgets, error)
    return TimeTo(asked.seconds, asked.evaluations, True) if asked and asked.error <= error else None


def time_to(budgets: list[Budget], error: float) -> TimeTo | None:
    """The cost of a series to reach `error`; None where a seed failed, or a single budget allows no extrapolation."""
    passing = len(budgets)
    while passing and budgets[passing - 1].error <= error:
        passing -= 1
    if passing < len(budgets):
        first = budgets[passing]
        return TimeTo(first.seconds, first.evaluations, True)
    last = budgets[-1]
    if len(budgets) < 2 or not np.isfinite([b.error for b in budgets]).all():
        return None
    constants = [b.error**2 * b.budget for b in budgets[-3:]]  # squared error times budget
    constant = float(min(constants[-1], np.mean(constants)))
    needed = max(constant / error**2, last.budget)
    more = float(needed - last.budget) / (last.budget - budgets[0].budget)
    seconds = last.seconds + more * (last.seconds - budgets[0].seconds)
    evaluations = last.evaluations + more * (last.evaluations - budgets[0].evaluations)
    return TimeTo(seconds, evaluations, False)
