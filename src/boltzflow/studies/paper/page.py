"""The tables and pictures of `docs/paper.md`: published, our and exact numbers, cell by cell, from the stored rows."""

import importlib.resources
import math
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median, median_high

from boltzflow.errors import InputError
from boltzflow.storage.files import write_text
from boltzflow.studies import markdown
from boltzflow.studies.markdown import number, seconds
from boltzflow.studies.paper import draw
from boltzflow.studies.paper.cells import MASSES, METRICS, SIZES, Cell, config_of
from boltzflow.studies.paper.experiments import EXPERIMENTS, path_figure, picture, write_picture
from boltzflow.studies.paper.results import find, found, of_seeds, reached, results, step_seconds
from boltzflow.studies.rows import Row

TARGETS = {
    "eq2": "Eq. (2), four equal modes",
    "eq18": "Eq. (18), two unequal modes",
    **{name: f"m = {mass:g}" for name, mass in MASSES.items()},
}
METHODS = {
    "reverse_kl_loss": "reverse KL",
    "continuity_linear": "continuity, linear path",
    "continuity_trainable": "continuity, trainable path",
    "continuity": "continuity, trainable path",
    "continuity_trainable_alone": "continuity, trainable path, no pilot",
    "continuity_diffusion": "continuity, diffusion path",
    "penalty_abs": "|r|",
    "penalty_square": "r²",
    "penalty_log1p": "log(1 + |r|)",
}
LABELS = {
    "hausdorff": "H(M, X) ↓",
    "reverse_kl": "reverse KL ↓",
    "reverse_ess": "reverse ESS ↑",
    "forward_kl": "forward KL ↓",
    "forward_ess": "forward ESS ↑",
}
_BOUNDED = ("reverse_kl", "hausdorff")  # from below, by the metric of a perfect sampler
_HIGHER_IS_BETTER = ("reverse_ess", "forward_ess")
BETTER, EQUAL, WORSE = "better", "equal", "**worse**"
NOT_RUN = "Not run yet."
PAPER_PRESET = "paper-preset"
_GOOD = 0.95


def write_page(path: Path, folder: Path, preset: str) -> None:
    """Writes the marked parts of a page, or a page of titles and marked parts where `path` has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    write_text(path, page(folder, preset, os.path.relpath(folder, path.parent), text))


def page(folder: Path, preset: str, link: str, text: str = "") -> str:
    """The page `text` with its marked parts rendered; `link` is the path from the page to `folder`."""
    if not markdown.marks(text):
        titles = {**{name: experiment.title for name, experiment in EXPERIMENTS.items()}, **_OTHER_PARTS}
        parts = [f"## {title}\n\n{markdown.mark(name)}" for name, title in titles.items()]
        text = "\n\n".join(["# The paper, reproduced", markdown.mark("preset"), *parts]) + "\n"
    unknown = [name for name in markdown.marks(text) if name not in PARTS]
    if unknown:
        raise InputError(f"this is no page of the paper: it has the unknown part {unknown[0]!r}; choose another page")
    return markdown.updated(text, lambda name: PARTS[name](folder, preset, link))


def _preset(folder: Path, preset: str, link: str) -> str:
    """The preset, with a warning about the seconds where seeds were trained side by side."""
    rows = found(folder, [cell for experiment in EXPERIMENTS.values() for cell in experiment.cells], preset)
    jobs = max((run.get("jobs", 1) for row in rows.values() for run in row["runs"]), default=1)
    warning = (
        f" Some of these seeds were trained side by side, up to {jobs} at a time on one machine: their seconds are "
        "longer, and their steps per second fewer, than those of a training alone."
    )
    return f'Our numbers are of the preset "{preset}".' + (warning if jobs > 1 else "")


# --- names and numbers ------------------------------------------------------------------------------------------------


def plain_name(target: str) -> str:
    """The name of a target outside its own table: a chain by its size and mass."""
    if target not in SIZES and target not in MASSES:
        return TARGETS[target].split(",")[0]
    return f"N = {SIZES.get(target, 16)}, m = {MASSES.get(target, 1.5):g}"


def published(cell: Cell) -> Mapping[str, Sequence[float]]:
    """The published [mean, standard deviation] of a cell's metrics; empty for a cell that no table has."""
    text = importlib.resources.files(__package__).joinpath("published.toml").read_text(encoding="utf-8")
    return tomllib.loads(text).get(cell.table, {}).get(cell.target, {}).get(cell.method, {})


def spread_digits(table: str) -> int:
    """Decimals that the paper prints of a spread below 1."""
    return 3 if table == "table1" else 2


def mean_digits(mean: float) -> int:
    """Decimals that the paper prints of a mean: three, fewer from 10 on."""
    return max(0, 3 - max(0, math.floor(math.log10(max(abs(mean), 1)))))


