"""The report on a terminal or in a pipe: of one run, and of several seeds beside each other.

Only what prints imports this file: it loads Rich, which `import boltzflow` leaves out.
"""

import statistics

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boltzflow.report.formatting import LABELS, cost_lines, estimate_rows, format_error, format_value, setting
from boltzflow.report.report import Report
from boltzflow.report.seeds import COMPARED, MAX_SIGMA, SeedsReport, in_words, spread_of


def plain_table() -> Table:
    """An empty table in the style of all tables on the terminal."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def render_console(report: Report, console: Console) -> None:
    """Print the report on a terminal or in a pipe: a table of estimates, the cost, the verdict."""
    rows = estimate_rows(report)
    table = plain_table()
    with_exact = any(row.exact for row in rows)
    table.add_column("estimate", no_wrap=True)
    for header in ("value", "error", *(("exact", "off by") if with_exact else ())):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        cells = [row.value, row.error, *((row.exact, row.pull) if with_exact else ())]
        table.add_row(Text(row.label), *map(Text, cells), style="" if not row.complaint else "yellow")
    console.print(Text(f"{report.title}, {setting(report)}", "bold"))
    console.print(table)
    for complaint in dict.fromkeys(row.complaint for row in rows if row.complaint):
        labels = dict.fromkeys(row.label for row in rows if row.complaint == complaint)
        console.print(Text(f"! {'; '.join(labels)}: {complaint}", "yellow"))
    console.print(Text("cost: " + ", ".join(f"{name} {text}" for name, text in cost_lines(report).items()), "dim"))
    style = {"good": "bold green", "warn": "bold yellow", "bad": "bold red"}[report.verdict.mood]
    console.print(Text(report.verdict.headline, style))
    for sentence in [*report.verdict.warnings, *report.verdict.notes]:
        console.print(Text(f"- {sentence}"))


def render_seeds(report: SeedsReport, console: Console) -> None:
    """Print a row for each seed, the median and standard deviation over them, their agreement, and the verdict."""
    shown = [name for name in COMPARED if report.values(name)]
    table = plain_table()
    table.add_column("seed", no_wrap=True)
    for name in shown:
        table.add_column(LABELS[name], justify="right", no_wrap=True)
        table.add_column("error", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in _rows_of_seeds(report, shown):
        table.add_row(*map(Text, row[1:]), style=row[0])
    shared = next(iter(report.reports.values()))
    seeds = ", ".join(map(str, sorted([*report.reports, *report.failures])))
    console.print(Text(f"{shared.target.get('name', 'target')}, seeds {seeds}, preset {shared.preset}", "bold"))
    console.print(table)
    if report.agreement and report.agreement.sigma <= MAX_SIGMA:
        console.print(Text(f"The seeds agree on log Z: {in_words(report.agreement)}.", "dim"))
    if report.trustworthy:
        console.print(Text("Trusted: every check of every seed passed, and they agree.", "bold green"))
    else:
        console.print(Text("Do not rely on this result.", "bold red"))
    for sentence in report.warnings:
        console.print(Text(f"- {sentence}"))


def _rows_of_seeds(report: SeedsReport, shown: list[str]) -> list[list[str]]:
    """Style, seed, each estimate with its error, and the verdict."""
    rows = []
    for seed in sorted([*report.reports, *report.failures]):
        if seed in report.failures:
            rows.append(["red", str(seed), *[""] * (2 * len(shown)), "failed"])
            continue
        estimates = report.reports[seed].estimates
        good = report.reports[seed].verdict.trustworthy
        cells = [(format_value(e.value, e.stderr), format_error(e.stderr)) for e in (estimates[n] for n in shown)]
        rows.append(["" if good else "yellow", str(seed), *sum(cells, ()), "trusted" if good else "not trusted"])
    columns = [report.values(name) for name in shown]
    errors = [spread_of(values) or 0.0 for values in columns]
    medians = [format_value(statistics.median(v), s) for v, s in zip(columns, errors, strict=True)]
    rows.append(["bold", "median", *(cell for median in medians for cell in (median, "")), ""])
    exact = next(iter(report.reports.values())).exact
    if exact:
        known = [format_value(exact[n].value, s) if n in exact else "" for n, s in zip(shown, errors, strict=True)]
        rows.append(["", "exact", *(cell for value in known for cell in (value, "")), ""])
    if len(columns[0]) > 1:
        spreads = [format_error(spread) for spread in errors]
        rows.append(["", "standard deviation", *(cell for spread in spreads for cell in ("", spread)), ""])
    return rows
