"""A flow and the baselines at equal cost: with the same number of energy evaluations, and in the same seconds."""

import functools
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, sample_batch
from boltzflow.errors import InputError
from boltzflow.report.evaluation import flow_smc
from boltzflow.run import Run
from boltzflow.studies.baselines import nuts, smc, tempering
from boltzflow.studies.baselines.common import Answer

_REFERENCE_SAMPLES = 2**18
_MOST_NUMBERS = 2**24  # floats of all particles together
_LEAST_SHARE = 0.7  # of the wanted cost
_MOST_GROWTH = 8.0
Baseline = Callable[..., Answer]


@dataclass(frozen=True)
class Truth:
    """The exact log Z of a target, and the means and standard deviations of x and x² over 262,144 exact samples."""

    log_z: float
    mean: Float[np.ndarray, " dim"]
    square: Float[np.ndarray, " dim"]
    mean_scale: Float[np.ndarray, " dim"]
    square_scale: Float[np.ndarray, " dim"]


def errors(answer: Answer, truth: Truth) -> tuple[float, float, float]:
    """The errors of log Z, and of the means of x and x²: root mean squares of standard deviations."""
    mean = (answer.mean - truth.mean) / truth.mean_scale
    square = (answer.square - truth.square) / truth.square_scale
    return answer.log_z - truth.log_z, np.sqrt(np.mean(mean**2)), np.sqrt(np.mean(square**2))


def truth_of(target: AbstractDensity) -> Truth | None:
    """The exact answers of a target with exact samples; None for any other target."""
    if not isinstance(target, AbstractDistribution):
        return None
    x = np.asarray(sample_batch(target, jax.random.key(2**20), _REFERENCE_SAMPLES)[0], np.float64)
    return Truth(float(target.log_z), x.mean(axis=0), (x**2).mean(axis=0), x.std(axis=0), (x**2).std(axis=0))


def of_flow(run: Run) -> Answer:
    """The answer of a finished run, with the cost of all that it needs."""
    means = run.expectation(lambda x: {"mean": x, "square": x**2}, unconstrained=True)
    report = run.report()
    estimates = report.estimates
    cost = run.trained.cost
    num_samples = len(run.samples.x)
    gradients = int(cost["gradient_evaluations"])
    start = time.perf_counter()
    run.sample(jax.random.key(run.seed), num_samples)  # a second time, compiled, to measure its seconds
    if estimates["log_z"].method.startswith("annealed"):
        gradients += flow_smc(run.draws).num_gradients
    trust = {} if report.verdict.trustworthy else {"trusted": 0.0}
    return Answer(
        log_z=float(run.log_z().value),
        mean=np.asarray(means["mean"].value, np.float64),
        square=np.asarray(means["square"].value, np.float64),
        seconds=cost["train_seconds"] + time.perf_counter() - start,
        compile_seconds=cost["compile_seconds"],
        energy_evaluations=num_samples,
        gradient_evaluations=gradients,
        detail={"reverse_ess": float(estimates["reverse_ess"].value), **trust},
    )


def baselines() -> Mapping[str, tuple[Baseline, int]]:
    """Each baseline by name, with its smallest budget. Raises `InputError` where BlackJAX is missing."""
    if importlib.util.find_spec("blackjax") is None:
        raise InputError("this needs blackjax: pip install 'boltzflow[bench]'")
    return {
        "NUTS": (nuts.sample, 100),
        "tempered SMC": (smc.estimate_log_z, 2000),
        "parallel tempering": (tempering.estimate_log_z, 64),
    }


def at_equal_cost(
    baseline: Baseline, smallest: int, target: AbstractDensity, seed: int, std: float, evaluations: int, seconds: float
) -> Sequence[tuple[int, Answer]]:
    """A baseline with two budgets: one that takes as many evaluations as the flow, one that takes as many seconds.

    The budget grows until a run costs between 0.7 and 1 of the flow's cost; only that run counts. A baseline that costs
    more with its `smallest` budget keeps that budget.
    """
    measure = functools.partial(baseline, target.energy, target.dim, jax.random.key(seed + 1000), std=std)
    largest = max(_MOST_NUMBERS // target.dim, smallest)

    def with_cost(cost: Callable[[Answer], float], wanted: float) -> tuple[int, Answer]:
        """Fixed costs make the cost grow less than the budget: no step exceeds `wanted`."""
        budget = smallest
        answer = measure(budget)
        while cost(answer) < _LEAST_SHARE * wanted and budget < largest:
            growth = min(max(wanted / max(cost(answer), 1e-9), 1.2), _MOST_GROWTH)
            budget = min(round(budget * growth), largest)
            answer = measure(budget)
        return budget, answer

    return [
        with_cost(lambda answer: answer.evaluations, evaluations),
        with_cost(lambda answer: answer.seconds, seconds),
    ]
