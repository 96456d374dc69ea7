"""Time, steps and evaluations to a stated reverse ESS: the default preset on every target, and the paper's procedure.

Training looks at the reverse ESS of 2048 samples at twenty moments; the row keeps these looks, when the goal was first
met, and the report's final ESS over many samples. The paper's procedure (its networks, base, optimizer and solver, in
this package) is far too slow to finish: it gets as many steps as fit in the time of our whole run, its learning rate
annealed over just these, and a stated extrapolation of its measured step time.
"""

import functools
import math
import statistics

import boltzflow
from benchmarks import common
from benchmarks.store import FLOW, Row, Store, source_hash
from benchmarks.targets import TASKS, Task
from boltzflow import presets

NAME = "time_to_ess"
PAPER_TASK = "double-well N=16 m=1.5"
RATIO_ESS = 0.95  # where the two are compared


def main() -> None:
    options = common.arguments(
        __doc__ or "", TASKS,
        paper_seeds={"type": int, "default": 1, "help": "seeds of the paper's procedure (0: leave it out)"},
        num_steps={"type": int, "default": 0, "help": "optimizer steps instead of the preset's"},
    )  # fmt: skip
    common.use_cold_cache()
    store, source = Store(NAME, folder=options.results, fresh=options.fresh), source_hash(*FLOW)
    for task in (TASKS[name] for name in options.targets):
        config = boltzflow.Config()
        config = common.configure(config, num_steps=options.num_steps or config.num_steps)
        key = {"target": task.name, "steps": options.num_steps}
        rows = []
        for seed in range(options.seeds):
            measure = functools.partial(ours, task, seed, config)
            rows.append(common.measured(store, source, measure, method="default", seed=seed, **key))
        seconds = [row["seconds"] for row in rows if "seconds" in row]
        if task.name == PAPER_TASK and seconds:
            for seed in range(options.paper_seeds):
                measure = functools.partial(papers, task, seed, statistics.median(seconds))
                common.measured(store, source, measure, method="paper", seed=seed, **key)


def ours(task: Task, seed: int, config: boltzflow.Config) -> Row:
    """A whole run and its report."""
    run, pilot = common.fit(task.make(), seed, config)
    report = run.report()
    looks = [(row["step"], row["seconds"], row["reverse_ess"]) for row in run.history if "reverse_ess" in row]
    met = next((look for look in looks if look[2] >= task.goal), None) if task.goal else None
    values = {name: estimate.value for name, estimate in report.estimates.items() if name.endswith("_ess")}
    return {
        "seconds": run.trained.cost["train_seconds"],
        "pilot_seconds": pilot.seconds,
        "compile_seconds": run.trained.cost["compile_seconds"],
        "steps": int(run.trained.cost["steps"]),
        "evaluations": common.evaluations_until(run, int(run.trained.cost["steps"])),
        **{name: float(value) for name, value in values.items() if math.isfinite(value)},
        "trusted": bool(report.verdict.trustworthy),
        "warnings": list(report.verdict.warnings),
        "goal_seconds": met[1] if met else None,
        "goal_steps": int(met[0]) if met else None,
        "goal_evaluations": common.evaluations_until(run, int(met[0])) if met else None,
        "looks": [[int(step), round(seconds, 2), round(ess, 5)] for step, seconds, ess in looks],
    }


def papers(task: Task, seed: int, budget: float) -> Row:
    """The paper's procedure for `budget` seconds, and the seconds of one of its steps. Its pilot is not counted."""
    paper = presets.paper(task.paper_name, task.make().dim)
    step_seconds = time_of_step(task, seed, paper)
    num_steps = max(1, math.ceil(budget / step_seconds))
    run, _ = common.fit(task.make(), seed, common.configure(paper, num_steps=num_steps), task.paper_name)
    return {
        "seconds": num_steps * step_seconds,
        "steps": num_steps,
        "step_seconds": step_seconds,
        "published_steps": paper.num_steps,
        "reverse_ess": run.history[-1]["reverse_ess"],
        "evaluations": common.evaluations_until(run, num_steps) - run.pilot.num_gradients,
        "compile_seconds": run.trained.cost["compile_seconds"],
    }


def time_of_step(task: Task, seed: int, config: boltzflow.Config, num_steps: int = 2) -> float:
    """Seconds of an optimizer step, over the first few, without pilot and compilation."""
    run, pilot = common.fit(task.make(), seed, common.configure(config, num_steps=num_steps), task.paper_name)
    first = run.history[0]
    return (first["seconds"] - pilot.seconds) / first["step"]


if __name__ == "__main__":
    main()
