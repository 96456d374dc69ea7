"""Training a flow and asking it: `fit`, `fit_seeds`, `load`, and the `Run` that they return."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.config import PRESETS, Config, checked_config, make_preset, with_changes
from boltzflow.densities.base import AbstractDensity, of_point
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import instead_of_a_density
from boltzflow.densities.from_file import reload_target
from boltzflow.densities.precision import Programs, energy_fingerprint, programs_of
from boltzflow.errors import InputError, SeedsError, TrainingError
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import Stream, map_points, stream_key
from boltzflow.numerics.validation import random_key, shown, whole_number
from boltzflow.report.answers import Answer, answer_by, report_of
from boltzflow.report.draws import Draws, Samples
from boltzflow.report.report import Report
from boltzflow.report.stored import check_record, remove_others
from boltzflow.sampling.corrections import CORRECTIONS, Corrected
from boltzflow.sampling.pilot import Pilot
from boltzflow.statistics.estimates import Estimate
from boltzflow.storage import run_folder
from boltzflow.storage.files import check_writable, folder_path
from boltzflow.storage.run_folder import CHECKPOINT, CONFIG, check_seeds, read_record, seed_folder
from boltzflow.training import checkpoint
from boltzflow.training.build import NO_PARTS, Parts
from boltzflow.training.loop import Progress, Trained, train
from boltzflow.training.race import with_field
from boltzflow.training.snapshots import Snapshots

_NUM_SHOWN = 10_000  # samples of another route than the flow, in the figures
_parts_seen = itertools.count()
_Points = TypeVar("_Points", Samples, Corrected)


@dataclass
class Run:
    """A trained flow and the questions it answers; `fit` and `load` return it.

    Args:
        target: The target density.
        config: The settings.
        seed: The seed.
        trained: The result of training.
        name: The name of the target, for the records.
        options: The options of the target, for the records.
        parts: The user's own parts.
    """

    target: AbstractDensity
    config: Config
    seed: int
    trained: Trained
    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    parts: Parts = NO_PARTS
    programs: Programs | None = field(default=None, repr=False)

    @cached_property
    def draws(self) -> Draws:
        """Everything that the report is made from, each part drawn once."""
        programs = self.programs or _programs_of(self.target, self.config, self.parts)
        return Draws(self.target, with_field(self.config, self.trained.race), self.seed, self.trained, programs)

    def _checked_draws(self) -> Draws:
        """The draws. Raises `InputError` where the energy reads other data than when the run was trained."""
        programs = self.draws.programs
        if not programs.fingerprint.startswith(energy_fingerprint(self.target, programs.double)):
            raise InputError(
                "the energy is not the one that this run was trained on: data that it reads have changed since; fit "
                "again, or give the energy data of its own"
            )
        return self.draws

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of `step`, `seconds`, `loss`, and at twenty looks `reverse_ess`."""
        return self.trained.history

    @property
    def pilot(self) -> Pilot:
        """The findings of the pilot, before training."""
        return self.trained.pilot

    @property
    def flow(self) -> Flow:
        """The trained sampler, an `AbstractDistribution`, also where another route answers."""
        return self._checked_draws().flow

    @property
    def samples(self) -> Samples:
        """The flow's samples behind the report, drawn once, from the run's seed, also where another route answers."""
        return self._inside_bounds(self._checked_draws().samples)

    @property
    def log_weights(self) -> Float[np.ndarray, " num"]:
        """The log-weights of `samples`, and of further samples that `config.log_z_error` needs, in double precision."""
        return self._checked_draws().log_weights

    def sample(self, key: PRNGKeyArray, num_samples: int) -> Samples:
        """Draw samples of the route that answers, with their weights. `report().verdict` says whether to trust them.

        Those of the routes "flow" and "mixture" are independent. Those of "smc" are particles of the report's
        populations, and of more where these are too few: two calls share particles.

        Args:
            key: A JAX random key.
            num_samples: How many samples.

        Returns:
            Arrays `x` `(num_samples, dim)`, `log_weight`, `log_prob` and `energy` `(num_samples,)`. Of an energy with
            bounds, x lies inside them, and the other arrays are of x. Of a posterior, x are standard normals, and
            `target.values(x)` the variables.

        Raises:
            InputError: `key` is no key, or `num_samples` no whole number of at least 1.
        """
        key = random_key(key)
        num_samples = whole_number("num_samples", num_samples, at_least=1)
        return self._inside_bounds(self._answer.sample(key, num_samples))

    def correct(self, key: PRNGKeyArray, num_samples: int, method: str = "importance") -> Corrected:
        """Draw equally weighted samples, exact as their number grows wherever the flow has density.

        No method reaches a mode that the flow never visits; `report().verdict` says whether there may be one. Where a
        mixture answers in place of the flow, it is the mixture that is corrected; where sequential Monte Carlo does,
        its particles are returned, which have equal weights, whatever the method.

        Args:
            key: A JAX random key.
            num_samples: How many samples.
            method: "importance" resamples four times as many samples by their weights. "metropolis" takes samples as
                proposals of four Markov chains. "annealed" adds Langevin moves along the learned path, which correct a
                mediocre flow.

        Raises:
            InputError: An argument is of another kind, or `method` is "annealed" after training with the reverse KL,
                which learns no path.
        """
        key = random_key(key)
        num_samples = whole_number("num_samples", num_samples, at_least=1)
        if method not in CORRECTIONS:
            raise InputError(f"a correction is one of {', '.join(CORRECTIONS)}, got {method!r}")
        if method == "annealed" and self.config.loss == "reverse-kl":
            raise InputError("the reverse KL learns no path to anneal along: correct by importance or metropolis")
        return self._inside_bounds(self._answer.correct(key, num_samples, method))

    def _inside_bounds(self, samples: _Points) -> _Points:
        """Samples of an energy with bounds at their points x inside; energy and density are those of x."""
        bounds = getattr(self.target, "bounds", None)
        if bounds is None:
            return samples
        with self.draws.programs.answering():
            x = np.asarray(map_points(bounds.constrain, samples.x), np.float64)
            log_jacobian = np.asarray(map_points(bounds.log_jacobian, samples.x), np.float64)
        changes: dict[str, Any] = {"x": x, "energy": samples.energy + log_jacobian}
        if isinstance(samples, Samples):
            changes["log_prob"] = samples.log_prob - log_jacobian
        return replace(samples, **changes)

    def expectation(self, fn: Callable[[Any], Any], num_samples: int = 0, *, unconstrained: bool = False) -> Any:
        """Estimate E_p[fn(x)] with a standard error, by self-normalized importance weights.

        The error has the samples' own error and the solver's in quadrature. An estimate is not ok where the verdict
        distrusts the run. Samples are processed in batches, so that memory does not grow with their number.

        Args:
            fn: A function of one point `(dim,)` that returns a number, an array, or a pytree of them. Of a posterior, a
                function of the dictionary of its variables by name.
            num_samples: How many new samples to draw; 0 takes the `samples` of the report.
            unconstrained: Give `fn` the point of R^dim that the flow moves, where the target has other coordinates:
                the standard normals of a posterior, or the z of an energy with bounds.

        Returns:
            The pytree of `fn` with an `Estimate` for each leaf.

        Raises:
            InputError: `fn` fails, returns NaN or is no function, or `num_samples` is no whole number of at least 0.
        """
        if not callable(fn):
            raise InputError(f"the observable must be a function of one point, got {shown(fn)}")
        num_samples = whole_number("num_samples", num_samples, at_least=0)
        estimates = self._answer.expect(fn if unconstrained else of_point(self.target, fn), num_samples)
        return jax.tree.map(self._judged, estimates, is_leaf=lambda node: isinstance(node, Estimate))

    def log_z(self) -> Estimate:
        """log ∫ exp(-energy) in nats, with its standard error; not ok where the verdict distrusts the run."""
        return self._judged(self.report().estimates["log_z"])

    def log_bayes_factor(self, other: "Run") -> Estimate:
        """log Z of this run minus that of another, such as a nested model, with their errors in quadrature.

        The estimate is ok only where both are. For posteriors it is the log of the Bayes factor of the two models.

        Raises:
            InputError: `other` is no `Run`.
        """
        if not isinstance(other, Run):
            raise InputError(f"a Bayes factor is taken with another run, got {shown(other)}")
        ours, theirs = self.log_z(), other.log_z()
        reasons = [f"Of {run.name}: {one.reason}" for run, one in ((self, ours), (other, theirs)) if not one.ok]
        return Estimate(
            ours.value - theirs.value,
            float(np.hypot(ours.stderr, theirs.stderr)),
            min(ours.n, theirs.n),
            "difference of two log Z",
            not reasons,
            " ".join(reasons),
        )

    def _judged(self, estimate: Estimate) -> Estimate:
        """The estimate, not ok where the verdict distrusts the run: weights alone cannot see a missing mode."""
        verdict = self.report().verdict
        if verdict.trustworthy or not estimate.ok:
            return estimate
        return replace(estimate, ok=False, reason=verdict.warnings[0])

    @cached_property
    def _report(self) -> Report:
        return report_of(self._checked_draws(), self.name, self.options)

    @property
    def _answer(self) -> Answer:
        """The route that answers. Raises `InputError` where the energy reads other data than in training."""
        return answer_by(self._checked_draws(), self.report().route)

    def report(self) -> Report:
        """Every estimate with its error, exact values where known, the cost, and the verdict."""
        return self._report

    def figures(self) -> list[tuple[str, str, bytes]]:
        """(title, caption, PNG) of each figure of the report."""
        from boltzflow.report.figures import figures  # matplotlib is loaded where a figure is drawn

        answer = None
        if self.report().route != "flow":
            answer = self._answer.sample(stream_key(self.seed, Stream.FIGURES), _NUM_SHOWN)
        return figures(self._checked_draws(), answer)

    def save(self, folder: str | Path) -> None:
        """Write `folder`/checkpoint, which `load` needs to sample and report again. It holds no code.

        What another run has left in the folder, its report too, is removed.

        Raises:
            InputError: `folder` is no path, or a file, or cannot be written, or it holds several seeds, or files of the
                same names that are not from boltzflow.
        """
        folder = folder_path(folder)
        check_writable(folder)
        run_folder.claim_for_checkpoint(folder)
        record = {
            "seed": self.seed,
            "name": self.name,
            "options": self.options,
            "config": asdict(self.config),
            "parts": self.parts.names(),
            "history": self.history,
            "cost": self.trained.cost,
        }
        with self._checked_draws().programs.answering():
            checkpoint.save(folder / CHECKPOINT, self.trained, json.loads(json.dumps(record)))
        remove_others(folder)


