"""What a run answers: estimates beside exact values, the verdict, the cost; as JSON, on the console, as one HTML page.

Nothing here decides what is trustworthy: a `Verdict` is given and shown. Only NumPy arrays and dataclasses come in.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boltzflow.errors import InputError
from boltzflow.report import html as page
from boltzflow.report.formatting import COST_LABELS, LABELS, format_duration, format_error, format_value
from boltzflow.statistics import estimates as estimators
from boltzflow.statistics.estimates import Estimate

SAME_QUANTITY = {"log_z_importance": "log_z", "log_z_rate": "log_z", "log_z_annealed": "log_z", "log_z_pilot": "log_z"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the answers may be trusted; `warnings` say why not, `notes` what else is worth knowing. Sentences all."""

    trustworthy: bool
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything a run has to say. What does not apply is left out of the mappings, never None or 0.

    `target`: name and options; `versions`: of boltzflow, Python, jax, ...; `estimates`: by name, those of `LABELS` and
    any other; `cost`: seconds and counts by the names of `COST_LABELS`; `exact`: known values by the same names as the
    estimates, kept in JSON as the estimates `log_z_exact` and so on.
    """

    target: Mapping[str, Any]
    seed: int
    preset: str
    versions: Mapping[str, str]
    estimates: Mapping[str, Estimate]
    verdict: Verdict
    cost: Mapping[str, float]
    exact: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The report as strict JSON, without the tokens NaN and Infinity, in the order of the fields.

        A number that is not finite is the string "NaN", "Infinity" or "-Infinity", which both Python's float() and
        JavaScript's Number() read; an estimate that has one is never ok.
        """
        known = {f"{name}_exact": value for name, value in self.exact.items()}
        estimates = {name: _estimate_to_dict(e) for name, e in {**self.estimates, **known}.items() if e is not None}
        verdict = {"trustworthy": self.verdict.trustworthy, "warnings": list(self.verdict.warnings)}
        if self.verdict.notes:
            verdict["notes"] = list(self.verdict.notes)
        head = {"target": self.target, "seed": self.seed, "preset": self.preset, "versions": self.versions}
        content = {**head, "estimates": estimates, "verdict": verdict, "cost": self.cost}
        return json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote; raises InputError where the text is not one."""
        try:
            content = json.loads(text)
            estimates = {name: _estimate_from_dict(e) for name, e in content.pop("estimates").items()}
            exact = {name.removesuffix("_exact"): e for name, e in estimates.items() if name.endswith("_exact")}
            estimates = {name: e for name, e in estimates.items() if not name.endswith("_exact")}
            names = {field.name for field in dataclasses.fields(cls)} - {"estimates", "verdict", "exact"}
            rest = {name: content[name] for name in names}
            return cls(estimates=estimates, exact=exact, verdict=Verdict(**content["verdict"]), **rest)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"expected a report.json of boltzflow, but it could not be read: {error!r}.") from error


def _estimate_to_dict(estimate: Estimate) -> dict[str, Any]:
    return {field.name: getattr(estimate, field.name) for field in dataclasses.fields(estimate)}


def _estimate_from_dict(content: dict[str, Any]) -> Estimate:
    value, stderr = (np.asarray(content[key], dtype=np.float64) for key in ("value", "stderr"))
    scalar = value.ndim == 0
    numbers = {"value": float(value), "stderr": float(stderr)} if scalar else {"value": value, "stderr": stderr}
    return Estimate(**{**content, **numbers})


def plain(value: Any) -> Any:
    """The same in the types of JSON; None leaves a mapping, and a number that is not finite becomes a string."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, (str, bool, int, float, type(None))) else str(value)


@dataclasses.dataclass(frozen=True)
class _Row:
    """One estimate in words, ready for the console and the page."""

    label: str
    value: str
    error: str
    exact: str
    pull: str
    detail: str
    complaint: str


def _rows(report: Report) -> list[_Row]:
    """A row for each estimate, the known names first and in the order of LABELS; entries of arrays one by one."""
    order = [*LABELS, *sorted(set(report.estimates) - set(LABELS))]
    rows = []
    for name in (name for name in order if name in report.estimates):
        estimate, known = report.estimates[name], report.exact.get(SAME_QUANTITY.get(name, name))
        detail = ", ".join(filter(None, [estimate.method, f"n = {estimate.n:,}" if estimate.n else ""]))
        complaint = "" if estimate.ok else estimate.reason or "Not to be relied on."
        values, stderrs = np.asarray(estimate.value, dtype=np.float64), np.asarray(estimate.stderr, dtype=np.float64)
        for index, value in np.ndenumerate(values):
            label = LABELS.get(name, name) + (str(list(index)) if index else "")
            stderr = float(stderrs[index])
            exact = pull = ""
            if known is not None and np.ndim(known.value) == values.ndim == 0:
                exact, pull = format_value(known.value, known.stderr), _pull(estimate, known)
            rows.append(_Row(label, format_value(value, stderr), format_error(stderr), exact, pull, detail, complaint))
    return rows


