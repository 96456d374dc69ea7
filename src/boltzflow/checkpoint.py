"""A trained run as files: one `.npz` of arrays and one JSON record. Loading executes nothing that is in them."""

import dataclasses
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .assembly import NO_PARTS, Parts, build_transport, choose_base
from .bases import Gaussian
from .continuity import trainable
from .correction.annealed import spread
from .densities import AbstractDensity
from .errors import InputError
from .interpolations import Clock
from .linalg import Circulant, Scale
from .pilot import Pilot
from .presets import Config
from .training import Trained

FORMAT = 2
_KEPT_POINTS = 2048  # pilot points kept for the mode probe
_EIGENVALUES = "base.scale.eigenvalues"  # in place of base.scale, where it is a `Circulant`


def save(folder: Path, trained: Trained, record: dict[str, Any]) -> None:
    """Write `arrays.npz` and `record.json` into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    pilot = trained.pilot
    params = eqx.filter(trained.transport, trainable(trained.transport))
    arrays = {f"params{jax.tree_util.keystr(path)}": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    arrays["pilot.points"] = spread(pilot.points, _KEPT_POINTS)
    arrays["pilot.wide_points"] = spread(pilot.wide_points, _KEPT_POINTS)
    if isinstance(pilot.base, Gaussian):
        arrays |= {"base.mean": pilot.base.mean, **_scale_arrays(pilot.base.scale)}
    if pilot.directions is not None:
        arrays["pilot.directions"] = pilot.directions
    numbers = {"clock_rate": float(pilot.clock.rate), "complaints": list(pilot.complaints)}
    for name in ("log_z", "log_z_stderr", "acceptance", "num_gradients", "nonfinite_share"):
        numbers[name] = getattr(pilot, name)
    _replace(
        folder / "arrays.npz",
        lambda file: np.savez(file, allow_pickle=False, **{k: np.asarray(v) for k, v in arrays.items()}),
    )
    text = json.dumps({"format": FORMAT, **record, "pilot": numbers}, indent=1)
    _replace(folder / "record.json", lambda file: file.write(text.encode()))


def load(folder: Path, target: AbstractDensity, parts: Parts = NO_PARTS) -> tuple[Trained, dict[str, Any]]:
    """What `save` wrote, for the same target and parts. Raises `InputError` where it cannot be read or does not fit."""
    record = read_record(folder)
    if record.get("parts", []) != parts.names():
        raise InputError(
            f"The run was trained with parts of its own ({', '.join(record['parts'])}): give the same to load."
        )
    try:
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder / 'arrays.npz'} cannot be read ({error}): the checkpoint is damaged.") from None
    needed = {"pilot.points", "pilot.wide_points"}
    if Config(**record["config"]).base == "pilot" and not parts.base:
        needed |= {"base.mean", _EIGENVALUES if _EIGENVALUES in arrays else "base.scale"}
    if not needed <= arrays.keys():
        raise InputError(f"{folder / 'arrays.npz'} lacks the pilot's arrays: the checkpoint is damaged.")
    if arrays["pilot.points"].shape[1] != target.dim:
        raise InputError(f"The run has dimension {arrays['pilot.points'].shape[1]}, the target {target.dim}.")
    config, numbers = Config(**record["config"]), dict(record["pilot"])
    base = choose_base(config, parts, target.dim) or Gaussian(arrays["base.mean"], scale_tril=_scale(arrays))
    clock = Clock(numbers.pop("clock_rate"))
    directions = arrays.get("pilot.directions")
    transport = build_transport(config, parts, base, target, clock, jax.random.key(0), directions)
    params, frozen = eqx.partition(transport, trainable(transport))
    try:
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _fitting(arrays[f"params{jax.tree_util.keystr(path)}"], leaf), params
        )
    except KeyError as error:
        raise InputError(f"{folder / 'arrays.npz'} lacks {error}: the checkpoint is damaged.") from None
    points, wide_points = jnp.asarray(arrays["pilot.points"]), jnp.asarray(arrays["pilot.wide_points"])
    numbers["complaints"] = tuple(numbers["complaints"])
    pilot = Pilot(
        base=base,
        clock=clock,
        directions=directions,
        points=points,
        wide_points=wide_points,
        path_times=jnp.ones(1),
        path_points=points[None],
        **numbers,
    )
    return Trained(eqx.combine(params, frozen), pilot, record["history"], record["cost"]), record


def read_record(folder: Path) -> dict[str, Any]:
    """The JSON record of a checkpoint, by itself. Raises `InputError` where there is none or of another format."""
    try:
        record = json.loads((folder / "record.json").read_text())
    except FileNotFoundError:
        raise InputError(f"{folder.parent} holds no finished run: {folder / 'record.json'} is missing.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'record.json'} cannot be read ({error}): the checkpoint is damaged.") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(
            f"{folder / 'record.json'} is not a checkpoint of format {FORMAT}, the one this version reads."
        )
    known = {field.name for field in dataclasses.fields(Config)}
    if set(record.get("config", ())) != known or "pilot" not in record:
        raise InputError(f"{folder / 'record.json'} does not have the settings this version of boltzflow reads.")
    return record


def _scale_arrays(scale: Scale) -> dict[str, Any]:
    return {_EIGENVALUES: scale.eigenvalues} if isinstance(scale, Circulant) else {"base.scale": scale}


def _scale(arrays: dict[str, np.ndarray]) -> Scale:
    return Circulant(arrays[_EIGENVALUES]) if _EIGENVALUES in arrays else arrays["base.scale"]


def _fitting(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    if array.shape != leaf.shape:
        raise InputError(f"The checkpoint has an array of shape {array.shape} where {leaf.shape} is expected.")
    return jnp.asarray(array, leaf.dtype)


def _replace(path: Path, write) -> None:
    """Write a file so that it is there whole or not at all, whenever the machine stops."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
