"""Training a flow: `fit`, `fit_seeds` for several seeds, and `run_of` for a transport that was trained elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from boltzflow.config import PRESETS, Config, checked_config, make_preset, with_changes
from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import instead_of_a_density
from boltzflow.densities.precision import Programs
from boltzflow.errors import InputError, SeedsError, TrainingError
from boltzflow.model.continuity import Transport
from boltzflow.numerics.validation import shown
from boltzflow.run.following import OnProgress, followed
from boltzflow.run.run import Run, programs_for
from boltzflow.sampling.pilot import Pilot
from boltzflow.storage.run_folder import check_seeds, seed_folder
from boltzflow.training.build import NO_PARTS, Parts
from boltzflow.training.loop import Progress, Trained, train
from boltzflow.training.snapshots import Snapshots


class _Told(NamedTuple):
    """Who is told how far a run is."""

    progress: bool | None
    on_progress: OnProgress | None
    title: str = ""


def fit(
    target: AbstractDensity,
    *,
    seed: int = 0,
    preset: str = "default",
    config: Config | Mapping[str, Any] | None = None,
    name: str = "",
    options: dict[str, Any] | None = None,
    progress: bool | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    parts: Parts = NO_PARTS,
    start: Run | None = None,
    keep: str | Path | None = None,
    resume: bool = True,
) -> Run:
    """Learn a flow to `target`: `boltzflow.fit(target).log_z()` is an answer, with no number that must be tuned.

    The same seed gives the same numbers on the same machine.

    Args:
        target: A density on R^dim, such as `boltzflow.Energy(fn, dim)`.
        seed: The seed of all random numbers.
        preset: "quick", "default" or "paper".
        config: The settings, which override `preset`, or a dict of changes to the preset.
        name: The name of the target, for the records; the preset "paper" depends on it.
        options: The target's options, for the records.
        progress: Whether a line shows how far the run is; None where standard error is a terminal, and in a notebook.
        on_progress: Called with each `Progress`, also while modes are looked for and while the report is measured.
        parts: A base, path, field, penalty, loss or optimizer of the user's own.
        start: A run of a neighboring target, as at the last coupling of a scan. Its field, active subspace and trained
            parameters are taken over. The share of the steps that are taken is the distance of its flow from the target
            in nats, and an eighth at least; `num_steps` of `config` holds as it is.
            Where its flow is too far from the target, training is that of any run. A note of the report says which.
        keep: A folder for the state of training. After an interruption the same call continues from there and ends with
            the same numbers to the last bit.
        resume: False starts anew in `keep`.

    Raises:
        InputError: The target or a setting cannot be used, or `start` is of another kind of target or flow.
        TrainingError: Training diverges.
    """
    if start is not None and not isinstance(start, Run):
        raise InputError(f"start must be a run, as boltzflow.fit or boltzflow.load returns it, got {shown(start)}")
    [seed] = check_seeds([seed])
    name, config = _settle(target, preset, config, name)
    programs = programs_for(target, config, parts)
    told = _Told(progress, on_progress)
    return _fit(target, config, seed, programs, name, options, told, parts, keep, resume, start)


def fit_seeds(
    target: AbstractDensity,
    *,
    seeds: Sequence[int],
    preset: str = "default",
    config: Config | Mapping[str, Any] | None = None,
    name: str = "",
    options: dict[str, Any] | None = None,
    progress: bool | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    parts: Parts = NO_PARTS,
    keep: str | Path | None = None,
    resume: bool = True,
) -> list[Run]:
    """`fit` for each of several seeds, one after another: `boltzflow.fit_seeds(target, seeds=range(5))`.

    Each run is bit for bit that of `fit` with its seed. Programs are compiled once for all seeds.

    Args:
        seeds: Different whole numbers. All other arguments are those of `fit`, which has a `start` besides.
        keep: A folder that has a folder `seed-N` for each seed, used as in `fit`.

    Raises:
        InputError: The seeds, the target or a setting cannot be used.
        SeedsError: Training diverges for some seeds. It is raised after the others are trained, and has their runs.
    """
    seeds = check_seeds(seeds)
    name, config = _settle(target, preset, config, name)
    programs = programs_for(target, config, parts)
    runs: list[Run] = []
    failures: dict[int, TrainingError] = {}
    for number, seed in enumerate(seeds, start=1):
        told = _Told(progress, on_progress, f"seed {seed} ({number} of {len(seeds)}):")
        folder = seed_folder(Path(keep), seed) if keep is not None else None
        try:
            runs.append(_fit(target, config, seed, programs, name, options, told, parts, folder, resume))
        except TrainingError as error:
            failures[seed] = error
    if failures:
        raise SeedsError(failures, runs)
    return runs


def run_of(
    target: AbstractDensity,
    pilot: Pilot,
    transport: Transport,
    *,
    seed: int = 0,
    config: Config | None = None,
    parts: Parts = NO_PARTS,
    name: str = "",
    history: Sequence[Mapping[str, float]] = (),
    cost: Mapping[str, float] | None = None,
    progress: bool | None = None,
) -> Run:
    """The run of a transport that a loop of one's own has trained: it samples, answers and has a verdict as any other.

    Args:
        target: The target density.
        pilot: Its pilot, from `explore`.
        transport: The trained transport, made by `make_transport`.
        seed: The seed of the samples behind the report; other random numbers than those of the training.
        config: The settings that the transport was made with; those of sampling and of the report matter too.
        parts: The parts that it was made with.
        name: The name of the target, for the records.
        history: Rows of `step`, `seconds` and `loss`, and perhaps `reverse_ess`, for `run.plot.training()`.
        cost: What the training cost, by the names of `report().cost`, such as `train_seconds`.
        progress: As in `fit`.

    Raises:
        InputError: The target, the settings or the seed cannot be used.
    """
    [seed] = check_seeds([seed])
    name, config = _settle(target, "default", config, name)
    rows = [dict(row) for row in history]
    steps = max([0, *(int(row["step"]) for row in rows)])
    counted = {
        "train_seconds": 0.0,
        "compile_seconds": 0.0,
        "steps": steps,
        "gradient_evaluations": pilot.num_gradients,
    }
    trained = Trained(transport, pilot, rows, {**counted, **(cost or {})})
    programs = programs_for(target, config, parts)
    return Run(target, config, seed, trained, name, parts=parts, programs=programs, progress=progress)


def _fit(
    target: AbstractDensity,
    config: Config,
    seed: int,
    programs: Programs,
    name: str,
    options: dict[str, Any] | None,
    told: _Told,
    parts: Parts,
    keep: str | Path | None,
    resume: bool,
    start: Run | None = None,
) -> Run:
    begun = start.as_start() if start else None
    identity = begun.run if begun else ""
    snapshots = Snapshots(Path(keep), target, config, seed, resume, parts, identity) if keep is not None else None
    with followed(*told) as show:
        trained = train(target, config, seed, programs, show, parts, snapshots, begun)
    return Run(
        target=target,
        config=config,
        seed=seed,
        trained=trained,
        name=name,
        options=dict(options or {}),
        parts=parts,
        programs=programs,
        progress=told.progress,
        on_progress=told.on_progress,
    )


def _settle(
    target: AbstractDensity, preset: str, config: Config | Mapping[str, Any] | None, name: str
) -> tuple[str, Config]:
    """The name and the settings of a run, validated."""
    if not isinstance(target, AbstractDensity):
        raise InputError(f"Expected a density, got {instead_of_a_density(target)}.")
    if preset not in PRESETS:
        raise InputError(f"Unknown preset {preset!r}: expected one of {', '.join(PRESETS)}.")
    if preset == "paper" and config is None and not name:
        if not isinstance(target, DoubleWell):
            raise InputError('The preset "paper" depends on the target: give its name, as in name="mixture-2".')
        name = "double-well"
    if isinstance(config, Mapping):
        changes = dict(config)
        start = make_preset(changes.pop("preset", preset), name, target.dim)
        return name or type(target).__name__, with_changes(start, changes)
    if config is not None and not isinstance(config, Config):
        raise InputError(f"config must be a boltzflow.Config or a dict of settings, got {config!r}")
    config = config or make_preset(preset, name, target.dim)
    return name or type(target).__name__, checked_config(asdict(config))
