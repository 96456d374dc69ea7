"""Seconds of running a compiled program, kept apart from the seconds of compiling it."""

import time
from collections.abc import Callable
from typing import Any

import jax


class Stopwatch:
    """Adds up what its programs took: `seconds` to run, `compile_seconds` to trace and compile."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.compile_seconds = 0.0

    def compile(self, function: Callable, *args: Any) -> Any:
        """`function` compiled for arguments like these."""
        start = time.perf_counter()
        compiled = jax.jit(function).lower(*args).compile()
        self.compile_seconds += time.perf_counter() - start
        return compiled

    def run(self, function: Callable, *args: Any) -> Any:
        """`function(*args)`, compiled and waited for."""
        return self.call(self.compile(function, *args), *args)

    def call(self, function: Callable, *args: Any) -> Any:
        """`function(*args)` as it is, waited for."""
        start = time.perf_counter()
        result = jax.block_until_ready(function(*args))
        self.seconds += time.perf_counter() - start
        return result
