"""The overheads of the callback around an energy outside JAX, of the snapshots, and of the report's checks.

The callback is a share of the energy's own time at a batch of 256; snapshots and checks are shares of the training
time. The checks are measured compiled, and the first time.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import jax
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.store import Row, Store
from boltzflow.interop.callback import Callback, Function
from boltzflow.report.evaluation import evaluate
from boltzflow.training.snapshots import Snapshots

NAME = "overheads"
BATCH = 256
REPEATS = 100
PROCESSES = 9
NUM_PARTICLES = 16


def lennard_jones(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softened pairs of 16 particles in a trap, in NumPy: a few milliseconds for 256 points."""
    place = x.reshape(len(x), NUM_PARTICLES, 3)
    apart = place[:, :, None] - place[:, None]
    square = np.sum(apart**2, axis=-1) + 0.5
    np.einsum("nii->ni", square)[:] = np.inf
    inverse = square**-3
    energy = 2 * np.sum(inverse**2 - inverse, axis=(1, 2)) + 0.5 * np.sum(x**2, axis=1)
    slope = (-24 * inverse**2 + 12 * inverse) / square * 2
    gradient = np.sum(slope[..., None] * apart, axis=2).reshape(x.shape) + x
    return energy, gradient


def median_seconds(**calls: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each call over many repeats, alternating so that machine noise affects all calls alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(1 + REPEATS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def point_by_point(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same energy, evaluated point by point, as in a program without batches."""
    energies, gradients = zip(*(lennard_jones(one[None]) for one in x), strict=True)
    return np.concatenate(energies), np.concatenate(gradients)


def callback(fn: Function) -> Row:
    """The energy alone, and its values and gradients under jit, as in training.

    Several processes measure one after another, because the placement of memory and threads changes the overhead from
    process to process by as much as itself.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        seconds = list(pool.map(_alone_and_through, [fn] * PROCESSES))
    overheads = sorted(pair["through"] / pair["alone"] - 1 for pair in seconds)
    middle = {name: statistics.median(pair[name] for pair in seconds) for name in ("alone", "through")}
    return {**middle, "overhead": statistics.median(overheads), "lowest": overheads[0], "highest": overheads[-1]}


def _alone_and_through(fn: Function) -> dict[str, float]:
    target = Callback(fn, 3 * NUM_PARTICLES, check_at=np.random.default_rng(0).normal(size=(4, 48)))
    x = jax.random.normal(jax.random.key(0), (BATCH, target.dim))
    both = jax.jit(jax.vmap(jax.value_and_grad(target.energy)))
    own = np.asarray(x, np.float64)
    return median_seconds(alone=lambda: fn(own), through=lambda: jax.block_until_ready(both(x)))


@contextmanager
def timed(owner: type, *names: str) -> Iterator[list[float]]:
    """The seconds of each call of these methods inside the context."""
    seconds: list[float] = []

    def watched(method: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(method)
        def call(*args: object) -> object:
            start = time.perf_counter()
            result = method(*args)
            seconds.append(time.perf_counter() - start)
            return result

        return call

    with mock.patch.multiple(owner, **{name: watched(getattr(owner, name)) for name in names}):
        yield seconds


def snapshots() -> Row:
    """The seconds of all writing in a run; runs with and without snapshots differ by more than that."""
    writing = []
    training = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder, timed(Snapshots, "write_pilot", "write") as seconds:
            run = boltzflow.fit(boltzflow.DoubleWell(16, 1.5), keep=Path(folder))
        writing.append(sum(seconds))
        training.append(run.trained.cost["train_seconds"])
    shares = [part / whole for part, whole in zip(writing, training, strict=True)]
    return {"writing": writing, "training": training, "overhead": statistics.median(shares), "highest": max(shares)}


def report(make: Callable[[], boltzflow.AbstractDensity]) -> Row:
    """The checks of a report without its samples: the first time, and compiled."""
    run = boltzflow.fit(make())
    run.samples  # noqa: B018  drawn here, once
    start = time.perf_counter()
    evaluate(run.draws)
    first = time.perf_counter() - start
    start = time.perf_counter()
    evaluate(run.draws)
    again = time.perf_counter() - start
    training = run.trained.cost["train_seconds"]
    return {"training": training, "first": first, "again": again, "overhead": again / training}


PARTS: dict[str, Callable[[], Row]] = {
    "callback, 256 points at once": lambda: callback(lennard_jones),
    "callback, 256 points one by one": lambda: callback(point_by_point),
    "snapshots, N=16 m=1.5": snapshots,
    "report, N=16 m=1.5": lambda: report(lambda: boltzflow.DoubleWell(16, 1.5)),
    "report, N=16 m=6": lambda: report(lambda: boltzflow.DoubleWell(16, 6.0)),
    "report, mixture-2": lambda: report(boltzflow.mixture_2),
}


def main() -> None:
    options = common.arguments(__doc__, PARTS)
    store = Store(NAME, options.results, options.fresh)
    for name in options.targets:
        store.measured(PARTS[name], target=name)


if __name__ == "__main__":
    main()
