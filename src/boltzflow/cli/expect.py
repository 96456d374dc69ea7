"""`boltzflow expect DIR file.py:observable`: averages over the target, with their errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from boltzflow import run as runs
from boltzflow.cli.finish import DISTRUSTED, DONE, output, standing
from boltzflow.densities.from_file import load_function
from boltzflow.errors import InputError
from boltzflow.numerics.validation import whole_number
from boltzflow.report.formatting import format_error, format_value
from boltzflow.statistics.estimates import Estimate


def expect(directory: str, observable: str, num_samples: int = 0) -> int:
    """Prints the expectation of each number that a function in a file returns, with its error."""
    if not observable:
        raise InputError("say what to average, as in observables.py:magnetization, a function of one point")
    num_samples = whole_number("num-samples", num_samples, at_least=0)
    fn = load_function(observable)
    estimates = runs.load(Path(directory)).expectation(fn, num_samples)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("observable")
    table.add_column("value", justify="right")
    table.add_column("error", justify="right")
    doubts: dict[str, None] = {}
    for label, value, stderr, doubt in _numbers(observable.rpartition(":")[2], estimates):
        table.add_row(label, format_value(value, stderr), format_error(stderr))
        doubts |= {doubt: None} if doubt else {}
    console = output()
    console.print(table)
    for doubt in doubts:
        console.print(Text(f"Not to be relied on: {doubt}", "red"), soft_wrap=True)
    return standing(Path(directory), console) or (DISTRUSTED if doubts else DONE)


def _numbers(name: str, estimates: Any) -> Iterator[tuple[str, float, float, str]]:
    """Every number of a tree of estimates: where it stands, value, error, and why it is in doubt, if it is."""
    leaves = jax.tree_util.tree_leaves_with_path(estimates, is_leaf=lambda node: isinstance(node, Estimate))
    for path, estimate in leaves:
        doubt = "" if estimate.ok else estimate.reason
        for index in np.ndindex(np.shape(estimate.value)):
            place = f"[{', '.join(map(str, index))}]" if index else ""
            value, stderr = (float(np.asarray(part)[index]) for part in (estimate.value, estimate.stderr))
            yield f"{name}{jax.tree_util.keystr(path)}{place}", value, stderr, doubt
