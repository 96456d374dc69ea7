"""The targets of the benchmarks: how each is made, what is asked of it, and what a rival is told about it."""

from collections.abc import Callable
from dataclasses import dataclass

import boltzflow
from benchmarks.store import Row
from boltzflow.densities.catalog import SHIPPED


@dataclass(frozen=True)
class Task:
    """A target, and what the default preset must reach on it.

    `goal` is a reverse ESS (0: as high as it gets) that training must reach `within` so many seconds; where `forward`
    is set the forward ESS must be as high. `rival_std` is the standard deviation of the wide Gaussian that rivals start
    from: some 1.5 times as far as the target goes, which a user has to know; boltzflow finds it out.
    """

    name: str
    make: Callable[[], boltzflow.AbstractDistribution]
    goal: float
    within: float
    forward: bool = False
    rival_std: float = 0.0

    @property
    def paper_name(self) -> str:
        """The name under which the preset "paper" knows the target."""
        return next(name for name in (self.name, self.name.split()[0]) if name in SHIPPED)


def chain(num_sites: int, mass: float, goal: float, within: float, forward: bool = False, std: float = 0.0) -> Task:
    """The quantum particle in a double well."""
    name = f"double-well N={num_sites} m={mass:g}"
    return Task(name, lambda: boltzflow.DoubleWell(num_sites, mass), goal, within, forward, std)


TASKS = {
    task.name: task
    for task in (
        chain(16, 1.5, 0.998, 60, std=2.0),
        chain(16, 3.0, 0.99, 60),
        chain(16, 4.5, 0.99, 150, forward=True),
        chain(16, 6.0, 0.99, 150, forward=True, std=3.0),
        chain(64, 1.5, 0.99, 120, std=2.0),
        chain(256, 1.5, 0.95, 300),
        chain(1024, 1.5, 0.0, 900),
        Task("mixture-4", boltzflow.mixture_4, 0.995, 60, forward=True),
        Task("mixture-2", boltzflow.mixture_2, 0.995, 90, forward=True, rival_std=10.0),
    )
}


def targets_of(rows: list[Row]) -> list[str]:
    """The targets of these rows, in the order of the list above."""
    there = {row["key"]["target"] for row in rows}
    return [name for name in TASKS if name in there]
