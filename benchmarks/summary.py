"""From rows of log Z errors to the time that a method takes to a stated error, measured or extrapolated.

A series is one method at one number of optimizer steps, with budgets that grow. A budget meets an error where the root
mean square over its seeds does, none of its seeds failed, and every larger budget of the series meets it too: so a
lucky small one does not count. Where no budget does, the error is continued as 1/√budget and the seconds as linear in
it, from what the (up to three) largest budgets say of the error.
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
    """What a method takes to an error, and at how many optimizer steps; `measured` or extrapolated."""

    seconds: float
    evaluations: float
    measured: bool
    steps: int


Series = dict[int, list[Budget]]
_COSTS = ("seconds", "evaluations")


def series(rows: list[Row], target: str, method: str) -> Series:
    """The budgets of a method on a target, by number of optimizer steps, each list from small to large."""
    groups: dict[tuple[int, int], list[Row]] = defaultdict(list)
    failed: dict[int, int] = defaultdict(int)
    for row in rows:
        key = row["key"]
        if (key["target"], key["method"]) == (target, method):
            if key["budget"]:
                groups[key["steps"], key["budget"]].append(row)
            elif row.get("failure"):
                failed[key["steps"]] += 1
    found: Series = defaultdict(list)
    for (steps, budget), group in sorted(groups.items()):
        found[steps].append(_pooled(budget, group, failed[steps]))
    for steps, budgets in found.items():  # a seed that needed no more samples is not missing, but fewer seeds are
        most = max(b.num_seeds for b in budgets)
        found[steps] = [b for b in budgets if b.num_seeds == most]
    return dict(found)


def _pooled(budget: int, rows: list[Row], num_failed: int) -> Budget:
    good = [row for row in rows if not row.get("failure")]
    whole = len(good) == len(rows) and not num_failed
    error = float(np.sqrt(np.mean([row["error"] ** 2 for row in good]))) if good and whole else np.inf
    seconds, evaluations = (float(np.median([row[name] for row in good] or [np.inf])) for name in _COSTS)
    compile_seconds = max([row["compile_seconds"] for row in good] or [np.inf])  # the first seed's cache was cold
    return Budget(budget, error, seconds, compile_seconds, evaluations, len(rows))


def time_to(found: Series, error: float) -> TimeTo | None:
    """The cheapest way to `error`; None where every series failed, or has no budget to raise."""
    ways = [way for steps, budgets in found.items() if (way := _time_of_one(steps, budgets, error))]
    measured = [way for way in ways if way.measured]
    return min(measured or ways, key=lambda way: way.seconds, default=None)


def _time_of_one(steps: int, budgets: list[Budget], error: float) -> TimeTo | None:
    passing = len(budgets)
    while passing and budgets[passing - 1].error <= error:
        passing -= 1
    if passing < len(budgets):
        first = budgets[passing]
        return TimeTo(first.seconds, first.evaluations, True, steps)
    last = budgets[-1]
    if len(budgets) < 2 or not np.isfinite([b.error for b in budgets]).all():
        return None
    constant = float(np.mean([b.error**2 * b.budget for b in budgets[-3:]]))  # squared error times budget
    needed = max(constant / error**2, last.budget)
    more = float(needed - last.budget) / (last.budget - budgets[0].budget)
    seconds = last.seconds + more * (last.seconds - budgets[0].seconds)
    evaluations = last.evaluations + more * (last.evaluations - budgets[0].evaluations)
    return TimeTo(seconds, evaluations, False, steps)
