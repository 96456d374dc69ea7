"""Seconds of work without those of compiling, and a cold cache of compiled programs."""

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache

Span = tuple[float, float]


class Lap(NamedTuple):
    """Seconds besides compiling, and seconds of compiling."""

    seconds: float
    compile_seconds: float


class Clock:
    """Splits the time since its last lap into compiling and all the rest.

    Compiling includes tracing, lowering and loading from a cache. JAX reports these spans of time itself.
    """

    def __enter__(self) -> Self:
        self._start = time.time()
        self._spans: list[Span] = []
        jax.monitoring.register_event_time_span_listener(self._listen)
        return self

    def __exit__(self, *exception: object) -> None:
        jax.monitoring.unregister_event_time_span_listener(self._listen)

    def _listen(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self._spans.append((start_time, end_time))

    def lap(self) -> Lap:
        """The time since the last lap."""
        now = time.time()
        compiling = covered(self._spans)
        lap = Lap(now - self._start - compiling, compiling)
        self._start = now
        self._spans = []
        return lap


def covered(spans: Iterable[Span]) -> float:
    """The length of the union of the spans: a program may be compiled while another one is traced."""
    total = 0.0
    last = float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


@contextlib.contextmanager
def cold_cache() -> Iterator[None]:
    """Starts without compiled programs and keeps new ones until the end: the first seed pays for all compiling."""
    with tempfile.TemporaryDirectory(prefix="boltzflow-bench-") as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        reset_cache()
        jax.clear_caches()
        eqx.clear_caches()
        yield
