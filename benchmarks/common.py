"""The targets of the benchmarks, the options that their programs share, and a run with the time of its pilot."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boltzflow
from benchmarks.store import RESULTS, Row
from boltzflow.densities.catalog import SHIPPED

SEEDS = {"type": int, "default": 5, "help": "how many seeds, from 0 on"}
FIELDS = ("time-mixture", "lattice")


@dataclass(frozen=True)
class Task:
    """A target and the goal of the default preset on it.

    Args:
        name: The name in tables.
        make: Makes the target.
        goal: The reverse ESS that a run must reach; 0: as high as it gets.
        within: The seconds that pilot and training may take.
        forward: Whether the forward ESS must reach the goal too. Defaults to False.
        baseline_std: Standard deviation of the wide Gaussian that the baselines start from, about 1.5 times the extent
            of the target. A user of a baseline has to know it; boltzflow finds it. Defaults to 0: no baselines.
    """

    name: str
    make: Callable[[], boltzflow.AbstractDistribution]
    goal: float
    within: float
    forward: bool = False
    baseline_std: float = 0.0

    @property
    def paper_name(self) -> str:
        """The target's name for the preset "paper"."""
        return next(name for name in (self.name, self.name.split()[0]) if name in SHIPPED)


def chain(num_sites: int, mass: float, goal: float, within: float, **others: Any) -> Task:
    """The quantum particle in a double well."""
    name = f"double-well N={num_sites} m={mass:g}"
    return Task(name, lambda: boltzflow.DoubleWell(num_sites, mass), goal, within, **others)


TASKS = {
    task.name: task
    for task in (
        chain(16, 1.5, 0.998, 60, baseline_std=2.0),
        chain(16, 3.0, 0.99, 60),
        chain(16, 4.5, 0.99, 150, forward=True),
        chain(16, 6.0, 0.99, 150, forward=True, baseline_std=3.0),
        chain(64, 1.5, 0.99, 120, baseline_std=2.0),
        chain(256, 1.5, 0.95, 300),
        chain(1024, 1.5, 0.0, 900),
        Task("mixture-4", boltzflow.mixture_4, 0.995, 60, forward=True),
        Task("mixture-2", boltzflow.mixture_2, 0.995, 90, forward=True, baseline_std=10.0),
    )
}


def targets_of(rows: list[Row]) -> list[str]:
    """The targets of these rows, in the order of `TASKS`."""
    there = {row["key"]["target"] for row in rows}
    return [name for name in TASKS if name in there]


class Enough(Exception):
    """Ends a run once it is measured."""


def arguments(description: str | None, targets: Iterable[str] = (), **extra: dict[str, Any]) -> argparse.Namespace:
    """The options of a benchmark.

    Args:
        description: The docstring of the program.
        targets: The choices of `--targets`. Defaults to none: no such option.
        extra: Further options: name to the keywords of `add_argument`.
    """
    names = list(targets)
    parser = argparse.ArgumentParser(description=(description or "").strip().splitlines()[0])
    if names:
        listed = ", ".join(names).replace("%", "%%")
        parser.add_argument("--targets", nargs="+", choices=names, default=names, metavar="NAME", help=listed)
    parser.add_argument("--fresh", action="store_true", help="forget the stored rows")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **keywords)
    return parser.parse_args()


def fit(
    target: boltzflow.AbstractDensity, seed: int, config: boltzflow.Config, name: str = ""
) -> tuple[boltzflow.Run, float]:
    """A run, and the seconds of its pilot."""
    seconds: list[float] = []

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase in ("race", "compile"):
            seconds.append(progress.seconds)

    run = boltzflow.fit(target, seed=seed, config=config, name=name, on_progress=listen)
    return run, seconds[0]
