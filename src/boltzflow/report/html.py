"""The report as one self-contained HTML page: no scripts, no network, every string escaped on its way in."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources

from boltzflow.report.formatting import LABELS, cost_lines, estimate_rows, format_duration, setting
from boltzflow.report.report import Report

Figure = tuple[str, str, bytes]
"""Title, caption, PNG."""


def html_page(report: Report, figures: Sequence[Figure], command: str = "", config: str = "", run: str = "") -> str:
    """The report as the text of an HTML file that needs nothing else.

    It has `command` and `config` to repeat the run, and the mark of the identity `run`.
    """
    target = {key: str(value) for key, value in report.target.items()}
    origin = {"seed": str(report.seed), "preset": report.preset, **{n: str(v) for n, v in report.versions.items()}}
    return _document(
        run_mark(run),
        f"boltzflow: {report.title}",
        setting(report),
        _banner(report.verdict.mood, report.verdict.headline, report.verdict.warnings, report.verdict.notes),
        _section("Key numbers", _cards(_key_numbers(report))),
        _section("Estimates", _estimates_table(report)),
        _section("Checks", _checks_table(report)),
        _section("Figures", *(_figure(*figure) for figure in figures)),
        _section("Cost", _pairs(cost_lines(report))),
        _section("Target", _pairs(target)),
        _section("Where this comes from", _pairs(origin)),
        _section("To repeat it", _code(command), _code(config)),
    )


def run_mark(run: str) -> str:
    """The HTML element that states the identity of a run."""
    return f'<meta name="boltzflow-run" content="{escape(run)}">'


def _estimates_table(report: Report) -> str:
    rows = estimate_rows(report)
    headers = ["estimate", "value", "error", "exact", "off by"]
    cells = [([r.label, r.value, r.error, r.exact, r.pull], r.detail, r.complaint) for r in rows]
    if not any(row.exact for row in rows):
        headers = headers[:3]
        cells = [(texts[:3], detail, complaint) for texts, detail, complaint in cells]
    return _table(headers, cells)


def _checks_table(report: Report) -> str:
    """Every check of the verdict with its number and its limit; nothing for a report of an older version."""
    rows = []
    for check in report.verdict.checks:
        limit = f"{'at least' if check.least else 'at most'} {_number(check.limit)}"
        rows.append(([check.name, _number(check.found), limit, "passed" if check.passed else "failed"], "", ""))
    return _table(["check", "found", "limit", "result"], rows) if rows else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def _key_numbers(report: Report) -> list[tuple[str, str, str, str]]:
    """log Z, the ESS and the time, as (label, number, its error, a line beneath)."""
    wanted = {LABELS[name] for name in ("log_z", "reverse_ess", "forward_ess")}
    numbers = []
    for row in (row for row in estimate_rows(report) if row.label in wanted):
        beneath = f"exact {row.exact}, off by {row.pull}" if row.pull else row.detail
        numbers.append((row.label, row.value, row.error, "not to be relied on" if row.complaint else beneath))
    if "total_seconds" in report.cost:
        numbers.append(("time", format_duration(report.cost["total_seconds"]), "", "from start to answer"))
    return numbers


# --- pieces of a page, from plain text to HTML; `_section` and `_document` take HTML ----------------------------------


def _document(head: str, title: str, subtitle: str, *sections: str) -> str:
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
{head}
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>
<main>
{"".join(sections)}</main>
</body>
</html>
"""


def _section(heading: str, *content: str) -> str:
    """A heading and its content; nothing where the content is empty."""
    inside = "".join(content)
    return f"<section><h2>{escape(heading)}</h2>\n{inside}</section>\n" if inside else ""


def _banner(mood: str, heading: str, sentences: Iterable[str], notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    items += "".join(f'<li class="note">{escape(note)}</li>' for note in notes)
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<section class="banner {escape(mood)}" role="status"><h2>{escape(heading)}</h2>{listed}</section>\n'


def _cards(numbers: Iterable[tuple[str, str, str, str]]) -> str:
    inside = "".join(
        f'<div class="card"><dt>{escape(label)}</dt><dd>{escape(number)} <span>{escape(error)}</span></dd>'
        f"<p>{escape(beneath)}</p></div>"
        for label, number, error, beneath in numbers
    )
    return f'<dl class="cards">{inside}</dl>\n' if inside else ""


def _table(headers: Sequence[str], rows: Iterable[tuple[Sequence[str], str, str]]) -> str:
    """A table whose rows are cells, a line of detail under the first cell, and a complaint or nothing."""
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in headers)
    body = ""
    for cells, detail, complaint in rows:
        beneath = f"<small>{escape(detail)}</small>" if detail else ""
        beneath += f'<small class="complaint">{escape(complaint)}</small>' if complaint else ""
        body += f'<tr><th scope="row">{escape(cells[0])}{beneath}</th>'
        for header, cell in zip(headers[1:], cells[1:], strict=True):
            body += f'<td data-label="{escape(header)}">{escape(cell)}</td>'
        body += "</tr>\n"
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>\n"


def _figure(title: str, caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><h3>{escape(title)}</h3><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _pairs(content: Mapping[str, str]) -> str:
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in content.items())
    return f'<dl class="pairs">{inside}</dl>\n' if inside else ""


def _code(text: str) -> str:
    return f"<pre><code>{escape(text.strip())}</code></pre>\n" if text.strip() else ""