def fit(
    target: AbstractDensity,
    *,
    seed: int = 0,
    preset: str = "default",
    config: Config | Mapping[str, Any] | None = None,
    name: str = "",
    options: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    parts: Parts = NO_PARTS,
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
        on_progress: Called with each `Progress`.
        parts: A base, path or field of the user's own.
        keep: A folder for the state of training. After an interruption the same call continues from there and ends with
            the same numbers to the last bit.
        resume: False starts anew in `keep`.

    Raises:
        InputError: The target or a setting cannot be used.
        TrainingError: Training diverges.
    """
    [seed] = check_seeds([seed])
    name, config = _settle(target, preset, config, name)
    programs = _programs_of(target, config, parts)
    return _fit(target, config, seed, programs, name, options, on_progress, parts, keep, resume)


def fit_seeds(
    target: AbstractDensity,
    *,
    seeds: Sequence[int],
    preset: str = "default",
    config: Config | Mapping[str, Any] | None = None,
    name: str = "",
    options: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    parts: Parts = NO_PARTS,
    keep: str | Path | None = None,
    resume: bool = True,
) -> list[Run]:
    """`fit` for each of several seeds, one after another: `boltzflow.fit_seeds(target, seeds=range(5))`.

    Each run is bit for bit that of `fit` with its seed. Programs are compiled once for all seeds.

    Args:
        seeds: Different whole numbers. All other arguments are those of `fit`.
        keep: A folder that has a folder `seed-N` for each seed, used as in `fit`.

    Raises:
        InputError: The seeds, the target or a setting cannot be used.
        SeedsError: Training diverges for some seeds. It is raised after the others are trained, and has their runs.
    """
    seeds = check_seeds(seeds)
    name, config = _settle(target, preset, config, name)
    programs = _programs_of(target, config, parts)
    runs: list[Run] = []
    failures: dict[int, TrainingError] = {}
    for seed in seeds:
        folder = seed_folder(Path(keep), seed) if keep is not None else None
        try:
            runs.append(_fit(target, config, seed, programs, name, options, on_progress, parts, folder, resume))
        except TrainingError as error:
            failures[seed] = error
    if failures:
        raise SeedsError(failures, runs)
    return runs


def _fit(
    target: AbstractDensity,
    config: Config,
    seed: int,
    programs: Programs,
    name: str,
    options: dict[str, Any] | None,
    on_progress: Callable[[Progress], None] | None,
    parts: Parts,
    keep: str | Path | None,
    resume: bool,
) -> Run:
    snapshots = Snapshots(Path(keep), target, config, seed, resume, parts) if keep is not None else None
    trained = train(target, config, seed, programs, on_progress, parts, snapshots)
    return Run(target, config, seed, trained, name, dict(options or {}), parts, programs)


def _programs_of(target: AbstractDensity, config: Config, parts: Parts) -> Programs:
    """The programs of a run, which parts of the user's own share with no other run."""
    return programs_of(target, config.precision, "" if parts == NO_PARTS else f" and parts {next(_parts_seen)}")


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


def load(directory: str | Path, target: AbstractDensity | None = None, parts: Parts = NO_PARTS) -> Run:
    """Load the run in a folder that `boltzflow run` or `Run.save` wrote.

    Args:
        directory: The folder.
        target: The target of a run on a density that only Python knew. Without it a shipped target is made again, and a
            target in a file is imported if the file is unchanged and lies outside the folder.
        parts: The user's own parts, the same as in training.

    Raises:
        InputError: The folder holds no finished run, or its target cannot be made.
    """
    directory = folder_path(directory)
    if target is None:
        target = _recorded_target(directory)
    config = Config(**checkpoint.read_record(directory / CHECKPOINT)["config"])
    programs = _programs_of(target, config, parts)
    with programs.answering():
        trained, record = checkpoint.load(directory / CHECKPOINT, target, parts)
    return Run(target, config, record["seed"], trained, record["name"], record["options"], parts, programs)


def _recorded_target(directory: Path) -> AbstractDensity:
    saved = checkpoint.read_record(directory / CHECKPOINT)
    if not (directory / CONFIG).exists():  # saved from Python
        if saved["name"] not in SHIPPED:
            raise InputError(
                f"{directory} was saved from Python; give its target: boltzflow.load(dir, target), or --target "
                "path/to/file.py:name on the command line"
            )
        return make_target(saved["name"], **saved["options"])
    record = read_record(directory)
    check_record(directory, record, saved)
    return reload_target(
        record.target,
        record.options,
        record.path,
        record.sha256,
        folder=run_folder.seeds_around(directory) or directory,
        where=str(directory),
        advice="give the target: boltzflow.load(dir, target)",
    ).target
