"""Time to a stated error of log Z: boltzflow's default preset, told the error that is wanted, and its rivals.

A row is one target, method, seed and budget, with its error against the exact log Z, its seconds (pilot and training
included, compilation apart) and its evaluations. Budgets are particles (SMC), sweeps (parallel tempering), and for
boltzflow 1 / (the error of the column): it is asked for half of that (`--log-z-error`), for the root mean square over
a few seeds of what is asked for comes out above it as often as below. `benchmarks.summary` turns the rows into times.
"""

import functools
import time
from collections.abc import Callable

import jax

import boltzflow
from benchmarks import common
from benchmarks.store import FLOW, RIVALS, Row, Store, source_hash
from benchmarks.targets import TASKS, Task
from boltzflow import estimators
from boltzflow.batches import BATCH_SIZE
from boltzflow.peers import smc, tempering
from boltzflow.peers.start import Answer

NAME = "log_z_error"
TOLD = "boltzflow, told the error"
ERRORS = (1e-2, 1e-3, 1e-4)
PARTICLES = (2_000, 8_000, 32_000, 128_000)
SWEEPS = (128, 512, 2048, 8192)
RIVAL_OF: dict[str, tuple[Callable[..., Answer], tuple[int, ...]]] = {
    "SMC": (functools.partial(smc.estimate_log_z, two_flights=False), PARTICLES),
    "SMC, fitted start": (smc.estimate_log_z, PARTICLES),
    "parallel tempering": (tempering.estimate_log_z, SWEEPS),
}


def main() -> None:
    options = common.arguments(
        __doc__ or "",
        [name for name, task in TASKS.items() if task.rival_std],
        limit={"type": float, "default": 20.0, "help": "seconds a run of a rival may be expected to take"},
        methods={"nargs": "+", "default": [TOLD, *RIVAL_OF], "choices": [TOLD, *RIVAL_OF]},
    )
    common.use_cold_cache()
    flow_source, rival_source = source_hash(*FLOW), source_hash(*RIVALS)  # of what this process has loaded
    store = Store(NAME, folder=options.results, fresh=options.fresh)
    for task in (TASKS[name] for name in options.targets):
        for method in options.methods:
            if method == TOLD:
                for seed in range(options.seeds):
                    for error in ERRORS:
                        key = {"target": task.name, "method": method, "seed": seed}
                        measure = functools.partial(flow_row, task, seed, error / 2)
                        common.measured(store, flow_source, measure, **key, budget=round(1 / error))
            else:
                measure_rival(store, rival_source, task, method, options.seeds, options.limit)


def measure_rival(store: Store, source: str, task: Task, method: str, num_seeds: int, limit: float) -> None:
    """Budgets from the smallest up to the largest whose run should not take longer than `limit`."""
    estimate, budgets = RIVAL_OF[method]
    expected = 0.0
    for budget in budgets:
        if expected > limit:
            break
        rows = []
        for seed in range(num_seeds):
            key = {"target": task.name, "method": method, "seed": seed}
            measure = functools.partial(rival_row, estimate, task, seed, budget)
            rows.append(common.measured(store, source, measure, **key, budget=budget))
        expected = 4 * max(row.get("seconds", 0.0) for row in rows)


def rival_row(estimate: Callable[..., Answer], task: Task, seed: int, budget: int) -> Row:
    """A rival's answer as a row."""
    target = task.make()
    answer = estimate(target.energy, target.dim, jax.random.key(seed), budget, std=task.rival_std)
    return {
        "error": answer.log_z - float(target.log_z),
        "seconds": answer.seconds,
        "compile_seconds": answer.compile_seconds,
        "evaluations": answer.energy_evaluations + answer.gradient_evaluations,
        "detail": answer.detail,
    }


def flow_row(task: Task, seed: int, error: float) -> Row:
    """A run that is asked for log Z to this error."""
    target = task.make()
    run = boltzflow.fit(target, seed=seed, config=common.configure(boltzflow.Config(), log_z_error=error))
    start = time.perf_counter()
    run.sample(jax.random.key(0), BATCH_SIZE)
    cost, compile_seconds = run.trained.cost, time.perf_counter() - start
    start = time.perf_counter()
    estimate = estimators.log_z_importance(run.log_weights)
    seconds = cost["train_seconds"] + time.perf_counter() - start
    looks = sum("reverse_ess" in row for row in run.history)
    return {
        "error": float(estimate.value) - float(target.log_z), "stderr": float(estimate.stderr), "seconds": seconds,
        "train_seconds": cost["train_seconds"], "compile_seconds": cost["compile_seconds"] + compile_seconds,
        "evaluations": int(cost["gradient_evaluations"]) + 2048 * looks + estimate.n, "samples": estimate.n,
        "optimizer_steps": int(cost["steps"]), "reverse_ess": float(estimators.reverse_ess(run.log_weights).value),
    }  # fmt: skip


if __name__ == "__main__":
    main()
