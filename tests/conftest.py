"""One compilation cache for the whole session, its worker processes included: a program is waited for once, and half
of the time of the tests is that of the compiler, so that it optimizes less than a user's does."""

import os
import tempfile

import jax
import jaxtyping
import pytest

from fake_run import asked, files, refused  # noqa: F401  fixtures of several files

_CACHE = "BOLTZFLOW_TEST_CACHE"  # workers of pytest-xdist inherit it


def pytest_configure(config):
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true")
    if _CACHE not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="boltzflow-tests-")
        os.environ[_CACHE] = folder.name
        config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def unchecked(monkeypatch):
    """No check of annotations at run time, for tests that pass a wrong type or shape on purpose."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
