"""Numbers and names as people read them, the same on the console and on the page."""

import math

LABELS = {
    "log_z": "log Z",
    "log_z_importance": "log Z, importance weights",
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
    "tail_excess": "share of the weights' tail",
    "largest_weight_share": "largest weight share",
    "solver_error": "solver error of the log-weights",
}
COST_LABELS = {
    "train_seconds": "training",
    "compile_seconds": "compilation",
    "total_seconds": "total",
    "num_seeds": "seeds trained in that time",
    "steps": "steps",
    "gradient_evaluations": "energies with their gradient",
    "energy_evaluations": "energies alone",
}


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
    """A time as people say it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
