"""The tables of docs/, from results/benchmarks, between `<!-- table: NAME -->` and `<!-- end -->`.

`python -m benchmarks.tables` writes them into the pages; `--print NAME ...` shows some of them instead, or all.
"""

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import summary
from benchmarks.log_z_error import ERRORS, RIVAL_OF, TOLD
from benchmarks.markdown import count, power_of_ten, seconds, table
from benchmarks.store import RESULTS, ROOT, Row, newest, read
from benchmarks.targets import TASKS
from benchmarks.time_to_ess import PAPER_TASK, RATIO_ESS
from benchmarks.trust_tables import draw_confusion, draw_coverage, draw_overheads, draw_trust

PAGES = [ROOT / "docs" / name for name in ("performance.md", "reading-a-report.md")]
METHODS = (TOLD, *RIVAL_OF)
NOTHING = "Not measured yet."


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--print", nargs="*", choices=TABLES, help="print these tables, write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    if options.print is not None:
        wanted = options.print or list(TABLES)
        print("\n\n".join(f"## {name}\n\n{render(name, options.results)}" for name in wanted))
        return
    for page in PAGES:
        page.write_text(updated(page.read_text("utf-8"), options.results), "utf-8")


def updated(page: str, folder: Path = RESULTS) -> str:
    """The page with every table between its markers rendered anew."""
    marked = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{render(match[2], folder)}\n{match[3]}", page)


def render(name: str, folder: Path = RESULTS) -> str:
    """One table and a line on where it was measured."""
    file, draw = TABLES[name]
    results = read(folder / f"{file}.json")
    rows = newest(results.get("rows", []))
    return f"{draw(rows)}\n\n{provenance(results)}" if rows else NOTHING


def provenance(results: dict[str, Any]) -> str:
    """On what, with which versions and when."""
    machines = []
    for label, facts in results["machines"].items():
        dates = sorted({row["date"] for row in results["rows"] if row["machine"] == label})
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        cores = "core" if facts["cores"] == 1 else "cores"
        where = f"{facts['processor']}, {facts['cores']} {cores}, {facts['device']}"
        machines.append(f"{where}; Python {facts['python']}, {versions}; {when}")
    return "Measured on " + "; and on ".join(machines) + "."


# --- log Z ------------------------------------------------------------------------------------------------------------


def draw_log_z(rows: list[Row]) -> str:
    """Seconds (and evaluations) to each error, by target and method; the first of each column of a target is bold."""
    lines, behind = [], []
    for target in _in_order(row["key"]["target"] for row in rows):
        found = {method: summary.series(rows, target, method) for method in METHODS}
        found = {method: budgets for method, budgets in found.items() if budgets}
        times = {method: [summary.time_to(budgets, error) for error in ERRORS] for method, budgets in found.items()}
        firsts = [_first({method: times[method][i] for method in times}) for i in range(len(ERRORS))]
        for method, budgets in found.items():
            cells = [_cell(time, firsts[i] == method) for i, time in enumerate(times[method])]
            best = min(budgets, key=lambda budget: budget.error)
            lines.append([
                target, method, *cells, f"{max(b.compile_seconds for b in budgets):.0f} s",
                f"{best.error:.1g} in {seconds(best.seconds)}" if best.error < float("inf") else "failed",
            ])  # fmt: skip
        behind += [
            f"{target} at {power_of_ten(error)}: {first}" for error, first in zip(ERRORS, firsts, strict=True)
            if first and first != TOLD
        ]  # fmt: skip
    header = ["target", "method", *(f"to {power_of_ten(error)}" for error in ERRORS), "compilation", "best measured"]
    numbers = sorted({len({r["key"]["seed"] for r in rows if r["key"]["target"] == t}) for t in _targets(rows)})
    note = (
        f"Root mean square over {' or '.join(map(str, numbers))} seeds; in parentheses evaluations of the energy, with "
        "its gradient or alone. ≈: extrapolated, with error ∝ 1/√budget, from the largest budget measured or the "
        "average of the three largest, whichever is kinder."
    )
    wins = "Something else is first on " + "; ".join(behind) + "." if behind else "boltzflow is first everywhere."
    return "\n\n".join([table(header, lines), note, wins])


def _first(times: dict[str, summary.TimeTo | None]) -> str | None:
    return min((m for m, time in times.items() if time), key=lambda m: times[m].seconds, default=None)  # type: ignore[union-attr]


def _cell(time: summary.TimeTo | None, first: bool) -> str:
    if time is None:
        return "not reached"
    text = ("" if time.measured else "≈ ") + f"{seconds(time.seconds)} ({count(time.evaluations)})"
    return f"**{text}**" if first else text


# --- effective samples ------------------------------------------------------------------------------------------------


def draw_ess(rows: list[Row]) -> str:
    """What the default preset reaches and when, by target, over the seeds: median, and the worst."""
    lines = []
    for target in _in_order(_targets(rows)):
        task = TASKS[target]
        group = _whole_runs(rows, target, "default")
        good = [row for row in group if not row.get("failure")]
        met = [row["goal_seconds"] for row in good if row["goal_seconds"] is not None]
        evaluations = [row["goal_evaluations"] for row in good if row["goal_seconds"] is not None]
        steps = [row["goal_steps"] for row in good if row["goal_seconds"] is not None]
        lines.append([
            target, f"{task.goal:g} in {task.within:g} s" if task.goal else f"best in {task.within:g} s",
            _middle_and_worst([row["reverse_ess"] for row in good], min, "{:.4f}"),
            _middle_and_worst([row["forward_ess"] for row in good if "forward_ess" in row], min, "{:.4f}"),
            _middle_and_worst([row["seconds"] for row in good], max, "{:.0f} s"),
            f"{_middle_and_worst(met, max, '{:.0f} s')}; {median(steps):.0f}; {count(median(evaluations))}"
            if met else "-",
            f"{len(met)}/{len(group)}" if task.goal else "-",
            f"{sum(bool(row['trusted']) for row in good)}/{len(group)}",
            f"{len(group) - len(good)}",
        ])  # fmt: skip
    header = [
        "target", "asked", "reverse ESS", "forward ESS", "pilot and training",
        "to the asked ESS: time; steps; evaluations", "seeds that met it", "trusted", "failed",
    ]  # fmt: skip
    return table(header, lines) + "\n\nMedian over the seeds, and the worst in parentheses."


