"""How often 95 % intervals contain the exact value, over repeats of every estimate and every route.

Each target has flows of reverse ESS 0.3, 0.6, 0.9 and 0.99 (`benchmarks.coverage_cases`), and each flow is asked by
four routes: weights, samples pooled with those of a Student t, annealing along the path, and resampled samples. The
pilot has no flow, and one row for each target. Estimated are log Z, and mean, mean square and a tail probability of one
coordinate. A row counts, for each, the repeats that are ok, and among these the intervals value ± 1.96 errors that hold
the exact value, the answers more than four errors off, and the root mean square of (value - exact)/error.

A repeat by weights is ok where the estimate is and the verdict has no objection to the weights; the other checks of a
report, of coverage and between routes, are left out. An error of corrected samples is their standard deviation over the
root of the number of distinct ones, and they are ok where the weights of as many samples of the flow are.
"""

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import common
from benchmarks.coverage_cases import TASKS, Task
from benchmarks.store import Row, Store
from benchmarks.trust_cases.case import known
from boltzflow.densities.base import AbstractDensity, lattice_of, sample_batch
from boltzflow.densities.precision import programs_of
from boltzflow.model.continuity import Transport
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import use_compilation_cache
from boltzflow.report import evaluation
from boltzflow.report.verdict import Findings, judge
from boltzflow.sampling.corrections import correct
from boltzflow.sampling.flow_smc import run_flow_smc
from boltzflow.sampling.pilot import run_pilot
from boltzflow.sampling.pooling import Pool, heavy_tailed, num_heavy, pool
from boltzflow.statistics.estimates import (
    Estimate,
    log_z_importance,
    log_z_pooled,
    pareto_k,
    reverse_ess,
    tail_excess,
)
from boltzflow.statistics.expectations import StreamedExpectation
from boltzflow.statistics.weights import effective_share

NAME = "coverage"
QUANTITIES = ("log_z", "mean", "square", "tail")
LEVELS = (0.3, 0.6, 0.9, 0.99)  # of the reverse ESS
_SOLVER_STEPS = 16
_NUM_TRIAL = 2**15  # samples by which the ESS is set
_MOST_AMOUNT = 6.0
_NUM_CORRECTED = 2048
_MAX_SIGMA = 4.0
Estimates = dict[str, Estimate]


def main() -> None:
    use_compilation_cache()
    options = common.arguments(
        __doc__,
        TASKS,
        repeats={"type": int, "default": 100, "help": "independent samples of each flow by weights"},
        runs={"type": int, "default": 20, "help": "repeats of annealing and of the pilot"},
        samples={"type": int, "default": 8192, "help": "points in each sample"},
        levels={"nargs": "+", "type": float, "default": LEVELS, "help": "reverse ESS of the flows"},
        routes={"nargs": "+", "choices": ROUTES, "default": list(ROUTES), "help": ", ".join(ROUTES)},
    )
    store = Store(NAME, options.results, options.fresh)
    for name in options.targets:
        task = TASKS[name]
        made = functools.cache(functools.partial(flow_of, name, options.samples))
        for route in options.routes:
            repeats = options.repeats if route in ("weights", "pooled") else options.runs
            for level in options.levels if route != "pilot" else (0.0,):
                measure = functools.partial(cover, task, made, level, route, repeats)
                key = {"target": name, "group": task.group, "ess": level, "method": route}
                store.measured(measure, **key, repeats=repeats, samples=options.samples)
        jax.clear_caches()


