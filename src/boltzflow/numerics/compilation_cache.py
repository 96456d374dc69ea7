"""JAX's persistent compilation cache, on by default: the second run of a kind does not wait for the compiler."""

import os
from pathlib import Path

import jax

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
