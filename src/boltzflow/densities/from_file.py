"""Densities by name: `double-well` is a shipped one, `path/to/file.py:name` one in a file."""

import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from boltzflow.densities.base import AbstractDensity, coordinates_of
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.energy import Energy
from boltzflow.errors import InputError, summary
from boltzflow.numerics.validation import did_you_mean, dimension, is_numpyro_model

_BOUNDS = ("lower", "upper", "periodic")
FILE_OPTIONS = ("dim", *_BOUNDS)
"""Options of a function in a file."""


@dataclasses.dataclass(frozen=True)
class LoadedTarget:
    """A target and the record from which it is loaded again."""

    target: AbstractDensity
    name: str  # as given
    options: dict[str, int | float]
    path: str = ""  # the absolute path of a target in a file
    sha256: str = ""  # of that file

    @property
    def short_name(self) -> str:
        """A name without slashes: `double-well`, or `banana-energy` for `examples/banana.py:energy`."""
        path, _, attribute = self.name.rpartition(":")
        return f"{Path(path).stem}-{attribute}" if path else self.name


def load_target(name: str, options: Mapping[str, Any]) -> LoadedTarget:
    """The target with that name: a shipped one, or `path/to/file.py:name`, with the options `FILE_OPTIONS`."""
    if name in SHIPPED:
        target = make_target(name, **options)
        defaults = {option.name: option.default for option in SHIPPED[name].options}
        return LoadedTarget(target, name, {**defaults, **options})
    path, separator, attribute = name.rpartition(":")
    if separator and (path.endswith(".py") or Path(path).exists()):
        return _load_from_file(name, Path(path), attribute, options)
    if name.endswith(".py"):
        there = _suggestion("", _import(Path(name))) if Path(name).is_file() else f", and there is no file {name}"
        raise InputError(f"say which name in the file is the target, as in {name}:energy{there}")
    raise InputError(
        f"there is no target {name!r}{did_you_mean(name, SHIPPED)}; the shipped ones are {', '.join(SHIPPED)}, and one "
        "of your own is path/to/file.py:name"
    )


def reload_target(
    name: str,
    options: Mapping[str, Any],
    path: str,
    sha256: str,
    *,
    folder: Path,
    where: str,
    advice: str,
    say: Callable[[str], None] | None = None,
) -> LoadedTarget:
    """The target that the record of a run names: a shipped one, or one in a file.

    A record may come from a stranger, and its checksum with it. So it names code only by an absolute path outside its
    own folder, to a file of that checksum.

    Args:
        name: The name in the record.
        options: The options in the record.
        path: The file in the record, or an empty string.
        sha256: The checksum of that file in the record.
        folder: The folder of the record.
        where: The record, in messages.
        advice: How to give the target instead, in messages.
        say: Called with the path before the file is imported.

    Raises:
        InputError: The record may not name this file, or the file is gone or has changed, or the target cannot be made.
    """
    if not path and name in SHIPPED:
        return load_target(name, options)
    file = Path(path)
    if not file.is_absolute():
        raise InputError(
            f"{where} names its target, {name}, by no absolute path, and a record's own word is not enough to run a "
            f"file: {advice}"
        )
    if _is_inside(file, folder):
        raise InputError(
            f"{where} names as its target {path}, a file inside its own folder, which is not run: {advice}"
        )
    if not file.is_file():
        raise InputError(f"{where} is of {name}, but {path} is gone: put it back, or {advice}")
    if file_sha256(file) != sha256:
        raise InputError(
            f"{where} is of {name}, but {path} has changed since: restore it, train again, or, if the energy is still "
            f"the same, {advice}"
        )
    if say:
        say(path)
    return load_target(f"{path}:{name.rpartition(':')[2]}", options)


def _is_inside(file: Path, folder: Path) -> bool:
    """Whether a path leads into or through a folder: as it is written, or after its links are followed."""
    written = Path(os.path.normpath(file))
    above = [*file.parents, *written.parents, *file.resolve().parents]
    return any(parent.exists() and parent.samefile(folder) for parent in above)


