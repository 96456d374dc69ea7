"""Compilation of JAX programs: its time, its persistent cache, and the limit on programs in memory."""

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax


class Stopwatch:
    """Compile each function once per call signature; add up the seconds of compiling and of running."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        self.seconds = 0.0
        self._compiled: dict[Any, Any] = {}

    def run(self, function: Callable, *args: Any, **static: Any) -> Any:
        """Run `function(*args, **static)` under jit, and wait for its result.

        Arrays in `args` are inputs of the program; all else, and the hashable `static`, is part of the program.
        """
        arrays, constants = eqx.partition(args, eqx.is_array)
        leaves, structure = jax.tree.flatten(arrays)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
        signature = (function, structure, tuple(jax.tree.leaves(constants)), shapes, *sorted(static.items()))
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
    """Drop all compiled programs if they take more than half of the memory regions that the system allows.

    XLA maps the code of a run into some thousand regions. Linux allows a process 65,530 by default, and a program
    beyond that ends in a segmentation fault. A dropped program is compiled again or read from the cache on disk.
    """
    try:
        with _MAPS.open("rb") as file:
            used = sum(1 for _ in file)
        most = int(_MOST_MAPS.read_text())
    except (OSError, ValueError):  # a system without such a limit
        return
    if 2 * used > most:
        jax.clear_caches()
        eqx.clear_caches()
        gc.collect()


def cache_folder() -> Path | None:
    """The folder `BOLTZFLOW_CACHE` (None where that is "off"), or `boltzflow/xla` in the user's cache folder."""
    if chosen := os.environ.get("BOLTZFLOW_CACHE"):
        return None if chosen.lower() == "off" else Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "boltzflow" / "xla"


def use_compilation_cache() -> None:
    """Turn the persistent cache on, unless its folder cannot be written or JAX has a cache already."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = cache_folder()  # expanduser raises RuntimeError without a home folder
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs cost seconds
