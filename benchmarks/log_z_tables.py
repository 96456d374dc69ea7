"""The table of times to an error of log Z."""

from statistics import median

from benchmarks import summary
from benchmarks.log_z_error import ASKED, ERRORS, RIVAL_OF
from benchmarks.markdown import count, power_of_ten, seconds, table
from benchmarks.store import Row, across_machines
from benchmarks.targets import targets_of

METHODS = (*ASKED, *RIVAL_OF)
VERDICT_AT = 1e-3  # the error at which the verdict is timed


def draw_log_z(rows: list[Row]) -> str:
    """Seconds (and evaluations) to each error, by target and method; the first of each column of a target is bold."""
    lines, behind, mixed, rivals = [], [], list[str](), list[list[summary.TimeTo | None]]()
    for target in targets_of(rows):
        found = {method: summary.series(rows, target, method) for method in METHODS}
        found = {method: budgets for method, budgets in found.items() if budgets}
        times = {method: _times(method, budgets) for method, budgets in found.items()}
        rivals += [times[method] for method in times if method not in ASKED]
        warning = across_machines([row for row in rows if row["key"]["target"] == target], target)
        firsts = [None if warning else _first({m: times[m][i] for m in times}) for i in range(len(ERRORS))]
        mixed += warning
        for method, budgets in found.items():
            cells = [
                _cell(time, firsts[i] == method) if time else _not_reached(method, budgets, ERRORS[i])
                for i, time in enumerate(times[method])
            ]
            best = min(budgets, key=lambda budget: budget.error)
            lines.append([
                target, method, *cells, f"{max(b.compile_seconds for b in budgets):.0f} s",
                _verdict(rows, target, method),
                f"{best.error:.1g} in {seconds(best.seconds)}" if best.error < float("inf") else "failed",
            ])  # fmt: skip
        behind += [
            f"{target} at {power_of_ten(error)}: {first}" for error, first in zip(ERRORS, firsts, strict=True)
            if first and first not in ASKED
        ]  # fmt: skip
    header = ["target", "method", *(f"to {power_of_ten(error)}" for error in ERRORS)]
    header += ["compilation", "verdict, on top", "best measured"]
    wins = "Something else is first on " + "; ".join(behind) + "." if behind else "boltzflow is first everywhere."
    wins = wins if behind or not mixed else "Elsewhere boltzflow is first."
    return "\n\n".join([table(header, lines), _note(rows, rivals), *mixed, wins])


def _note(rows: list[Row], rivals: list[list[summary.TimeTo | None]]) -> str:
    numbers = sorted({len({r["key"]["seed"] for r in rows if r["key"]["target"] == t}) for t in targets_of(rows)})
    shares = [
        f"{sum(time is not None and not time.measured for time in column)} of {len(column)} at {power_of_ten(error)}"
        for error, column in zip(ERRORS, zip(*rivals, strict=True), strict=False)
    ]
    of_rivals = f": of the rivals' times {', '.join(shares)}" if shares else ""
    return (
        f"Root mean square over {' or '.join(map(str, numbers))} seeds; in parentheses evaluations of the energy, with "
        "its gradient or alone. Ours is of the runs that were told the error of the column, and of no others. ≈: "
        "extrapolated, with error ∝ 1/√budget, from the largest budget measured or the average of the three largest, "
        f"whichever gives less time{of_rivals}. Compilation is that of the first seed "
        f"with nothing compiled before, at its dearest budget. Verdict: the median at {power_of_ten(VERDICT_AT)}, of "
        "what the checks of the answer take; rivals give no verdict."
    )


def _times(method: str, budgets: list[summary.Budget]) -> list[summary.TimeTo | None]:
    to = summary.time_told if method in ASKED else summary.time_to
    return [to(budgets, error) for error in ERRORS]


def _first(times: dict[str, summary.TimeTo | None]) -> str | None:
    return min((m for m, time in times.items() if time), key=lambda m: times[m].seconds, default=None)  # type: ignore[union-attr]


def _cell(time: summary.TimeTo, first: bool) -> str:
    text = ("" if time.measured else "≈ ") + f"{seconds(time.seconds)} ({count(time.evaluations)})"
    return f"**{text}**" if first else text


def _not_reached(method: str, budgets: list[summary.Budget], error: float) -> str:
    """Of what was told the error, by how much it erred; a dash where it was not asked."""
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
