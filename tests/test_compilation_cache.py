"""The folder of compiled programs; one that cannot be written is no error."""

from pathlib import Path

import jax
import pytest

from boltzflow.numerics.compiling import cache_folder, use_compilation_cache


@pytest.fixture
def configured(monkeypatch):
    """The settings made in JAX's configuration, without effect; the cache of the tests is unset meanwhile."""
    before = jax.config.values["jax_compilation_cache_dir"]
    found = {}
    jax.config.update("jax_compilation_cache_dir", None)
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", found.__setitem__)
        yield found
    jax.config.update("jax_compilation_cache_dir", before)


def test_cache_folder_follows_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    assert cache_folder() is None
    monkeypatch.setenv("BOLTZFLOW_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BOLTZFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "boltzflow" / "xla"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/boltzflow/xla")


def test_cache_is_configured(monkeypatch, tmp_path, configured):
    monkeypatch.setenv("BOLTZFLOW_CACHE", str(tmp_path / "new"))
    use_compilation_cache()
    assert configured["jax_compilation_cache_dir"] == str(tmp_path / "new") and (tmp_path / "new").is_dir()


def test_unwritable_cache_folder_is_ignored(monkeypatch, tmp_path, configured):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOLTZFLOW_CACHE", str(tmp_path / "file" / "below"))
    use_compilation_cache()
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    use_compilation_cache()
    assert configured == {}