def as_printed(values: Sequence[float], digits: int) -> str:
    """A published mean and spread as the paper prints them, with `digits` decimals of a spread below 1."""
    mean, spread = values
    decimals = max(0, digits - len(f"{spread:.0f}")) if spread >= 1 else digits
    return f"{mean:.{mean_digits(mean)}f} ± {spread:.{decimals}f}".replace("-", "−")


def over_seeds(row: Row, metric: str) -> str:
    """Mean ± standard deviation; the median and the range where the spread is larger than the mean and than 1."""
    mean, spread = (float(value) for value in row["metrics"][metric])
    values = sorted(of_seeds(row, metric))
    if len(values) == 1:
        return number(values[0])
    if not spread > max(abs(mean), 1.0):
        return f"{number(mean)} ± {number(spread)}"
    return f"{number(median(values))} ({number(values[0])} to {number(values[-1])})"


# --- the paper's tables -----------------------------------------------------------------------------------------------


def compared(
    metric: str, paper: Sequence[float], seeds: Iterable[float], digits: int, floor: Sequence[float] | None = None
) -> str:
    """Our seeds against the `paper` ([mean, spread]): better, equal within `tolerance`, or worse, or a count of each.

    A published mean below the `floor` (mean and spread of a perfect sampler) counts as the floor.
    """
    mean = float(paper[0])
    allowed = tolerance(paper, digits)
    if floor is not None and mean < floor[0]:
        mean = floor[0]
        allowed += floor[1]
    sign = 1 if metric in _HIGHER_IS_BETTER else -1
    gains = [sign * (value - mean) for value in seeds]
    kinds = Counter(EQUAL if abs(gain) <= allowed else BETTER if gain > 0 else WORSE for gain in gains)
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kinds[name]} {name}" for name in (BETTER, EQUAL, WORSE) if kinds[name])


def tolerance(paper: Sequence[float], digits: int) -> float:
    """The published spread, and half a unit of the last digit of mean and spread (with `digits` if it is small)."""
    return float(paper[1]) + 0.5 * 10.0**-digits + 0.5 * 10.0 ** -mean_digits(float(paper[0]))


def _table(name: str, folder: Path, preset: str, link: str) -> str:
    """One table for each target: method, metric, published, ours, exact, comparison."""
    cells = EXPERIMENTS[name].cells
    rows = found(folder, cells, preset)
    parts = []
    for target in dict.fromkeys(cell.target for cell in cells):
        exact = find(folder, Cell(name, target, "exact"), preset)
        ours = [(cell, row) for cell, row in rows.items() if cell.target == target]
        lines = [line for cell, row in ours for line in _lines(cell, row, exact)] if exact else []
        parts.append(f"**{TARGETS[target]}**" + (f", log Z = {exact['log_z']:.6f}" if exact else ""))
        parts.append(_table_of(("method", "metric", "published", "ours", "exact", ""), lines))
    return "\n\n".join([*parts, *_provenance(name, folder, preset)])


