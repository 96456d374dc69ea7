"""The tables of a card: correctness, steps and samples, and whole runs."""

from collections.abc import Callable
from typing import Any

from boltzflow.studies.markdown import count, seconds, table
from boltzflow.studies.rows import Row


def draw_gpu(rows: list[Row]) -> str:
    """A table for each part that has rows; failed measurements at the end."""
    good = [row for row in rows if not row.get("failure")]
    parts: dict[str, Callable[[list[Row]], str]] = {
        "correctness": _correctness,
        "steps": _steps,
        "default": _default,
        "paper": _paper,
        "tables": _cells,
    }
    found = {part: [row for row in good if row["key"]["method"] == part] for part in parts}
    drawn = [draw(found[part]) for part, draw in parts.items() if found[part]]
    failed = [f"Failed: {row['key']['target']}: {row['failure']}." for row in rows if row.get("failure")]
    return "\n\n".join([*drawn, *failed])


def _correctness(rows: list[Row]) -> str:
    """Differences from double precision on the CPU; a row has "cpu" where both devices were compared."""
    lines, notes = [], []
    for row in rows:
        name = row["key"]["target"]
        if "card_rms" in row:
            values = [f"{row[f'{kind}_rms']:.1e} ({row[f'{kind}_largest']:.1e}) nats" for kind in _KINDS]
            lines.append([name, *values])
        elif "card" in row:
            lines.append([name, *(f"{row[kind]:.1e}" for kind in _KINDS)])
        elif "package" in row:
            lines.append([name, "-", f"{row['package']:.1e}", "-", f"{row['bare']:.1e} ({row['bare_nats']:.1e} nats)"])
        else:
            notes.append(f"Of {row['products']} matrix products in the traced programs {row['loose']} may be in TF32.")
    header = ["difference from the CPU in double", "CPU, single", "card, single", "card, double", "card, TF32"]
    about = (
        "Root mean square (and largest) of the differences of log-weights; of the others the relative norm. TF32: the "
        "networks in the card's tensor mode, and the energy as it is outside the package."
    )
    return "\n\n".join([table(header, lines), " ".join([about, *notes])])


_KINDS = ("cpu", "card", "card_double", "card_tf32")


def _steps(rows: list[Row]) -> str:
    """A step beside the time that its products take at the card's measured rate."""
    card = next((row for row in rows if "flops_highest" in row), None)
    lines = []
    for row in sorted((row for row in rows if "step_seconds" in row), key=lambda row: _sites(row)):
        floor = row["flops"] / card["flops_highest"] if card else float("nan")
        lines.append(
            [
                row["key"]["target"],
                f"{1e3 * row['step_seconds']:.3g} ms",
                f"{1e3 * floor:.2g} ms ({count(row['flops'])})",
                f"{row['step_seconds'] / floor:.2g}",
                f"{row['step_bytes'] / 2**30:.2g} GiB",
                f"{row['samples_per_second']:,.0f}",
                f"{row['peak_bytes'] / 2**30:.2g} GiB" if row["peak_bytes"] else "-",
                seconds(row["compile_seconds"]),
            ]
        )
    header = [
        "chain",
        "step",
        "floor (flops)",
        "step / floor",
        "memory of a step",
        "samples per second",
        "peak, so far",
    ]
    about = "The floor is the arithmetic of the matrix products over the card's measured rate in full precision."
    if card:
        about += (
            f" Measured: {card['flops_highest'] / 1e12:.3g} TFlop/s in full precision, "
            f"{card['flops_default'] / 1e12:.3g} by default, {card['bytes_per_second'] / 1e12:.3g} TB/s."
        )
    return "\n\n".join([table([*header, "compilation"], lines), about] if lines else [about])


def _sites(row: Row) -> int:
    return int(row["key"]["target"].split("N=")[1].split()[0])


def _default(rows: list[Row]) -> str:
    """Whole runs of the default preset."""
    lines = []
    for row in rows:
        times = [seconds(row[name]) for name in ("total_seconds", "pilot_seconds", "train_seconds", "compile_seconds")]
        log_z = f"{row['log_z']:.5f} ± {row['log_z_stderr']:.1g} ({row['error']:+.1g})"
        lines.append([row["key"]["target"], *times, f"{row['reverse_ess']:.4f}", log_z, _trusted(row)])
    header = ["default run", "in all", "pilot", "pilot and training", "compilation", "reverse ESS", "log Z (error)", ""]
    return table(header, lines)


def _paper(rows: list[Row]) -> str:
    """The paper's procedure, in a sentence for each row."""
    lines = []
    for row in rows:
        ess = f", reverse ESS {row['looks'][-1][-1]:.3f} at step {row['looks'][-1][0]:,.0f}" if row["looks"] else ""
        end = f", {row['reverse_ess']:.4f} in its report" if "reverse_ess" in row else ""
        pace = f" ({1 / row['step_seconds']:.3g} steps per second)" if "step_seconds" in row else ""
        done = f"{row['steps']:,} of {row['published_steps']:,} steps in {seconds(row['seconds'])}{pace}"
        lines.append(f"The paper's procedure on {row['key']['target']}: {done}{ess}{end}.")
    return "\n\n".join(lines)


def _cells(rows: list[Row]) -> str:
    """Cells of the paper's tables in the preset quick."""

    def shown(row: Row, name: str, form: str) -> Any:
        return format(row[name], form) if name in row else "-"

    lines = [
        [
            row["key"]["target"],
            seconds(row["train_seconds"]),
            seconds(row["total_seconds"]),
            shown(row, "reverse_ess", ".4f"),
            shown(row, "forward_ess", ".4f"),
            shown(row, "error", "+.2g"),
            _trusted(row),
        ]
        for row in sorted(rows, key=lambda row: row["key"]["target"])
    ]
    header = ["cell, preset quick", "pilot and training", "in all", "reverse ESS", "forward ESS", "error of log Z", ""]
    return table(header, lines)


def _trusted(row: Row) -> str:
    return "trusted" if row["trusted"] else "distrusted"
