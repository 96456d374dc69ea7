"""A flow and its peers at equal cost: at the same number of energy evaluations, and in the same seconds."""

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
from boltzflow.studies.baselines.start import Answer

_REFERENCE_SAMPLES = 2**18
_MOST_NUMBERS = 2**24  # floats of all particles together
_ENOUGH, _MOST_GROWTH = 0.7, 8.0
Peer = Callable[..., Answer]


@dataclass(frozen=True)
class Truth:
    """What is known of a target: log Z, the means of x and x² `(dim,)` and the standard deviations of both, from
    262,144 exact samples, so that the means are known to 0.002 of a standard deviation."""

    log_z: float
    mean: Float[np.ndarray, " dim"]
    square: Float[np.ndarray, " dim"]
    mean_scale: Float[np.ndarray, " dim"]
    square_scale: Float[np.ndarray, " dim"]


@dataclass(frozen=True)
class Entry:
    """One line: a method, its answer, and the budget (particles, sweeps or draws) that its cost was met with."""

    method: str
    budget: int
    answer: Answer

    def errors(self, truth: Truth) -> tuple[float, float, float]:
        """Of log Z; and of the means of x and of x², root mean square over coordinates in standard deviations."""
        mean = (self.answer.mean - truth.mean) / truth.mean_scale
        square = (self.answer.square - truth.square) / truth.square_scale
        return self.answer.log_z - truth.log_z, _rms(mean), _rms(square)


def truth_of(target: AbstractDensity) -> Truth | None:
    """From exact samples, where the target has them."""
    if not isinstance(target, AbstractDistribution):
        return None
    x = np.asarray(sample_batch(target, jax.random.key(2**20), _REFERENCE_SAMPLES)[0], np.float64)
    return Truth(float(target.log_z), x.mean(axis=0), (x**2).mean(axis=0), x.std(axis=0), (x**2).std(axis=0))


def of_flow(run: Run) -> Entry:
    """What a finished run says, with its cost: pilot, training, the samples of its report, and the annealing along its
    path where log Z is from there."""
    means = run.expectation(lambda x: {"mean": x, "square": x**2})
    log_z, estimates = run.log_z(), run.report().estimates
    num, cost = len(run.samples.x), run.trained.cost
    evaluations = int(cost["gradient_evaluations"])
    start = time.perf_counter()
    run.sample(jax.random.key(run.seed), num)  # once more, compiled by now, to see how long that takes
    if estimates["log_z"].method != estimates["log_z_importance"].method:
        evaluations += flow_smc(run.draws).num_gradients
    seconds = cost["train_seconds"] + time.perf_counter() - start
    mean, square = (np.asarray(means[name].value, np.float64) for name in ("mean", "square"))
    detail = {"reverse_ess": float(estimates["reverse_ess"].value)}
    detail |= {} if run.report().verdict.trustworthy else {"trusted": 0.0}
    answer = Answer(float(log_z.value), mean, square, seconds, cost["compile_seconds"], num, evaluations, detail)
    return Entry("flow", num, answer)


def peers() -> Mapping[str, tuple[Peer, int]]:
    """By name: each peer, and the smallest budget it is given. Raises `InputError` where BlackJAX is missing."""
    if importlib.util.find_spec("blackjax") is None:
        raise InputError("this needs blackjax: pip install 'boltzflow[bench]'")
    return {
        "NUTS": (nuts.sample, 100),
        "tempered SMC": (smc.estimate_log_z, 2000),
        "parallel tempering": (tempering.estimate_log_z, 64),
    }


def at_equal_cost(
    peer: Peer, smallest: int, target: AbstractDensity, seed: int, std: float, evaluations: int, seconds: float
) -> Sequence[tuple[int, Answer]]:
    """A peer with the budget that takes so many evaluations, and with that which takes so many seconds.

    The budget grows until a run costs between 0.7 and 1 of what the flow did; only that run counts. One that cannot be
    as cheap gets its smallest budget, and its cost says so.
    """
    measure = functools.partial(peer, target.energy, target.dim, jax.random.key(seed + 1000), std=std)
    largest = max(_MOST_NUMBERS // target.dim, smallest)
    return [
        _with_cost(measure, lambda answer: answer.evaluations, evaluations, smallest, largest),
        _with_cost(measure, lambda answer: answer.seconds, seconds, smallest, largest),
    ]


def _with_cost(
    measure: Callable[[int], Answer], cost: Callable[[Answer], float], wanted: float, smallest: int, largest: int
) -> tuple[int, Answer]:
    """What is fixed in a cost makes it grow less than the budget: so none of these steps goes beyond what is wanted."""
    budget, answer = smallest, measure(smallest)
    while cost(answer) < _ENOUGH * wanted and budget < largest:
        growth = min(max(wanted / max(cost(answer), 1e-9), 1.2), _MOST_GROWTH)
        budget = min(round(budget * growth), largest)
        answer = measure(budget)
    return budget, answer


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
