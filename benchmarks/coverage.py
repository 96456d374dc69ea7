"""How often 95 % intervals contain the exact value, over repeats of every estimate.

Each target has one flow of the default preset and 200 independent samples of 10,000 points. Each sample estimates log
Z, the mean and mean square of the first coordinate, and a tail probability, all with standard errors. A row counts the
repeats in which value ± 1.96 errors contains the exact value: 95 % is 92 to 98 % of 200 repeats (two binomial errors).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.store import Row, Store
from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics.compiling import use_compilation_cache
from boltzflow.report.evaluation import solver_errors
from boltzflow.statistics.estimates import log_z_importance
from boltzflow.statistics.expectations import expectation

NAME = "coverage"


@dataclass(frozen=True)
class Task:
    """A target, the threshold of its tail, and the exact mean, mean square and tail probability of x_0."""

    make: Callable[[], boltzflow.AbstractDistribution]
    threshold: float
    exact: Callable[[boltzflow.AbstractDistribution, float], tuple[float, float, float]]


def of_mixture(target: boltzflow.GaussianMixture, threshold: float) -> tuple[float, float, float]:
    """The exact values for a mixture of Gaussians of unit variance."""
    weights = np.asarray(target.weights)
    means = np.asarray(target.means)[:, 0]
    tail = [0.5 * math.erfc((threshold - mean) / math.sqrt(2)) for mean in means]
    return float(weights @ means), float(weights @ (means**2 + 1)), float(weights @ np.array(tail))


def of_chain(target: boltzflow.DoubleWell, threshold: float) -> tuple[float, float, float]:
    """The exact values for one site of the chain."""
    tail = target.site_expectation(lambda phi: (phi > threshold) + 0.5 * (phi == threshold))
    return 0.0, target.site_expectation(lambda phi: phi**2), tail


def gaussian() -> Gaussian:
    """A correlated Gaussian in ten dimensions with variances from 0.1 to 10."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    return Gaussian(rng.normal(size=10), rotation @ np.diag(np.geomspace(0.1, 10, 10)) @ rotation.T)


def of_gaussian(target: Gaussian, threshold: float) -> tuple[float, float, float]:
    """The exact values for the first coordinate of a Gaussian."""
    mean = float(target.mean[0])
    variance = float(np.sum(np.asarray(target.scale)[0] ** 2))
    return mean, mean**2 + variance, 0.5 * math.erfc((threshold - mean) / math.sqrt(2 * variance))


TASKS: dict[str, Task] = {
    "mixture-4": Task(boltzflow.mixture_4, 10.0, of_mixture),
    "mixture-2": Task(boltzflow.mixture_2, 6.0, of_mixture),
    "double-well N=16 m=1.5": Task(lambda: boltzflow.DoubleWell(16, 1.5), 2.0, of_chain),
    "double-well N=16 m=6": Task(lambda: boltzflow.DoubleWell(16, 6.0), 2.9, of_chain),
    "gaussian 10-D": Task(gaussian, 4.0, of_gaussian),
}


def main() -> None:
    use_compilation_cache()
    options = common.arguments(
        __doc__,
        TASKS,
        repeats={"type": int, "default": 200, "help": "independent samples of each flow"},
        samples={"type": int, "default": 10_000, "help": "points in each"},
    )
    store = Store(NAME, options.results, options.fresh)
    for name in options.targets:
        measure = functools.partial(cover, TASKS[name], options.repeats, options.samples)
        store.measured(measure, target=name, repeats=options.repeats, samples=options.samples)


def cover(task: Task, repeats: int, num_samples: int) -> Row:
    """For each quantity: the repeats whose interval holds the exact value, the root mean square pull, the mean pull."""
    target = task.make()
    run = boltzflow.fit(target, seed=0)
    names = ("log_z", "mean", "square", "tail")
    exact = dict(zip(names, (float(target.log_z), *task.exact(target, task.threshold)), strict=True))
    pulls: dict[str, list[float]] = {name: [] for name in names}
    numerical_error = solver_errors(run.draws)[1]
    not_ok = 0
    for repeat in range(repeats):
        samples = run.sample(jax.random.fold_in(jax.random.key(7), repeat), num_samples)
        x = np.asarray(samples.x, np.float64)[:, 0]
        log_weight = np.asarray(samples.log_weight, np.float64)
        averages = expectation(np.stack([x, x**2, x > task.threshold], axis=1), log_weight)
        log_z = log_z_importance(log_weight)
        not_ok += not (averages.ok and log_z.ok)
        found = {"log_z": (log_z.value, math.hypot(log_z.stderr, numerical_error))}  # as a report has it
        found |= {name: (averages.value[i], averages.stderr[i]) for i, name in enumerate(names[1:])}
        for name, (value, stderr) in found.items():
            pulls[name].append(float((value - exact[name]) / stderr))
    report = run.report()
    return {
        "covered": {name: int(np.sum(np.abs(values) < 1.96)) for name, values in pulls.items()},
        "pull": {name: float(np.sqrt(np.mean(np.square(values)))) for name, values in pulls.items()},
        "bias": {name: float(np.mean(values)) for name, values in pulls.items()},
        "not_ok": not_ok,
        "reverse_ess": float(report.estimates["reverse_ess"].value),
        "trusted": bool(report.verdict.trustworthy),
        "seconds": run.trained.cost["train_seconds"],
    }


if __name__ == "__main__":
    main()
