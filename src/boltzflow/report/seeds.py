"""What several seeds of one target say together: their answers side by side, and whether they agree on log Z.

Each seed vouches for itself in its own report. What only several can show is whether the errors they state are true:
the squared distances of their log Z from the common mean, in units of the errors, sum to a χ² with one degree of
freedom fewer than there are seeds.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from boltzflow.report.formatting import LABELS, format_error, format_value
from boltzflow.report.report import Report, plain

_COMPARED = ("log_z", "reverse_ess", "forward_ess")
_MAX_SIGMA = 4.0


@dataclasses.dataclass(frozen=True)
class Agreement:
    """χ² of the seeds' log Z about their weighted mean; `sigma` is what a normal number as improbable would be."""

    chi_squared: float
    degrees_of_freedom: int
    sigma: float


@dataclasses.dataclass(frozen=True)
class SeedsReport:
    """The reports of the seeds that were trained, why the others were not, and what follows from all of them."""

    reports: Mapping[int, Report]
    failures: Mapping[int, str]
    agreement: Agreement | None

    @property
    def warnings(self) -> list[str]:
        """Why not to rely on the seeds, those that failed first."""
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
        """The estimates of that name, of the seeds that have one."""
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
        return json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def seeds_warnings(text: str) -> list[str]:
    """Why not to rely on the seeds, from what `SeedsReport.to_json` wrote."""
    return json.loads(text)["verdict"]["warnings"]


def compare_seeds(reports: Mapping[int, Report], failures: Mapping[int, str]) -> SeedsReport:
    """The reports of at least one seed beside each other."""
    log_z = [report.estimates["log_z"] for report in reports.values() if "log_z" in report.estimates]
    finite = [(e.value, e.stderr) for e in log_z if math.isfinite(e.value) and math.isfinite(e.stderr)]
    return SeedsReport(reports, failures, _agreement(*zip(*finite, strict=True)) if len(finite) > 1 else None)


def _agreement(values: tuple[float, ...], stderrs: tuple[float, ...]) -> Agreement:
    value = np.asarray(values, np.float64)
    stderr = np.maximum(
        stderrs, 64 * np.finfo(np.float64).eps * np.maximum(np.abs(value), 1.0)
    )  # rounding is no quarrel
    mean = np.average(value, weights=stderr**-2.0)
    chi_squared = float(np.sum(((value - mean) / stderr) ** 2))
    return Agreement(chi_squared, len(value) - 1, chi_squared_sigma(chi_squared, len(value) - 1))


def chi_squared_sigma(chi_squared: float, degrees_of_freedom: int) -> float:
    """The |z| that a normal number exceeds as rarely as χ² exceeds `chi_squared`: its root for one degree of freedom.

    Q(k/2, x/2) is a finite sum for whole k (Abramowitz & Stegun 26.4.4 and 26.4.5).
    """
    if not math.isfinite(chi_squared):
        return math.inf
    half = chi_squared / 2
    if degrees_of_freedom % 2:
        probability, term = math.erfc(math.sqrt(half)), math.exp(-half) * math.sqrt(half) / math.gamma(1.5)
        steps = [step + 1.5 for step in range(degrees_of_freedom // 2)]
    else:
        probability, term = 0.0, math.exp(-half)
        steps = [step + 1.0 for step in range(degrees_of_freedom // 2)]
    for step in steps:
        probability += term
        term *= half / step
    return max(0.0, -statistics.NormalDist().inv_cdf(probability / 2)) if probability > 0 else math.inf


def render_seeds(report: SeedsReport, console: Console) -> None:
    """A row for each seed, median and standard deviation over them, whether they agree, and the verdict."""
    shown = [name for name in _COMPARED if report.values(name)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
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
    good = "Trusted: every check of every seed passed, and they agree."
    console.print(Text(*((good, "bold green") if report.trustworthy else ("Do not rely on this result.", "bold red"))))
    for sentence in report.warnings:
        console.print(Text(f"- {sentence}"))


def _rows(report: SeedsReport, shown: list[str]) -> list[list[str]]:
    """Style, seed, each estimate with its error, and the verdict."""
    rows = []
    for seed in sorted([*report.reports, *report.failures]):
        if seed in report.failures:
            rows.append(["red", str(seed), *[""] * (2 * len(shown)), "failed"])
            continue
        estimates, good = report.reports[seed].estimates, report.reports[seed].verdict.trustworthy
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
