"""A cold cache of compiled programs."""

import contextlib
import tempfile
from collections.abc import Iterator

import equinox as eqx
import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache


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
