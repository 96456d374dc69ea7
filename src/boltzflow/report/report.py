"""The content of a report: estimates beside known values, the verdict, the cost; and its JSON.

Nothing here decides what is trustworthy, and nothing here draws or prints.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from boltzflow.errors import InputError
from boltzflow.report.checks import Check
from boltzflow.statistics.estimates import Estimate


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the answers may be trusted.

    Args:
        trustworthy: True where no check failed.
        warnings: A sentence for each check that failed.
        notes: Sentences on what else is worth knowing.
        unchecked: What no check could have seen; empty where exact samples show everything.
        checks: Every check with its number and its limit, those that passed too; empty in reports of older versions.
    """

    trustworthy: bool
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    unchecked: str = ""
    checks: Sequence[Check] = ()

    @property
    def mood(self) -> str:
        """ "good" where every check passed, else "bad"; "warn" for a trusted run with a warning."""
        return ("warn" if self.warnings else "good") if self.trustworthy else "bad"

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        if not self.trustworthy:
            return "Do not rely on this result."
        unseen = f" Not checked: {self.unchecked}." if self.unchecked else ""
        return "Trusted, with a warning." if self.warnings else f"Trusted: every check passed.{unseen}"

    def __repr__(self) -> str:
        return "\n".join([self.headline, *(f"- {sentence}" for sentence in (*self.warnings, *self.notes))])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in (*self.warnings, *self.notes))
        return f"<b>{escape(self.headline)}</b>" + (f"<ul>{items}</ul>" if items else "")


@dataclasses.dataclass(frozen=True)
class Report:
    """The report of a run. An estimate that does not apply is left out of the mappings, never None or 0.

    Args:
        target: The target's name and options.
        seed: The seed of the run.
        preset: The preset from which the settings started.
        versions: The versions of boltzflow, Python, jax, ..., and the device.
        estimates: Estimates by name; the known names are those of `formatting.LABELS`.
        verdict: The verdict.
        cost: Seconds and counts by name; the known names are those of `formatting.COST_LABELS`.
        exact: Known values by the names of the estimates; in JSON they are the estimates `log_z_exact` and so on.
        route: Where samples, expectations and log Z come from: "flow", "mixture" or "smc".
        sampler: What was found on the way to the samples, by route: the number of `solver_steps`, and whether samples
            `pooled` with those of a Student t answer. A loaded run need not find it again.
    """

    target: Mapping[str, Any]
    seed: int
    preset: str
    versions: Mapping[str, str]
    estimates: Mapping[str, Estimate]
    verdict: Verdict
    cost: Mapping[str, float]
    exact: Mapping[str, Estimate] = dataclasses.field(default_factory=dict)
    route: str = "flow"
    sampler: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The target's name with its options and its dimension, as in "double-well, num_sites 16, dim 16"."""
        shown = {name: value for name, value in self.target.items() if isinstance(value, (int, float, str, np.generic))}
        words = [f"{name} {value}" for name, value in shown.items() if name != "name"]
        return ", ".join([str(self.target.get("name") or "target"), *words])

    @property
    def lines(self) -> list[str]:
        """The answer in a few lines: log Z beside the exact value, the ESS and the route, the cost, the verdict."""
        log_z = self.estimates.get("log_z")
        known = self.exact.get("log_z")
        answer = [] if log_z is None else [f"log Z = {log_z!r}"]
        answer += [] if known is None else [f"exact {known!r}"]
        ess = self.estimates.get("reverse_ess")
        numbers = [f"answered by {self.route}"]
        numbers += [] if ess is None else [f"reverse ESS of the flow {ess.value:.4g}"]
        if "total_seconds" in self.cost:
            numbers.append(f"{self.cost['total_seconds']:.1f} s")
        first = self.verdict.warnings[0] if self.verdict.warnings else ""
        return [*filter(None, [", ".join(answer), ", ".join(numbers), f"{self.verdict.headline} {first}".strip()])]

    def __repr__(self) -> str:
        return "\n  ".join([f"<Report: {self.title}, seed {self.seed}, preset {self.preset}", *self.lines]) + ">"

    def _repr_html_(self) -> str:
        lines = "<br>".join(escape(line) for line in self.lines)
        return f"<b>{escape(self.title)}</b>, seed {self.seed}, preset {escape(self.preset)}<br>{lines}"

    def to_json(self) -> str:
        """The report as strict JSON, without the tokens NaN and Infinity, in the order of the fields.

        A number that is not finite is the string "NaN", "Infinity" or "-Infinity", which both Python's float() and
        JavaScript's Number() read.
        """
        known = {f"{name}_exact": value for name, value in self.exact.items()}
        estimates = {name: _estimate_to_dict(e) for name, e in {**self.estimates, **known}.items() if e is not None}
        verdict = {"trustworthy": self.verdict.trustworthy, "warnings": list(self.verdict.warnings)}
        if self.verdict.notes:
            verdict["notes"] = list(self.verdict.notes)
        if self.verdict.unchecked:
            verdict["unchecked"] = self.verdict.unchecked
        if self.verdict.checks:
            verdict["checks"] = [_check_to_dict(check) for check in self.verdict.checks]
        head = {"target": self.target, "seed": self.seed, "preset": self.preset, "versions": self.versions}
        rest = {"cost": self.cost, "route": self.route, **({"sampler": self.sampler} if self.sampler else {})}
        return dump({**head, "estimates": estimates, "verdict": verdict, **rest})

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote; raises `InputError` for another text."""
        try:
            content = json.loads(text)
            estimates = {name: _estimate_from_dict(e) for name, e in content.pop("estimates").items()}
            exact = {name.removesuffix("_exact"): e for name, e in estimates.items() if name.endswith("_exact")}
            estimates = {name: e for name, e in estimates.items() if not name.endswith("_exact")}
            content.setdefault("route", "flow")  # reports of versions that knew no other
            content.setdefault("sampler", {})
            names = {field.name for field in dataclasses.fields(cls)} - {"estimates", "verdict", "exact"}
            rest = {name: content[name] for name in names}
            return cls(estimates=estimates, exact=exact, verdict=_verdict_from_dict(content["verdict"]), **rest)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(f"expected a report.json of boltzflow, but it could not be read: {error!r}.") from error


def _check_to_dict(check: Check) -> dict[str, Any]:
    """Without its sentence, which is among the warnings."""
    return {name: value for name, value in dataclasses.asdict(check).items() if name != "warning"}


def _verdict_from_dict(content: dict[str, Any]) -> Verdict:
    checks = [
        Check(**{**check, "found": float(check["found"]), "limit": float(check["limit"])})
        for check in content.pop("checks", [])
    ]
    return Verdict(**content, checks=checks)


def _estimate_to_dict(estimate: Estimate) -> dict[str, Any]:
    return {field.name: getattr(estimate, field.name) for field in dataclasses.fields(estimate)}


def _estimate_from_dict(content: dict[str, Any]) -> Estimate:
    value, stderr = (np.asarray(content[key], dtype=np.float64) for key in ("value", "stderr"))
    if value.ndim == 0:
        return Estimate(**{**content, "value": float(value), "stderr": float(stderr)})
    return Estimate(**{**content, "value": value, "stderr": stderr})


def dump(content: Mapping[str, Any]) -> str:
    """`content` as the text of a strict JSON file."""
    return json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """`value` in the types of JSON: None leaves a mapping, and a number that is not finite becomes a string."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, (str, bool, int, float, type(None))) else str(value)
