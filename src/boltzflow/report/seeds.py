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

from boltzflow.report.report import Report, dump
from boltzflow.statistics.estimates import Estimate, chi_squared_sigma

COMPARED = ("log_z", "reverse_ess", "forward_ess")
MAX_SIGMA = 4.0


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
        if self.agreement and not self.agreement.sigma <= MAX_SIGMA:
            sentences.append(
                f"The seeds disagree on log Z ({in_words(self.agreement)}, more than {MAX_SIGMA:.0f} σ): their "
                "errors are larger than they say, or some have lost part of the target."
            )
        return sentences

    @property
    def trustworthy(self) -> bool:
        """Whether every seed was trained and is trusted, and all agree."""
        agree = not self.agreement or self.agreement.sigma <= MAX_SIGMA
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
                    for name in COMPARED
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
            "median": {name: statistics.median(self.values(name)) for name in COMPARED if self.values(name)},
            "standard_deviation": {name: spread_of(self.values(name)) for name in COMPARED},
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


def spread_of(values: list[float]) -> float | None:
    """The standard deviation over the seeds, None for fewer than two."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def in_words(agreement: Agreement) -> str:
    """χ², its degrees of freedom, and the same in σ."""
    k = agreement.degrees_of_freedom
    freedom = f"{k} degree{'s' if k > 1 else ''} of freedom"
    return f"χ² = {agreement.chi_squared:.3g} for {freedom}, {agreement.sigma:.1f} σ"
