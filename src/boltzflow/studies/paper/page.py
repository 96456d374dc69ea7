"""The tables and pictures of `docs/paper.md`: published, our and exact numbers, cell by cell, from the stored rows.

The page's prose stands in the page; `write_page` replaces the marked parts alone. Where there is no page yet it writes
one of titles and marked parts.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from boltzflow.storage.files import write_text
from boltzflow.studies import markdown
from boltzflow.studies.markdown import number, plus_minus
from boltzflow.studies.paper import paper_preset
from boltzflow.studies.paper.cells import MASSES, METRICS, SIZES, Cell
from boltzflow.studies.paper.experiments import EXPERIMENTS, picture
from boltzflow.studies.paper.results import find, of_seeds, reached, results, step_seconds
from boltzflow.studies.paper.words import (
    LABELS,
    METHODS,
    TARGETS,
    as_printed,
    mean_digits,
    over_seeds,
    plain_name,
    published,
    spread_digits,
)
from boltzflow.studies.rows import Row

_BOUNDED = ("reverse_kl", "hausdorff")  # from below, by the metric of a perfect sampler
_HIGHER_IS_BETTER = ("reverse_ess", "forward_ess")
BETTER, EQUAL, WORSE = "better", "equal", "**worse**"
NOT_RUN = "Not run yet."


def write_page(path: Path, folder: Path, preset: str) -> None:
    """Writes the marked parts of a page, or a page of titles and marked parts where `path` has none.

    Args:
        path: The page.
        folder: The folder of the rows and pictures.
        preset: The preset whose rows are shown.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, page(folder, preset, os.path.relpath(folder, path.parent), text))


def page(folder: Path, preset: str, link: str, text: str = "") -> str:
    """The page `text` with its marked parts rendered; `link` is the path from the page to `folder`."""
    if not markdown.marks(text):
        titles = {**{name: experiment.title for name, experiment in EXPERIMENTS.items()}, **_OTHER_PARTS}
        parts = [f"## {title}\n\n{markdown.mark(name)}" for name, title in titles.items()]
        text = "\n\n".join(["# The paper, reproduced", markdown.mark("preset"), *parts]) + "\n"
    return markdown.updated(text, lambda name: PARTS[name](folder, preset, link))


def _preset(folder: Path, preset: str, link: str) -> str:
    """The preset, with a warning about the seconds where seeds were trained side by side."""
    tables = {cell.table for experiment in EXPERIMENTS.values() for cell in experiment.cells}
    rows = [row for table in sorted(tables) for row in results(folder, table).rows if row["preset"] == preset]
    jobs = max((run.get("jobs", 1) for row in rows for run in row.get("runs", ())), default=1)
    warning = (
        f" Some of these seeds were trained side by side, up to {jobs} at a time on one machine: their seconds are "
        "longer, and their steps per second fewer, than those of a training alone."
    )
    return f'Our numbers are of the preset "{preset}".' + (warning if jobs > 1 else "")


# --- the paper's tables -----------------------------------------------------------------------------------------------


def compared(
    metric: str, paper: Sequence[float], seeds: Iterable[float], digits: int, floor: Sequence[float] | None = None
) -> str:
    """Our seeds against the `paper` ([mean, spread]): better, equal within `tolerance`, or worse.

    One word where all seeds are alike, else the number of seeds of each kind. A published mean below the `floor` of a
    metric (mean and spread of a perfect sampler) counts as the floor.
    """
    mean = float(paper[0])
    allowed = tolerance(paper, digits)
    if floor is not None and mean < floor[0]:
        mean = floor[0]
        allowed += floor[1]
    sign = 1 if metric in _HIGHER_IS_BETTER else -1
    gains = [sign * (value - mean) for value in seeds]
    found = Counter(EQUAL if abs(gain) <= allowed else BETTER if gain > 0 else WORSE for gain in gains)
    if len(found) == 1:
        return next(iter(found))
    return ", ".join(f"{found[name]} {name}" for name in (BETTER, EQUAL, WORSE) if found[name])


def tolerance(paper: Sequence[float], digits: int) -> float:
    """The published spread, and half a unit of the last digit of mean and spread (with `digits` if it is small)."""
    return float(paper[1]) + 0.5 * 10.0**-digits + 0.5 * 10.0 ** -mean_digits(float(paper[0]))


def _table(name: str, folder: Path, preset: str, link: str) -> str:
    """One table for each target: method, metric, published, ours, exact, comparison."""
    printed = published()[name]
    parts = []
    for target in dict.fromkeys(cell.target for cell in EXPERIMENTS[name].cells):
        exact = find(folder, Cell(name, target, "exact"), preset)
        lines: list[Sequence[str]] = []
        for cell in EXPERIMENTS[name].cells:
            row = find(folder, cell, preset) if cell.target == target else None
            if row and exact:
                lines += _lines(cell, row, exact, printed[target][cell.method])
        parts.append(f"**{TARGETS[target]}**" + (f", log Z = {exact['log_z']:.6f}" if exact else ""))
        parts.append(_table_of(("method", "metric", "published", "ours", "exact", ""), lines))
    return "\n\n".join([*parts, *_provenance(name, folder, preset)])