def _pull(estimate: Estimate, known: Estimate) -> str:
    size = estimators.disagreement(estimate, known)
    return f"{math.copysign(size, estimate.value - known.value):+.1f} σ" if math.isfinite(size) else ""


def _cost(report: Report) -> dict[str, str]:
    names = [*(n for n in COST_LABELS if n in report.cost), *(n for n in report.cost if n not in COST_LABELS)]
    is_time = {name: name.endswith("_seconds") for name in names}
    return {
        COST_LABELS.get(n, n): format_duration(report.cost[n]) if is_time[n] else f"{report.cost[n]:,}" for n in names
    }


def _headline(verdict: Verdict) -> tuple[str, str]:
    """The mood of the verdict and its first sentence."""
    if not verdict.trustworthy:
        return "bad", "Do not rely on this result."
    return ("warn", "Trusted, with a warning.") if verdict.warnings else ("good", "Trusted: every check passed.")


def render_console(report: Report, console: Console) -> None:
    """The report on a terminal or in a pipe: a table of estimates, the cost, the verdict in plain sentences."""
    rows = _rows(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    with_exact = any(row.exact for row in rows)
    table.add_column("estimate", no_wrap=True)
    for header in ("value", "error", *(("exact", "off by") if with_exact else ())):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        cells = [row.value, row.error, *((row.exact, row.pull) if with_exact else ())]
        table.add_row(Text(row.label), *map(Text, cells), style="" if not row.complaint else "yellow")
    console.print(Text(f"{report.target.get('name', 'target')}, seed {report.seed}, preset {report.preset}", "bold"))
    console.print(table)
    for complaint in dict.fromkeys(row.complaint for row in rows if row.complaint):
        labels = dict.fromkeys(row.label for row in rows if row.complaint == complaint)
        console.print(Text(f"! {'; '.join(labels)}: {complaint}", "yellow"))
    console.print(Text("cost: " + ", ".join(f"{name} {value}" for name, value in _cost(report).items()), "dim"))
    mood, headline = _headline(report.verdict)
    console.print(Text(headline, {"good": "bold green", "warn": "bold yellow", "bad": "bold red"}[mood]))
    for sentence in [*report.verdict.warnings, *report.verdict.notes]:
        console.print(Text(f"- {sentence}"))


def write_html(
    report: Report,
    figures: Sequence[tuple[str, str, bytes]],
    path: str | os.PathLike[str],
    command: str = "",
    config: str = "",
) -> None:
    """The report as one HTML file that needs nothing else: `figures` are (title, caption, PNG bytes), in order.

    `command` and `config` repeat the run; they are shown as they are.
    """
    mood, headline = _headline(report.verdict)
    rows = _rows(report)
    headers = ["estimate", "value", "error", "exact", "off by"]
    cells = [([r.label, r.value, r.error, r.exact, r.pull], r.detail, r.complaint) for r in rows]
    if not any(row.exact for row in rows):
        headers, cells = headers[:3], [(c[:3], detail, complaint) for c, detail, complaint in cells]
    target = {name: str(value) for name, value in report.target.items()}
    origin = {"seed": str(report.seed), "preset": report.preset, **{n: str(v) for n, v in report.versions.items()}}
    html = page.document(
        f"boltzflow: {report.target.get('name', 'target')}",
        f"seed {report.seed}, preset {report.preset}",
        page.banner(mood, headline, report.verdict.warnings, report.verdict.notes),
        page.section("Key numbers", page.cards(_key_numbers(report))),
        page.section("Estimates", page.table(headers, cells)),
        page.section("Figures", *(page.figure(*figure) for figure in figures)),
        page.section("Cost", page.pairs(_cost(report))),
        page.section("Target", page.pairs(target)),
        page.section("Where this comes from", page.pairs(origin)),
        page.section("To repeat it", page.code(command), page.code(config)),
    )
    Path(path).write_text(html, encoding="utf-8")


def _key_numbers(report: Report) -> list[tuple[str, str, str, str]]:
    """The two or three numbers everybody looks for, and the time they took."""
    wanted = {LABELS[name] for name in ("log_z", "reverse_ess", "forward_ess")}
    numbers = []
    for row in (row for row in _rows(report) if row.label in wanted):
        beneath = f"exact {row.exact}, off by {row.pull}" if row.pull else row.detail
        numbers.append((row.label, row.value, row.error, "not to be relied on" if row.complaint else beneath))
    if "total_seconds" in report.cost:
        numbers.append(("time", format_duration(report.cost["total_seconds"]), "", "from start to answer"))
    return numbers
