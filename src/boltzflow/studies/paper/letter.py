"""The paper's procedure to the letter, beside our default: the rows of the preset "paper" as a table and a picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from boltzflow.studies.paper import draw
from boltzflow.studies.paper.cells import METRICS, Cell, config_of
from boltzflow.studies.paper.experiments import EXPERIMENTS, picture_name, pictures
from boltzflow.studies.paper.results import Results, Row, reached, step_seconds
from boltzflow.studies.paper.texts import TEXTS
from boltzflow.studies.paper.words import (
    LABELS,
    METHODS,
    as_printed,
    markdown,
    number,
    plain_name,
    plus_minus,
    published,
)

FIGURE = "letter"
_TABLES = ("table1", "table2", "fig11")
_GOOD = 0.95


def section(folder: Path, link: str) -> list[str]:
    """What the page says of them; `link` is the way from it to `folder`."""
    found = _found(folder)
    if not found:
        return ["No cell of it has been run: on two cores one of the small ones takes about an hour, most take days."]
    header = ("target", "method", "", "published", "paper preset", "default preset")
    parts = [TEXTS["letter"], markdown(header, [line for each in found for line in _lines(*each)])]
    if (folder / f"{FIGURE}.png").exists():
        parts.append(f"![Reverse ESS by the paper's procedure and by our default]({link}/{FIGURE}.png)")
    for cell, *_ in found:
        path_picture = picture_name(cell.figure, "paper")
        if cell.figure and (folder / path_picture).exists():
            what = f"{plain_name(cell.target)}, {METHODS[cell.method]}, by the paper's procedure"
            parts += [f"{what}:", f"![{what}]({link}/{path_picture})"]
    return [*parts, _not_run([cell for cell, *_ in found])]


def picture(folder: Path) -> list[Path]:
    """Draws the reverse ESS on the way, if there is any row to draw; the files that were written."""
    curves: dict[str, list[np.ndarray | None]] = {}
    for cell, row, ours in _found(folder):
        label = f"{plain_name(cell.target)}: {METHODS[cell.method]}" + (", stopped" if _stopped(cell, row) else "")
        curves[label] = [_curve(row), _curve(ours) if ours else None]
    return pictures(folder, "default", {FIGURE: draw.letter(curves)}, cells()) if curves else []


def cells() -> list[Cell]:
    """Every cell that the paper trains, but for its ablations."""
    return list(dict.fromkeys(cell for name in _TABLES for cell in EXPERIMENTS[name].cells))


def _found(folder: Path) -> list[tuple[Cell, Row, Row | None]]:
    """Each cell with a row of the preset "paper", that row, and the default one."""
    found = []
    for cell in cells():
        results = Results(folder, cell.table)
        row = results.find(cell, "paper")
        if row:
            found.append((cell, row, results.find(cell, "default")))
    return found


def _lines(cell: Cell, row: Row, ours: Row | None) -> Iterable[Sequence[str]]:
    asked = config_of(cell, "paper").num_steps
    steps = f"{_steps(row)}" + (f", **stopped before {asked}**" if _stopped(cell, row) else "")
    yield (
        plain_name(cell.target), METHODS[cell.method], "steps", f"{asked}", steps, f"{_steps(ours)}" if ours else "–",
    )  # fmt: skip
    yield "", "", "training", "–", _duration(row), _duration(ours) if ours else "–"
    yield "", "", "a step, median", "–", _step_time(row), _step_time(ours) if ours else "–"
    yield "", "", f"reverse ESS ≥ {_GOOD:g} from", "–", _reached(row), _reached(ours) if ours else "–"
    printed = published().get(cell.table, {}).get(cell.target, {}).get(cell.method, {})
    for metric in METRICS:
        if metric in row["metrics"]:
            theirs = as_printed(printed[metric], 3 if cell.table == "table1" else 2) if metric in printed else "–"
            yield "", "", LABELS[metric], theirs, _value(row, metric), _value(ours, metric) if ours else "–"


def _steps(row: Row) -> int:
    return int(row["runs"][0]["steps"])


def _stopped(cell: Cell, row: Row) -> bool:
    """Whether training ended before the paper's last step."""
    return _steps(row) < config_of(cell, "paper").num_steps


def _train_seconds(row: Row) -> float:
    return float(np.median([float(value) for value in row["train_seconds"]]))


def _duration(row: Row) -> str:
    seconds = _train_seconds(row)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _step_time(row: Row) -> str:
    return f"{float(np.median([step_seconds(run['curve']) for run in row['runs']])):.3g} s"


def _reached(row: Row) -> str:
    """From when on the median seed was there, seen at one of some twenty looks."""
    found = sorted((there[1], there[0]) for run in row["runs"] if (there := reached(run["curve"], _GOOD)))
    if len(found) <= len(row["runs"]) / 2:
        return "not"
    seconds, step = found[(len(row["runs"]) - 1) // 2]
    return f"{seconds:.3g} s, step {step}"


def _value(row: Row, metric: str) -> str:
    if metric not in row["metrics"]:
        return "–"
    return plus_minus(row["metrics"][metric]) if row["seeds"] > 1 else number(float(row["metrics"][metric][0]))


def _curve(row: Row) -> np.ndarray:
    """Step, seconds and reverse ESS at each look at the first seed."""
    return np.array([[float(look[0]), float(look[1]), float(look[3])] for look in row["runs"][0]["curve"]])


def _not_run(found: Sequence[Cell]) -> str:
    """Which cells there is no row of, by target."""
    missing: dict[str, list[str]] = {}
    for cell in cells():
        if cell not in found:
            missing.setdefault(plain_name(cell.target), []).append(METHODS[cell.method])
    listed = "; ".join(f"{target}: {' and '.join(methods)}" for target, methods in missing.items())
    return f"Not run in this preset, for want of time: {listed}. {TEXTS['letter not run']}" if missing else ""
