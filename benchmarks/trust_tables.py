"""The tables of coverage, of the verdict on broken and healthy cases, and of overheads."""

from statistics import median

from benchmarks.trust_cases import BROKEN, HEALTHY
from boltzflow.studies.markdown import table
from boltzflow.studies.rows import Row

QUANTITIES = {"log_z": "log Z", "mean": "⟨x₀⟩", "square": "⟨x₀²⟩", "tail": "tail probability"}
_COUNTS = ("ok", "held", "far")


def draw_coverage(rows: list[Row]) -> str:
    """For each target, flow and route: the repeats that are ok, and among these the intervals that hold the truth."""
    groups = {group: [row for row in rows if row["key"]["group"] == group] for group in ("setting", "judged")}
    lines = []
    for group, members in groups.items():
        lines += [_coverage_line(row) for row in members]
        lines += _coverage_of_routes(f"all of {group}", members)
    key = rows[0]["key"]
    note = (
        "In each cell: the repeats that are ok; of these the share whose interval value ± 1.96 errors holds the exact "
        "value, the share more than 4 errors off, and the root mean square of (value - exact)/error. Samples of "
        f"{key['samples']:,} points each; the binomial error of 95 % in 100 repeats is 2.2 %. The verdict's thresholds "
        'may be set on the targets named "setting", and are judged on those named "judged".'
    )
    header = ["group", "target", "ESS", "route", "repeats", *QUANTITIES.values()]
    return table(header, lines) + "\n\n" + note


def _coverage_line(row: Row) -> list[str]:
    key = row["key"]
    cells = [row["failure"], *"–––"] if "failure" in row else [_coverage_cell(row, name) for name in QUANTITIES]
    ess = f"{row['reverse_ess']:.2f}" if "reverse_ess" in row else "–"
    return [key["group"], key["target"], ess, key["method"], f"{key['repeats']}", *cells]


def _coverage_cell(row: Row, name: str) -> str:
    if name not in row["ok"]:
        return "–"
    num = row["ok"][name]
    if not num:
        return "0 ok"
    share = f"{100 * row['held'][name] / num:.0f} %"
    return f"{num} ok: {share}, {100 * row['far'][name] / num:.1f} %, {row['rms'][name]:.2f}"


def _coverage_of_routes(title: str, rows: list[Row]) -> list[list[str]]:
    """A line for each route with the counts of all of its rows together."""
    lines = []
    for route in dict.fromkeys(row["key"]["method"] for row in rows):
        members = [row for row in rows if row["key"]["method"] == route and "failure" not in row]
        total: Row = {"ok": {}, "held": {}, "far": {}, "rms": {}}
        for name in QUANTITIES:
            having = [row for row in members if name in row["ok"]]
            if having:
                total |= {what: total[what] | {name: sum(row[what][name] for row in having)} for what in _COUNTS}
                square = sum(row["ok"][name] * row["rms"][name] ** 2 for row in having)
                total["rms"][name] = (square / max(1, total["ok"][name])) ** 0.5
        repeats = sum(row["key"]["repeats"] for row in members)
        cells = [_coverage_cell(total, name) for name in QUANTITIES]
        lines.append([f"**{title}**", "", "", route, f"{repeats}", *cells])
    return lines


def draw_confusion(rows: list[Row]) -> str:
    """Broken and healthy cases against what was said, in all and by kind."""
    lines = []
    for expected in ("broken", "healthy"):
        group = [row for row in rows if row["key"]["expected"] == expected]
        kinds = dict.fromkeys(row["key"]["kind"] for row in group)
        lines.append([f"**{expected}**", f"**{len(kinds)} kinds**", *_verdicts(group)])
        lines += [[expected, kind, *_verdicts([row for row in group if row["key"]["kind"] == kind])] for kind in kinds]
    header = [
        "case",
        "kind",
        "cases",
        "refused",
        "distrusted",
        "trusted, right",
        "trusted, not known",
        "trusted, wrong",
    ]
    note = (
        f"{len(rows)} of {len(BROKEN) + len(HEALTHY)} cases are measured so far. Right is within four errors of the "
        "exact answer, and not known where there is none. A broken case is missed where it is trusted and wrong or not "
        "known; a healthy one where it is refused, distrusted, or trusted and wrong."
    )
    return table(header, lines) + "\n\n" + note


def _verdicts(rows: list[Row]) -> list[str]:
    named = [_verdict(row) for row in rows]
    verdicts = ("refused", "distrusted", "trusted, right", "trusted, not known", "trusted, wrong")
    return [str(len(rows)), *(str(named.count(verdict)) for verdict in verdicts)]


def _verdict(row: Row) -> str:
    """A program that failed is no refusal: it counts as wrong."""
    if "failure" in row:
        return "trusted, wrong"
    if not row["trusted"]:
        return "refused" if row["refused"] else "distrusted"
    if "exact" not in row:
        return "trusted, not known"
    return "trusted, right" if row["ok"] else "trusted, wrong"


def draw_trust(rows: list[Row]) -> str:
    """Every case, the broken ones first, with log Z and its first warning."""
    lines = []
    for row in sorted(rows, key=lambda row: row["key"]["expected"]):
        key = row["key"]
        said = row.get("failure") or next(iter(row["said"]), _passed(row))
        sigma = f"{row['z']:.3g}" if "z" in row else "–"
        value = f"{row['log_z']:.8g} ± {row['error']:.2g}" if "log_z" in row and "error" in row else "–"
        verdict = "failed" if "failure" in row else _verdict(row)
        lines.append([key["expected"], key["kind"], key["target"], verdict, value, sigma, said])
    return table(["case", "kind", "", "verdict", "answer", "σ from the exact one", "first warning"], lines)


def _passed(row: Row) -> str:
    """What a trusted answer says of itself; where it is wrong, with what was not checked."""
    unchecked = row.get("unchecked", "")
    return f"every check passed; not checked: {unchecked}" if unchecked and not row["ok"] else "every check passed"


def draw_overheads(rows: list[Row]) -> str:
    """The time of callbacks, snapshots and the report's checks, as a share of energy or training."""
    lines = []
    for row in rows:
        if "failure" in row:
            lines.append([row["key"]["target"], row["failure"], "–", "–"])
            continue
        if "alone" in row:  # the lowest is no result: other work slowed the energy by itself there
            beside = f"{1e3 * row['alone']:.3g} ms, the energy by itself"
            spread = f"at most {row['highest']:.1%} in a single process"
        elif "writing" in row:
            beside = f"{median(row['training']):.3g} s, training"
            spread = f"at most {row['highest']:.1%}"
        else:
            beside = f"{row['training']:.3g} s, training"
            spread = f"{row['first'] / row['training']:.1%} with compiling, once"
        lines.append([row["key"]["target"], beside, f"{row['overhead']:.1%}", spread])
    return table(["what", "beside", "share", "range"], lines)
