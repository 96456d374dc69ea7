"""Time to a stated error of log Z: boltzflow's default preset with a target error, and the baselines.

A row is one target, method, seed and budget, with its error against the exact log Z, its seconds (all but compilation:
pilot, training, choice of the solver's steps, sampling) and its evaluations. The budget is the number of particles
(SMC) or sweeps (parallel tempering), and for boltzflow 1 / (the error of the column). The target error
(`--log-z-error`) is half the error of the column, because the root mean square over a few seeds exceeds the target
error as often as not. The seconds of the verdict have their own entry. `benchmarks.summary` turns rows into times.

The budget of a baseline grows until its root mean square error over the seeds is 10⁻³, or until the next budget would
take too long. Each budget starts with a cold cache.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax

import boltzflow
from benchmarks import common, summary
from benchmarks.clock import cold_cache
from benchmarks.common import TASKS, Task
from benchmarks.store import Row, Store, baseline_source
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.statistics.estimates import log_z_importance, reverse_ess
from boltzflow.studies.baselines import smc, tempering
from boltzflow.studies.baselines.common import Answer

NAME = "log_z_error"
TARGET_ERROR = "boltzflow, target error"
ALONE = "boltzflow, energy alone"
"""With a target error and the energy and dimension of the target alone: no lattice, no symmetry."""
ERRORS = (1e-2, 1e-3, 1e-4)
ASKED = {TARGET_ERROR: ERRORS, ALONE: ERRORS[:2]}
ENOUGH = 1e-3  # the error at which the budget of a baseline stops growing
PARTICLES = (2_000, 8_000, 32_000, 128_000, 512_000)
SWEEPS = (128, 512, 2048, 8192, 32_768)
BASELINES: dict[str, tuple[Callable[..., Answer], tuple[int, ...]]] = {
    "SMC": (functools.partial(smc.estimate_log_z, fit_start=False), PARTICLES),
    "SMC, fitted start": (smc.estimate_log_z, PARTICLES),
    "parallel tempering": (tempering.estimate_log_z, SWEEPS),
}


def main() -> None:
    methods = [*ASKED, *BASELINES]
    options = common.arguments(
        __doc__,
        [name for name, task in TASKS.items() if task.baseline_std],
        seeds=common.SEEDS,
        limit={"type": float, "default": 60.0, "help": "seconds that a run of a baseline may be expected to take"},
        methods={"nargs": "+", "default": methods, "choices": methods},
    )
    store = Store(NAME, options.results, options.fresh)
    source = baseline_source(NAME)  # before any change of a file that this process has loaded
    for task in (TASKS[name] for name in options.targets):
        for method in options.methods:
            if method in ASKED:
                measure_flow(store, task, method, options.seeds)
            else:
                measure_baseline(store, source, task, method, options.seeds, options.limit)


def measure_flow(store: Store, task: Task, method: str, num_seeds: int) -> None:
    """A row for each error of the method."""
    for error in ASKED[method]:
        with cold_cache():
            for seed in range(num_seeds):
                key = {"target": task.name, "method": method, "seed": seed, "budget": round(1 / error)}
                store.measured(functools.partial(flow_row, task, method, seed, error / 2), **key)


def measure_baseline(store: Store, source: str, task: Task, method: str, num_seeds: int, limit: float) -> None:
    """Rows for growing budgets, up to the first with a small error or the last expected to take less than `limit`."""
    estimate, budgets = BASELINES[method]
    for budget in budgets:
        rows = []
        with cold_cache():
            for seed in range(num_seeds):
                key = {"target": task.name, "method": method, "seed": seed, "budget": budget}
                measure = functools.partial(baseline_row, estimate, task, seed, budget)
                rows.append(store.measured(measure, source, **key))
        expected = 4 * max(row.get("seconds", 0.0) for row in rows)
        if summary.pooled(budget, rows).error <= ENOUGH or expected > limit:
            break


def baseline_row(estimate: Callable[..., Answer], task: Task, seed: int, budget: int) -> Row:
    """The answer of a baseline. Raises `RuntimeError` where it did not reach the target, β = 1."""
    target = task.make()
    answer = estimate(target.energy, target.dim, jax.random.key(seed), budget, std=task.baseline_std)
    beta = answer.detail.get("beta", 1.0)
    if not beta >= 1:
        raise RuntimeError(f"stopped at inverse temperature β = {beta:.3g} of 1")
    return {
        "error": answer.log_z - float(target.log_z),
        "seconds": answer.seconds,
        "compile_seconds": answer.compile_seconds,
        "evaluations": answer.evaluations,
        "detail": answer.detail,
    }


def flow_row(task: Task, method: str, seed: int, error: float) -> Row:
    """A run with a target error of log Z, and its verdict."""
    exact = task.make()
    target = boltzflow.Energy(exact.energy, exact.dim) if method == ALONE else exact
    config = dataclasses.replace(boltzflow.Config(), log_z_error=error)
    with Stopwatch() as answer:
        run = boltzflow.fit(target, seed=seed, config=config)
        estimate = log_z_importance(run.log_weights)
    with Stopwatch() as verdict:
        run.log_z()
    cost = run.trained.cost
    num_looks = sum("reverse_ess" in row for row in run.history)
    return {
        "error": float(estimate.value) - float(exact.log_z),
        "stderr": float(estimate.stderr),
        "seconds": answer.seconds,
        "compile_seconds": answer.compile_seconds,
        "train_seconds": cost["train_seconds"],
        "verdict_seconds": verdict.seconds,
        "verdict_compile_seconds": verdict.compile_seconds,
        "evaluations": int(cost["gradient_evaluations"]) + 2048 * num_looks + estimate.n,
        "samples": estimate.n,
        "optimizer_steps": int(cost["steps"]),
        "reverse_ess": float(reverse_ess(run.log_weights).value),
    }


if __name__ == "__main__":
    main()
