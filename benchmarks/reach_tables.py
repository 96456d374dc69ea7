"""The table of default runs on targets that users bring."""

import math
from collections import defaultdict

from benchmarks.reach_cases import CASES
from boltzflow.report.formatting import format_value
from boltzflow.studies.markdown import seconds, table
from boltzflow.studies.rows import Row


def draw_reach(rows: list[Row]) -> str:
    """A line for each target: its goal, and the worst of its seeds."""
    by_target: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_target[row["key"]["target"]].append(row)
    lines = [_line(name, by_target[name]) for name in CASES if name in by_target]
    header = ["target", "log Z known", "asked for", "seeds", "log Z (worst seed)", "σ off", "route", "reverse ESS"]
    header += ["trusted", "time", "on", "gradients", "reached"]
    note = (
        'The worst seed is the one that reached least. "asked for" is a reverse ESS, or the distance of log Z from the '
        'known value, and the minutes that it may take; "reached" counts the seeds that are trusted, right within four '
        "errors and as near as asked for, whatever their time. Energies with their gradient are in millions."
    )
    return table(header, lines) + "\n\n" + note


def _line(name: str, rows: list[Row]) -> list[str]:
    case = CASES[name]
    known = "–" if math.isnan(case.log_z) else format_value(case.log_z, case.log_z_error)
    goal = f"ESS {case.goal:g}" if case.of == "ess" else f"± {case.goal:g}"
    start = [name, known, f"{goal}, {case.minutes:g} min", f"{len(rows)}"]
    failed = [row for row in rows if "failure" in row]
    if failed:
        return [*start, failed[0]["failure"], *"–––––––", f"0 of {len(rows)}"]
    worst = min(rows, key=lambda row: (row["reached"], row["trusted"], -abs(row.get("z", 0.0))))
    return [
        *start,
        f"{format_value(worst['log_z'], worst['error'])} ± {worst['error']:.2g}",
        f"{worst['z']:+.1f}" if "z" in worst else "–",
        ", ".join(sorted({row["route"] for row in rows})),
        f"{min(row.get('reverse_ess', 0.0) for row in rows):.3g}",
        f"{sum(row['trusted'] for row in rows)}",
        seconds(max(row["seconds"] for row in rows)),
        ", ".join(sorted({row["device"] for row in rows})),
        f"{max(row['gradients'] for row in rows) / 1e6:.0f}",
        f"{sum(row['reached'] for row in rows)} of {len(rows)}",
    ]
