"""Rows of measurements in results/benchmarks/NAME.json, each written when it is measured.

A row is identified by its key (target, method, seed, budget, ...), by a hash of the source that it measured and was
measured with, and by its machine and versions. A stored row is not measured again; a row of an older source or of
another machine is replaced.
"""

import ast
import datetime
import hashlib
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from boltzflow.studies.rows import Row, Rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks"
APART = ("cli", "interop", "studies", "testing")
"""Rooms of the package that no number of a flow depends on."""
FLOW = ("src/boltzflow",)
BASELINES = ("src/boltzflow/studies/baselines", "src/boltzflow/densities")


class Store:
    """The rows of one benchmark.

    Args:
        name: The name of the benchmark.
        folder: The folder of the results.
        fresh: Whether to forget the stored rows.
    """

    def __init__(self, name: str, folder: Path = RESULTS, fresh: bool = False):
        self._file = Rows(folder / f"{name}.json")
        if fresh:
            self._file.rows = []
        facts = machine()
        self.source = flow_source(name)
        self.machine = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        self.machines: dict[str, Row] = self._file.head.get("machines", {}) | {self.machine: facts}

    @property
    def rows(self) -> list[Row]:
        """The rows in the order of writing."""
        return self._file.rows

    def measured(self, measure: Callable[[], Row], source: str = "", **key: Any) -> Row:
        """The stored row of this key, source and machine, or a new one with the values that `measure` returns.

        A measurement that fails gives a row with its `failure`. Without `source` the row is of this package.
        """
        kept = {"key": key, "source": source or self.source, "machine": self.machine}
        row = self._file.find(**kept)
        if row is not None:
            return row
        try:
            values = _finite(measure())
        except Exception as error:
            values = {"failure": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
        print(" ".join(f"{value}" for value in key.values()) + f": {_in_short(values)}", flush=True)
        row = {**kept, "date": f"{datetime.date.today()}", **values}
        used = {self.machine, *(other["machine"] for other in self.rows if other["key"] != key)}
        self._file.head["machines"] = {name: facts for name, facts in self.machines.items() if name in used}
        self._file.put(row, "key")
        return row


def _finite(values: Row) -> Row:
    """The values. Raises `ValueError` where one is NaN or infinite: no table can use it."""
    for name, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise ValueError(f"{name} is not finite") from None
    return values


def _in_short(row: Row) -> str:
    """The failure or the plain numbers of a row in one line."""
    numbers = [f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float | int)]
    return row.get("failure") or ", ".join(numbers)


def newest(rows: list[Row]) -> list[Row]:
    """The rows of the newest source and machine of each measurement, in the order of writing."""

    def group(row: Row) -> tuple:
        return tuple(row["key"].get(name) for name in ("target", "method", "steps", "field", "ess"))

    last = {group(row): (row["source"], row["machine"]) for row in rows}
    return [row for row in rows if (row["source"], row["machine"]) == last[group(row)]]


def across_machines(rows: list[Row], what: str) -> list[str]:
    """A warning where rows are of several machines: their times do not compare."""
    several = len({row["machine"] for row in rows}) > 1
    return [f"The rows of {what} are of several machines: their times do not compare."] if several else []


def flow_source(name: str) -> str:
    """The hash for rows of boltzflow: of the package, and of the benchmark's own program and cases."""
    return source_hash(*FLOW, "benchmarks/clock.py", f"benchmarks/{name}.py", *_cases(name))


def baseline_source(name: str) -> str:
    """The hash for rows of baselines and rivals."""
    own = (f"benchmarks/{name}.py", f"benchmarks/{name}_rivals.py", *_cases(name))
    return source_hash(*BASELINES, "benchmarks/clock.py", *own)


def _cases(name: str) -> tuple[str, str]:
    return f"benchmarks/{name}_cases", f"benchmarks/{name}_cases.py"


def source_hash(*places: str) -> str:
    """A hash of the Python code in these folders and files, independent of the file of each definition.

    It covers the sorted top-level statements of all files. Comments, docstrings, imports and the paths of files do not
    count, so that moving a definition to another file keeps its rows.
    """
    files = [ROOT / place for place in places if (ROOT / place).is_file()]
    paths = [(ROOT / place, path) for place in places for path in (ROOT / place).rglob("*.py")]
    files += [path for folder, path in paths if path.relative_to(folder).parts[0] not in APART]
    trees = [_without_words(ast.parse(path.read_text("utf-8"))) for path in files]
    statements = sorted(ast.dump(statement) for tree in trees for statement in tree.body)
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:12]


def _without_words(tree: ast.Module) -> ast.Module:
    """The tree without docstrings, imports, and statements that hold nothing else."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_words(part)]  # type: ignore[attr-defined]
    return tree


def _is_words(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
        return True
    if isinstance(node, ast.If):
        return not node.orelse and all(map(_is_words, node.body))
    return _is_text(node) or isinstance(node, ast.Import | ast.ImportFrom)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def machine() -> Row:
    """Processor, cores, device and versions; no name of a computer or a person."""
    versions = {}
    for name in ("boltzflow", "jax", "equinox", "diffrax", "optax", "numpy", "blackjax"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": str(jax.devices()[0].device_kind),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in info.read_text().split("\n\n")[0].splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in facts.items()}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name