def load_function(name: str) -> Callable[..., Any]:
    """The function `name` of the file in `path/to/file.py:name`. Raises `InputError` if there is none."""
    path, separator, attribute = name.rpartition(":")
    if not separator or not attribute:
        raise InputError(f"name a function in a file, as in observables.py:energy, got {name!r}")
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}")
    module = _import(Path(path))
    if not callable(found := getattr(module, attribute, None)):
        raise InputError(f"{path} has no function {attribute!r}{_suggestion(attribute, module)}")
    return found


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load_from_file(name: str, path: Path, attribute: str, options: Mapping[str, Any]) -> LoadedTarget:
    """The target `attribute` of the file `path`."""
    if not path.is_file():
        raise InputError(f"there is no file {path}" + (", it is a folder" if path.is_dir() else ""))
    if unknown := sorted(set(options) - set(FILE_OPTIONS)):
        raise InputError(f"{name} has no option {unknown[0]!r}; a function in a file takes {', '.join(FILE_OPTIONS)}")
    dim = None if options.get("dim") is None else dimension("dim", options["dim"])
    place = str(path.resolve())
    if not place.isprintable() and any("\ud800" <= character <= "\udfff" for character in place):
        raise InputError(f"{path} cannot be recorded, for its name is not valid Unicode: rename it")
    sha256 = file_sha256(path)
    module = _import(path)
    if not attribute or not hasattr(module, attribute):
        raise InputError(f"{path} has no name {attribute!r}{_suggestion(attribute, module)}")
    bounds = {name: float(options[name]) for name in _BOUNDS if options.get(name) is not None}
    target = _as_density(name, getattr(module, attribute), dim, bounds)
    return LoadedTarget(target, name, {"dim": coordinates_of(target), **bounds}, place, sha256)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the text of a file. Python's own loader may run bytecode of an earlier text of equal time and size."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _import(path: Path) -> ModuleType:
    """The module in a file. Whatever its code raises becomes an `InputError` with the line of the file."""
    module_name = f"boltzflow_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path, loader=_SourceLoader(module_name, str(path)))
    if spec is None or spec.loader is None or path.suffix not in importlib.machinery.SOURCE_SUFFIXES:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look up their module there
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))  # for modules beside it; last, so that none hides a package
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises
        del sys.modules[module_name]
        raise InputError(f"{path}{_line(error, path)} cannot be imported: {_what(error)}") from error
    return module


def _line(error: BaseException, path: Path) -> str:
    """`, line 3,` for the innermost line of the file in the error's traceback, or an empty string."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).name == path.name:
        lines.append(error.lineno)
    return f", line {lines[-1]}," if lines and lines[-1] else ""


def _what(error: BaseException) -> str:
    """The type and message of an error on one line."""
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _suggestion(attribute: str, module: ModuleType) -> str:
    """The name in the module nearest to `attribute`, or else its first eight names, as the end of a sentence."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    here = module.__name__
    own = [n for n, v in public.items() if isinstance(v, AbstractDensity) or getattr(v, "__module__", None) == here]
    has = f"; it has {', '.join(own[:8])}" if own else "; it defines no function or density"
    return did_you_mean(attribute, own) or has


def _as_density(name: str, found: Any, dim: int | None, bounds: Mapping[str, float]) -> AbstractDensity:
    """The density that a name in a file stands for.

    A density stands for itself, a NumPyro model without required arguments for its posterior, another function without
    arguments for its result, and any other function for an energy.
    """
    if isinstance(found, type) and not issubclass(found, AbstractDensity):
        raise InputError(f"{name} is a class that is not an AbstractDensity; name a function x -> energy or a density")
    if callable(found) and not isinstance(found, AbstractDensity):
        is_class = isinstance(found, type)
        required, optional = _parameters(found)
        if required and not is_class and is_numpyro_model(found):
            raise InputError(
                f"{name} is a NumPyro model that needs {required} argument{'s' if required > 1 else ''}; give each a "
                "default, as in def model(y=DATA)"
            )
        if required > 1:
            raise InputError(f"{name} needs {required} arguments; an energy takes one point x")
        if is_class and required:
            raise InputError(f"{name} is a class that needs arguments; make a density of it in the file and name that")
        posterior = None
        if "numpyro" in sys.modules and required == 0 and not is_class:
            from boltzflow.interop.numpyro import Posterior, is_model

            try:
                posterior = Posterior(found) if is_model(found) else None
            except InputError as error:
                raise InputError(f"{name}: {error}") from error
        if posterior is None and required + optional > 0 and not is_class:
            if dim is None:
                if not required:
                    _try_as_model(name, found)
                raise InputError(f"{name} is a function, which does not say its dimension; give it with --dim")
            lower, upper, periodic = map(bounds.get, _BOUNDS)
            return Energy(found, dim, lower=lower, upper=upper, periodic=periodic)
        try:
            found = posterior or found()
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        except Exception as error:  # whatever a user's function raises
            raise InputError(f"{name}() failed: {summary(error)}") from error
    if not isinstance(found, AbstractDensity):
        raise InputError(f"{name} must be a function x -> energy or an AbstractDensity, got {type(found).__name__}")
    if bounds:
        given = next(iter(bounds))
        what = "periods" if given == "periodic" else "bounds"
        raise InputError(
            f"{name} is no function of a point but a density, whose {what} stand in the file; leave out --{given}"
        )
    if dim is not None and dim != coordinates_of(found):
        raise InputError(f"{name} has dimension {coordinates_of(found)}, not {dim}; leave out --dim")
    return found


def _try_as_model(name: str, function: Callable[..., Any]) -> None:
    """Raise what a function of optional arguments raises before any sample site: it may be a model of NumPyro."""
    try:
        if "numpyro" in sys.modules:
            function()
    except Exception as error:  # whatever a user's function raises
        sentence = f"{name}() failed: {summary(error)}; if it is an energy and no model, give its dimension with --dim"
        raise InputError(sentence) from error


def _parameters(function: Callable[..., Any]) -> tuple[int, int]:
    """How many arguments a function requires, and how many more it accepts."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return 1, 0
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return len(needed), len(parameters) - len(needed)
