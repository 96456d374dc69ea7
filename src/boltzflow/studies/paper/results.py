"""The rows behind the paper's tables and figures: one JSON file for each of them, written seed by seed.

A row is all seeds of a cell in a preset, as `cells.measure` gave them, with the mean and the standard deviation of each
metric, the settings, versions and device. What was measured with these settings is not measured again.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boltzflow.config import Config
from boltzflow.errors import InputError
from boltzflow.report.evaluation import versions
from boltzflow.report.report import plain
from boltzflow.storage.files import write_text
from boltzflow.studies.paper.cells import Cell

Row = dict[str, Any]


class Results:
    """The rows of one file; a number that is not finite is kept as text, as in a report."""

    def __init__(self, folder: Path, table: str):
        self.path = folder / f"{table}.json"
        self.rows: list[Row] = []
        if self.path.exists():
            try:
                self.rows = json.loads(self.path.read_text(encoding="utf-8"))["rows"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise InputError(f"{self.path} is no file of results ({error!r}); move it away") from None

    def find(self, cell: Cell, preset: str) -> Row | None:
        """The row of a cell in a preset, whatever its settings."""
        key = (cell.target, cell.method, preset)
        return next((row for row in self.rows if (row["target"], row["method"], row["preset"]) == key), None)

    def seeds(self, cell: Cell, preset: str, config: Config) -> list[Row]:
        """What has been measured of a cell with just these settings, seed by seed."""
        row = self.find(cell, preset)
        return row["runs"] if row and row["config"] == dataclasses.asdict(config) else []

    def add(self, cell: Cell, preset: str, config: Config, runs: Sequence[Mapping[str, Any]]) -> Row:
        """Writes the row of all these seeds in place of what there was."""
        old = self.find(cell, preset)
        row = plain(_row(cell, preset, config, runs))
        if old:
            self.rows[self.rows.index(old)] = row
        else:
            self.rows.append(row)
        self.write()
        return row

    def put(self, row: Mapping[str, Any]) -> None:
        """Writes a row that is no cell, in place of one of the same target, method and preset."""
        key = ("target", "method", "preset")
        self.rows = [other for other in self.rows if any(other[name] != row[name] for name in key)] + [plain(row)]
        self.write()

    def write(self) -> None:
        """The file as a whole, one row a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in self.rows)
        write_text(self.path, f'{{"rows": [\n{lines}\n]}}\n')


def numbers(row: Row, name: str) -> list[float]:
    """A metric of a row, seed by seed."""
    return [float(run["metrics"][name]) for run in row["runs"] if name in run["metrics"]]


def reached(curve: Sequence[Sequence[Any]], ess: float) -> tuple[int, float] | None:
    """The step and seconds of the look from which on the reverse ESS stays at `ess` or above, if there is one."""
    below = [i for i, look in enumerate(curve) if not float(look[3]) >= ess]
    first = below[-1] + 1 if below else 0
    return (int(curve[first][0]), float(curve[first][1])) if first < len(curve) else None


def step_seconds(curve: Sequence[Sequence[Any]]) -> float:
    """Seconds of a step, the median over the stretches between looks (nan where there is but one look): without the
    pilot, and without what else a machine did in between."""
    if len(curve) < 2:
        return float("nan")
    looks = np.array([[float(look[0]), float(look[1])] for look in curve])
    steps, seconds = np.diff(looks, axis=0).T
    return float(np.median(seconds / steps))


def _row(cell: Cell, preset: str, config: Config, runs: Sequence[Mapping[str, Any]]) -> Row:
    kept = [{**run, "metrics": {k: float(v) for k, v in run["metrics"].items()}} for run in runs]
    name, options = cell.shipped
    return {
        "target": cell.target, "method": cell.method, "preset": preset, "seeds": len(kept),
        "metrics": {name: mean_and_spread([run["metrics"][name] for run in kept]) for name in kept[0]["metrics"]},
        "train_seconds": [run["train_seconds"] for run in kept],
        "shipped": {"name": name, **options}, "config": dataclasses.asdict(config),
        "versions": {k: v for k, v in versions().items() if k != "device"}, "device": versions()["device"],
        "date": f"{datetime.date.today()}", "runs": kept,
    }  # fmt: skip


def mean_and_spread(values: Sequence[float]) -> list[float]:
    """The mean over seeds and their standard deviation (0 for one seed), of values that may be infinite."""
    with np.errstate(invalid="ignore"):
        mean = float(np.mean(values))
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return [mean, spread]