def _table_of(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return markdown.table(header, lines) if lines else NOT_RUN


def _lines(cell: Cell, row: Row, exact: Row, printed: Mapping[str, Sequence[float]]) -> Iterable[Sequence[str]]:
    digits = spread_digits(cell.table)
    method = f"{METHODS[cell.method]} ({row['seeds']} seeds, {_seconds(row)})"
    for metric in (name for name in METRICS if name in row["metrics"]):
        mean, spread = (float(value) for value in exact["metrics"][metric])
        theirs = printed.get(metric)
        floor = (mean, spread) if metric in _BOUNDED else None
        yield (
            method,
            LABELS[metric],
            as_printed(theirs, digits) if theirs else "–",
            over_seeds(row, metric),
            plus_minus(mean, spread) if spread else number(mean),
            compared(metric, theirs, of_seeds(row, metric), digits, floor) if theirs else "",
        )
        method = ""
    if cell.target in MASSES:
        bound = exact["metrics"]["reverse_kl"][0]
        values = of_seeds(row, "reverse_kl")
        mean = printed["reverse_kl"][0]
        their_gap = f"{mean - bound + 0.0:.{mean_digits(mean)}f}".replace("-", "−")
        yield "", "gap to −log Z ↓", their_gap, f"{sum(value - bound for value in values) / len(values):.5f}", "0", ""


def _seconds(row: Row) -> str:
    """The time of a seed, and the number of trusted seeds."""
    values = sorted(float(value) for value in row["train_seconds"])
    return f"{values[len(values) // 2]:.0f} s each, {sum(run['trusted'] for run in row['runs'])} trusted"


def _provenance(name: str, folder: Path, preset: str) -> list[str]:
    rows = [row for row in results(folder, name).rows if row["preset"] == preset and "versions" in row]
    if not rows:
        return []
    versions = ", ".join(f"{key} {value}" for key, value in rows[-1]["versions"].items())
    minutes = sum(float(run["total_seconds"]) for row in rows for run in row["runs"]) / 60
    dates = sorted({row["date"] for row in rows})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return [f"{minutes:.0f} minutes in all, with compiling and measuring; {rows[-1]['device']}, {versions}; {when}."]


# --- figures and ablations --------------------------------------------------------------------------------------------


def _figure(name: str, folder: Path, preset: str, link: str) -> str:
    path = picture(folder, name, preset)
    return f"![{EXPERIMENTS[name].title}]({link}/{path.name})" if path.exists() else NOT_RUN


def _speed(folder: Path, preset: str, link: str) -> str:
    """The paper's two claims as numbers: optimizer steps per second, and steps and seconds to a reverse ESS of 0.9."""
    lines = []
    for target, num_sites in SIZES.items():
        cells = [cell for cell in EXPERIMENTS["fig11"].cells if cell.target == target]
        runs = [row["runs"][0] for cell in cells if (row := find(folder, cell, preset))]
        if len(runs) < len(cells):
            continue
        line = [str(num_sites)]
        for run in runs:
            there = reached(run["curve"], 0.9)
            line.append(f"{1 / step_seconds(run['curve']):.1f}")
            line.append(number(float(run["metrics"]["reverse_ess"])))
            line.append(f"{there[0]}, {there[1]:.0f} s" if there else f"not in {run['steps']}")
        lines.append(line)
    columns = ("steps/s", "final ESS", "steps to 0.9")
    header = ("N", *(f"{name}: {column}" for name in ("reverse KL", "continuity") for column in columns))
    return _table_of(header, lines)


def _paths(folder: Path, preset: str, link: str) -> str:
    found = [(cell, find(folder, cell, preset)) for cell in EXPERIMENTS["paths"].cells]
    lines = [
        [METHODS[cell.method], f"{row['seeds']}", *(over_seeds(row, name) for name in METRICS), _seconds(row)]
        for cell, row in found
        if row
    ]
    return _table_of(("method", "seeds", *(LABELS[name] for name in METRICS), "training"), lines)


def _penalties(folder: Path, preset: str, link: str) -> str:
    metrics = ("reverse_ess", "forward_ess", "reverse_kl")
    lines = []
    for cell in sorted(EXPERIMENTS["penalties"].cells, key=lambda cell: cell.target):
        row = find(folder, cell, preset)
        if row:
            name = METHODS[cell.method] if cell.table == "penalties" else "|r| + r²"
            numbers = [over_seeds(row, metric) for metric in metrics]
            lines.append([plain_name(cell.target), name, str(row["seeds"]), *numbers])
    return _table_of(("target", "L", "seeds", "reverse ESS", "forward ESS", "reverse KL"), lines)


def _paper_preset(folder: Path, preset: str, link: str) -> str:
    return paper_preset.section(folder, link)


_OTHER_PARTS = {"speed": "Speed over N", "paper_preset": "The paper preset"}
PARTS: Mapping[str, Callable[[Path, str, str], str]] = {
    "preset": _preset,
    **{name: partial(_table, name) for name in ("table1", "table2")},
    **{name: partial(_figure, name) for name in EXPERIMENTS if name.startswith("fig")},
    "speed": _speed,
    "paths": _paths,
    "penalties": _penalties,
    "paper_preset": _paper_preset,
}
"""The marked parts of the page: folder of the rows, preset and link to Markdown."""
