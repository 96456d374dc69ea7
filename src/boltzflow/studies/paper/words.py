"""The names of targets, methods and metrics on the paper's page, and the published numbers with their digits."""

import importlib.resources
import math
import tomllib
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from boltzflow.studies.markdown import number, plus_minus
from boltzflow.studies.paper.cells import MASSES, SIZES
from boltzflow.studies.paper.results import of_seeds
from boltzflow.studies.rows import Row

TARGETS = {
    "eq2": "Eq. (2), four equal modes",
    "eq18": "Eq. (18), two unequal modes",
    **{name: f"m = {mass:g}" for name, mass in MASSES.items()},
}
METHODS = {
    "reverse_kl_loss": "reverse KL",
    "continuity_linear": "continuity, linear path",
    "continuity_trainable": "continuity, trainable path",
    "continuity": "continuity, trainable path",
    "continuity_trainable_alone": "continuity, trainable path, no pilot",
    "continuity_diffusion": "continuity, diffusion path",
    "penalty_abs": "|r|",
    "penalty_square": "r²",
    "penalty_log1p": "log(1 + |r|)",
}
LABELS = {
    "hausdorff": "H(M, X) ↓",
    "reverse_kl": "reverse KL ↓",
    "reverse_ess": "reverse ESS ↑",
    "forward_kl": "forward KL ↓",
    "forward_ess": "forward ESS ↑",
}


def plain_name(target: str) -> str:
    """The name of a target outside its own table: a chain by its size and mass."""
    if target not in SIZES and target not in MASSES:
        return TARGETS[target].split(",")[0]
    return f"N = {SIZES.get(target, 16)}, m = {MASSES.get(target, 1.5):g}"


def published() -> Mapping[str, Any]:
    """The paper's tables: `published()[table][target][method][metric]` is [mean, standard deviation]."""
    return tomllib.loads(importlib.resources.files(__package__).joinpath("published.toml").read_text(encoding="utf-8"))


def spread_digits(table: str) -> int:
    """Decimals that the paper prints of a spread below 1."""
    return 3 if table == "table1" else 2


def mean_digits(mean: float) -> int:
    """Decimals that the paper prints of a mean: three, fewer from 10 on."""
    return max(0, 3 - max(0, math.floor(math.log10(max(abs(mean), 1)))))


def as_printed(values: Sequence[float], digits: int) -> str:
    """A published mean and spread as the paper prints them, with `digits` decimals of a spread below 1."""
    mean, spread = values
    decimals = max(0, digits - len(f"{spread:.0f}")) if spread >= 1 else digits
    return f"{mean:.{mean_digits(mean)}f} ± {spread:.{decimals}f}".replace("-", "−")


def over_seeds(row: Row, metric: str) -> str:
    """Mean ± standard deviation; the median and the range where the spread is larger than the mean and than 1."""
    mean, spread = (float(value) for value in row["metrics"][metric])
    values = sorted(of_seeds(row, metric))
    if len(values) == 1:
        return number(values[0])
    if not spread > max(abs(mean), 1.0):
        return plus_minus(mean, spread)
    return f"{number(median(values))} ({number(values[0])} to {number(values[-1])})"
