"""The page `docs/paper.md`: what was published, what we get and what is exact, cell by cell, from the stored rows."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..run_folder import write_whole
from . import letter
from .cells import MASSES, METRICS, SIZES, Cell
from .experiments import EXPERIMENTS, picture_name
from .results import Results, Row, numbers
from .texts import HEAD, TEXTS
from .words import LABELS, METHODS, TARGETS, markdown, number, pair, plus_minus, published

_BOUNDED = ("reverse_kl", "hausdorff")  # from below, by what a perfect sampler has
_HIGHER_IS_BETTER = ("reverse_ess", "forward_ess")
BETTER, EQUAL, WORSE, SCATTERED = "better", "equal", "**worse**", "scattered"


def write_page(path: Path, folder: Path, preset: str) -> None:
    """Writes the page of the results in `folder`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page(folder, preset, os.path.relpath(folder, path.parent)))


def page(folder: Path, preset: str, link: str) -> str:
    """The page as Markdown; `link` is the way from it to the folder of the results."""
    parts = [HEAD.format(preset=preset)]
    for name in ("table1", "table2"):
        parts += [
            f"## {EXPERIMENTS[name].title}",
            TEXTS[name],
            *_table(name, folder, preset),
            _provenance(name, folder, preset),
        ]
    parts += ["## Figures"]
    for name, experiment in EXPERIMENTS.items():
        picture = picture_name(name, preset)
        if name.startswith("fig") and (folder / picture).exists():
            parts += [f"### {experiment.title}", TEXTS.get(name, ""), f"![{experiment.title}]({link}/{picture})"]
        if name == "fig11":
            parts += _speed(folder, preset)
    parts += [f"## {EXPERIMENTS['penalties'].title}", TEXTS["penalties"], *_penalties(folder, preset)]
    if preset != "paper":
        parts += ["## The paper's procedure to the letter", *letter.section(folder, link)]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- cells ------------------------------------------------------------------------------------------------------------


def mark(
    metric: str, paper: Sequence[float], ours: Sequence[float], digits: int, floor: Sequence[float] | None = None
) -> str:
    """Whether `ours` is better than the `paper`, equal within the spread of both, or worse: [mean, spread] each; or
    scattered, where our spread is over ten times the published one and over a tenth of the published mean.

    The published numbers are known to half a unit of their last digit: of the mean's, of which three are printed
    behind the point (fewer from 10 on), and of the spread's, of which there are `digits`. What was published below the
    `floor` of a metric, that of a perfect sampler and its spread, counts as the floor.
    """
    mean, other = float(paper[0]), float(ours[0])
    spread = 0.0
    if floor is not None and mean < float(floor[0]):
        mean, spread = map(float, floor)
    behind = max(0, 3 - max(0, math.floor(math.log10(max(abs(mean), 1)))))
    tolerance = float(paper[1]) + spread + 0.5 * 10.0**-digits + 0.5 * 10.0**-behind
    gain = other - mean if metric in _HIGHER_IS_BETTER else mean - other
    if abs(gain) <= tolerance:
        return EQUAL
    if math.isfinite(other) and not float(ours[1]) <= max(10 * float(paper[1]), 0.1 * abs(mean)):
        return SCATTERED
    if abs(gain) <= tolerance + float(ours[1]):
        return EQUAL
    return BETTER if gain > 0 else WORSE


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
        ours, known = pair(row["metrics"][metric]), pair(exact["metrics"][metric])
        theirs = printed.get(metric)
        floor = known if metric in _BOUNDED else None
        yield (
            f"{METHODS[cell.method]} ({row['seeds']} seeds, {_seconds(row)})" if i == 0 else "",
            LABELS[metric], plus_minus(theirs) if theirs else "–", plus_minus(ours),
            plus_minus(known) if known[1] else number(known[0]),
            mark(metric, theirs, ours, digits, floor) if theirs else "",
        )  # fmt: skip
    if cell.target in MASSES:
        gaps = [value - exact["metrics"]["reverse_kl"][0] for value in numbers(row, "reverse_kl")]
        gap = sum(gaps) / len(gaps)
        theirs = printed["reverse_kl"][0] - exact["metrics"]["reverse_kl"][0]
        yield "", "gap to −log Z ↓", f"{theirs:.4f}", f"{gap:.5f}", "0", ""


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
        found = [
            Results(folder, cell.table).find(cell, preset)
            for cell in EXPERIMENTS["fig11"].cells
            if cell.target == target
        ]
        if not all(found):
            continue
        cells = []
        for row in found:
            assert row is not None
            run = row["runs"][0]
            reached = next((look for look in run["curve"] if float(look[3]) >= 0.9), None)
            cells += [f"{run['steps'] / run['train_seconds']:.1f}", f"{float(run['metrics']['reverse_ess']):.4f}",
                      f"{reached[0]}, {reached[1]:.0f} s" if reached else f"not in {run['steps']}"]  # fmt: skip
        lines.append([str(num_sites), *cells])
    header = (
        "N",
        "reverse KL: steps/s",
        "final ESS",
        "steps to 0.9",
        "continuity: steps/s",
        "final ESS",
        "steps to 0.9",
    )
    return [markdown(header, lines), TEXTS["speed"]] if lines else []


def _penalties(folder: Path, preset: str) -> list[str]:
    lines = []
    for cell in sorted(EXPERIMENTS["penalties"].cells, key=lambda cell: cell.target):
        row = Results(folder, cell.table).find(cell, preset)
        if row:
            cells = [plus_minus(row["metrics"][metric]) for metric in ("reverse_ess", "forward_ess", "reverse_kl")]
            target = "Eq. (18)" if cell.target == "eq18" else "N = 16, m = 1.5"
            name = METHODS[cell.method] if cell.table == "penalties" else "|r| + r²"
            lines.append([target, name, str(row["seeds"]), *cells])
    if not lines:
        return ["Not run yet."]
    return [markdown(("target", "L", "seeds", "reverse ESS", "forward ESS", "reverse KL"), lines)]
