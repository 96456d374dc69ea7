"""Interfaces to other libraries, one module each, imported at first use."""

import importlib
from types import ModuleType

_MODULES = ("arviz", "callback", "numpyro", "openmm")


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
