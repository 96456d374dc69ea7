"""Several seeds of one target beside each other: their answers, and whether they agree on log Z.

The report of each seed covers that seed alone. Several seeds also show whether the stated errors are true: the squared
distances of their log Z from the weighted mean, in units of the errors, sum to a χ² with one degree of freedom fewer
than there are seeds.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.text import Text

from boltzflow.report.formatting import LABELS, format_error, format_value, plain_table
from boltzflow.report.report import Report, dump
from boltzflow.statistics.estimates import Estimate, chi_squared_sigma

_COMPARED = ("log_z", "reverse_ess", "forward_ess")
_MAX_SIGMA = 4.0


@dataclasses.dataclass(frozen=True)
class Agreement:
    """χ² of the seeds' log Z about their weighted mean; `sigma` is the normal deviate of the same probability."""

    chi_squared: float
    degrees_of_freedom: int
    sigma: float


@dataclasses.dataclass(frozen=True)
class SeedsReport:
    """The reports of the seeds that were trained, the failures of the others, and their agreement on log Z."""

    reports: Mapping[int, Report]
    failures: Mapping[int, str]
    agreement: Agreement | None

    @property
    def warnings(self) -> list[str]:
        """The reasons not to rely on the seeds, failures first."""
        sentences = [f"Seed {seed} failed: {reason}" for seed, reason in self.failures.items()]
        for seed, report in self.reports.items():
            sentences += [f"Seed {seed}: {warning}" for warning in report.verdict.warnings]
        if self.agreement and not self.agreement.sigma <= _MAX_SIGMA:
            sentences.append(
                f"The seeds disagree on log Z ({_in_words(self.agreement)}, more than {_MAX_SIGMA:.0f} σ): their "
                "errors are larger than they say, or some have lost part of the target."
            )
        return sentences

    @property
    def trustworthy(self) -> bool:
        """Whether every seed was trained and is trusted, and all agree."""
        agree = not self.agreement or self.agreement.sigma <= _MAX_SIGMA
        return agree and not self.failures and all(report.verdict.trustworthy for report in self.reports.values())

    def values(self, name: str) -> list[float]:
        """The estimates of that name, one for each seed that has it."""
        return [float(r.estimates[name].value) for r in self.reports.values() if name in r.estimates]

    def to_json(self, version: str) -> str:
        """Strict JSON: a number that is not finite is a string, as in `report.json`."""
        seeds = [
            {
                "seed": seed,
                "folder": f"seed-{seed}",
                "trustworthy": report.verdict.trustworthy,
                "estimates": {
                    name: {"value": report.estimates[name].value, "stderr": report.estimates[name].stderr}
                    for name in _COMPARED
                    if name in report.estimates
                },
            }
            for seed, report in self.reports.items()
        ]
        shared = next(iter(self.reports.values()))
        content = {
            "boltzflow": version,
            "target": shared.target,
            "preset": shared.preset,
            "seeds": seeds,
            "failed": [{"seed": seed, "reason": reason} for seed, reason in self.failures.items()],
            "median": {name: statistics.median(self.values(name)) for name in _COMPARED if self.values(name)},
            "standard_deviation": {name: _spread(self.values(name)) for name in _COMPARED},
            "agreement": dataclasses.asdict(self.agreement) if self.agreement else None,
            "verdict": {"trustworthy": self.trustworthy, "warnings": self.warnings},
        }
        return dump(content)


def seeds_warnings(text: str) -> list[str]:
    """The warnings in the text that `SeedsReport.to_json` wrote."""
    return json.loads(text)["verdict"]["warnings"]


def compare_seeds(reports: Mapping[int, Report], failures: Mapping[int, str]) -> SeedsReport:
    """Compare the reports of at least one seed; `failures` has the reasons of the seeds that could not be trained."""
    log_z = [report.estimates["log_z"] for report in reports.values() if "log_z" in report.estimates]
    finite = [estimate for estimate in log_z if math.isfinite(estimate.value) and math.isfinite(estimate.stderr)]
    return SeedsReport(reports, failures, _agreement(finite) if len(finite) > 1 else None)


def _agreement(estimates: list[Estimate]) -> Agreement:
    value = np.array([estimate.value for estimate in estimates], np.float64)
    rounding = 64 * np.finfo(np.float64).eps * np.maximum(np.abs(value), 1.0)
    stderr = np.maximum([estimate.stderr for estimate in estimates], rounding)
    mean = np.average(value, weights=stderr**-2.0)
    chi_squared = float(np.sum(((value - mean) / stderr) ** 2))
    return Agreement(chi_squared, len(value) - 1, chi_squared_sigma(chi_squared, len(value) - 1))


def render_seeds(report: SeedsReport, console: Console) -> None:
    """Print a row for each seed, the median and standard deviation over them, their agreement, and the verdict."""
    shown = [name for name in _COMPARED if report.values(name)]
    table = plain_table()
    table.add_column("seed", no_wrap=True)
    for name in shown:
        table.add_column(LABELS[name], justify="right", no_wrap=True)
        table.add_column("error", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in _rows(report, shown):
        table.add_row(*map(Text, row[1:]), style=row[0])
    shared = next(iter(report.reports.values()))
    seeds = ", ".join(map(str, sorted([*report.reports, *report.failures])))
    console.print(Text(f"{shared.target.get('name', 'target')}, seeds {seeds}, preset {shared.preset}", "bold"))
    console.print(table)
    if report.agreement and report.agreement.sigma <= _MAX_SIGMA:
        console.print(Text(f"The seeds agree on log Z: {_in_words(report.agreement)}.", "dim"))
    if report.trustworthy:
        console.print(Text("Trusted: every check of every seed passed, and they agree.", "bold green"))
    else:
        console.print(Text("Do not rely on this result.", "bold red"))
    for sentence in report.warnings:
        console.print(Text(f"- {sentence}"))


def _rows(report: SeedsReport, shown: list[str]) -> list[list[str]]:
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
    errors = [_spread(values) or 0.0 for values in columns]
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


def _spread(values: list[float]) -> float | None:
    """The standard deviation over the seeds, None for fewer than two."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _in_words(agreement: Agreement) -> str:
    k = agreement.degrees_of_freedom
    freedom = f"{k} degree{'s' if k > 1 else ''} of freedom"
    return f"χ² = {agreement.chi_squared:.3g} for {freedom}, {agreement.sigma:.1f} σ"
