"""Time to a stated error of log Z: boltzflow's default preset, told the error that is wanted, and its rivals.

A row is one target, method, seed and budget, with its error against the exact log Z, its seconds (all but compilation:
pilot, training, choice of the solver's steps, sampling) and its evaluations. Budgets are particles (SMC), sweeps
(parallel tempering), and for boltzflow 1 / (the error of the column): it is asked for half of that (`--log-z-error`),
for the root mean square over a few seeds of what is asked for comes out above it as often as below. What the verdict
takes on top is kept apart. `benchmarks.summary` turns the rows into times.

A rival's budget grows until its root mean square over the seeds is 10⁻³, or the next one should take too long. Nothing
is compiled yet when a budget begins.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax

import boltzflow
from benchmarks import common, summary
from benchmarks.clock import Clock, cold_cache
from benchmarks.store import Row, Store, flow_source, rival_source
from benchmarks.targets import TASKS, Task
from boltzflow.statistics import estimates as estimators
from boltzflow.studies.baselines import smc, tempering
from boltzflow.studies.baselines.common import Answer

NAME = "log_z_error"
TOLD = "boltzflow, told the error"
ALONE = "boltzflow, energy alone"
"""Told the error too, but nothing of the target besides its energy and dimension: no lattice, no symmetry."""
ERRORS = (1e-2, 1e-3, 1e-4)
ASKED = {TOLD: ERRORS, ALONE: ERRORS[:2]}
ENOUGH = 1e-3  # of a rival's error
PARTICLES = (2_000, 8_000, 32_000, 128_000, 512_000)
SWEEPS = (128, 512, 2048, 8192, 32_768)
RIVAL_OF: dict[str, tuple[Callable[..., Answer], tuple[int, ...]]] = {
    "SMC": (functools.partial(smc.estimate_log_z, fit_start=False), PARTICLES),
    "SMC, fitted start": (smc.estimate_log_z, PARTICLES),
    "parallel tempering": (tempering.estimate_log_z, SWEEPS),
}


def main() -> None:
    methods = [*ASKED, *RIVAL_OF]
    options = common.arguments(
        __doc__ or "",
        [name for name, task in TASKS.items() if task.rival_std],
        seeds=common.SEEDS,
        limit={"type": float, "default": 60.0, "help": "seconds a run of a rival may be expected to take"},
        methods={"nargs": "+", "default": methods, "choices": methods},
    )
    sources = flow_source(NAME), rival_source(NAME)  # of what this process has loaded
    store = Store(NAME, folder=options.results, fresh=options.fresh)
    for task in (TASKS[name] for name in options.targets):
        for method in options.methods:
            if method in ASKED:
                measure_flow(store, sources[0], task, method, options.seeds)
            else:
                measure_rival(store, sources[1], task, method, options.seeds, options.limit)


def measure_flow(store: Store, source: str, task: Task, method: str, num_seeds: int) -> None:
    """Every error that the method is asked for."""
    for error in ASKED[method]:
        with cold_cache():
            for seed in range(num_seeds):
                key = {"target": task.name, "method": method, "seed": seed, "budget": round(1 / error)}
                common.measured(store, source, functools.partial(flow_row, task, method, seed, error / 2), **key)


def measure_rival(store: Store, source: str, task: Task, method: str, num_seeds: int, limit: float) -> None:
    """Budgets from the smallest up to the first that is good enough, or the largest that should not exceed `limit`."""
    estimate, budgets = RIVAL_OF[method]
    for budget in budgets:
        rows = []
        with cold_cache():
            for seed in range(num_seeds):
                key = {"target": task.name, "method": method, "seed": seed, "budget": budget}
                measure = functools.partial(rival_row, estimate, task, seed, budget)
                rows.append(common.measured(store, source, measure, **key))
        expected = 4 * max(row.get("seconds", 0.0) for row in rows)
        if summary.pooled(budget, rows).error <= ENOUGH or expected > limit:
            break


def rival_row(estimate: Callable[..., Answer], task: Task, seed: int, budget: int) -> Row:
    """A rival's answer as a row. Raises `RuntimeError` where it ran out of temperatures before the target's."""
    target = task.make()
    answer = estimate(target.energy, target.dim, jax.random.key(seed), budget, std=task.rival_std)
    beta = answer.detail.get("beta", 1.0)
    if not beta >= 1:
        raise RuntimeError(f"stopped at temperature β = {beta:.3g} of 1")
    return {
        "error": answer.log_z - float(target.log_z),
        "seconds": answer.seconds,
        "compile_seconds": answer.compile_seconds,
        "evaluations": answer.energy_evaluations + answer.gradient_evaluations,
        "detail": answer.detail,
    }


def flow_row(task: Task, method: str, seed: int, error: float) -> Row:
    """A run that is asked for log Z to this error, and after it the verdict."""
    exact = task.make()
    target = boltzflow.Energy(exact.energy, exact.dim) if method == ALONE else exact
    config = dataclasses.replace(boltzflow.Config(), log_z_error=error)
    with Clock() as clock:
        run = boltzflow.fit(target, seed=seed, config=config)
        estimate = estimators.log_z_importance(run.log_weights)
        answer = clock.lap()
        run.log_z()
        verdict = clock.lap()
    cost, looks = run.trained.cost, sum("reverse_ess" in row for row in run.history)
    return {
        "error": float(estimate.value) - float(exact.log_z), "stderr": float(estimate.stderr),
        "seconds": answer.seconds, "compile_seconds": answer.compile_seconds,
        "train_seconds": cost["train_seconds"], "verdict_seconds": verdict.seconds,
        "verdict_compile_seconds": verdict.compile_seconds,
        "evaluations": int(cost["gradient_evaluations"]) + 2048 * looks + estimate.n, "samples": estimate.n,
        "optimizer_steps": int(cost["steps"]), "reverse_ess": float(estimators.reverse_ess(run.log_weights).value),
    }  # fmt: skip


if __name__ == "__main__":
    main()
