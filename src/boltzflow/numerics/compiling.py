"""Running jitted functions with the time of compiling them kept apart from the time of running them."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax


class Stopwatch:
    """Compiles each function once per call signature, and adds up the seconds spent compiling."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self._compiled: dict[Any, Any] = {}

    def run(self, function: Callable, *args: Any, **static: Any) -> Any:
        """`function(*args, **static)` under jit, waited for; `static` are hashable Python values."""
        leaves, structure = jax.tree.flatten(eqx.filter(args, eqx.is_array))
        # Functions and plain numbers in the arguments are part of the program that is compiled.
        constants = tuple(jax.tree.leaves(eqx.filter(args, eqx.is_array, inverse=True)))
        signature = (
            function,
            structure,
            constants,
            tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves),
            *sorted(static.items()),
        )
        if signature not in self._compiled:
            start = time.perf_counter()
            jitted: Any = eqx.filter_jit(function)
            self._compiled[signature] = jitted.lower(*args, **static).compile()
            self.compile_seconds += time.perf_counter() - start
        return jax.block_until_ready(self._compiled[signature](*args, **static))


_MAPS, _MOST_MAPS = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def make_room() -> None:
    """Forgets compiled programs before there are too many of them for the system.

    XLA maps their code into some thousand regions of memory for each run, of which Linux allows a process 65,530 by
    default; the run that wants one more ends in a segmentation fault. So from half of them on nothing is kept. Costs
    only that what is used again is compiled again, or read from the cache on disk. Elsewhere it does nothing.
    """
    try:
        with _MAPS.open("rb") as file:
            used = sum(1 for _ in file)
        most = int(_MOST_MAPS.read_text())
    except (OSError, ValueError):
        return
    if 2 * used > most:
        jax.clear_caches()
        eqx.clear_caches()
        gc.collect()
