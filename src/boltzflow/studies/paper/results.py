"""The rows behind the paper's tables and figures, one JSON file each, and what the tables take from a row.

A row has all seeds of a cell in a preset, the mean and standard deviation of each metric, the settings, versions and
device. A number that is not finite is text there, as in a report.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDistribution, HasModes, sample_batch
from boltzflow.densities.catalog import make_target
from boltzflow.report.evaluation import versions
from boltzflow.report.report import plain
from boltzflow.statistics.estimates import hausdorff
from boltzflow.studies.paper.cells import TARGETS, Cell
from boltzflow.studies.rows import Row, Rows

_EVALUATION_BATCH = 4096  # the paper's


def results(folder: Path, table: str) -> Rows:
    """The rows of a table or figure."""
    return Rows(folder / f"{table}.json")


def find(folder: Path, cell: Cell, preset: str) -> Row | None:
    """The row of a cell in a preset, with any settings."""
    return results(folder, cell.table).find(target=cell.target, method=cell.method, preset=preset)


def found(folder: Path, cells: Iterable[Cell], preset: str) -> dict[Cell, Row]:
    """The rows of the cells that have one."""
    rows = {cell: find(folder, cell, preset) for cell in cells}
    return {cell: row for cell, row in rows.items() if row}


def seeds(folder: Path, cell: Cell, preset: str, config: Config) -> list[Row]:
    """The measured seeds of a cell with exactly these settings."""
    row = find(folder, cell, preset)
    return row["runs"] if row and row["config"] == dataclasses.asdict(config) else []


def keep(folder: Path, cell: Cell, preset: str, config: Config, *measured: Mapping[str, Any]) -> Path:
    """Adds measured seeds to the row of a cell; seeds of other settings are dropped. Returns the file."""
    by_seed = {run["seed"]: run for run in [*seeds(folder, cell, preset, config), *measured]}
    runs = [by_seed[seed] for seed in sorted(by_seed)]
    shipped, options = TARGETS[cell.target]
    facts = versions()
    device = facts.pop("device")
    values = {name: [float(run["metrics"][name]) for run in runs] for name in runs[0]["metrics"]}
    row = {
        "seeds": len(runs),
        "metrics": {name: _mean_and_spread(values[name]) for name in values},
        "train_seconds": [run["train_seconds"] for run in runs],
        "shipped": {"name": shipped, **options},
        "config": dataclasses.asdict(config),
        "versions": facts,
        "device": device,
        "date": f"{datetime.date.today()}",
        "runs": runs,
    }
    return put(folder, cell, preset, row)


def put(folder: Path, cell: Cell, preset: str, row: Mapping[str, Any]) -> Path:
    """Writes the row of a cell in a preset in place of the stored one. Returns the file."""
    rows = results(folder, cell.table)
    key = {"target": cell.target, "method": cell.method, "preset": preset}
    rows.put(plain({**key, **row}), *key)
    return rows.path


def put_exact(folder: Path, table: str, target: str, preset: str, num_seeds: int = 5) -> None:
    """Writes the metrics of a perfect sampler: exact divergences and ESS, and H of exact samples."""
    name, options = TARGETS[target]
    density = make_target(name, **options)
    assert isinstance(density, AbstractDistribution) and isinstance(density, HasModes)
    log_z = float(density.log_z)
    batches = [sample_batch(density, jax.random.key(seed), _EVALUATION_BATCH)[0] for seed in range(num_seeds)]
    distances = [float(hausdorff(np.asarray(density.modes), np.asarray(x)).value) for x in batches]
    values = {"reverse_kl": -log_z, "reverse_ess": 1.0, "forward_kl": 0.0, "forward_ess": 1.0}
    metrics = {"hausdorff": _mean_and_spread(distances), **{name: [value, 0.0] for name, value in values.items()}}
    put(folder, Cell(table, target, "exact"), preset, {"seeds": num_seeds, "log_z": log_z, "metrics": metrics})


def _mean_and_spread(values: Sequence[float]) -> list[float]:
    """The mean over seeds and their standard deviation (0 for one seed), of values that may be infinite."""
    with np.errstate(invalid="ignore"):
        return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def of_seeds(row: Row, metric: str) -> list[float]:
    """A metric of each seed."""
    return [float(run["metrics"][metric]) for run in row["runs"] if metric in run["metrics"]]


def curve_of(row: Row) -> np.ndarray:
    """Step, seconds, loss and reverse ESS at each measurement of the ESS of the first seed."""
    return np.array([[float(value) for value in look] for look in row["runs"][0]["curve"]])


def reached(curve: Sequence[Sequence[Any]], ess: float) -> tuple[int, float] | None:
    """The step and seconds of the look (step, seconds, ..., ESS) from which on the ESS stays at `ess` or above."""
    below = [i for i, look in enumerate(curve) if not float(look[-1]) >= ess]
    first = below[-1] + 1 if below else 0
    return (int(curve[first][0]), float(curve[first][1])) if first < len(curve) else None


def step_seconds(curve: Sequence[Sequence[Any]]) -> float:
    """Seconds of a step: the median over the intervals between looks, which excludes pauses; NaN for a single look."""
    if len(curve) < 2:
        return float("nan")
    looks = np.array([[float(look[0]), float(look[1])] for look in curve])
    steps, seconds = np.diff(looks, axis=0).T
    return float(np.median(seconds / steps))
