"""Where training stands, kept while it goes on: what an interrupted run continues from, bit for bit.

`pilot-SEED.npz` has what the pilot of a seed found, once; `state-0.npz` and `state-1.npz`, written in turn, have
everything that the next optimizer step needs. Whenever the machine stops one of these two is whole; a damaged one is
put aside for the other. Steps draw random numbers from the key and their own number: nothing else needs to be kept.
A kill loses what was trained since the last: two seconds, or a hundred times as long as writing one takes.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.errors import InputError
from boltzflow.sampling import pilot_arrays
from boltzflow.sampling.pilot import Pilot
from boltzflow.storage import files as storage
from boltzflow.training.build import NO_PARTS, Parts
from boltzflow.training.step import StepState

FORMAT = 6
_MIN_INTERVAL, _PATIENCE = 2.0, 60.0  # seconds
_MAX_SHARE = 0.01  # of the time goes into writing, besides the pilot, the first and the last


@dataclass(frozen=True)
class TrainingState:
    """Training after `step` steps: the seconds it took, each cohort's state, and what is known of each seed."""

    step: int
    seconds: float
    states: Sequence[StepState]
    histories: Mapping[int, list[dict[str, float]]]
    bad_chunks: Mapping[int, int]
    failures: Mapping[int, str]


class Snapshots:
    """The snapshots of one training in `folder`, of this target, these settings, seeds and kinds of parts.

    Without `resume` it starts anew: what the folder holds is not read, and gone with the first pilot that is written.
    """

    def __init__(
        self,
        folder: Path,
        target: AbstractDensity,
        config: Config,
        seeds: Sequence[int],
        resume: bool = True,
        parts: Parts = NO_PARTS,
    ):
        self._folder, self._target, self._seeds, self._resume = folder, target, list(seeds), resume
        self._whose: dict[str, Any] = {
            "format": FORMAT, "config": dataclasses.asdict(config), "seeds": self._seeds, "parts": parts.names(),
        }  # fmt: skip
        self._turn, self._due, self.trouble, self.notes = 0, 0.0, "", list[str]()

    def write_pilots(self, pilots: Mapping[int, Pilot]) -> None:
        """Forgets what the folder held, and keeps these pilots."""
        clear(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        for seed, pilot in pilots.items():
            arrays, numbers = pilot_arrays.pilot_contents(pilot)
            arrays["energies"] = pilot_arrays.energies(self._target, pilot)
            storage.write(self._folder / f"pilot-{seed}.npz", arrays, {**self._whose, "pilot": numbers})

    def read_pilots(self, base: AbstractDistribution | None) -> dict[int, Pilot]:
        """The pilots by seed, none of them where there are none; `base` is that of the run, if no pilot fitted it.

        Raises `InputError` for pilots of another target or other settings, and for damaged ones.
        """
        pilots: dict[int, Pilot] = {}
        for seed in self._seeds if self._resume else ():
            path = self._folder / f"pilot-{seed}.npz"
            if not path.exists():
                return {}
            arrays, record = storage.read(path)
            self._check(path, record)
            pilots[seed] = pilot = pilot_arrays.pilot_from(arrays, record["pilot"], base)
            pilot_arrays.check_target(path, self._target, pilot, arrays["energies"])
        return pilots

    def offer(self, standing: TrainingState) -> None:
        """Writes it, if enough time has gone since the last."""
        if time.perf_counter() >= self._due:
            self.write(standing)

    def write(self, standing: TrainingState) -> None:
        """Writes it in place of the older of the two that there are.

        A disk that is full does not end a training: what was wrong is in `trouble`, and a minute later it is tried
        again.
        """
        start = time.perf_counter()
        leaves = [_plain(leaf) for state in standing.states for leaf in jax.tree.leaves(state)]
        record = {
            **self._whose, "step": standing.step, "seconds": standing.seconds, "failures": dict(standing.failures),
            "bad_chunks": dict(standing.bad_chunks),
            "histories": {seed: [_texts(row) for row in rows] for seed, rows in standing.histories.items()},
        }  # fmt: skip
        arrays = {str(number): leaf for number, leaf in enumerate(leaves)}
        try:
            storage.write(self._folder / f"state-{self._turn}.npz", arrays, record)
        except OSError as error:
            self.trouble = f"where training stands cannot be kept: {error}"
            self._due = time.perf_counter() + _PATIENCE
            return
        self._turn, self.trouble = 1 - self._turn, ""
        took = time.perf_counter() - start
        self._due = time.perf_counter() + max(_MIN_INTERVAL, took / _MAX_SHARE)

    def read(self, untrained: Sequence[StepState]) -> TrainingState | None:
        """The latest that can be read, in the shape of these states; None where there is none.

        A damaged one is passed over, with a sentence in `notes`. Raises `InputError` where it is of other settings.
        """
        if not self._resume:
            return None
        found: list[tuple[int, dict[str, np.ndarray], dict[str, Any]]] = []
        for turn in (0, 1):
            path = self._folder / f"state-{turn}.npz"
            if not path.exists():
                continue
            try:
                arrays, record = storage.read(path)
            except InputError as error:
                self.notes.append(f"{error}; the other one is used")
                continue
            self._check(path, record)
            found.append((turn, arrays, record))
        if not found:
            return None
        turn, arrays, record = max(found, key=lambda one: one[2]["step"])
        self._turn = 1 - turn
        states, first = [], 0
        for state in untrained:
            leaves, structure = jax.tree.flatten(state)
            own = [arrays[str(first + i)] for i in range(len(leaves))]
            states.append(jax.tree.unflatten(structure, [_like(a, leaf) for a, leaf in zip(own, leaves, strict=True)]))
            first += len(leaves)
        histories = {int(seed): [_numbers(row) for row in rows] for seed, rows in record["histories"].items()}
        bad_chunks, failures = ({int(k): v for k, v in record[name].items()} for name in ("bad_chunks", "failures"))
        return TrainingState(record["step"], record["seconds"], states, histories, bad_chunks, failures)

    def _check(self, path: Path, record: Mapping[str, Any]) -> None:
        if record.get("format") != FORMAT:
            raise InputError(f"{path} is not of format {FORMAT}, the one this version reads; start the run again")
        if any(record.get(name) != value for name, value in self._whose.items()):
            raise InputError(f"{path} is of a run with other settings or seeds; start the run again with --overwrite")


def clear(folder: Path) -> None:
    """Removes all snapshots in a folder."""
    for path in [*folder.glob("pilot-*.npz"), *folder.glob("state-?.npz")]:
        path.unlink(missing_ok=True)


def _plain(leaf: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def _like(array: np.ndarray, leaf: jax.Array) -> jax.Array:
    """The array as what `leaf` is: a key, or numbers of its type."""
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
