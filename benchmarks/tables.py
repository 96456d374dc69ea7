"""The tables of docs/ from results/benchmarks, between `<!-- table: NAME -->` and `<!-- end -->`.

`python -m benchmarks.tables` writes them into the pages; `--print NAME ...` prints some or all of them instead.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks.ess_tables import NOTHING, draw_ess, draw_forward, draw_paper
from benchmarks.evidence_tables import draw_evidence
from benchmarks.gpu_tables import draw_gpu
from benchmarks.log_z_tables import draw_log_z
from benchmarks.reach_tables import draw_reach
from benchmarks.store import RESULTS, ROOT, across_machines, baseline_source, flow_source, newest
from benchmarks.trust_tables import draw_confusion, draw_coverage, draw_overheads, draw_trust
from boltzflow.studies.markdown import seconds, table, updated
from boltzflow.studies.rows import Row, Rows

PAGES = [ROOT / "docs" / name for name in ("performance.md", "reading-a-report.md", "reach.md", "evidence.md")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--print", nargs="*", choices=TABLES, help="print these tables, write nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args()
    if options.print is not None:
        for name in options.print or TABLES:
            print(f"## {name}\n\n{render(name, options.results)}\n{age(name, options.results)}\n")
        return
    for page in PAGES:
        page.write_text(updated(page.read_text("utf-8"), lambda name: render(name, options.results)), "utf-8")


def render(name: str, folder: Path = RESULTS) -> str:
    """One table, with its machines, versions and dates."""
    files, draw = TABLES[name]
    results = [Rows(folder / f"{file}.json") for file in files]
    rows = [row for each in results for row in newest(each.rows)]
    machines = {label: facts for each in results for label, facts in each.head.get("machines", {}).items()}
    return f"{draw(rows)}\n\n{provenance(machines, rows)}" if rows else NOTHING


def provenance(machines: dict[str, Row], rows: list[Row]) -> str:
    """The machines, versions and dates of rows."""
    parts = []
    for label, facts in machines.items():
        dates = sorted({row["date"] for row in rows if row["machine"] == label})
        if not dates:
            continue
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        cores = "core" if facts["cores"] == 1 else "cores"
        where = f"{facts['processor']}, {facts['cores']} {cores}, {facts['device']}"
        parts.append(f"{where}; Python {facts['python']}, {versions}; {when}")
    return "Measured on " + "; and on ".join(parts) + "."


def age(name: str, folder: Path) -> str:
    """The number of rows of an earlier version; for the terminal alone, because a page would change with it."""
    num_old = num_rows = 0
    for file in TABLES[name][0]:
        rows = newest(Rows(folder / f"{file}.json").rows)
        current = {flow_source(file), baseline_source(file)}
        num_old += sum(row["source"] not in current for row in rows)
        num_rows += len(rows)
    return f"\n{num_old} of {num_rows} rows were measured on an earlier version of the package.\n" if num_old else ""


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
    by_field: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_field[row["key"]["field"]][row["key"]["sites"]].append(row)
    sites = sorted({row["key"]["sites"] for row in rows})
    lines = []
    for field, group in by_field.items():
        at_16 = group[16][-1] if 16 in group else None
        cells = ["; ".join(_one(row, at_16, cell) for row in group[n]) if n in group else "-" for n in sites]
        lines.append([field, *cells])
    notes = [f"In each cell: {caption}.", *across_machines(rows, "this table")]
    return "\n\n".join([table(["field", *(f"N = {n}" for n in sites)], lines), *notes])


def _one(row: Row, at_16: Row | None, cell: Callable[[Row, Row | None], str]) -> str:
    return f"failed: {row['failure']}" if row.get("failure") else cell(row, at_16)


TABLES: dict[str, tuple[tuple[str, ...], Callable[[list[Row]], str]]] = {
    "time_to_ess": (("time_to_ess",), draw_ess),
    "paper": (("time_to_ess", "paper_way"), draw_paper),
    "forward_ess": (("forward_ess",), draw_forward),
    "log_z_error": (("log_z_error",), draw_log_z),
    "step_time": (("step_time",), draw_step_time),
    "sampling": (("sampling",), draw_sampling),
    "gpu": (("gpu",), draw_gpu),
    "coverage": (("coverage",), draw_coverage),
    "confusion": (("trust",), draw_confusion),
    "trust": (("trust",), draw_trust),
    "overheads": (("overheads",), draw_overheads),
    "reach": (("reach",), draw_reach),
    "evidence": (("evidence",), draw_evidence),
}


if __name__ == "__main__":
    main()
