"""Time, steps and evaluations to a stated reverse ESS: the default preset on every target, and the paper preset.

Training looks at the reverse ESS of 2048 samples twenty times. The row stores these looks and the report's final ESS
over many samples; `benchmarks.tables` finds the look that meets the goal. The paper preset is too slow to finish: it
gets the number of steps that take at least the time of our whole run, its learning rate annealed over these, and a
stated extrapolation of its measured step time.
"""

import dataclasses
import functools
import math
import statistics

import boltzflow
from benchmarks import common
from benchmarks.clock import cold_cache
from benchmarks.common import TASKS, Task
from benchmarks.store import Row, Store
from boltzflow.config import paper_preset

NAME = "time_to_ess"
PAPER_TASK = "double-well N=16 m=1.5"
RATIO_ESS = 0.95  # at which the two presets are compared


def main() -> None:
    options = common.arguments(
        __doc__,
        TASKS,
        seeds=common.SEEDS,
        paper_seeds={"type": int, "default": 1, "help": "seeds of the paper preset (0: leave it out)"},
        num_steps={"type": int, "default": 0, "help": "optimizer steps instead of the preset's"},
    )
    store = Store(NAME, options.results, options.fresh)
    config = boltzflow.Config()
    config = dataclasses.replace(config, num_steps=options.num_steps or config.num_steps)
    for task in (TASKS[name] for name in options.targets):
        key = {"target": task.name, "steps": options.num_steps}
        rows = []
        with cold_cache():
            for seed in range(options.seeds):
                measure = functools.partial(ours, task, seed, config)
                rows.append(store.measured(measure, method="default", seed=seed, **key))
        seconds = [row["seconds"] for row in rows if "seconds" in row]
        if task.name == PAPER_TASK and seconds:
            with cold_cache():
                for seed in range(options.paper_seeds):
                    measure = functools.partial(papers, task, seed, statistics.median(seconds))
                    store.measured(measure, method="paper", seed=seed, **key)


def ours(task: Task, seed: int, config: boltzflow.Config) -> Row:
    """A whole run and its report."""
    run, pilot_seconds = common.fit(task.make(), seed, config)
    report = run.report()
    cost = run.trained.cost
    looks = [(row["step"], row["seconds"], row["reverse_ess"]) for row in run.history if "reverse_ess" in row]
    values = {name: estimate.value for name, estimate in report.estimates.items() if name.endswith("_ess")}
    return {
        "seconds": cost["train_seconds"],
        "pilot_seconds": pilot_seconds,
        "compile_seconds": cost["compile_seconds"],
        "steps": int(cost["steps"]),
        "evaluations": int(cost["gradient_evaluations"]),
        **{name: float(value) for name, value in values.items() if math.isfinite(value)},
        "trusted": bool(report.verdict.trustworthy),
        "warnings": list(report.verdict.warnings),
        "looks": [[int(step), round(seconds, 2), round(ess, 5)] for step, seconds, ess in looks],
    }


def papers(task: Task, seed: int, budget: float) -> Row:
    """The paper preset for `budget` seconds, and the seconds of one of its steps, without its pilot."""
    paper = paper_preset(task.paper_name, task.make().dim)
    step_seconds = time_of_step(task, seed, paper)
    num_steps = max(1, math.ceil(budget / step_seconds))
    run, _ = common.fit(task.make(), seed, dataclasses.replace(paper, num_steps=num_steps), task.paper_name)
    return {
        "seconds": num_steps * step_seconds,
        "steps": num_steps,
        "step_seconds": step_seconds,
        "published_steps": paper.num_steps,
        "reverse_ess": run.history[-1]["reverse_ess"],
        "evaluations": int(run.trained.cost["gradient_evaluations"]) - run.pilot.num_gradients,
        "compile_seconds": run.trained.cost["compile_seconds"],
    }


def time_of_step(task: Task, seed: int, config: boltzflow.Config, num_steps: int = 2) -> float:
    """Seconds of an optimizer step over the first few, without pilot and compilation."""
    config = dataclasses.replace(config, num_steps=num_steps)
    run, pilot_seconds = common.fit(task.make(), seed, config, task.paper_name)
    first = run.history[0]
    return (first["seconds"] - pilot_seconds) / first["step"]


if __name__ == "__main__":
    main()
