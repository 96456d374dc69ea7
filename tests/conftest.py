"""One compilation cache for the whole session: tests that compile the same program wait for it once."""

import tempfile

import jax


def pytest_configure(config):
    folder = tempfile.TemporaryDirectory(prefix="boltzflow-tests-")
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
