"""A check of the verdict: a number beside its limit, and a sentence where it fails."""

import dataclasses
from collections.abc import Sequence

_MAX_EXACT_SIGMA = 5.0


@dataclasses.dataclass(frozen=True)
class Check:
    """A check of the verdict.

    Args:
        name: What was looked at.
        found: Its number.
        limit: The limit of this number.
        passed: Whether it keeps the limit; NaN never does.
        least: Whether the number must be at least the limit, and not at most.
        warning: A sentence where it fails and this is worth telling; else empty.
    """

    name: str
    found: float
    limit: float
    passed: bool
    least: bool = False
    warning: str = ""

    def or_else(self, warning: str) -> "Check":
        """The check with a sentence if it failed."""
        return self if self.passed else dataclasses.replace(self, warning=warning)


def at_most(name: str, found: float, limit: float, warning: str) -> Check:
    return Check(name, float(found), float(limit), bool(found <= limit)).or_else(warning)


def below(name: str, found: float, limit: float, warning: str) -> Check:
    return Check(name, float(found), float(limit), bool(found < limit)).or_else(warning)


def at_least(name: str, found: float, limit: float, warning: str) -> Check:
    return Check(name, float(found), float(limit), bool(found >= limit), least=True).or_else(warning)


# --- checks of every route --------------------------------------------------------------------------------------------


def of_exact(pull: float) -> Check:
    """log Z beside the exact one, `pull` errors away."""
    return at_most(
        "log Z from the exact value, in errors",
        pull,
        _MAX_EXACT_SIGMA,
        f"log Z is {pull:.1f} of its errors away from the exact value: part of the target is missing.",
    )


def of_pilot(complaints: Sequence[str]) -> Check:
    return at_most(
        "complaints of the search for modes",
        len(complaints),
        0,
        "The search for modes is in doubt: " + " ".join(complaints),
    )
