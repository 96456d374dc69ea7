"""The page `docs/paper.md`: what was published, what we get and what is exact, cell by cell, from the stored rows."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from boltzflow.storage.files import write_text
from boltzflow.studies.paper import letter
from boltzflow.studies.paper.cells import MASSES, METRICS, SIZES, Cell
from boltzflow.studies.paper.experiments import EXPERIMENTS, picture_name
from boltzflow.studies.paper.results import Results, Row, numbers, reached, step_seconds
from boltzflow.studies.paper.texts import HEAD, TEXTS
from boltzflow.studies.paper.words import (
    LABELS,
    METHODS,
    TARGETS,
    as_printed,
    markdown,
    number,
    pair,
    plus_minus,
    printed_digits,
    published,
)

_BOUNDED = ("reverse_kl", "hausdorff")  # from below, by what a perfect sampler has
_HIGHER_IS_BETTER = ("reverse_ess", "forward_ess")
BETTER, EQUAL, WORSE = "better", "equal", "**worse**"


def write_page(path: Path, folder: Path, preset: str) -> None:
    """Writes the page of the results in `folder`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page(folder, preset, os.path.relpath(folder, path.parent)))


def page(folder: Path, preset: str, link: str) -> str:
    """The page as Markdown; `link` is the way from it to the folder of the results."""
    parts = [HEAD.format(preset=preset), _in_company(folder, preset)]
    for name in ("table1", "table2"):
        parts += [
            f"## {EXPERIMENTS[name].title}",
            TEXTS[name],
            *_table(name, folder, preset),
            _provenance(name, folder, preset),
        ]
    parts += ["## Figures", TEXTS["path figures"]]
    for name, experiment in EXPERIMENTS.items():
        picture = picture_name(name, preset)
        if name.startswith("fig") and (folder / picture).exists():
            parts += [f"### {experiment.title}", TEXTS.get(name, ""), f"![{experiment.title}]({link}/{picture})"]
        if name == "fig11":
            parts += _speed(folder, preset)
    parts += [f"## {EXPERIMENTS['paths'].title}", TEXTS["paths"], *_paths(folder, preset)]
    parts += [f"## {EXPERIMENTS['penalties'].title}", TEXTS["penalties"], *_penalties(folder, preset)]
    if preset != "paper":
        parts += ["## The paper's procedure to the letter", *letter.section(folder, link)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _in_company(folder: Path, preset: str) -> str:
    """A warning about the seconds, where seeds were trained side by side."""
    tables = {cell.table for experiment in EXPERIMENTS.values() for cell in experiment.cells}
    rows = [row for table in sorted(tables) for row in Results(folder, table).rows if row["preset"] == preset]
    jobs = max((run.get("jobs", 1) for row in rows for run in row.get("runs", ())), default=1)
    return TEXTS["jobs"].format(jobs=jobs) if jobs > 1 else ""


# --- cells ------------------------------------------------------------------------------------------------------------


def mark(
    metric: str, paper: Sequence[float], seeds: Iterable[float], digits: int, floor: Sequence[float] | None = None
) -> str:
    """Whether each of our seeds is better than the `paper` ([mean, spread]), equal within `tolerance`, or worse: in a
    word where they all are alike, else how many are which.

    What was published below the `floor` of a metric, that of a perfect sampler and its spread, counts as the floor.
    """
    mean, allowed = float(paper[0]), tolerance(paper, digits)
    if floor is not None and mean < float(floor[0]):
        mean, allowed = float(floor[0]), allowed + float(floor[1])
    sign = 1 if metric in _HIGHER_IS_BETTER else -1
    gains = [sign * (value - mean) for value in seeds]
    found = Counter(EQUAL if abs(gain) <= allowed else BETTER if gain > 0 else WORSE for gain in gains)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{found[name]} {name}" for name in (BETTER, EQUAL, WORSE) if found[name])


def tolerance(paper: Sequence[float], digits: int) -> float:
    """How far from what was published is equal to it: its spread, and half a unit of the last digit of both numbers, of
    which a small spread has `digits`."""
    return float(paper[1]) + 0.5 * 10.0**-digits + 0.5 * 10.0 ** -printed_digits(float(paper[0]))


def _table(name: str, folder: Path, preset: str) -> list[str]:
    """One table for each target: method, metric, published, ours, exact, mark."""
    results, printed = Results(folder, name), published()[name]
    parts = []
    targets = dict.fromkeys(cell.target for cell in EXPERIMENTS[name].cells)
    for target in targets:
        exact = results.find(Cell(name, target, "exact"), preset)
        lines: list[Sequence[str]] = []
        for cell in EXPERIMENTS[name].cells:
            row = results.find(cell, preset) if cell.target == target else None
            if row and exact:
                lines += _lines(cell, row, exact, printed[target][cell.method], 3 if name == "table1" else 2)
        title = f"**{TARGETS[target]}**" + (f", log Z = {exact['log_z']:.6f}" if exact else "")
        body = markdown(("method", "metric", "published", "ours", "exact", ""), lines) if lines else "Not run yet."
        parts += [title, body]
    return parts


def _lines(
    cell: Cell, row: Row, exact: Row, printed: Mapping[str, Sequence[float]], digits: int
) -> Iterable[Sequence[str]]:
    for i, metric in enumerate(name for name in METRICS if name in row["metrics"]):
        known, theirs = pair(exact["metrics"][metric]), printed.get(metric)
        floor = known if metric in _BOUNDED else None
        yield (
            f"{METHODS[cell.method]} ({row['seeds']} seeds, {_seconds(row)})" if i == 0 else "",
            LABELS[metric], as_printed(theirs, digits) if theirs else "–", of_seeds(row, metric),
            plus_minus(known) if known[1] else number(known[0]),
            mark(metric, theirs, numbers(row, metric), digits, floor) if theirs else "",
        )  # fmt: skip
    if cell.target in MASSES:
        gaps = [value - exact["metrics"]["reverse_kl"][0] for value in numbers(row, "reverse_kl")]
        gap = sum(gaps) / len(gaps)
        mean = printed["reverse_kl"][0]
        their_gap = f"{mean - exact['metrics']['reverse_kl'][0] + 0.0:.{printed_digits(mean)}f}".replace("-", "−")
        yield "", "gap to −log Z ↓", their_gap, f"{gap:.5f}", "0", ""


def of_seeds(row: Row, metric: str) -> str:
    """Mean ± standard deviation; where that is larger than the mean, the median and the range, which say more."""
    mean, spread = pair(row["metrics"][metric])
    values = sorted(numbers(row, metric))
    if len(values) == 1:
        return number(values[0])
    if not spread > max(abs(mean), 1.0):
        return plus_minus((mean, spread))
    return f"{number(float(np.median(values)))} ({number(values[0])} to {number(values[-1])})"


def _seconds(row: Row) -> str:
    """How long a seed trained, and how many of them the verdict trusts."""
    values = sorted(float(value) for value in row["train_seconds"])
    return f"{values[len(values) // 2]:.0f} s each, {sum(run['trusted'] for run in row['runs'])} trusted"


def _provenance(name: str, folder: Path, preset: str) -> str:
    rows = [row for row in Results(folder, name).rows if row["preset"] == preset and "versions" in row]
    if not rows:
        return ""
    versions = ", ".join(f"{key} {value}" for key, value in rows[-1]["versions"].items())
    total = sum(float(run["total_seconds"]) for row in rows for run in row["runs"])
    dates = sorted({row["date"] for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return (
        f"{total / 60:.0f} minutes in all, compiling and measuring included; {rows[-1]['device']}, {versions}; {when}."
    )


# --- figures and ablations --------------------------------------------------------------------------------------------


def _speed(folder: Path, preset: str) -> list[str]:
    """The paper's two claims as numbers: optimizer steps a second, and steps and seconds to a reverse ESS of 0.9."""
    lines = []
    for target, num_sites in SIZES.items():
        cells = [cell for cell in EXPERIMENTS["fig11"].cells if cell.target == target]
        rows = [row for cell in cells if (row := Results(folder, cell.table).find(cell, preset))]
        if len(rows) < len(cells):
            continue
        line = [str(num_sites)]
        for row in rows:
            run = row["runs"][0]
            there = reached(run["curve"], 0.9)
            line += [
                f"{1 / step_seconds(run['curve']):.1f}", number(float(run["metrics"]["reverse_ess"])),
                f"{there[0]}, {there[1]:.0f} s" if there else f"not in {run['steps']}",
            ]  # fmt: skip
        lines.append(line)
    columns = ("steps/s", "final ESS", "steps to 0.9")
    header = ("N", *(f"{name}: {column}" for name in ("reverse KL", "continuity") for column in columns))
    return [markdown(header, lines), TEXTS["speed"]] if lines else []


def _paths(folder: Path, preset: str) -> list[str]:
    lines = []
    for cell in EXPERIMENTS["paths"].cells:
        row = Results(folder, cell.table).find(cell, preset)
        if row:
            lines.append([
                METHODS[cell.method], f"{row['seeds']}", *(of_seeds(row, name) for name in METRICS), _seconds(row)
            ])  # fmt: skip
    header = ("method", "seeds", *(LABELS[name] for name in METRICS), "training")
    return [markdown(header, lines)] if lines else ["Not run yet."]


def _penalties(folder: Path, preset: str) -> list[str]:
    lines = []
    for cell in sorted(EXPERIMENTS["penalties"].cells, key=lambda cell: cell.target):
        row = Results(folder, cell.table).find(cell, preset)
        if row:
            cells = [of_seeds(row, metric) for metric in ("reverse_ess", "forward_ess", "reverse_kl")]
            target = "Eq. (18)" if cell.target == "eq18" else "N = 16, m = 1.5"
            name = METHODS[cell.method] if cell.table == "penalties" else "|r| + r²"
            lines.append([target, name, str(row["seeds"]), *cells])
    if not lines:
        return ["Not run yet."]
    return [markdown(("target", "L", "seeds", "reverse ESS", "forward ESS", "reverse KL"), lines)]
