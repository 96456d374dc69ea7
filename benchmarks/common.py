"""What the programs share: their options, their loop over rows, and a run of boltzflow with the time of its pilot."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import boltzflow
from benchmarks.store import RESULTS, Row, Store

SEEDS = {"type": int, "default": 5, "help": "how many seeds, from 0 on"}
FIELDS = ("time-mixture", "lattice")


class Enough(Exception):
    """Raised inside a run that is only measured, when it has been measured."""


def arguments(description: str, targets: Iterable[str], **extra: dict[str, Any]) -> argparse.Namespace:
    """The options of every benchmark, and `extra` ones: name to the keywords of `add_argument`."""
    names = list(targets)
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    listed = ", ".join(names).replace("%", "%%")
    if names:
        parser.add_argument("--targets", nargs="+", choices=names, default=names, metavar="NAME", help=listed)
    parser.add_argument("--fresh", action="store_true", help="forget the rows that are there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    return parser.parse_args()


def measured(store: Store, source: str, measure: Callable[[], Row], **key: Any) -> Row:
    """The row of this key: the one that is there, or a new one. What fails is a row too, with its `failure`."""
    row = store.find(source, **key)
    if row is not None:
        return row
    try:
        values = finite(measure())
    except Exception as error:
        values = failure(error)
    print(" ".join(f"{value}" for value in key.values()) + ": " + describe(values), flush=True)
    return store.add(source, values, **key)


def finite(values: Row) -> Row:
    """The values as they are. Raises `ValueError` where some are NaN or infinite: no table can go on from these."""
    for name, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError(f"{name} is not finite") from None
    return values


def failure(error: Exception) -> Row:
    """A row that says in one line what went wrong."""
    return {"failure": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}


def describe(row: Row) -> str:
    """A row's plain numbers in one line."""
    if row.get("failure"):
        return row["failure"]
    numbers = {name: value for name, value in row.items() if isinstance(value, float | int) and name != "key"}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def fit(
    target: boltzflow.AbstractDensity, seed: int, config: boltzflow.Config, name: str = ""
) -> tuple[boltzflow.Run, float]:
    """A run, and the seconds of its pilot."""
    seconds: list[float] = []

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "compile":
            seconds.append(progress.seconds)

    run = boltzflow.fit(target, seed=seed, config=config, name=name, on_progress=listen)
    return run, seconds[0]
