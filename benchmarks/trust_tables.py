"""The tables of coverage, of the verdict on broken and healthy cases, and of overheads."""

from statistics import median

from boltzflow.studies.markdown import table
from boltzflow.studies.rows import Row

QUANTITIES = {"log_z": "log Z", "mean": "⟨x₀⟩", "square": "⟨x₀²⟩", "tail": "tail probability"}


def draw_coverage(rows: list[Row]) -> str:
    """The share of repeats whose 95 % interval holds the exact value, by target and quantity."""
    lines = []
    for row in rows:
        if "failure" in row:
            lines.append([row["key"]["target"], *"–" * len(QUANTITIES), "–", "–", row["failure"]])
            continue
        repeats = row["key"]["repeats"]
        covered = [f"{100 * row['covered'][name] / repeats:.1f} %" for name in QUANTITIES]
        ess = f"{row['reverse_ess']:.4f}"
        lines.append([row["key"]["target"], *covered, ess, f"{row['not_ok']}", _trusted(row)])
    key = rows[0]["key"]
    note = (
        f"In each cell: how many of {key['repeats']} repeats with {key['samples']:,} samples each held the exact value "
        f"in value ± 1.96 errors. The binomial error of 95 % in {key['repeats']} repeats is "
        f"{100 * (0.95 * 0.05 / key['repeats']) ** 0.5:.1f} %."
    )
    header = ["target", *QUANTITIES.values(), "reverse ESS", "repeats in doubt", "verdict"]
    return table(header, lines) + "\n\n" + note


def draw_confusion(rows: list[Row]) -> str:
    """Broken and healthy cases against trusted and distrusted."""
    lines = []
    for expected in ("broken", "healthy"):
        group = [row for row in rows if row["key"]["expected"] == expected]
        trusted = sum(row.get("trusted", False) for row in group)
        lines.append([f"{expected} ({len(group)})", str(trusted), str(len(group) - trusted)])
    return table(["case", "trusted", "distrusted"], lines)


def draw_trust(rows: list[Row]) -> str:
    """Every case, the broken ones first, with its first warning."""
    lines = []
    for row in sorted(rows, key=lambda row: row["key"]["expected"]):
        said = row.get("failure") or next(iter(row["said"]), "every check passed")
        lines.append([row["key"]["expected"], row["key"]["target"], _trusted(row), said])
    return table(["case", "", "verdict", "first warning"], lines)


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


def _trusted(row: Row) -> str:
    return "trusted" if row.get("trusted") else "distrusted"
