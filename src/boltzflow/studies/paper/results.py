"""The rows behind the paper's tables and figures, one JSON file each, and what the tables take from a row.

A row has all seeds of a cell in a preset as `cells.measure` recorded them, the mean and standard deviation of each
metric, the settings, versions and device. A number that is not finite is text there, as in a report.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
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
from boltzflow.studies.paper.cells import METRICS, TARGETS, Cell
from boltzflow.studies.rows import Row, Rows

_KEY = ("target", "method", "preset")
_EVALUATION_BATCH = 4096  # the paper's


def results(folder: Path, table: str) -> Rows:
    """The rows of a table or figure."""
    return Rows(folder / f"{table}.json")


def find(folder: Path, cell: Cell, preset: str) -> Row | None:
    """The row of a cell in a preset, with any settings."""
    return results(folder, cell.table).find(target=cell.target, method=cell.method, preset=preset)


def seeds(folder: Path, cell: Cell, preset: str, config: Config) -> list[Row]:
    """The measured seeds of a cell with exactly these settings."""
    row = find(folder, cell, preset)
    return row["runs"] if row and row["config"] == dataclasses.asdict(config) else []


def keep(folder: Path, cell: Cell, preset: str, config: Config, *measured: Mapping[str, Any]) -> Path:
    """Adds measured seeds to the row of a cell; seeds of other settings are dropped. Returns the file."""
    runs = {run["seed"]: run for run in [*seeds(folder, cell, preset, config), *measured]}
    return put(folder, cell.table, _row(cell, preset, config, [runs[seed] for seed in sorted(runs)]))


def put(folder: Path, table: str, row: Mapping[str, Any]) -> Path:
    """Writes a row in place of the row of the same target, method and preset. Returns the file."""
    rows = results(folder, table)
    rows.put(plain(row), *_KEY)
    return rows.path


def _row(cell: Cell, preset: str, config: Config, runs: Sequence[Mapping[str, Any]]) -> Row:
    kept = [{**run, "metrics": {name: float(value) for name, value in run["metrics"].items()}} for run in runs]
    name, options = cell.shipped
    facts = versions()
    device = facts.pop("device")
    return {
        "target": cell.target,
        "method": cell.method,
        "preset": preset,
        "seeds": len(kept),
        "metrics": {name: mean_and_spread([run["metrics"][name] for run in kept]) for name in kept[0]["metrics"]},
        "train_seconds": [run["train_seconds"] for run in kept],
        "shipped": {"name": name, **options},
        "config": dataclasses.asdict(config),
        "versions": facts,
        "device": device,
        "date": f"{datetime.date.today()}",
        "runs": kept,
    }


def exact_row(target: str, preset: str, num_seeds: int = 5) -> Row:
    """The metrics of a perfect sampler: exact divergences and ESS, and the Hausdorff distance of exact samples."""
    name, options = TARGETS[target]
    density = make_target(name, **options)
    assert isinstance(density, AbstractDistribution) and isinstance(density, HasModes)
    log_z = float(density.log_z)
    batches = [sample_batch(density, jax.random.key(seed), _EVALUATION_BATCH)[0] for seed in range(num_seeds)]
    distances = [float(hausdorff(np.asarray(density.modes), np.asarray(x)).value) for x in batches]
    exact = {"reverse_kl": -log_z, "reverse_ess": 1.0, "forward_kl": 0.0, "forward_ess": 1.0}
    metrics = {"hausdorff": mean_and_spread(distances), **{key: [value, 0.0] for key, value in exact.items()}}
    return {
        "target": target,
        "method": "exact",
        "preset": preset,
        "seeds": num_seeds,
        "log_z": log_z,
        "metrics": {name: metrics[name] for name in METRICS},
    }


def mean_and_spread(values: Sequence[float]) -> list[float]:
    """The mean over seeds and their standard deviation (0 for one seed), of values that may be infinite."""
    with np.errstate(invalid="ignore"):
        mean = float(np.mean(values))
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return [mean, spread]


# --- from rows to numbers ---------------------------------------------------------------------------------------------


def of_seeds(row: Row, metric: str) -> list[float]:
    """A metric of each seed."""
    return [float(run["metrics"][metric]) for run in row["runs"] if metric in run["metrics"]]


def curve_of(row: Row) -> np.ndarray:
    """Step, seconds, loss and reverse ESS at each measurement of the ESS of the first seed."""
    return np.array([[float(value) for value in look] for look in row["runs"][0]["curve"]])


def reached(curve: Sequence[Sequence[Any]], ess: float) -> tuple[int, float] | None:
    """The step and seconds of the look from which on the reverse ESS stays at `ess` or above, if there is one.

    A look is (step, seconds, ..., reverse ESS).
    """
    below = [i for i, look in enumerate(curve) if not float(look[-1]) >= ess]
    first = below[-1] + 1 if below else 0
    return (int(curve[first][0]), float(curve[first][1])) if first < len(curve) else None


def step_seconds(curve: Sequence[Sequence[Any]]) -> float:
    """Seconds of a step, the median over the intervals between looks; NaN for a single look.

    The median excludes the pilot, and pauses in which the machine did other work.
    """
    if len(curve) < 2:
        return float("nan")
    looks = np.array([[float(look[0]), float(look[1])] for look in curve])
    steps, seconds = np.diff(looks, axis=0).T
    return float(np.median(seconds / steps))
