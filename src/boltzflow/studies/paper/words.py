"""The words and numbers of `docs/paper.md`: what targets, methods and metrics are called, how a table is written."""

import importlib.resources
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boltzflow.studies.paper.cells import MASSES, SIZES

TARGETS = {
    "eq2": "Eq. (2), four equal modes", "eq18": "Eq. (18), two unequal modes",
    **{name: f"m = {mass:g}" for name, mass in MASSES.items()},
}  # fmt: skip
METHODS = {
    "reverse_kl_loss": "reverse KL", "continuity_linear": "continuity, linear path",
    "continuity_trainable": "continuity, trainable path", "continuity": "continuity, trainable path",
    "continuity_trainable_alone": "continuity, trainable path, no pilot",
    "continuity_diffusion": "continuity, diffusion path",
    "penalty_abs": "|r|", "penalty_square": "r²", "penalty_log1p": "log(1 + |r|)",
}  # fmt: skip
LABELS = {
    "hausdorff": "H(M, X) ↓",
    "reverse_kl": "reverse KL ↓",
    "reverse_ess": "reverse ESS ↑",
    "forward_kl": "forward KL ↓",
    "forward_ess": "forward ESS ↑",
}
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def published() -> Mapping[str, Any]:
    """The paper's tables: `published()[table][target][method][metric]` is [mean, standard deviation]."""
    return tomllib.loads(importlib.resources.files(__package__).joinpath("published.toml").read_text(encoding="utf-8"))


def pair(values: Sequence[Any]) -> list[float]:
    """As numbers, what may have been kept as text."""
    return [float(value) for value in values]


def number(value: float) -> str:
    """With five digits, four of them behind the point at most."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "nan"
    if abs(value) >= 1e6:
        power = math.floor(math.log10(abs(value)))
        return f"{value / 10**power:.1f}·10{str(power).translate(_RAISED)}".replace("-", "−")
    digits = max(0, 4 - max(0, math.floor(math.log10(max(abs(value), 1)))))
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def printed_digits(mean: float) -> int:
    """How many digits behind the point the paper prints of a mean: three, fewer from 10 on."""
    return max(0, 3 - max(0, math.floor(math.log10(max(abs(mean), 1)))))


def as_printed(values: Sequence[float], digits: int) -> str:
    """A published mean and spread with the digits that the paper prints: `digits` of a spread below 1."""
    mean, spread = pair(values)
    behind = max(0, digits - len(f"{spread:.0f}")) if spread >= 1 else digits
    return f"{mean:.{printed_digits(mean)}f} ± {spread:.{behind}f}".replace("-", "−")


def plus_minus(values: Sequence[Any]) -> str:
    mean, spread = pair(values)
    return f"{number(mean)} ± {number(spread)}"


def plain_name(target: str) -> str:
    """What a target is called where it stands alone: a chain by its size and mass."""
    if target not in SIZES and target not in MASSES:
        return TARGETS[target].split(",")[0]
    return f"N = {SIZES.get(target, 16)}, m = {MASSES.get(target, 1.5):g}"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; bars in its cells are no borders."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