@dataclasses.dataclass(frozen=True)
class Made:
    """A target with a flow of a certain ESS."""

    target: AbstractDensity
    transport: Transport
    flow: Flow
    heavy: Flow
    reverse_ess: float
    samples: int
    observe: Callable[[np.ndarray], list[np.ndarray]]
    seed: int

    def draw(self, key: Any, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples of the flow, their log-density, and the energy there."""
        x, log_prob = sample_batch(self.flow, key, num)
        return np.asarray(x), np.asarray(log_prob), np.asarray(map_points(self.target.energy, x))


def flow_of(name: str, samples: int, level: float) -> Made:
    """A flow whose reverse ESS is `level`, by bisection, or the best one where none is as good."""
    task = TASKS[name]
    target = task.target()
    seed = zlib.crc32(f"{name} {level}".encode())  # no two flows share their random numbers
    with programs_of(target).answering():

        def at(amount: float) -> Made:
            transport = task.transport(target, amount)
            base = transport.interpolation.base
            flow = Flow(base, transport.field, num_steps=_SOLVER_STEPS)
            heavy = heavy_tailed(flow, lattice_of(target), jax.random.key(3))
            return Made(target, transport, flow, heavy, 0.0, samples, task.observe, seed)

        def ess_at(amount: float) -> float:
            _, log_prob, energy = at(amount).draw(jax.random.key(2), _NUM_TRIAL)
            return effective_share(-energy - log_prob)

        low, high = 0.0, _MOST_AMOUNT
        for _ in range(11 if ess_at(low) > level else 0):
            middle = (low + high) / 2
            low, high = (middle, high) if ess_at(middle) > level else (low, middle)
        return dataclasses.replace(at(low), reverse_ess=ess_at(low))


def cover(task: Task, made: Callable[[float], Made], level: float, route: str, repeats: int) -> Row:
    """For each quantity of a route: how many repeats are ok, and of these how many hold the exact value or are far."""
    one = made(level or LEVELS[-1])
    log_z = known(task.log_z)
    exact = dict(zip(QUANTITIES, (float(one.target.log_z) if log_z is None else log_z, *task.exact()), strict=True))
    pulls: dict[str, list[float]] = {}
    with programs_of(one.target).answering():
        for estimates in ROUTES[route](one, repeats):
            for name, estimate in estimates.items():
                pulls.setdefault(name, [])
                if estimate.ok:
                    pulls[name].append(float((estimate.value - exact[name]) / max(estimate.stderr, 1e-300)))
    row: Row = {"ok": {}, "held": {}, "far": {}, "rms": {}}
    for name, values in pulls.items():
        sigma = np.abs(values)
        row["ok"][name] = len(values)
        row["held"][name] = int(np.sum(sigma < 1.96))
        row["far"][name] = int(np.sum(sigma > _MAX_SIGMA))
        row["rms"][name] = min(1e6, float(np.sqrt(np.mean(sigma**2)))) if len(values) else 0.0
    return row if route == "pilot" else row | {"reverse_ess": one.reverse_ess}


# --- routes -----------------------------------------------------------------------------------------------------------


def _keys(made: Made, stream: int, repeats: int) -> Iterator[Any]:
    key = jax.random.fold_in(jax.random.key(made.seed), stream)
    return (jax.random.fold_in(key, repeat) for repeat in range(repeats))


def by_weights(made: Made, repeats: int) -> Iterator[Estimates]:
    for key in _keys(made, 0, repeats):
        x, log_prob, energy = made.draw(key, made.samples)
        log_weight = -energy - log_prob
        averages = [_average(values, log_weight) for values in made.observe(x)]
        yield _judged([log_z_importance(log_weight), *averages], log_weight, pooled=False)


def by_pool(made: Made, repeats: int) -> Iterator[Estimates]:
    num = num_heavy(made.samples)
    for key in _keys(made, 1, repeats):
        flow_key, heavy_key = jax.random.split(key)
        x, log_prob, energy = made.draw(flow_key, made.samples - num)
        pooled = pool(x, log_prob, energy, made.flow, made.target, made.heavy, heavy_key, num)
        averages = [_average(values, pooled.log_weight, pooled) for values in made.observe(pooled.x)]
        log_z = log_z_pooled(pooled.log_weight, pooled.control, pooled.bound)
        yield _judged([log_z, *averages], pooled.log_weight, pooled=True)


def by_annealing(made: Made, repeats: int) -> Iterator[Estimates]:
    """The report's estimate; the step size of the first run is kept."""
    step_size = None
    for key in _keys(made, 2, repeats):
        _, log_prob, energy = made.draw(key, made.samples)
        run = run_flow_smc(made.transport, key, solver_steps=_SOLVER_STEPS, step_size=step_size)
        step_size = run.step_size
        yield {"log_z": evaluation._log_z_annealed(run, log_z_importance(-energy - log_prob), 0.0)}


def by_correction(made: Made, repeats: int) -> Iterator[Estimates]:
    for key in _keys(made, 3, repeats):
        _, log_prob, energy = made.draw(key, made.samples)
        accepted = _judged([log_z_importance(-energy - log_prob)], -energy - log_prob, pooled=False)["log_z"].ok
        found = correct(made.flow, made.transport, made.target, key, _NUM_CORRECTED, "importance")
        root = math.sqrt(found.num_distinct)
        yield {
            name: Estimate(values.mean(), values.std() / root, found.num_distinct, ok=bool(accepted and values.std()))
            for name, values in zip(QUANTITIES[1:], made.observe(found.x), strict=True)
        }


def by_pilot(made: Made, repeats: int) -> Iterator[Estimates]:
    for key in _keys(made, 4, repeats):
        found = run_pilot(made.target, key)
        ok = not found.complaints
        yield {"log_z": Estimate(found.log_z, found.log_z_stderr, found.num_particles, ok=ok)}


ROUTES: dict[str, Callable[[Made, int], Iterator[Estimates]]] = {
    "weights": by_weights,
    "pooled": by_pool,
    "annealed": by_annealing,
    "corrected": by_correction,
    "pilot": by_pilot,
}


def _average(values: np.ndarray, log_weight: np.ndarray, pooled: Pool | None = None) -> Estimate:
    """As `boltzflow.Run.expectation` has it, without the solver's error."""
    sums = StreamedExpectation()
    sums.add(values, log_weight)
    if pooled is None:
        return sums.estimate()
    heavy = pooled.bound > -np.inf
    bound = StreamedExpectation()
    bound.add(values[heavy], pooled.bound[heavy])
    return sums.estimate((), bound)


def _judged(estimates: list[Estimate], log_weight: np.ndarray, *, pooled: bool) -> Estimates:
    """The estimates, not ok where the verdict objects to the weights; all that it compares with them agrees."""
    log_z = estimates[0]
    ess = reverse_ess(log_weight)
    k = pareto_k(log_weight)
    tail = tail_excess(log_weight)
    of_weights = {"log_z_importance": log_z, "reverse_ess": ess, "pareto_k": k, "tail_excess": tail}
    of_pool = {"log_z_pooled": log_z, "pooled_ess": ess, "pooled_pareto_k": k}
    none = Estimate(0.0, 0.0, 0)
    others = {"log_z_pilot": log_z, "solver_error": none, "reverse_kl": dataclasses.replace(log_z, value=-log_z.value)}
    findings = Findings(
        estimates={"log_z": log_z, **others, **of_weights, **of_pool},
        known={},
        ess_count=ess.value * len(log_weight),
        regions=(),
        uncovered_share=0.0,
        num_unweighed=0,
        sampling_error=log_z.stderr,
        pilot_complaints=(),
        skipped_share=0.0,
        sampled_exactly=False,
        nonfinite_share=0.0,
        pooled=pooled,
        pooled_tail=tail.value,
    )
    accepted = judge(findings)[0]
    judged = [one if accepted else dataclasses.replace(one, ok=False) for one in estimates]
    return dict(zip(QUANTITIES, judged, strict=False))


if __name__ == "__main__":
    main()
