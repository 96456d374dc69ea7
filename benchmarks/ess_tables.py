"""The tables of times to an effective sample size: the default preset on every target, and beside the paper."""

import math
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.forward_ess import SET_SIZE
from benchmarks.markdown import NOTHING, count, seconds, table
from benchmarks.store import Row, across_machines
from benchmarks.targets import TASKS, Task, targets_of
from benchmarks.time_to_ess import PAPER_TASK, RATIO_ESS
from boltzflow import Config
from boltzflow.training.loop import points_in_step


def draw_ess(rows: list[Row]) -> str:
    """What the default preset reaches and when, by target, over the seeds: median, and the worst."""
    lines = []
    for target in targets_of(rows):
        task = TASKS[target]
        group = _whole_runs(rows, target, "default")
        good = [row for row in group if not row.get("failure")]
        met = [row for row in good if _met(row, task)]
        lines.append([
            target,
            f"{task.goal:g}{', forward too,' if task.forward else ''} in {task.within:g} s"
            if task.goal else f"best in {task.within:g} s",
            *(_middle_and_worst([row[name] for row in good if name in row], min, "{:.4f}")
              for name in ("reverse_ess", "forward_ess")),
            _middle_and_worst([row["seconds"] for row in good], max, "{:.0f} s"),
            _way_to(task.goal, met),
            f"{len(met)}/{len(group)}" if task.goal else "-",
            f"{sum(bool(row['trusted']) for row in good)}/{len(group)}",
            f"{len(group) - len(good)}",
        ])  # fmt: skip
    header = [
        "target", "asked", "reverse ESS", "forward ESS", "pilot and training",
        "to the asked ESS: time; steps; evaluations", "seeds that met it", "trusted", "failed",
    ]  # fmt: skip
    note = (
        "Median over the seeds, and the worst in parentheses. A seed met what was asked if its final ESS did (where it "
        "says so the forward ESS too) and the whole run took no longer. The time to the asked ESS is that from which "
        "on all of training's looks at the reverse ESS stayed there; it is of the seeds that met what was asked."
    )
    return table(header, lines) + "\n\n" + note


def _met(row: Row, task: Task) -> bool:
    """Whether a run is as good as was asked, in the time that was given."""
    asked = ["reverse_ess", "forward_ess"] if task.forward else ["reverse_ess"]
    return all(row.get(name, 0.0) >= task.goal for name in asked) and row["seconds"] <= task.within


def _way_to(goal: float, rows: list[Row]) -> str:
    """Time, steps and evaluations from which on these runs stayed at the goal."""
    found = [(row, look) for row in rows if (look := stays(row["looks"], goal))]
    if not goal or not found:
        return "-"
    # At every step the default preset asks for the energy at the same number of points.
    evaluations = [row["evaluations"] - (row["steps"] - look[0]) * points_in_step(Config()) for row, look in found]
    time = _middle_and_worst([look[1] for _, look in found], max, "{:.0f} s")
    return f"{time}; {median(look[0] for _, look in found):.0f}; {count(median(evaluations))}"


def stays(looks: list[list[float]], goal: float) -> list[float] | None:
    """The look (step, seconds, ESS) from which on none is below the goal; None where the last one is."""
    below = [i for i, (_, _, ess) in enumerate(looks) if ess < goal]
    first = below[-1] + 1 if below else 0
    return looks[first] if first < len(looks) else None


def _whole_runs(rows: list[Row], target: str, method: str) -> list[Row]:
    """Those of as many steps as the preset takes; where there is none, whatever there is."""
    group = [row for row in rows if (row["key"]["target"], row["key"]["method"]) == (target, method)]
    return [row for row in group if not row["key"]["steps"]] or group


def _middle_and_worst(values: list[float], worst: Callable, form: str) -> str:
    if not values:
        return "-"
    return f"{form.format(median(values))} ({form.format(worst(values))})"


