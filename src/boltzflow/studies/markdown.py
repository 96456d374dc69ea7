"""Tables and numbers as Markdown, and pages in which marked parts are generated."""

import math
import re
from collections.abc import Callable, Iterable, Sequence

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def mark(name: str) -> str:
    """An empty marked part."""
    return f"<!-- table: {name} -->\n<!-- end -->"


def marks(page: str) -> list[str]:
    """The names of the marked parts of a page, in their order."""
    return [name for _, name, _ in _MARKED.findall(page)]


def updated(page: str, render: Callable[[str], str]) -> str:
    """The page with `render(NAME)` in each part between `<!-- table: NAME -->` and `<!-- end -->`."""
    return _MARKED.sub(lambda match: f"{match[1]}{render(match[2])}\n{match[3]}", page)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in its cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """A number with five digits, at most four of them decimals."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "nan"
    if abs(value) >= 1e6:
        return ("−" if value < 0 else "") + count(abs(value))
    digits = max(0, 4 - max(0, math.floor(math.log10(max(abs(value), 1)))))
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def seconds(value: float) -> str:
    """A time in seconds, hours, days or years."""
    for unit, size in (("years", 365.25 * 86400.0), ("d", 86400.0), ("h", 3600.0)):
        if value >= 2 * size:
            return f"{value / size:,.3g} {unit}"
    return f"{value:.3g} s" if value < 999.5 else f"{value:,.0f} s"


def count(value: float) -> str:
    """A large number, as 3.4·10⁶."""
    power = len(f"{value:.0f}") - 1
    if power < 4:
        return f"{value:.0f}"
    return f"{value / 10**power:.1f}·10{str(power).translate(RAISED)}"
