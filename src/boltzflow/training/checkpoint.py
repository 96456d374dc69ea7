"""A trained run as one file. Loading executes nothing that is in it.

The identity of a run is the SHA-256 of what this file holds besides times: the arrays, the seed, the settings, the name
and options of the target, and the history. A resumed run thus has the identity of the undisturbed one, a run that is
loaded and saved keeps its own, and older files have one too.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError
from boltzflow.model.continuity import trainable
from boltzflow.sampling.pilot_arrays import check_target, energies, is_measured_target, pilot_contents, pilot_from
from boltzflow.storage import files
from boltzflow.storage.run_folder import CHECKPOINT_FILE
from boltzflow.training.build import NO_PARTS, OF_TRANSPORT, Parts, choose_base, make_transport
from boltzflow.training.loop import Trained
from boltzflow.training.race import Race, with_field
from boltzflow.training.snapshots import PILOT
from boltzflow.training.start import Started

FILE = CHECKPOINT_FILE

_OF_TIME = ("format", "run", "cost", "history")  # in the record, and not of the identity as they stand
_KEPT_POINTS = 4096  # of the pilot, for the coverage check and the routes without a flow: all, where it has no more


def save(folder: Path, trained: Trained, record: dict[str, Any]) -> None:
    """Write the run into `folder`, whole or not at all."""
    write(folder, *_contents(trained, record))


def identity(trained: Trained, record: dict[str, Any]) -> str:
    """The identity that the run has where it is saved."""
    arrays, record = _contents(trained, record)
    return _identity({name: np.asarray(value) for name, value in arrays.items()}, record)


def _contents(trained: Trained, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the record of a run."""
    params = eqx.filter(trained.transport, trainable(trained.transport))
    arrays = {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    of_pilot, numbers = pilot_contents(trained.pilot, _KEPT_POINTS)
    kept = dataclasses.replace(trained.pilot, points=of_pilot["pilot.points"])
    of_pilot["energies"] = energies(trained.transport.interpolation.target, kept)
    if trained.race:
        record = {**record, "race": trained.race.record()}
    if trained.started:
        record = {**record, "started": dataclasses.asdict(trained.started)}
    return {**arrays, **of_pilot}, {**record, "pilot": numbers}


def write(folder: Path, arrays: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Write the arrays and the record of a run with its identity."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    files.write(folder / FILE, plain, {**record, "run": _identity(plain, record)})


@dataclasses.dataclass(frozen=True)
class Stored:
    """A stored run: its identity, whether the file itself states one, its record, and its dimension."""

    run: str
    is_stated: bool
    record: Mapping[str, Any]
    dim: int


def read(folder: Path) -> Stored:
    """The run in a folder, without its flow.

    Raises:
        InputError: There is no checkpoint, or it cannot be read.
    """
    arrays, record = _read(folder)
    return Stored(_identity(arrays, record), "run" in record, record, arrays["pilot.points"].shape[1])


def load(folder: Path, target: AbstractDensity, parts: Parts = NO_PARTS) -> tuple[Trained, dict[str, Any]]:
    """The run that `save` wrote, and its record, for the same target and parts.

    Raises:
        InputError: The file cannot be read, or is of another target or other parts.
    """
    arrays, record = _read(folder)
    used = [name for name in record.get("parts", []) if name in OF_TRANSPORT]
    if used != parts.of_transport:
        raise InputError(f"The run was trained with parts of its own ({', '.join(used)}): give the same to load.")
    if arrays["pilot.points"].shape[1] != target.dim:
        raise InputError(f"The run has dimension {arrays['pilot.points'].shape[1]}, the target {target.dim}.")
    config = Config(**record["config"])
    race = Race(**record["race"]) if "race" in record else None
    started = Started(**record["started"]) if "started" in record else None
    pilot = pilot_from(arrays, record["pilot"], choose_base(config, parts, target.dim))
    check_target(folder / FILE, target, pilot, arrays["energies"])
    in_double = any(name.startswith("params") and array.dtype == np.float64 for name, array in arrays.items())
    with jax.enable_x64(in_double):
        transport = make_transport(with_field(config, race), parts, target, pilot, jax.random.key(0))
        params, frozen = eqx.partition(transport, trainable(transport))
        try:
            params = jax.tree_util.tree_map_with_path(
                lambda path, leaf: _fitting(arrays[f"params{jax.tree_util.keystr(path)}"], leaf), params
            )
        except KeyError as error:
            raise InputError(f"{folder / FILE} is damaged: it lacks {error}.") from None
    return Trained(eqx.combine(params, frozen), pilot, record["history"], record["cost"], race, started), record


def is_of(folder: Path, target: AbstractDensity, trained: Trained) -> bool:
    """Whether the energies of `target` are, up to rounding, those that `save` kept: those of the stored report."""
    return is_measured_target(target, trained.pilot, _read(folder)[0]["energies"])


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint.

    Raises:
        InputError: There is no checkpoint, or it is of another format.
    """
    return _read(folder)[1]


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = folder / FILE
    if not path.exists():
        raise InputError(f"{folder.parent} holds no finished run: {path} is missing{_why_missing(folder)}.")
    arrays, record = files.read(path)
    if record.get("format") != files.FORMAT:
        raise InputError(f"{path} is not a checkpoint of format {files.FORMAT}, the one this version reads.")
    known = {field.name for field in dataclasses.fields(Config)}
    complete = "pilot" in record and {"pilot.points", "energies"} <= arrays.keys()
    if not set(record.get("config", ["none"])) <= known or not complete:  # a setting that came later has its default
        raise InputError(f"{path} does not have the settings this version of boltzflow reads.")
    return arrays, record


def _why_missing(folder: Path) -> str:
    """The end of a sentence on a folder without a checkpoint."""
    if (folder / PILOT).exists():
        return f" (the run was interrupted: go on with boltzflow resume {folder.parent})"
    if folder.is_dir() and any(folder.iterdir()):
        return " (it is of an older boltzflow: train again)"
    return ""


def _identity(arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> str:
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in record.get("history", ())]
    kept = {name: value for name, value in record.items() if name not in _OF_TIME} | {"history": history}
    return hashlib.sha256((json.dumps(kept, sort_keys=True) + files.digest(arrays)).encode()).hexdigest()[:32]


def _fitting(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    if array.shape != leaf.shape:
        raise InputError(f"The checkpoint has an array of shape {array.shape} where {leaf.shape} is expected.")
    return jnp.asarray(array, leaf.dtype)
