"""The report in words: labels, numbers with their errors, rows of estimates, the cost, the verdict."""

import math
from dataclasses import dataclass

import numpy as np

from boltzflow.report.report import Report
from boltzflow.statistics.estimates import Estimate, disagreement

LABELS = {
    "log_z": "log Z",
    "log_z_importance": "log Z, importance weights",
    "log_z_pooled": "log Z, flow and Student t",
    "log_z_mixture": "log Z, fitted mixture",
    "log_z_smc": "log Z, sequential Monte Carlo",
    "log_z_rate": "log Z, rate C_t",
    "log_z_annealed": "log Z, annealed along the path",
    "log_z_pilot": "log Z, pilot",
    "log_z_lower": "log Z, lower bound",
    "log_z_upper": "log Z, upper bound",
    "reverse_ess": "reverse ESS",
    "reverse_kl": "reverse KL − log Z",
    "forward_ess": "forward ESS",
    "forward_kl": "forward KL",
    "hausdorff": "Hausdorff distance",
    "pareto_k": "Pareto k̂ of the weights",
    "pooled_ess": "ESS of flow and Student t",
    "pooled_pareto_k": "Pareto k̂ of flow and Student t",
    "tail_excess": "share of the weights' tail",
    "largest_weight_share": "largest weight share",
    "solver_error": "solver error of the log-weights",
}
COST_LABELS = {
    "train_seconds": "training",
    "compile_seconds": "compilation",
    "total_seconds": "total",
    "steps": "steps",
    "gradient_evaluations": "energies with their gradient",
    "energy_evaluations": "energies alone",
}
_ANSWERS = {
    "smc": "sequential Monte Carlo",
    "mixture": "a fitted mixture",
    "log_z_importance": "importance weights",
    "log_z_pooled": "the flow and a Student t",
    "log_z_annealed": "annealing along the path",
}
_ROUTES = tuple(name for name in LABELS if name.startswith("log_z_") and not name.endswith(("lower", "upper")))


def format_value(value: float, stderr: float) -> str:
    """The value to two digits of its standard error, or to six digits where there is no error."""
    if not (math.isfinite(value) and math.isfinite(stderr)) or stderr <= 1e-9 * abs(value):
        return f"{value:.6g}"
    return f"{value:.{_decimals(stderr)}f}" if abs(value) < 1e9 else f"{value:.6g}"


def _decimals(stderr: float) -> int:
    return min(max(0, 1 - math.floor(math.log10(stderr))), 12)


def format_error(stderr: float) -> str:
    """The standard error to two digits, nothing where it is zero."""
    if stderr == 0:
        return ""
    return f"± {stderr:.{_decimals(stderr)}f}" if 1e-6 < stderr < 1e6 else f"± {stderr:.2g}"


def format_duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True)
class Row:
    """One estimate in words, for the terminal and for the page."""

    label: str
    value: str
    error: str
    exact: str
    pull: str
    detail: str
    complaint: str


def estimate_rows(report: Report) -> list[Row]:
    """A row for each estimate, known names first and in the order of `LABELS`; arrays have a row for each entry.

    The route that log Z comes from has no row of its own.
    """
    order = [*LABELS, *sorted(set(report.estimates) - set(LABELS))]
    rows = []
    shown_once = _route_of_log_z(report)
    for name in (name for name in order if name in report.estimates and name != shown_once):
        estimate = report.estimates[name]
        known = report.exact.get("log_z" if name in _ROUTES else name)
        detail = ", ".join(filter(None, [estimate.method, f"n = {estimate.n:,}" if estimate.n else ""]))
        complaint = _complaint(report, name)
        values = np.asarray(estimate.value, dtype=np.float64)
        stderrs = np.asarray(estimate.stderr, dtype=np.float64)
        exact = ""
        pull = ""
        if known is not None and np.ndim(known.value) == values.ndim == 0:
            exact = format_value(known.value, known.stderr)
            pull = _pull(estimate, known)
        for index, value in np.ndenumerate(values):
            label = LABELS.get(name, name) + (str(list(index)) if index else "")
            stderr = float(stderrs[index])
            rows.append(Row(label, format_value(value, stderr), format_error(stderr), exact, pull, detail, complaint))
    return rows


def _complaint(report: Report, name: str) -> str:
    """Why not to rely on an estimate; log Z is no better than the verdict, as `Run.log_z` says too."""
    estimate = report.estimates[name]
    if not estimate.ok:
        return estimate.reason or "Not to be relied on."
    return "Not to be relied on: see the verdict." if name == "log_z" and not report.verdict.trustworthy else ""


def _pull(estimate: Estimate, known: Estimate) -> str:
    size = disagreement(estimate, known)
    return f"{math.copysign(size, estimate.value - known.value):+.1f} σ" if math.isfinite(size) else ""


def cost_lines(report: Report) -> dict[str, str]:
    """The cost in words: labels and values."""
    names = [*(n for n in COST_LABELS if n in report.cost), *(n for n in report.cost if n not in COST_LABELS)]
    texts = {n: format_duration(report.cost[n]) if n.endswith("_seconds") else f"{report.cost[n]:,}" for n in names}
    return {COST_LABELS.get(name, name): text for name, text in texts.items()}


def setting(report: Report) -> str:
    """Seed, preset, and the route that answers."""
    name = report.route if report.route != "flow" else _route_of_log_z(report)
    answered = f", answered by {_ANSWERS.get(name, name)}" if name else ""
    return f"seed {report.seed}, preset {report.preset}{answered}"


def _route_of_log_z(report: Report) -> str:
    """The name of the estimate that log Z is; empty where there is none."""
    log_z = report.estimates.get("log_z")
    for name in _ROUTES:
        route = report.estimates.get(name)
        if log_z and route and (route.value, route.stderr, route.method) == (log_z.value, log_z.stderr, log_z.method):
            return name
    return ""