def draw_forward(rows: list[Row]) -> str:
    """The forward ESS over so many exact samples: of single sets, of the mean of as many as there are seeds, of all."""
    lines = []
    for target in targets_of(rows):
        group = [row for row in rows if row["key"]["target"] == target and not row.get("failure")]
        if not group:
            lines.append([target, *"-----"])
            continue
        sets = np.array([row["sets"] for row in group])
        means = sets.mean(axis=0)
        low, high = np.quantile(means, [0.1, 0.9])
        lines.append([
            target,
            _middle_and_worst([row["reported"] for row in group], min, "{:.4f}"),
            _middle_and_worst(np.median(sets, axis=1).tolist(), min, "{:.4f}"),
            f"{np.median(means):.4f} ({low:.4f} to {high:.4f})",
            _middle_and_worst([row["all"] for row in group], min, "{:.4f}"),
            f"{max(row['largest_ratio'] for row in group):,.0f}",
        ])  # fmt: skip
    key, num_seeds = rows[0]["key"], len({row["key"]["seed"] for row in rows})
    header = [
        "target", "the report's 20,000", f"a set of {SET_SIZE}", f"mean of {num_seeds} seeds, a set each",
        f"{SET_SIZE * key['sets']:,}", "largest q/p",
    ]  # fmt: skip
    note = (
        f"Forward ESS, median over {num_seeds} seeds and the worst in parentheses. Of a set: the median over "
        f"{key['sets']} sets for each flow. The mean of one set of each flow is what a table of the paper shows: the "
        f"median and the middle 80 % of {key['sets']} such tables. Largest q/p: in all sets of all flows."
    )
    failed = [
        f"Failed: {row['key']['target']}, seed {row['key']['seed']}: {row['failure']}."
        for row in rows if row.get("failure")
    ]  # fmt: skip
    return "\n\n".join([table(header, lines), note, *failed])


def draw_paper(rows: list[Row]) -> str:
    """The paper's procedure beside ours: in the same time, and on its way to the ESS at which the two are compared."""
    groups = {method: _whole_runs(rows, PAPER_TASK, method) for method in ("default", "paper")}
    failed = [
        f"Failed: {method}, seed {row['key']['seed']}: {row['failure']}."
        for method, group in groups.items() for row in group if row.get("failure")
    ]  # fmt: skip
    ours, papers = ([row for row in group if not row.get("failure")] for group in groups.values())
    if not papers or not ours:
        return "\n\n".join(failed) or NOTHING
    looks = [stays(row["looks"], RATIO_ESS) for row in ours]
    mine = median(look[1] if look else math.inf for look in looks)
    whole, theirs, step = (
        median(row[name] for row in group)
        for group, name in ((ours, "seconds"), (papers, "seconds"), (papers, "step_seconds"))
    )
    ess, published, way = median(row["reverse_ess"] for row in papers), papers[0]["published_steps"], _way(rows)

    def line(num_steps: float, ess: str, to_goal: str = "not reached") -> list[str]:
        time = f"≈ {seconds(step * num_steps)}"
        return ["paper", f"{num_steps:,.0f} of {published:,}", time, ess, to_goal or time, "-"]

    lines = [
        ["default", "all of its run", seconds(whole), f"{median(row['reverse_ess'] for row in ours):.4f}",
         seconds(mine) if mine < math.inf else "not reached", _ratio(mine, step, way)],
        ["paper", f"{papers[0]['steps']}, at least as long", f"≈ {seconds(theirs)}", f"{ess:.2g}",
         "not reached" if ess < RATIO_ESS else "reached", "-"],
        *(line(num_steps, f"{ess:.3f}", "" if ess >= RATIO_ESS else "not reached") for num_steps, ess in way),
        line(published, "0.991 (published)", f"at most ≈ {seconds(step * published)}"),
    ]  # fmt: skip
    note = (
        f"{PAPER_TASK}; medians over the seeds: {len(ours)} of the default, {len(papers)} of the paper's procedure. ≈: "
        f"the paper's measured step, {step:.2f} s in this package on this machine, times the number of steps."
    )
    if way:
        note += (
            f" How far the paper's procedure had got on its own schedule of {published:,} steps is of one training of "
            f"it, followed for {way[-1][0]:,} steps, by looks at 2048 samples. The ratio is of times to {RATIO_ESS:g}."
        )
    header = ["procedure", "steps", "time", "reverse ESS", f"time to {RATIO_ESS:g}", "ratio"]
    return "\n\n".join([table(header, lines), note, *failed, *across_machines([*ours, *papers], "the two procedures")])


def _way(rows: list[Row]) -> list[list[float]]:
    """The looks (step, ESS) at the training of the paper's procedure that was followed furthest, if any was."""
    ways = [row for row in rows if row["key"]["method"] == "way" and not row.get("failure")]
    return max((row["looks"] for row in ways), key=len, default=[])


def _ratio(mine: float, step: float, way: list[list[float]]) -> str:
    """How many times as long the paper's procedure takes: between the two looks around where it gets there."""
    if not way or mine == math.inf:
        return "-"
    there = next((num_steps for num_steps, ess in way if ess >= RATIO_ESS), math.inf)
    before = max((num_steps for num_steps, _ in way if num_steps < there), default=0)
    low, high = before * step / mine, there * step / mine
    return f"{low:,.0f} to {high:,.0f}" if there < math.inf else f"above {low:,.0f}"