def _table_of(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return markdown.table(header, lines) if lines else NOT_RUN


def _lines(cell: Cell, row: Row, exact: Row) -> Iterator[Sequence[str]]:
    printed = published(cell)
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
            number(mean) + (f" ± {number(spread)}" if spread else ""),
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
    time = median_high(float(value) for value in row["train_seconds"])
    return f"{time:.0f} s each, {sum(run['trusted'] for run in row['runs'])} trusted"


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
    rows = found(folder, EXPERIMENTS["fig11"].cells, preset)
    methods = {"reverse_kl_loss": "reverse KL", "continuity": "continuity"}
    lines = []
    for target, num_sites in SIZES.items():
        runs = [row["runs"][0] for cell, row in rows.items() if cell.target == target]
        if len(runs) == len(methods):
            lines.append([str(num_sites), *(text for run in runs for text in _speed_of(run))])
    columns = ("steps/s", "final ESS", "steps to 0.9")
    return _table_of(("N", *(f"{name}: {column}" for name in methods.values() for column in columns)), lines)


def _speed_of(run: Row) -> list[str]:
    there = reached(run["curve"], 0.9)
    when = f"{there[0]}, {there[1]:.0f} s" if there else f"not in {run['steps']}"
    return [f"{1 / step_seconds(run['curve']):.1f}", number(float(run["metrics"]["reverse_ess"])), when]


def _paths(folder: Path, preset: str, link: str) -> str:
    lines = [
        [METHODS[cell.method], f"{row['seeds']}", *(over_seeds(row, name) for name in METRICS), _seconds(row)]
        for cell, row in found(folder, EXPERIMENTS["paths"].cells, preset).items()
    ]
    return _table_of(("method", "seeds", *(LABELS[name] for name in METRICS), "training"), lines)


def _penalties(folder: Path, preset: str, link: str) -> str:
    lines = []
    cells = sorted(EXPERIMENTS["penalties"].cells, key=lambda cell: cell.target)
    for cell, row in found(folder, cells, preset).items():
        name = METHODS[cell.method] if cell.table == "penalties" else "|r| + r²"
        numbers = [over_seeds(row, metric) for metric in ("reverse_ess", "forward_ess", "reverse_kl")]
        lines.append([plain_name(cell.target), name, f"{row['seeds']}", *numbers])
    return _table_of(("target", "L", "seeds", "reverse ESS", "forward ESS", "reverse KL"), lines)


# --- the paper preset -------------------------------------------------------------------------------------------------

_PAPER_CELLS = list(dict.fromkeys(cell for name in ("table1", "table2", "fig11") for cell in EXPERIMENTS[name].cells))
"""Every cell that the paper trains, without its ablations."""


def _paper_preset(folder: Path, preset: str, link: str) -> str:
    """The preset "paper" beside the default preset: the table, the pictures and the missing cells."""
    rows = found(folder, _PAPER_CELLS, "paper")
    if not rows:
        return "Not run yet: on two cores a small cell takes about an hour, most take days."
    header = ("target", "method", "", "published", "paper preset", "default preset")
    lines = [line for cell, row in rows.items() for line in _preset_lines(cell, row, find(folder, cell, "default"))]
    parts = [markdown.table(header, lines)]
    if (folder / f"{PAPER_PRESET}.png").exists():
        parts.append(f"![Reverse ESS with the paper preset and with the default preset]({link}/{PAPER_PRESET}.png)")
    for cell in rows:
        figure = path_figure(cell)
        path = picture(folder, figure, "paper")
        if figure and path.exists():
            what = f"{plain_name(cell.target)}, {METHODS[cell.method]}, paper preset"
            parts += [f"{what}:", f"![{what}]({link}/{path.name})"]
    missing: dict[str, list[str]] = {}
    for cell in _PAPER_CELLS:
        if cell not in rows:
            missing.setdefault(plain_name(cell.target), []).append(METHODS[cell.method])
    listed = "; ".join(f"{target}: {' and '.join(methods)}" for target, methods in missing.items())
    return "\n\n".join([*parts, f"Not run with this preset, for lack of time: {listed}."] if listed else parts)


def draw_paper_preset(folder: Path, changed: Collection[Cell]) -> list[Path]:
    """Draws the reverse ESS during training where a row changed or the file is missing. Returns the file, or []."""
    rows = found(folder, _PAPER_CELLS, "paper")
    is_current = (folder / f"{PAPER_PRESET}.png").exists() and not set(changed) & set(_PAPER_CELLS)
    if is_current or not rows:
        return []
    shown = {}
    for cell, row in rows.items():
        label = f"{plain_name(cell.target)}: {METHODS[cell.method]}" + (", stopped" if _is_stopped(cell, row) else "")
        shown[label] = (row, find(folder, cell, "default"))
    return [write_picture(folder, PAPER_PRESET, "default", draw.paper_preset(shown))]


def _preset_lines(cell: Cell, row: Row, default: Row | None) -> Iterator[Sequence[str]]:
    asked = config_of(cell, "paper").num_steps
    digits = spread_digits(cell.table)
    printed = {LABELS[metric]: as_printed(theirs, digits) for metric, theirs in published(cell).items()}
    printed["steps"] = f"{asked}"
    ours = _facts(row)
    if _is_stopped(cell, row):
        ours["steps"] += f", **stopped before {asked}**"
    defaults = _facts(default) if default else {}
    name = (plain_name(cell.target), METHODS[cell.method])
    for what, value in ours.items():
        yield *name, what, printed.get(what, "–"), value, defaults.get(what, "–")
        name = ("", "")


def _facts(row: Row) -> dict[str, str]:
    """The steps and times of a row, and its metrics over the seeds."""
    return {
        "steps": f"{row['runs'][0]['steps']}",
        "training": _duration(median(float(value) for value in row["train_seconds"])),
        "a step, median": seconds(median(step_seconds(run["curve"]) for run in row["runs"])),
        f"reverse ESS ≥ {_GOOD:g} from": _reached(row),
        **{LABELS[metric]: over_seeds(row, metric) for metric in METRICS if metric in row["metrics"]},
    }


def _is_stopped(cell: Cell, row: Row) -> bool:
    return int(row["runs"][0]["steps"]) < config_of(cell, "paper").num_steps


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _reached(row: Row) -> str:
    """When the median seed reached the ESS, seen at one of some twenty looks."""
    looks = sorted((there[1], there[0]) for run in row["runs"] if (there := reached(run["curve"], _GOOD)))
    if len(looks) <= len(row["runs"]) / 2:
        return "not"
    seconds, step = looks[(len(row["runs"]) - 1) // 2]
    return f"{seconds:.3g} s, step {step}"


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
