"""The table of times to an error of log Z."""

import math
from statistics import median

from benchmarks import summary
from benchmarks.common import targets_of
from benchmarks.log_z_error import ASKED, BASELINES, ERRORS
from benchmarks.store import across_machines
from boltzflow.studies.markdown import RAISED, count, seconds, table
from boltzflow.studies.rows import Row

METHODS = (*ASKED, *BASELINES)
VERDICT_AT = 1e-3  # the error at which the verdict is timed


def draw_log_z(rows: list[Row]) -> str:
    """Seconds (and evaluations) to each error, by target and method; the fastest method of a target is bold."""
    lines: list[list[str]] = []
    behind: list[str] = []
    mixed: list[str] = []
    of_baselines: list[list[summary.TimeTo | None]] = []
    for target in targets_of(rows):
        found = {method: summary.series(rows, target, method) for method in METHODS}
        found = {method: budgets for method, budgets in found.items() if budgets}
        times = {method: _times(method, budgets) for method, budgets in found.items()}
        of_baselines += [times[method] for method in times if method not in ASKED]
        warning = across_machines([row for row in rows if row["key"]["target"] == target], target)
        mixed += warning
        firsts = [None if warning else _first({m: times[m][i] for m in times}) for i in range(len(ERRORS))]
        for method, budgets in found.items():
            cells = [
                _cell(time, firsts[i] == method) if time else _not_reached(method, budgets, ERRORS[i])
                for i, time in enumerate(times[method])
            ]
            best = min(budgets, key=lambda budget: budget.error)
            compiling = f"{max(b.compile_seconds for b in budgets):.0f} s"
            closest = f"{best.error:.1g} in {seconds(best.seconds)}" if best.error < float("inf") else "failed"
            lines.append([target, method, *cells, compiling, _verdict(rows, target, method), closest])
        found_first = zip(ERRORS, firsts, strict=True)
        behind += [f"{target} at {power_of_ten(e)}: {first}" for e, first in found_first if first not in (None, *ASKED)]
    header = ["target", "method", *(f"to {power_of_ten(error)}" for error in ERRORS)]
    header += ["compilation", "verdict, on top", "best measured"]
    wins = "Elsewhere boltzflow is first." if mixed else "boltzflow is first everywhere."
    if behind:
        wins = f"A baseline is first on {'; '.join(behind)}."
    return "\n\n".join([table(header, lines), _note(rows, of_baselines), *mixed, wins])


def power_of_ten(value: float) -> str:
    """0.01 as 10⁻²."""
    return "10" + f"{round(math.log10(value))}".translate(RAISED)


def _note(rows: list[Row], of_baselines: list[list[summary.TimeTo | None]]) -> str:
    numbers = sorted({len({r["key"]["seed"] for r in rows if r["key"]["target"] == t}) for t in targets_of(rows)})
    shares = [
        f"{sum(time is not None and not time.measured for time in column)} of {len(column)} at {power_of_ten(error)}"
        for error, column in zip(ERRORS, zip(*of_baselines, strict=True), strict=False)
    ]
    extrapolated = f": of the baselines' times {', '.join(shares)}" if shares else ""
    return (
        f"Root mean square over {' or '.join(map(str, numbers))} seeds; in parentheses evaluations of the energy, with "
        "its gradient or alone. Ours counts only the runs with the target error of the column. ≈: extrapolated, with "
        "error ∝ 1/√budget, from the largest budget measured or the average of the three largest, whichever gives less "
        f"time{extrapolated}. Compilation is the time of the first seed with a cold cache, at the budget that compiles "
        f"longest. Verdict: the median time of the checks at {power_of_ten(VERDICT_AT)}; baselines have no verdict."
    )


def _times(method: str, budgets: list[summary.Budget]) -> list[summary.TimeTo | None]:
    to = summary.time_to_target if method in ASKED else summary.time_to
    return [to(budgets, error) for error in ERRORS]


def _first(times: dict[str, summary.TimeTo | None]) -> str | None:
    return min((m for m, time in times.items() if time), key=lambda m: times[m].seconds, default=None)  # type: ignore[union-attr]


def _cell(time: summary.TimeTo, first: bool) -> str:
    text = ("" if time.measured else "≈ ") + f"{seconds(time.seconds)} ({count(time.evaluations)})"
    return f"**{text}**" if first else text


def _not_reached(method: str, budgets: list[summary.Budget], error: float) -> str:
    """The error of a method with this target error; a dash where there is none."""
    if method not in ASKED:
        return "not reached"
    asked = summary.asked_for(budgets, error)
    if not asked:
        return "–"
    return f"not reached: {asked.error:.2g}" if asked.error < float("inf") else "not reached: a run failed"


def _verdict(rows: list[Row], target: str, method: str) -> str:
    wanted = (target, method, round(1 / VERDICT_AT))
    group = [row for row in rows if tuple(row["key"][name] for name in ("target", "method", "budget")) == wanted]
    found = [row["verdict_seconds"] for row in group if "verdict_seconds" in row]
    return seconds(median(found)) if found else "–"
