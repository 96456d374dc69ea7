"""One compilation cache for all runs of the tests, small pilots, and the order in which files are tested.

Half of the time of the tests is the compiler's. Its programs are kept in a folder of the user's cache between runs, and
it optimizes less than for a user. The key of a program holds its text, the flags and the versions.
"""

import gc
import os
import tempfile
from pathlib import Path

import jax
import jaxtyping
import pytest

from fake_run import asked, files, refused  # noqa: F401  fixtures of several files
from small_pilot import shrink

_CACHE = "BOLTZFLOW_TEST_CACHE"  # a folder, or "off" for one that is gone with the session; workers inherit it
_FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
)
"""Compile in half the time. On a fresh machine this outweighs programs that take up to twice as long (level 1 does
not: 6:35 against 8:35 with an empty cache, 5:42 against 4:43 with a full one, on two cores)."""
if jax.__version_info__ < (0, 11):  # later XLA ends a process at a flag that it does not know
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"

_HEAVY = (
    "test_training.py",
    "test_kill.py",
    "test_one_run.py",
    "test_resume.py",
    "test_process.py",
    "test_seeds.py",
    "test_pilot.py",
    "test_callback.py",
    "test_mixture_fit.py",
    "test_paper.py",
    "test_lattice_field.py",
    "test_contracts.py",
    "test_baselines.py",
    "test_coverage.py",
    "test_minima.py",
    "test_precision.py",
    "test_answers.py",
    "test_programs.py",
    "test_bounds.py",
    "test_angles.py",
    "test_race.py",
    "test_start.py",
)
"""The files that take longest, tested first: with two workers a slow file at the end leaves a core idle."""


def pytest_configure(config):
    gc.set_threshold(200_000, 50, 100)  # a tracing of JAX makes many objects and few cycles: a tenth of the time
    os.environ.setdefault("XLA_FLAGS", _FLAGS)
    if _CACHE not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        os.environ[_CACHE] = str(Path(home).expanduser() / "boltzflow" / "tests")
    if os.environ[_CACHE] == "off":
        folder = tempfile.TemporaryDirectory(prefix="boltzflow-tests-")
        os.environ[_CACHE] = folder.name
        config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # for the processes that tests start


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(_HEAVY)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(autouse=True, scope="module")
def small_pilot(request):
    """Pilots of few particles and descents, but for the files that set `FULL_PILOT`."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "FULL_PILOT", False):
            shrink(patch.setattr)
        yield


@pytest.fixture
def unchecked(monkeypatch):
    """No check of annotations at run time, for tests that pass a wrong type or shape on purpose."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
