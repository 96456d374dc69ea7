"""Tables and numbers as Markdown text."""

import math
from collections.abc import Iterable, Sequence

NOTHING = "Not measured yet."
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("years", 365.25 * 86400.0), ("d", 86400.0), ("h", 3600.0)):
        if value >= 2 * size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:.3g} s" if value < 999.5 else f"{value:,.0f} s"


def power_of_ten(value: float) -> str:
    """0.01 as 10⁻²."""
    return "10" + f"{round(math.log10(value))}".translate(_RAISED)


def count(value: float) -> str:
    """A large number, as 3.4·10⁶."""
    power = len(f"{value:.0f}") - 1
    if power < 4:
        return f"{value:.0f}"
    digits = f"{value / 10**power:.1f}"
    return f"{digits}·10{str(power).translate(_RAISED)}"