def _whole_runs(rows: list[Row], target: str, method: str) -> list[Row]:
    """Those of as many steps as the preset takes; where there is none, whatever there is."""
    group = [row for row in rows if (row["key"]["target"], row["key"]["method"]) == (target, method)]
    return [row for row in group if not row["key"]["steps"]] or group


def _middle_and_worst(values: list[float], worst: Callable, form: str) -> str:
    if not values:
        return "-"
    return f"{form.format(median(values))} ({form.format(worst(values))})"


def draw_paper(rows: list[Row]) -> str:
    """The paper's procedure beside ours, in the same time."""
    ours, papers = (
        [row for row in _whole_runs(rows, PAPER_TASK, method) if not row.get("failure")]
        for method in ("default", "paper")
    )
    if not papers or not ours:
        return NOTHING
    times = [next((s for _, s, ess in row["looks"] if ess >= RATIO_ESS), float("inf")) for row in ours]
    mine, step = median(times), median([row["step_seconds"] for row in papers])
    published = papers[0]["published_steps"]
    lines = [
        ["default", "all of its run", seconds(median([row["seconds"] for row in ours])),
         f"{median([row['reverse_ess'] for row in ours]):.4f}",
         seconds(mine) if mine < float("inf") else "not reached", "1"],
        ["paper", f"{papers[0]['steps']}, as many as fit", seconds(median([row["seconds"] for row in papers])),
         f"{median([row['reverse_ess'] for row in papers]):.2g}", "not reached", "-"],
        ["paper", f"{published // 10:,}, a tenth", f"≈ {seconds(step * published / 10)}", "unknown",
         f"≈ {seconds(step * published / 10)} at best", f"{step * published / 10 / mine:,.0f}"],
        ["paper", f"{published:,}, as published", f"≈ {seconds(step * published)}", "0.991 (published)",
         f"≈ {seconds(step * published)}", f"{step * published / mine:,.0f}"],
    ]  # fmt: skip
    note = (
        f"{PAPER_TASK}. ≈: extrapolated from the paper's measured step, {step:.2f} s in this package on this machine, "
        "times the number of steps. The paper reports 0.991 after all of its steps, and the curve on the way only as a "
        "picture: how many of them an ESS of 0.95 takes is not printed, hence also the line of a tenth of them, as a "
        "bound from below that is an assumption."
    )
    header = ["procedure", "steps", "time", "reverse ESS", f"time to {RATIO_ESS:g}", "ratio"]
    return table(header, lines) + "\n\n" + note


# --- steps and samples ------------------------------------------------------------------------------------------------


def draw_step_time(rows: list[Row]) -> str:
    """Seconds of a step and peak memory, by field and number of sites."""
    return _by_sites(rows, _step_cell, "step (ratio to N = 16), peak memory of the process")


def _step_cell(row: Row, at_16: Row | None) -> str:
    ratio = f" ({row['step_seconds'] / at_16['step_seconds']:.2g})" if at_16 and not at_16.get("failure") else ""
    return f"{1e3 * row['step_seconds']:.3g} ms{ratio}, {row['peak_bytes'] / 2**30:.1f} GiB"


def draw_sampling(rows: list[Row]) -> str:
    """Samples per second, by field and number of sites."""
    return _by_sites(rows, _sampling_cell, "samples per second (time)")


def _sampling_cell(row: Row, _: Row | None) -> str:
    return f"{row['samples_per_second']:,.0f} ({row['key']['samples']:,} in {seconds(row['seconds'])})"


def _by_sites(rows: list[Row], cell: Callable[[Row, Row | None], str], caption: str) -> str:
    by_field: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        by_field[row["key"]["field"]][row["key"]["sites"]] = row
    sites = sorted({row["key"]["sites"] for row in rows})
    lines = []
    for field, group in by_field.items():
        cells = [_one(group[n], group.get(16), cell) if n in group else "-" for n in sites]
        lines.append([field, *cells])
    return table(["field", *(f"N = {n}" for n in sites)], lines) + f"\n\nIn each cell: {caption}."


def _one(row: Row, at_16: Row | None, cell: Callable[[Row, Row | None], str]) -> str:
    return f"failed: {row['failure']}" if row.get("failure") else cell(row, at_16)


def _targets(rows: list[Row]) -> set[str]:
    return {row["key"]["target"] for row in rows}


def _in_order(targets: Iterable[str]) -> list[str]:
    """Those that there are, in the order of the list of targets."""
    there = set(targets)
    return [name for name in TASKS if name in there]


TABLES: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "time_to_ess": ("time_to_ess", draw_ess),
    "paper": ("time_to_ess", draw_paper),
    "log_z_error": ("log_z_error", draw_log_z),
    "step_time": ("step_time", draw_step_time),
    "sampling": ("sampling", draw_sampling),
    "coverage": ("coverage", draw_coverage),
    "confusion": ("trust", draw_confusion),
    "trust": ("trust", draw_trust),
    "overheads": ("overheads", draw_overheads),
}


if __name__ == "__main__":
    main()
