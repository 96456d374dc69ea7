"""Pieces of one self-contained HTML page: no scripts, no network, every string escaped on its way in.

Each function takes plain text and returns HTML; only `section` and `document` take HTML, made by the others.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources


def document(title: str, subtitle: str, *sections: str) -> str:
    """The whole page: head with the style inside, a title, the sections (HTML) one after the other."""
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
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


def section(heading: str, *content: str) -> str:
    """A heading and its content (HTML); nothing at all where the content is empty."""
    inside = "".join(content)
    return f"<section><h2>{escape(heading)}</h2>\n{inside}</section>\n" if inside else ""


def banner(mood: str, heading: str, sentences: Iterable[str], notes: Iterable[str]) -> str:
    """The verdict; `mood` is "good", "warn" or "bad"."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    items += "".join(f'<li class="note">{escape(note)}</li>' for note in notes)
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<section class="banner {escape(mood)}" role="status"><h2>{escape(heading)}</h2>{listed}</section>\n'


def cards(numbers: Iterable[tuple[str, str, str, str]]) -> str:
    """The key numbers: (label, number, its error, a line beneath)."""
    inside = "".join(
        f'<div class="card"><dt>{escape(label)}</dt><dd>{escape(number)} <span>{escape(error)}</span></dd>'
        f"<p>{escape(beneath)}</p></div>"
        for label, number, error, beneath in numbers
    )
    return f'<dl class="cards">{inside}</dl>\n' if inside else ""


def table(headers: Sequence[str], rows: Iterable[tuple[Sequence[str], str, str]]) -> str:
    """A table; a row is its cells, a line of detail under the first cell, and a complaint, empty where all is well."""
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


def figure(title: str, caption: str, png: bytes) -> str:
    """A picture, inside the page, on a white card."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><h3>{escape(title)}</h3><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def pairs(content: Mapping[str, str]) -> str:
    """Names and values, one to a line."""
    inside = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in content.items())
    return f'<dl class="pairs">{inside}</dl>\n' if inside else ""


def code(text: str) -> str:
    """Text to copy, as it is."""
    return f"<pre><code>{escape(text.strip())}</code></pre>\n" if text.strip() else ""
