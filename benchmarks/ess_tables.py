"""The tables of times to an effective sample size: of the default preset on every target, and of the paper preset."""

import math
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.common import TASKS, Task, targets_of
from benchmarks.forward_ess import SET_SIZE
from benchmarks.store import across_machines
from benchmarks.time_to_ess import PAPER_TASK, RATIO_ESS
from boltzflow import Config
from boltzflow.studies.markdown import count, seconds, table
from boltzflow.studies.paper.results import reached
from boltzflow.studies.rows import Row
from boltzflow.training.loop import points_in_step

NOTHING = "Not measured yet."


def draw_ess(rows: list[Row]) -> str:
    """The ESS of the default preset and its time, by target: median over the seeds, and the worst."""
    lines = []
    for target in targets_of(rows):
        task = TASKS[target]
        group = _whole_runs(rows, target, "default")
        good = [row for row in group if not row.get("failure")]
        met = [row for row in good if _met(row, task)]
        goal = f"{task.goal:g}{', forward too,' if task.forward else ''}" if task.goal else "best"
        ess = [[row[name] for row in good if name in row] for name in ("reverse_ess", "forward_ess")]
        line = [target, f"{goal} in {task.within:g} s", *(_middle_and_worst(values, min, "{:.4f}") for values in ess)]
        line.append(_middle_and_worst([row["seconds"] for row in good], max, "{:.0f} s"))
        line.append(_way_to(task.goal, met))
        line.append(f"{len(met)}/{len(group)}" if task.goal else "-")
        line.append(f"{sum(bool(row['trusted']) for row in good)}/{len(group)}")
        line.append(f"{len(group) - len(good)}")
        lines.append(line)
    way = "to the goal: time; steps; evaluations"
    header = ["target", "goal", "reverse ESS", "forward ESS", "pilot and training", way]
    header += ["seeds that met it", "trusted", "failed"]
    note = (
        "Median over the seeds, and the worst in parentheses. A seed met the goal if its final reverse ESS did (and "
        "the forward ESS, where the goal includes it) and the whole run took no longer. The time to the goal is that "
        "of the look from which on the reverse ESS of training stayed at the goal, over the seeds that met the goal."
    )
    return table(header, lines) + "\n\n" + note


def _met(row: Row, task: Task) -> bool:
    """Whether a run met the goal in time."""
    names = ["reverse_ess", "forward_ess"] if task.forward else ["reverse_ess"]
    return all(row.get(name, 0.0) >= task.goal for name in names) and row["seconds"] <= task.within


def _way_to(goal: float, rows: list[Row]) -> str:
    """Time, steps and evaluations until these runs stayed at the goal."""
    found = [(row, look) for row in rows if (look := reached(row["looks"], goal))]
    if not goal or not found:
        return "-"
    # Every step of the default preset evaluates the energy at the same number of points.
    evaluations = [row["evaluations"] - (row["steps"] - look[0]) * points_in_step(Config()) for row, look in found]
    time = _middle_and_worst([look[1] for _, look in found], max, "{:.0f} s")
    return f"{time}; {median(look[0] for _, look in found):.0f}; {count(median(evaluations))}"


def _whole_runs(rows: list[Row], target: str, method: str) -> list[Row]:
    """The rows with the preset's number of steps, or all rows where there are none."""
    group = [row for row in rows if (row["key"]["target"], row["key"]["method"]) == (target, method)]
    return [row for row in group if not row["key"]["steps"]] or group


def _middle_and_worst(values: list[float], worst: Callable, form: str) -> str:
    if not len(values):
        return "-"
    return f"{form.format(median(values))} ({form.format(worst(values))})"


def draw_forward(rows: list[Row]) -> str:
    """The forward ESS over single sets of exact samples, its mean over one set of each seed, and over all samples."""
    lines = []
    for target in targets_of(rows):
        group = [row for row in rows if row["key"]["target"] == target and not row.get("failure")]
        if not group:
            lines.append([target, *"-----"])
            continue
        sets = np.array([row["sets"] for row in group])
        means = sets.mean(axis=0)
        low, high = np.quantile(means, [0.1, 0.9])
        reported, of_set, of_all = (
            _middle_and_worst(values, min, "{:.4f}")
            for values in ([row["reported"] for row in group], np.median(sets, axis=1), [row["all"] for row in group])
        )
        of_table = f"{np.median(means):.4f} ({low:.4f} to {high:.4f})"
        largest = max(row["largest_ratio"] for row in group)
        lines.append([target, reported, of_set, of_table, of_all, f"{largest:,.0f}"])
    num_sets = rows[0]["key"]["sets"]
    num_seeds = len({row["key"]["seed"] for row in rows})
    header = ["target", "the report's 20,000", f"a set of {SET_SIZE}", f"mean of {num_seeds} seeds, a set each"]
    header += [f"{SET_SIZE * num_sets:,}", "largest q/p"]
    note = (
        f"Forward ESS, median over {num_seeds} seeds and the worst in parentheses. A set of {SET_SIZE}: the median "
        f"over {num_sets} sets for each flow. A table of the paper shows the mean over one set of each flow: here the "
        f"median and the middle 80 % of {num_sets} such tables. Largest q/p: in all sets of all flows."
    )
    return "\n\n".join([table(header, lines), note, *_failures(rows, "target")])


