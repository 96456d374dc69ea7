"""Interfaces to other libraries, one module each, imported at first use."""

import importlib
from types import ModuleType

from boltzflow.errors import InputError


def __getattr__(name: str) -> ModuleType:
    if name not in ("arviz", "callback", "numpyro", "openmm", "pymc"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def optional_module(name: str, extra: str) -> ModuleType:
    """The module of that name. Raises `InputError` if its package, which the extra installs, is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"this needs {name.split('.')[0]}: pip install 'boltzflow[{extra}]'") from error
