"""The preset "paper" beside the default preset, cell by cell: a table and a picture."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import median

from boltzflow.studies.markdown import number, plus_minus, table
from boltzflow.studies.paper import draw
from boltzflow.studies.paper.cells import METRICS, Cell, config_of
from boltzflow.studies.paper.experiments import EXPERIMENTS, picture, write_picture
from boltzflow.studies.paper.results import curve_of, find, reached, step_seconds
from boltzflow.studies.paper.words import LABELS, METHODS, as_printed, plain_name, published, spread_digits
from boltzflow.studies.rows import Row

FIGURE = "paper-preset"
_GOOD = 0.95


def cells() -> list[Cell]:
    """Every cell that the paper trains, without its ablations."""
    return list(dict.fromkeys(cell for name in ("table1", "table2", "fig11") for cell in EXPERIMENTS[name].cells))


def section(folder: Path, link: str) -> str:
    """The table, the pictures and the missing cells as Markdown; `link` is the path from the page to `folder`."""
    found = _found(folder)
    if not found:
        return "Not run yet: on two cores a small cell takes about an hour, most take days."
    header = ("target", "method", "", "published", "paper preset", "default preset")
    parts = [table(header, [line for each in found for line in _lines(*each)])]
    if (folder / f"{FIGURE}.png").exists():
        parts.append(f"![Reverse ESS with the paper preset and with the default preset]({link}/{FIGURE}.png)")
    for cell, *_ in found:
        path = picture(folder, cell.figure, "paper")
        if cell.figure and path.exists():
            what = f"{plain_name(cell.target)}, {METHODS[cell.method]}, paper preset"
            parts += [f"{what}:", f"![{what}]({link}/{path.name})"]
    missing: dict[str, list[str]] = {}
    for cell in cells():
        if all(cell != other for other, *_ in found):
            missing.setdefault(plain_name(cell.target), []).append(METHODS[cell.method])
    listed = "; ".join(f"{target}: {' and '.join(methods)}" for target, methods in missing.items())
    return "\n\n".join([*parts, f"Not run with this preset, for lack of time: {listed}."] if listed else parts)


def draw_picture(folder: Path, changed: Collection[Cell]) -> list[Path]:
    """Draws the reverse ESS during training where the rows of a cell changed or the file is missing.

    Returns the file, [] where nothing is drawn.
    """
    found = _found(folder)
    is_current = (folder / f"{FIGURE}.png").exists() and not set(changed) & set(cells())
    if is_current or not found:
        return []
    curves = {}
    for cell, row, default in found:
        label = f"{plain_name(cell.target)}: {METHODS[cell.method]}" + (", stopped" if _is_stopped(cell, row) else "")
        curves[label] = [curve_of(row)[:, [0, 1, 3]], curve_of(default)[:, [0, 1, 3]] if default else None]
    return [write_picture(folder, FIGURE, "default", draw.paper_preset(curves))]


def _found(folder: Path) -> list[tuple[Cell, Row, Row | None]]:
    """Each cell with a row of the preset "paper", that row, and the row of the default preset."""
    rows = [(cell, find(folder, cell, "paper"), find(folder, cell, "default")) for cell in cells()]
    return [(cell, row, default) for cell, row, default in rows if row]


def _lines(cell: Cell, row: Row, default: Row | None) -> Iterable[Sequence[str]]:
    asked = config_of(cell, "paper").num_steps
    steps = f"{_steps(row)}" + (f", **stopped before {asked}**" if _is_stopped(cell, row) else "")
    yield plain_name(cell.target), METHODS[cell.method], "steps", f"{asked}", steps, f"{_steps(default)}"
    yield "", "", "training", "–", _duration(row), _duration(default)
    yield "", "", "a step, median", "–", _step_time(row), _step_time(default)
    yield "", "", f"reverse ESS ≥ {_GOOD:g} from", "–", _reached(row), _reached(default)
    printed = published().get(cell.table, {}).get(cell.target, {}).get(cell.method, {})
    for metric in METRICS:
        if metric in row["metrics"]:
            theirs = as_printed(printed[metric], spread_digits(cell.table)) if metric in printed else "–"
            yield "", "", LABELS[metric], theirs, _value(row, metric), _value(default, metric)


def _steps(row: Row | None) -> int | str:
    return int(row["runs"][0]["steps"]) if row else "–"


def _is_stopped(cell: Cell, row: Row) -> bool:
    """Whether training ended before the paper's last step."""
    return int(row["runs"][0]["steps"]) < config_of(cell, "paper").num_steps


def _duration(row: Row | None) -> str:
    if not row:
        return "–"
    seconds = median(float(value) for value in row["train_seconds"])
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _step_time(row: Row | None) -> str:
    return f"{median(step_seconds(run['curve']) for run in row['runs']):.3g} s" if row else "–"


def _reached(row: Row | None) -> str:
    """When the median seed reached the ESS, seen at one of some twenty looks."""
    if not row:
        return "–"
    found = sorted((there[1], there[0]) for run in row["runs"] if (there := reached(run["curve"], _GOOD)))
    if len(found) <= len(row["runs"]) / 2:
        return "not"
    seconds, step = found[(len(row["runs"]) - 1) // 2]
    return f"{seconds:.3g} s, step {step}"


def _value(row: Row | None, metric: str) -> str:
    if not row or metric not in row["metrics"]:
        return "–"
    mean, spread = (float(value) for value in row["metrics"][metric])
    return plus_minus(mean, spread) if row["seeds"] > 1 else number(mean)