def _failures(rows: list[Row], name: str) -> list[str]:
    """A sentence for each failed row, with the entry `name` of its key."""
    keys = [(row["key"][name], row["key"].get("seed"), row["failure"]) for row in rows if row.get("failure")]
    return [f"Failed: {what}, seed {seed}: {failure}." for what, seed, failure in keys]


def draw_paper(rows: list[Row]) -> str:
    """The paper preset and the default preset: in the same time, and until the ESS at which they are compared."""
    groups = [_whole_runs(rows, PAPER_TASK, method) for method in ("default", "paper")]
    failed = _failures([*groups[0], *groups[1]], "method")
    ours, papers = ([row for row in group if not row.get("failure")] for group in groups)
    if not papers or not ours:
        return "\n\n".join(failed) or NOTHING
    looks = [reached(row["looks"], RATIO_ESS) for row in ours]
    mine = median(look[1] if look else math.inf for look in looks)
    step = median(row["step_seconds"] for row in papers)
    ess = median(row["reverse_ess"] for row in papers)
    published = papers[0]["published_steps"]
    way = _way(rows)

    def line(num_steps: float, ess: str, to_goal: str = "not reached") -> list[str]:
        time = f"≈ {seconds(step * num_steps)}"
        return ["paper", f"{num_steps:,.0f} of {published:,}", time, ess, to_goal or time, "-"]

    default = ["default", "all of its run", seconds(median(row["seconds"] for row in ours))]
    default.append(f"{median(row['reverse_ess'] for row in ours):.4f}")
    default += [seconds(mine) if mine < math.inf else "not reached", _ratio(mine, step, way)]
    paper = ["paper", f"{papers[0]['steps']}, at least as long", f"≈ {seconds(median(r['seconds'] for r in papers))}"]
    paper += [f"{ess:.2g}", "not reached" if ess < RATIO_ESS else "reached", "-"]
    looks_of_paper = [line(num, f"{ess:.3f}", "" if ess >= RATIO_ESS else "not reached") for num, ess in way]
    whole = line(published, "0.991 (published)", f"at most ≈ {seconds(step * published)}")
    note = (
        f"{PAPER_TASK}; medians over the seeds: {len(ours)} of the default preset, {len(papers)} of the paper preset. "
        f"≈: the measured step of the paper preset, {step:.2f} s in this package on this machine, times the number of "
        "steps."
    )
    if way:
        note += (
            f" The ESS of the paper preset on its own schedule of {published:,} steps comes from one training, "
            f"followed for {way[-1][0]:,} steps, by looks at 2048 samples. The ratio is of times to {RATIO_ESS:g}."
        )
    header = ["preset", "steps", "time", "reverse ESS", f"time to {RATIO_ESS:g}", "ratio"]
    lines = [default, paper, *looks_of_paper, whole]
    return "\n\n".join([table(header, lines), note, *failed, *across_machines([*ours, *papers], "the two presets")])


def _way(rows: list[Row]) -> list[list[float]]:
    """The looks (step, ESS) at the longest training of the paper preset."""
    ways = [row for row in rows if row["key"]["method"] == "way" and not row.get("failure")]
    return max((row["looks"] for row in ways), key=len, default=[])


def _ratio(mine: float, step: float, way: list[list[float]]) -> str:
    """The paper preset's time over ours: between the two looks around the wanted ESS."""
    if not way or mine == math.inf:
        return "-"
    there = next((num_steps for num_steps, ess in way if ess >= RATIO_ESS), math.inf)
    before = max((num_steps for num_steps, _ in way if num_steps < there), default=0)
    low, high = before * step / mine, there * step / mine
    return f"{low:,.0f} to {high:,.0f}" if there < math.inf else f"above {low:,.0f}"
