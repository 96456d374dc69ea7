"""Compiling JAX programs: its time kept apart from that of running them, its results kept on disk and in bounds."""

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax


class Stopwatch:
    """Compiles each function once per call signature, and adds up the seconds spent compiling and running."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self.seconds = 0.0
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
        start = time.perf_counter()
        result = jax.block_until_ready(self._compiled[signature](*args, **static))
        self.seconds += time.perf_counter() - start
        return result


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


# --- the persistent cache ---------------------------------------------------------------------------------------------

_MIN_SECONDS = 0.0  # many small programs together cost seconds


def cache_folder() -> Path | None:
    """Where compiled programs are kept: `BOLTZFLOW_CACHE`, or `boltzflow/xla` in the user's cache folder.

    None where the environment says `BOLTZFLOW_CACHE=off`.
    """
    chosen = os.environ.get("BOLTZFLOW_CACHE", "")
    if chosen:
        return None if chosen.lower() == "off" else Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "boltzflow" / "xla"


def use_compilation_cache() -> None:
    """Turns the cache on, before anything is compiled; silently does without where its folder cannot be written.

    A cache that was configured for JAX itself (`JAX_COMPILATION_CACHE_DIR`) stays as it is.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = cache_folder()  # expanduser raises RuntimeError where there is no home
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
    except (OSError, RuntimeError):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
