"""A trained run as one file. Loading executes nothing that is in it."""

import dataclasses
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
from boltzflow.sampling import pilot_arrays
from boltzflow.storage import files as storage
from boltzflow.training.build import NO_PARTS, Parts, choose_base, make_transport
from boltzflow.training.loop import Trained

FORMAT = 7
FILE = "run.npz"
_KEPT_POINTS = 2048  # pilot points kept for the mode probe


def save(folder: Path, trained: Trained, record: dict[str, Any]) -> None:
    """Write the run into `folder`, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    params = eqx.filter(trained.transport, trainable(trained.transport))
    arrays = {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    found, numbers = pilot_arrays.pilot_contents(trained.pilot, _KEPT_POINTS)
    kept = dataclasses.replace(trained.pilot, points=jnp.asarray(found["pilot.points"]))
    found["energies"] = pilot_arrays.energies(trained.transport.interpolation.target, kept)
    storage.write(folder / FILE, {**arrays, **found}, {"format": FORMAT, **record, "pilot": numbers})


def load(folder: Path, target: AbstractDensity, parts: Parts = NO_PARTS) -> tuple[Trained, dict[str, Any]]:
    """What `save` wrote, for the same target and parts. Raises `InputError` where it cannot be read or does not fit."""
    arrays, record = _read(folder)
    if record.get("parts", []) != parts.names():
        raise InputError(
            f"The run was trained with parts of its own ({', '.join(record['parts'])}): give the same to load."
        )
    if arrays["pilot.points"].shape[1] != target.dim:
        raise InputError(f"The run has dimension {arrays['pilot.points'].shape[1]}, the target {target.dim}.")
    config = Config(**record["config"])
    pilot = pilot_arrays.pilot_from(arrays, record["pilot"], choose_base(config, parts, target.dim))
    pilot_arrays.check_target(folder / FILE, target, pilot, arrays["energies"])
    key = jax.random.key(0)
    transport = make_transport(config, parts, target, pilot, key)
    params, frozen = eqx.partition(transport, trainable(transport))
    try:
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _fitting(arrays[f"params{jax.tree_util.keystr(path)}"], leaf), params
        )
    except KeyError as error:
        raise InputError(f"{folder / FILE} is damaged: it lacks {error}.") from None
    return Trained(eqx.combine(params, frozen), pilot, record["history"], record["cost"]), record


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint. Raises `InputError` where there is none or it is of another format."""
    return _read(folder)[1]


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not (folder / FILE).exists():
        older = " of this format (it is of an older boltzflow: train again)" if folder.is_dir() else ""
        raise InputError(f"{folder.parent} holds no finished run{older}: {folder / FILE} is missing.")
    arrays, record = storage.read(folder / FILE)
    if record.get("format") != FORMAT:
        raise InputError(f"{folder / FILE} is not a checkpoint of format {FORMAT}, the one this version reads.")
    known = {field.name for field in dataclasses.fields(Config)}
    if (
        set(record.get("config", ())) != known
        or "pilot" not in record
        or not {"pilot.points", "energies"} <= arrays.keys()
    ):
        raise InputError(f"{folder / FILE} does not have the settings this version of boltzflow reads.")
    return arrays, record


def _fitting(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    if array.shape != leaf.shape:
        raise InputError(f"The checkpoint has an array of shape {array.shape} where {leaf.shape} is expected.")
    return jnp.asarray(array, leaf.dtype)
