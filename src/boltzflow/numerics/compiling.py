"""Compilation of JAX programs: its time, its persistent cache, and the limit on programs in memory."""

import functools
import gc
import inspect
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import equinox as eqx
import jax

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` under `eqx.filter_jit`, with all of its matrix products in the precision of their arguments.

    The default of a GPU is TF32, with an error of 1e-3. The context covers every product traced inside, also those of
    a user's energy, of the optimizer and of gradients.
    """

    @functools.wraps(function)
    def precise(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    # Equinox warns of a function that wraps a `jax.vmap`; all that it needs is the signature.
    precise.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    del precise.__wrapped__
    return eqx.filter_jit(precise)


class Stopwatch:
    """The wall time of what runs inside it, with the time of compilation kept apart.

    JAX reports itself when it traces, lowers, compiles or loads a program. `lap` starts the time anew.
    """

    def __enter__(self) -> "Stopwatch":
        self.lap()
        jax.monitoring.register_event_time_span_listener(self._listen)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._listen)
        self._end = time.time()

    @property
    def compile_seconds(self) -> float:
        """Seconds of compilation: the length of the union of its spans, which nest and overlap."""
        total = 0.0
        last = -math.inf
        for start, end in sorted(self._spans):
            total += max(0.0, end - max(start, last))
            last = max(last, end)
        return total

    @property
    def seconds(self) -> float:
        """Seconds of everything else."""
        return (self._end or time.time()) - self._start - self.compile_seconds

    def lap(self) -> None:
        """Start the time anew."""
        self._start = time.time()
        self._end = 0.0
        self._spans: list[tuple[float, float]] = []

    def _listen(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self._spans.append((start_time, end_time))


_MAPS = Path("/proc/self/maps")
_MOST_MAPS = Path("/proc/sys/vm/max_map_count")


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
