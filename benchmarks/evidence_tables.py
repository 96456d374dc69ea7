"""The table of posteriors with a known evidence: default runs of ours beside nested samplers."""

from collections import defaultdict

from benchmarks.evidence import OURS
from benchmarks.evidence_cases import CASES
from boltzflow.report.formatting import format_error, format_value
from boltzflow.studies.markdown import count, seconds, table
from boltzflow.studies.rows import Row

ERROR = 0.01
"""The error of log Z at which calls are compared."""


def draw_evidence(rows: list[Row]) -> str:
    """A line for each case and method, and where a rival needs fewer calls or is right where ours is not."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["key"]["target"]][row["key"]["method"]].append(row)
    worst = {name: {method: _worst(group) for method, group in found[name].items()} for name in CASES if name in found}
    lines = [_line(name, method, row) for name, methods in worst.items() for method, row in methods.items()]
    header = ["posterior", "log Z known", "by", "log Z", "off", "σ off", "verdict", "calls", f"calls for ± {ERROR}"]
    note = (
        "Where there are several seeds, the one that is most errors off, or that reached least. Calls are those of the "
        "likelihood, ours mostly with the gradient. "
        f"A run with a larger error than {ERROR} would take (error / {ERROR})² times its calls for it, and this is the "
        "last number of calls, marked ≈; one with a smaller error is not scaled down."
    )
    return "\n\n".join([table([*header, "time"], lines), note, *_wins(worst)])


def _worst(rows: list[Row]) -> Row:
    """The row of several seeds that shows least."""
    failed = [row for row in rows if "failure" in row]
    return failed[0] if failed else min(rows, key=lambda row: (row.get("reached", True), -abs(row["z"])))


def _line(name: str, method: str, row: Row) -> list[str]:
    case = CASES[name]
    known = f"{case.log_z:.3f} ± {case.log_z_error}" if case.log_z_error else f"{case.log_z:.6f}"
    known = known.replace("-", "−")
    if "failure" in row:
        return [name, known, method, row["failure"].removeprefix("TooLongError: "), *"––––––"]
    verdict = f"{'trusted' if row['trusted'] else 'distrusted'}, {row['route']}" if method == OURS else "–"
    needed = calls_needed(row)
    return [
        name,
        known,
        method,
        f"{format_value(row['log_z'], row['error'])} {format_error(row['error'])}".replace("-", "−"),
        f"{row['off']:+.2g}".replace("-", "−"),
        f"{row['z']:+.1f}".replace("-", "−"),
        verdict,
        count(row["calls"]),
        ("≈ " if needed > row["calls"] else "") + count(needed),
        seconds(row["seconds"]),
    ]


def calls_needed(row: Row) -> float:
    """The calls for an error of `ERROR`: those of the run, or more where its error is larger."""
    return row["calls"] * max(1.0, (row["error"] / ERROR) ** 2)


def _is_right(row: Row) -> bool:
    return "failure" not in row and abs(row["z"]) < 4 and row.get("trusted", True)


def _wins(worst: dict[str, dict[str, Row]]) -> list[str]:
    """Sentences on the cases where a rival needs fewer calls, or is right where ours is not, or the other way round."""
    fewer, alone, wrong = (defaultdict(list) for _ in range(3))
    for name, methods in worst.items():
        if OURS not in methods:
            continue
        own = methods[OURS]
        for method, row in methods.items():
            if method == OURS:
                continue
            if not _is_right(row):
                wrong[method].append(name)
            elif not _is_right(own):
                alone[method].append(name)
            elif calls_needed(row) < calls_needed(own):
                fewer[method].append(name)
    said = (
        (f"Fewer calls than {OURS} at an error of {ERROR}", fewer),
        (f"Right within four errors where {OURS} is distrusted or wrong", alone),
        ("Not done, or more than four errors off", wrong),
    )
    return [
        f"{what}: " + "; ".join(f"{method} on {', '.join(names)}" for method, names in where.items()) + "."
        for what, where in said
        if where
    ]
