"""Snapshots of a training that is under way: an interrupted run continues from them bit for bit.

`pilot.npz` holds the pilot's findings and `race.npz` the choice of the field where there was one; each is written once.
`state-0.npz` and `state-1.npz`, written in turn, hold everything that the next optimizer step needs. Each file is moved
into place whole, so that one of the two is whole whenever the machine stops; a damaged one is passed over for the
other. Steps draw random numbers from the key and their own number, so nothing else needs to be kept. A kill loses the
steps since the last snapshot: two seconds, or a hundred times as long as writing one takes.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.errors import InputError
from boltzflow.sampling.pilot import Pilot
from boltzflow.sampling.pilot_arrays import check_target, energies, pilot_contents, pilot_from
from boltzflow.storage import files
from boltzflow.training.build import NO_PARTS, Parts
from boltzflow.training.race import Race
from boltzflow.training.step import StepState

PILOT = "pilot.npz"
_RACE = "race.npz"
_MIN_INTERVAL = 2.0  # seconds
_RETRY_INTERVAL = 60.0  # seconds, after a write that failed
_MAX_SHARE = 0.01  # of the time goes into writing, besides the pilot, the first and the last


@dataclass(frozen=True)
class TrainingState:
    """A training after `step` steps: the seconds it took, the optimizer's state, the history, and the skipped chunks.

    `skipped_chunks` counts the last chunks in a row whose steps were all skipped.
    """

    step: int
    seconds: float
    state: StepState
    history: list[dict[str, float]]
    skipped_chunks: int


class Snapshots:
    """The snapshots of one training in `folder`; those of another target, settings, seed or start are refused.

    With `resume` False training starts anew: the folder is not read, and is cleared when the pilot is written.
    """

    def __init__(
        self,
        folder: Path,
        target: AbstractDensity,
        config: Config,
        seed: int,
        resume: bool = True,
        parts: Parts = NO_PARTS,
        start: str = "",
    ):
        self._folder = folder
        self._target = target
        self._resume = resume
        self._run: dict[str, Any] = {"config": dataclasses.asdict(config), "seed": seed, "parts": parts.names()}
        self._start = start  # the identity of the run that this one starts from
        if start:
            self._run["start"] = start
        self._pilot = ""  # the identity of the pilot, by which states are recognized
        self._turn = 0
        self._due = 0.0
        self.trouble = ""
        self.notes: list[str] = []

    def write_pilot(self, pilot: Pilot) -> None:
        """Clear the folder and keep this pilot."""
        clear(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays, numbers = pilot_contents(pilot)
        arrays["energies"] = energies(self._target, pilot)
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        files.write(self._folder / PILOT, arrays, {**self._run, "pilot": numbers})
        self._pilot = files.digest(arrays)

    def read_pilot(self, base: AbstractDistribution | None) -> Pilot | None:
        """The pilot, None where there is none; `base` is that of the run, unless the pilot fitted it.

        Raises:
            InputError: The pilot is of another target or other settings, or its file is damaged.
        """
        path = self._folder / PILOT
        if not self._resume or not path.exists():
            return None
        arrays, record = files.read(path)
        self._check(path, record)
        pilot = pilot_from(arrays, record["pilot"], base)
        check_target(path, self._target, pilot, arrays["energies"])
        self._pilot = files.digest(arrays)
        return pilot

    @property
    def has_pilot(self) -> bool:
        """Whether a pilot was read or written."""
        return bool(self._pilot)

    def write_race(self, race: Race) -> None:
        """Keep the choice of the field."""
        with contextlib.suppress(OSError):  # on a full disk an interrupted run would race again
            files.write(self._folder / _RACE, {}, {**self._run, "of_pilot": self._pilot, "race": race.record()})

    def read_race(self) -> Race | None:
        """The choice of the field, None where there is none for this pilot or where its file is damaged.

        Raises:
            InputError: The file is of another run.
        """
        path = self._folder / _RACE
        if not self.has_pilot or not self._resume or not path.exists():
            return None
        try:
            _, record = files.read(path)
        except InputError as error:
            self.notes.append(f"{error}; the fields are compared again")
            return None
        self._check(path, record)
        return Race(**record["race"]) if record["of_pilot"] == self._pilot else None

    def offer(self, now: TrainingState) -> None:
        """Write this state if enough time has passed since the last."""
        if time.perf_counter() >= self._due:
            self.write(now)

    def write(self, now: TrainingState) -> None:
        """Write this state in place of the older of the two.

        A full disk does not end a training: `trouble` then holds a sentence, and a minute later it is tried again.
        """
        start = time.perf_counter()
        arrays = {str(number): _plain(leaf) for number, leaf in enumerate(jax.tree.leaves(now.state))}
        record = {
            **self._run,
            "of_pilot": self._pilot,
            "step": now.step,
            "seconds": now.seconds,
            "skipped_chunks": now.skipped_chunks,
            "history": [_texts(row) for row in now.history],
        }
        try:
            files.write(self._folder / f"state-{self._turn}.npz", arrays, record)
        except OSError as error:
            self.trouble = f"the state of training cannot be kept: {error}"
            self._due = time.perf_counter() + _RETRY_INTERVAL
            return
        self._turn = 1 - self._turn
        self.trouble = ""
        took = time.perf_counter() - start
        self._due = time.perf_counter() + max(_MIN_INTERVAL, took / _MAX_SHARE)

    def read(self, untrained: StepState) -> TrainingState | None:
        """The latest readable state, with arrays like those of `untrained`; None where there is none.

        A damaged file is passed over, with a sentence in `notes`.

        Raises:
            InputError: A file is of another run.
        """
        if not self._resume:
            return None
        found: list[tuple[int, dict[str, np.ndarray], dict[str, Any]]] = []
        for turn in (0, 1):
            path = self._folder / f"state-{turn}.npz"
            if not path.exists():
                continue
            try:
                arrays, record = files.read(path)
            except InputError as error:
                self.notes.append(f"{error}; the other one is used")
                continue
            self._check(path, record)
            if record.get("of_pilot", self._pilot) != self._pilot:
                self.notes.append(f"{path} is of another run, or its pilot is gone; it is passed over")
                continue
            found.append((turn, arrays, record))
        if not found:
            return None
        turn, arrays, record = max(found, key=lambda one: one[2]["step"])
        self._turn = 1 - turn
        leaves, structure = jax.tree.flatten(untrained)
        kept = [_like(arrays[str(number)], leaf) for number, leaf in enumerate(leaves)]
        history = [_numbers(row) for row in record["history"]]
        state = jax.tree.unflatten(structure, kept)
        return TrainingState(record["step"], record["seconds"], state, history, record["skipped_chunks"])

    def _check(self, path: Path, record: Mapping[str, Any]) -> None:
        if record.get("format") != files.FORMAT:
            raise InputError(f"{path} is not of format {files.FORMAT}, the one this version reads; start the run again")
        if any(record.get(name) != value for name, value in self._run.items() if name != "start"):
            raise InputError(f"{path} is of a run with other settings or seeds; start the run again with --overwrite")
        if record.get("start", "") != self._start:
            raise InputError(f"{path} is of a run that started from another one, or from none: give the same start")


def has_state(folder: Path) -> bool:
    """Whether a folder holds the state of a training."""
    return any(folder.glob("state-?.npz"))


def clear(folder: Path) -> None:
    """Remove all snapshots in a folder, those of older versions too."""
    for path in [*folder.glob("pilot*.npz"), *folder.glob("state-?.npz"), folder / _RACE]:
        path.unlink(missing_ok=True)


def _plain(leaf: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def _like(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    """The array as the kind of `leaf`: a key, or numbers of its type."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array))
    if array.shape != leaf.shape or array.dtype != leaf.dtype:
        raise InputError("the snapshot does not fit this run: start it again with --overwrite")
    return jnp.asarray(array)


def _texts(row: Mapping[str, float]) -> dict[str, str]:
    """Numbers as text that gives them back to the last bit, NaN and infinities too."""
    return {name: repr(float(value)) for name, value in row.items()}


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: int(float(value)) if name == "step" else float(value) for name, value in row.items()}
