"""What the programs share: their options, their loop over rows, and a run of boltzflow with its times kept apart."""

import argparse
import dataclasses
import tempfile
import time
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

import boltzflow
from benchmarks.store import RESULTS, Row, Store
from boltzflow import presets


class Enough(Exception):
    """Raised inside a run that is only measured, when it has been measured."""


def arguments(description: str, targets: Iterable[str], **extra: dict[str, Any]) -> argparse.Namespace:
    """The options of every benchmark, and `extra` ones: name to the keywords of `add_argument`."""
    names = list(targets)
    parser = argparse.ArgumentParser(description=description.strip().splitlines()[0])
    if names:
        parser.add_argument("--targets", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0 on")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that are there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    return parser.parse_args()


def use_cold_cache() -> None:
    """Keep compiled programs for this process only: the first seed pays for compiling, and says what it cost."""
    folder = tempfile.TemporaryDirectory(prefix="boltzflow-bench-")
    typing.cast(Any, use_cold_cache).folder = folder  # removed when the process ends
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def measured(store: Store, source: str, measure: Callable[[], Row], **key: Any) -> Row:
    """The row of this key: the one that is there, or a new one. What fails is a row too, with its `failure`."""
    row = store.find(source, **key)
    if row is not None:
        return row
    try:
        values = measure()
    except Exception as error:
        values = failure(error)
    return record(store, source, values, **key)


def record(store: Store, source: str, values: Row, **key: Any) -> Row:
    """Keep a row, and print it."""
    print(" ".join(f"{value}" for value in key.values()) + ": " + describe(values), flush=True)
    return store.add(source, values, **key)


def failure(error: Exception) -> Row:
    """A row that says in one line what went wrong."""
    return {"failure": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}


def describe(row: Row) -> str:
    """A row's plain numbers in one line."""
    if row.get("failure"):
        return row["failure"]
    numbers = {name: value for name, value in row.items() if isinstance(value, float | int) and name != "key"}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def has_setting(name: str) -> bool:
    """Whether this version's configuration has a setting of that name."""
    return name in presets.FIELD_TYPES


def configure(config: boltzflow.Config, **changes: Any) -> boltzflow.Config:
    """`config` with those of the changes that this version knows."""
    return dataclasses.replace(config, **{name: value for name, value in changes.items() if has_setting(name)})


def fields() -> tuple[str, ...]:
    """The kinds of velocity field that a configuration can name, besides the automatic choice."""
    kinds = typing.get_args(presets.FIELD_TYPES["field"]) if has_setting("field") else ("time-mixture",)
    return tuple(kind for kind in kinds if kind != "auto")


class PilotTime(NamedTuple):
    """How long a run's pilot took, and about how long its programs took to compile."""

    seconds: float
    compile_seconds: float


def fit(
    target: boltzflow.AbstractDensity, seed: int, config: boltzflow.Config, name: str = ""
) -> tuple[boltzflow.Run, PilotTime]:
    """A run, and the time of its pilot."""
    times: list[PilotTime] = []
    start = time.perf_counter()

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "compile" and not times:
            times.append(PilotTime(progress.seconds, max(0.0, time.perf_counter() - start - progress.seconds)))

    run = boltzflow.fit(target, seed=seed, config=config, name=name, on_progress=listen)
    return run, times[0]


def evaluations_until(run: boltzflow.Run, step: int) -> int:
    """Evaluations of the target's energy with its gradient by the pilot and the first `step` steps of training."""
    cost = run.trained.cost
    training = cost["gradient_evaluations"] - run.pilot.num_gradients
    return int(run.pilot.num_gradients + training * step / cost["steps"])
