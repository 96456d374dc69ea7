"""A finished run: samples, expectations, log Z, a report; and the way to a folder and back."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.config import PRESETS, Config, make_preset, validate_config
from boltzflow.densities.base import AbstractDensity, sample_batch
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.from_file import reload_target
from boltzflow.errors import InputError, SeedsError, TrainingError
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import Stream, map_points, stream_key
from boltzflow.numerics.validation import whole_number
from boltzflow.report.draws import Resolutions, two_resolutions, with_sufficient_steps
from boltzflow.report.evaluation import evaluate
from boltzflow.report.figures import figures
from boltzflow.report.report import Report
from boltzflow.sampling.corrections import Corrected, correct
from boltzflow.sampling.pilot import Pilot
from boltzflow.statistics import estimates as estimators
from boltzflow.statistics.estimates import Estimate
from boltzflow.statistics.expectations import expect
from boltzflow.storage.run_folder import CHECKPOINT, CONFIG, read_record
from boltzflow.training import checkpoint
from boltzflow.training.build import NO_PARTS, Parts, make_flow
from boltzflow.training.loop import Progress, Trained, train
from boltzflow.training.snapshots import Snapshots

_STREAM_BATCH = 2**15
_MOST_OF_A_FLOW = 2**20  # samples for log Z alone: half a minute, where those of a mixture take a second


@dataclass(frozen=True)
class Samples:
    """Independent samples of the flow with all that is needed to weigh them.

    `x` of shape `(num, dim)`; `log_prob` of the flow, `energy` of the target and `log_weight = -energy - log_prob`,
    each of shape `(num,)`.
    """

    x: Float[Array, "num dim"]
    log_weight: Float[Array, " num"]
    log_prob: Float[Array, " num"]
    energy: Float[Array, " num"]


@dataclass
class Run:
    """What `fit` returns: a trained flow and the questions it answers.

    `name` and `options` describe the target for the records; `history` has a row for every few steps.
    """

    target: AbstractDensity
    config: Config
    seed: int
    trained: Trained
    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    parts: Parts = NO_PARTS

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of `step`, `seconds`, `loss`, and now and then `reverse_ess`."""
        return self.trained.history

    @property
    def pilot(self) -> Pilot:
        """What was found before training."""
        return self.trained.pilot

    @cached_property
    def flow(self) -> Flow:
        """The sampler, an `AbstractDistribution`."""
        flow = make_flow(self.config, self.trained.transport)
        if self.config.sample_steps:
            return flow
        return with_sufficient_steps(flow, self.target, stream_key(self.seed, Stream.SOLVER_STEPS))

    def sample(self, key: PRNGKeyArray, num_samples: int) -> Samples:
        """`num_samples` independent samples with their weights; `report().verdict` says whether to trust these."""
        x, log_prob = sample_batch(self.flow, key, num_samples)
        energy = map_points(self.target.energy, x)
        return Samples(x, -energy - log_prob, log_prob, energy)

    def correct(self, key: PRNGKeyArray, num_samples: int, method: str = "importance") -> Corrected:
        """`num_samples` equally weighted samples, exact as their number grows where the flow comes at all.

        `method`: "importance" resamples four times as many by their weights, "metropolis" takes them as proposals of
        Markov chains, "annealed" adds Langevin moves along the learned path, which mend a mediocre flow. None of them
        comes to a mode that the flow never visits: whether there may be one is what `report().verdict` says. Raises
        `InputError` for another method, and for "annealed" after training with the reverse KL, which learns no path.
        """
        num_samples = whole_number("num_samples", num_samples, at_least=1)
        if method == "annealed" and self.config.loss == "reverse-kl":
            raise InputError("the reverse KL learns no path to anneal along: correct by importance or metropolis")
        return correct(self.flow, self.trained.transport, self.target, key, num_samples, method)

    @cached_property
    def samples(self) -> Samples:
        """The `config.num_eval_samples` samples behind the report, drawn once, from the run's seed."""
        return self.sample(stream_key(self.seed, Stream.REPORT_SAMPLES), self.config.num_eval_samples)

    @cached_property
    def log_weights(self) -> np.ndarray:
        """The log-weights of `samples`, `(num,)` in double precision; where `config.log_z_error` asks for more samples
        than these, up to 2²⁴ or, of a flow that was trained, 2²⁰, theirs besides: of them nothing else is kept."""
        found = np.asarray(self.samples.log_weight, np.float64)
        most = estimators.MOST_SAMPLES if self.pilot.enough else _MOST_OF_A_FLOW
        num = estimators.samples_for(self.config.log_z_error, found, most)
        parts = [found]
        for start in range(len(found), num, _STREAM_BATCH):
            key = jax.random.fold_in(stream_key(self.seed, Stream.MORE_WEIGHTS), start)
            more = self.sample(key, min(_STREAM_BATCH, num - start))
            parts.append(np.asarray(more.log_weight, np.float64))
        return np.concatenate(parts)

    @cached_property
    def resolutions(self) -> Resolutions:
        """Samples from the same start in the flow's own steps and in twice as many: what they differ in is the solver's
        error."""
        return two_resolutions(self.flow, self.target, stream_key(self.seed, Stream.RESOLUTIONS))

    def expectation(self, fn: Callable[[Float[Array, " dim"]], Any], num_samples: int = 0) -> Any:
        """E_p[fn(x)] by self-normalized importance weights: an `Estimate` for each number or array that `fn` returns.

        `fn` takes one point and returns a number, an array, or a tree of them (a dictionary, say). `num_samples` 0
        takes the `samples` of the report; any other number is drawn, weighed and let go of batch by batch, so that it
        may be as large as one has time for. The error is that of the samples and, in quadrature, the solver's. Not ok
        where the verdict distrusts the run. Raises `InputError` where `fn` fails or returns NaN.
        """
        estimates = expect(fn, self.target.dim, self._batches(num_samples))
        coarse, fine, factor = self.resolutions
        both = (expect(fn, self.target.dim, [batch]) for batch in (coarse, fine))

        def with_solver_error(estimate: Estimate, before: Estimate, after: Estimate) -> Estimate:
            change = factor * np.abs(np.subtract(after.value, before.value))
            stderr = np.hypot(estimate.stderr, np.where(np.isfinite(change), change, np.inf))
            return self._vouched(replace(estimate, stderr=stderr[()]))

        return jax.tree.map(with_solver_error, estimates, *both, is_leaf=lambda node: isinstance(node, Estimate))

    def _batches(self, num_samples: int) -> Iterable[tuple[Array, Array]]:
        if num_samples == 0:
            yield self.samples.x, self.samples.log_weight
        whole_number("num_samples", num_samples, at_least=0)
        for start in range(0, num_samples, _STREAM_BATCH):
            key = jax.random.fold_in(stream_key(self.seed, Stream.EXPECTATIONS), start // _STREAM_BATCH)
            samples = self.sample(key, min(_STREAM_BATCH, num_samples - start))
            yield samples.x, samples.log_weight

    def log_z(self) -> Estimate:
        """log ∫ exp(-energy), by importance weights over `samples`; not ok where the verdict distrusts the run."""
        return self._vouched(self.report().estimates["log_z"])

    def _vouched(self, estimate: Estimate) -> Estimate:
        """Weights alone cannot see a missing mode: an estimate is as good as the run it comes from."""
        verdict = self.report().verdict
        if verdict.trustworthy or not estimate.ok:
            return estimate
        return replace(estimate, ok=False, reason=verdict.warnings[0])

    @cached_property
    def _report(self) -> Report:
        return evaluate(self)

    def report(self) -> Report:
        """Every estimate with its error, exact values where known, the cost, and the verdict."""
        return self._report

    def figures(self) -> list[tuple[str, str, bytes]]:
        """(title, caption, PNG) of each picture of the report."""
        return figures(self)

    def save(self, folder: str | Path) -> None:
        """Write `folder`/checkpoint: what `load` needs to sample and report again. Nothing in it is code."""
        record = {"seed": self.seed, "name": self.name, "options": self.options, "config": asdict(self.config)}
        record |= {"parts": self.parts.names(), "history": self.history, "cost": self.trained.cost}
        checkpoint.save(Path(folder) / CHECKPOINT, self.trained, json.loads(json.dumps(record)))


def fit(
    target: AbstractDensity,
    *,
    seed: int = 0,
    preset: str = "default",
    config: Config | None = None,
    name: str = "",
    options: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    parts: Parts = NO_PARTS,
    keep: str | Path | None = None,
    resume: bool = True,
) -> Run:
    """Learn a flow to `target`: `boltzflow.fit(target).log_z()` is an answer, with no number that must be tuned.

    The same seed gives the same numbers on the same machine. `config` overrides `preset`; `parts`
    are a base, path or field of your own. `keep` is a folder in which training keeps where it stands: after an
    interruption the same call goes on from there, and ends with the same numbers to the last bit; with `resume` False
    it starts anew. Raises `InputError`
    for a target or preset that cannot be used and `TrainingError` when training diverges.
    """
    [seed] = _check_seeds([seed])
    name, config = _settle(target, preset, config, name)
    snapshots = Snapshots(Path(keep), target, config, [seed], resume, parts) if keep is not None else None
    outcome = train(target, config, [seed], on_progress, parts, snapshots)[seed]
    if isinstance(outcome, TrainingError):
        raise outcome
    return Run(target, config, seed, outcome, name, dict(options or {}), parts)


def fit_seeds(
    target: AbstractDensity,
    *,
    seeds: Sequence[int],
    preset: str = "default",
    config: Config | None = None,
    name: str = "",
    options: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    parts: Parts = NO_PARTS,
    keep: str | Path | None = None,
    resume: bool = True,
) -> list[Run]:
    """What `fit` gives for each of `seeds`, trained side by side: `boltzflow.fit_seeds(target, seeds=range(5))`.

    Each seed has its own pilot, base, networks and random numbers, and its run is the one it would have alone, up to
    rounding (which training amplifies). The seconds in its cost are those of all; `keep` and `resume` are as
    in `fit`. Raises `InputError` for seeds that
    are not different whole numbers, a target or preset that cannot be used; and where seeds diverge, after the others
    are trained, a `SeedsError` that names them and has the runs of the others.
    """
    seeds = _check_seeds(seeds)
    name, config = _settle(target, preset, config, name)
    runs, failures = [], {}
    snapshots = Snapshots(Path(keep), target, config, seeds, resume, parts) if keep is not None else None
    for seed, outcome in train(target, config, seeds, on_progress, parts, snapshots).items():
        if isinstance(outcome, TrainingError):
            failures[seed] = outcome
        else:
            runs.append(Run(target, config, seed, outcome, name, dict(options or {}), parts))
    if failures:
        raise SeedsError(failures, runs)
    return runs


def _check_seeds(seeds: Sequence[int]) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise InputError(f"seeds must be a sequence of whole numbers, as in range(5), got {seeds!r}")
    checked = [whole_number("a seed", seed, at_least=0, at_most=2**32 - 1) for seed in seeds]
    if not checked or len(set(checked)) < len(checked):
        raise InputError(f"seeds must be one or more different whole numbers, got {checked}")
    return checked


def _settle(target: AbstractDensity, preset: str, config: Config | None, name: str) -> tuple[str, Config]:
    """The name and the settings of a run, validated."""
    if not isinstance(target, AbstractDensity):
        raise InputError(
            f"Expected a density, got {type(target).__name__}: wrap a function as boltzflow.Energy(function, dim)."
        )
    if preset not in PRESETS:
        raise InputError(f"Unknown preset {preset!r}: expected one of {', '.join(PRESETS)}.")
    if preset == "paper" and config is None and not name:
        if not isinstance(target, DoubleWell):
            raise InputError('The preset "paper" depends on the target: give its name, as in name="mixture-2".')
        name = "double-well"
    config = config or make_preset(preset, name, target.dim)
    validate_config(config)
    return name or type(target).__name__, config


def load(directory: str | Path, target: AbstractDensity | None = None, parts: Parts = NO_PARTS) -> Run:
    """The run in a folder that `boltzflow run` or `Run.save` wrote.

    Without `target` a shipped one is made again, and one in a file is imported if the file is the same as then; give
    the `target` of a run on a density that only Python knew, and the `parts` that were one's own. Raises `InputError`
    where the folder holds no finished run, or its target cannot be had.
    """
    directory = Path(directory)
    if target is None:
        target = _recorded_target(directory)
    trained, record = checkpoint.load(directory / CHECKPOINT, target, parts)
    config = Config(**record["config"])
    return Run(target, config, record["seed"], trained, record["name"], record["options"], parts)


def _recorded_target(directory: Path) -> AbstractDensity:
    saved = checkpoint.read_record(directory / CHECKPOINT)
    if not (directory / CONFIG).exists():  # saved from Python
        if saved["name"] not in SHIPPED:
            raise InputError(f"{directory} was saved from Python; give its target: boltzflow.load(dir, target)")
        return make_target(saved["name"], **saved["options"])
    record = read_record(directory)
    return reload_target(record.target, record.options, record.path, record.sha256, where=str(directory))
