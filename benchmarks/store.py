"""Rows of measurements in results/benchmarks/NAME.json, each written as soon as it is measured.

A row is known by its key (target, method, seed, budget, ...), by a hash of the source that it measured and measured it
with, and by its machine and versions: one that is there is not measured again, one of an older source or of another
machine is replaced.
"""

import ast
import datetime
import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "benchmarks"
APART = ("cli", "interop", "studies", "testing")
"""Rooms of the package that no number of a flow depends on: those that ask, compare, check and print."""
FLOW = ("src/boltzflow",)
RIVALS = ("src/boltzflow/studies/baselines", "src/boltzflow/densities")

Row = dict[str, Any]


class Store:
    """The rows of one benchmark; `fresh` forgets those that are there."""

    def __init__(self, name: str, *, folder: Path = RESULTS, fresh: bool = False):
        self.path = folder / f"{name}.json"
        kept = {} if fresh else read(self.path)
        self.rows: list[Row] = kept.get("rows", [])
        facts = machine()
        self.machine = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        self.machines: dict[str, Row] = kept.get("machines", {}) | {self.machine: facts}

    def find(self, source: str, **key: Any) -> Row | None:
        """The row of this key that measured this source on this machine, if there is one."""
        wanted = (key, source, self.machine)
        return next((row for row in self.rows if (row["key"], row["source"], row["machine"]) == wanted), None)

    def add(self, source: str, values: Row, **key: Any) -> Row:
        """Keep a row, in place of an older one of the same key, and write the file."""
        row = {"key": key, "source": source, "machine": self.machine, "date": f"{datetime.date.today()}", **values}
        self.rows = [other for other in self.rows if other["key"] != key] + [row]
        used = {row["machine"] for row in self.rows}
        machines = {name: facts for name, facts in self.machines.items() if name in used}
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in self.rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(f'{{"machines": {json.dumps(machines, indent=1)},\n"rows": [\n{lines}\n]}}\n', "utf-8")
        partial.replace(self.path)  # an interruption leaves the old file or the new one
        return row


def read(path: Path) -> dict[str, Any]:
    """What a benchmark has written: `machines` by label, and `rows`; empty where there is nothing yet."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def newest(rows: list[Row]) -> list[Row]:
    """Rows in the order of writing; where a thing was measured again, those of the newest source and machine alone."""

    def group(row: Row) -> tuple:
        return tuple(row["key"].get(name) for name in ("target", "method", "steps", "field"))

    last = {group(row): (row["source"], row["machine"]) for row in rows}
    return [row for row in rows if (row["source"], row["machine"]) == last[group(row)]]


def across_machines(rows: list[Row], what: str) -> list[str]:
    """A sentence where these rows are of several machines, for their times say nothing about each other."""
    several = len({row["machine"] for row in rows}) > 1
    return [f"The rows of {what} are of several machines: their times do not compare."] if several else []


def flow_source(name: str) -> str:
    """The hash for rows of boltzflow: of the package, and of the benchmark's own program."""
    return source_hash(*FLOW, "benchmarks/clock.py", f"benchmarks/{name}.py")


def rival_source(name: str) -> str:
    """The hash for rows of rivals."""
    return source_hash(*RIVALS, "benchmarks/clock.py", f"benchmarks/{name}.py")


def source_hash(*places: str) -> str:
    """A hash of what the Python code in these folders and files does, whatever file each definition stands in.

    It is made of the top-level statements of all files, sorted. Comments, docstrings, imports and the paths of files do
    not count, so that moving a definition to another file keeps the rows that were measured with it.
    """
    files = [ROOT / place for place in places if (ROOT / place).is_file()]
    paths = [(ROOT / place, path) for place in places for path in (ROOT / place).rglob("*.py")]
    files += [path for folder, path in paths if path.relative_to(folder).parts[0] not in APART]
    trees = [_without_words(ast.parse(path.read_text("utf-8"))) for path in files]
    statements = sorted(ast.dump(statement) for tree in trees for statement in tree.body)
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:12]


def _without_words(tree: ast.Module) -> ast.Module:
    """The tree without docstrings and imports, and without what holds nothing else."""
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
    """Processor, cores, device and versions; nothing that names a computer or a person."""
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
