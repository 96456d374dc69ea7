"""Time to a stated error of log Z: boltzflow's default preset, its pilot alone, and its rivals.

A row is one target, method, seed and budget, with its error against the exact log Z, its seconds (pilot and training
included, compilation apart) and its evaluations. Budgets are particles (SMC), sweeps (parallel tempering), and for
boltzflow samples at a given number of optimizer steps. `benchmarks.summary` turns the rows into times to an error.
"""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.store import FLOW, RIVALS, Row, Store, source_hash
from benchmarks.targets import TASKS, Task
from boltzflow import estimators
from boltzflow.peers import smc, tempering
from boltzflow.peers.start import Answer

NAME = "log_z_error"
STEPS = (300, 0)  # optimizer steps; 0 is as many as the preset takes
SAMPLES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
PARTICLES = (2_000, 8_000, 32_000, 128_000)
SWEEPS = (128, 512, 2048, 8192)
RIVAL_OF: dict[str, tuple[Callable[..., Answer], tuple[int, ...]]] = {
    "SMC": (functools.partial(smc.estimate_log_z, two_flights=False), PARTICLES),
    "SMC, fitted start": (smc.estimate_log_z, PARTICLES),
    "parallel tempering": (tempering.estimate_log_z, SWEEPS),
}
ENOUGH_STDERR = 3e-5  # well below the smallest error asked for: more samples would only cost time
CHUNK = 10_000
PILOT = 1  # its budget in the rows: it has no choice of one


def main() -> None:
    options = common.arguments(
        __doc__ or "",
        [name for name, task in TASKS.items() if task.rival_std],
        limit={
            "type": float,
            "default": 20.0,
            "help": "seconds a run, or its sampling, may be expected to take",
        },
        steps={"type": int, "nargs": "+", "default": STEPS, "help": "optimizer steps; 0: as many as the preset takes"},
        methods={"nargs": "+", "default": ["boltzflow", *RIVAL_OF], "choices": ["boltzflow", *RIVAL_OF]},
    )
    common.use_cold_cache()
    flow_source, rival_source = source_hash(*FLOW), source_hash(*RIVALS)  # of what this process has loaded
    store = Store(NAME, folder=options.results, fresh=options.fresh)
    for task in (TASKS[name] for name in options.targets):
        for method in options.methods:
            if method == "boltzflow":
                for seed in range(options.seeds):
                    measure_flow(store, flow_source, task, seed, options.steps, options.limit)
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
            key = {"target": task.name, "method": method, "steps": 0, "seed": seed}
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


def measure_flow(store: Store, source: str, task: Task, seed: int, steps: tuple[int, ...], limit: float) -> None:
    """Rows of the flow for every number of steps and samples, and of its pilot, the same in every fit."""
    for num_steps in steps:
        config = boltzflow.Config()
        num = num_steps or config.num_steps
        key = {"target": task.name, "method": "boltzflow", "steps": num, "seed": seed}
        if store.find(source, **key, budget=0):  # written last: all the others are there
            continue
        try:
            for budget, row in flow_rows(task, seed, common.configure(config, num_steps=num), limit):
                whose = key | ({"method": "pilot", "steps": 0} if budget == PILOT else {})
                if budget != PILOT or store.find(source, **whose, budget=budget) is None:  # the first, which compiled
                    common.record(store, source, row, **whose, budget=budget)
            end: Row = {"finished": True}
        except Exception as error:
            end = common.failure(error)
        common.record(store, source, end, **key, budget=0)


def flow_rows(task: Task, seed: int, config: boltzflow.Config, limit: float) -> Iterator[tuple[int, Row]]:
    """(number of samples, row) as the sample grows, after that of its pilot."""
    target = task.make()
    exact = float(target.log_z)
    run, pilot = common.fit(target, seed, config)
    cost = run.trained.cost
    yield PILOT, {
        "error": run.pilot.log_z - exact, "seconds": pilot.seconds, "compile_seconds": pilot.compile_seconds,
        "evaluations": run.pilot.num_gradients,
    }  # fmt: skip
    start = time.perf_counter()
    run.sample(jax.random.key(0), CHUNK)
    compile_seconds = cost["compile_seconds"] + time.perf_counter() - start
    looks = sum("reverse_ess" in row for row in run.history)
    spent = int(cost["gradient_evaluations"]) + 2048 * looks
    log_weights, sampling = np.zeros(0), 0.0
    for budget in SAMPLES:
        while len(log_weights) < budget:
            start = time.perf_counter()
            samples = run.sample(jax.random.fold_in(jax.random.key(2**20 + seed), len(log_weights)), CHUNK)
            log_weights = np.concatenate([log_weights, np.asarray(samples.log_weight, np.float64)])
            sampling += time.perf_counter() - start
        estimate = estimators.log_z_importance(log_weights)
        yield budget, {
            "error": float(estimate.value) - exact, "seconds": cost["train_seconds"] + sampling,
            "compile_seconds": compile_seconds, "evaluations": spent + budget, "stderr": float(estimate.stderr),
            "reverse_ess": float(estimators.reverse_ess(log_weights).value),
        }  # fmt: skip
        if estimate.stderr < ENOUGH_STDERR or 3 * sampling > limit:
            break


if __name__ == "__main__":
    main()
