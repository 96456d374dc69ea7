"""What is paid for safety: the callback around an energy outside JAX, the snapshots of training, the report's checks.

Each as a share of what it is there for: of the energy's own time at a batch of 256, of the time of training, and again
of the time of training (with everything compiled, and as it comes the first time).
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.store import FLOW, Row, Store, source_hash
from boltzflow.evaluation import evaluate
from boltzflow.interop.callback import Callback, Function

NAME = "overheads"
BATCH, REPEATS = 256, 30
NUM_PARTICLES = 16


def lennard_jones(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softened pairs of 16 particles in a trap, in plain NumPy: a few milliseconds for 256 points."""
    place = x.reshape(len(x), NUM_PARTICLES, 3)
    apart = place[:, :, None] - place[:, None]
    square = np.sum(apart**2, axis=-1) + 0.5
    np.einsum("nii->ni", square)[:] = np.inf
    inverse = square**-3
    energy = 2 * np.sum(inverse**2 - inverse, axis=(1, 2)) + 0.5 * np.sum(x**2, axis=1)
    slope = (-24 * inverse**2 + 12 * inverse) / square * 2
    gradient = np.sum(slope[..., None] * apart, axis=2).reshape(x.shape) + x
    return energy, gradient


def median_seconds(call: Callable[[], object]) -> float:
    """Of some repeats, after one that is not counted."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def point_by_point(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, asked for one point after another, as of a program that knows of no batches."""
    energies, gradients = zip(*(lennard_jones(one[None]) for one in x), strict=True)
    return np.concatenate(energies), np.concatenate(gradients)


def callback(fn: Function) -> Row:
    """The energy by itself, and as training asks for it: values and gradients under jit."""
    target = Callback(fn, 3 * NUM_PARTICLES, check_at=np.random.default_rng(0).normal(size=(4, 48)))
    x = jax.random.normal(jax.random.key(0), (BATCH, target.dim))
    both, own = jax.jit(jax.vmap(jax.value_and_grad(target.energy))), np.asarray(x, np.float64)
    alone = median_seconds(lambda: fn(own))
    through = median_seconds(lambda: jax.block_until_ready(both(x)))
    return {"alone": alone, "through": through, "overhead": through / alone - 1}


def snapshots() -> Row:
    """Training with and without, in turns."""
    target, times = boltzflow.DoubleWell(16, 1.5), {"with": [], "without": []}
    for _ in range(3):
        for how in times:
            with tempfile.TemporaryDirectory() as folder:
                keep = Path(folder) if how == "with" else None
                times[how].append(boltzflow.fit(target, keep=keep).trained.cost["train_seconds"])
    kept, plain = (statistics.median(times[how]) for how in ("with", "without"))
    return {"with": kept, "without": plain, "overhead": kept / plain - 1}


def report(make: Callable[[], boltzflow.AbstractDensity]) -> Row:
    """The checks of a report, besides drawing its samples: the first time, and compiled."""
    run = boltzflow.fit(make())
    run.samples  # noqa: B018  drawn once, here
    start = time.perf_counter()
    evaluate(run)
    first = time.perf_counter() - start
    start = time.perf_counter()
    evaluate(run)
    again, training = time.perf_counter() - start, run.trained.cost["train_seconds"]
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
    options = common.arguments(__doc__ or "", PARTS)
    store, source = Store(NAME, folder=options.results, fresh=options.fresh), source_hash(*FLOW)
    for name in options.targets:
        common.measured(store, source, PARTS[name], target=name)


if __name__ == "__main__":
    main()
