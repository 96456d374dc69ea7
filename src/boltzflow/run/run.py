"""A trained flow and the questions it answers: the `Run` that `fit` and `load` return."""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, coordinates_of, of_point
from boltzflow.densities.energy import Energy
from boltzflow.densities.noncentered import NonCentered
from boltzflow.densities.precision import Programs, energy_fingerprint, programs_of
from boltzflow.errors import InputError
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import Stream, map_points, stream_key
from boltzflow.numerics.stages import following
from boltzflow.numerics.validation import random_key, shown, whole_number
from boltzflow.report.answers import Answer, answer_by, report_of
from boltzflow.report.draws import Draws
from boltzflow.report.report import Report
from boltzflow.report.samples import Samples
from boltzflow.report.stored import remove_others, write_numbers
from boltzflow.run.following import OnProgress, followed
from boltzflow.sampling.corrections import CORRECTIONS, Corrected
from boltzflow.sampling.pilot import Pilot, in_coordinates
from boltzflow.statistics.estimates import Estimate
from boltzflow.storage import run_folder
from boltzflow.storage.files import check_writable, folder_path
from boltzflow.storage.run_folder import CHECKPOINT
from boltzflow.training import checkpoint
from boltzflow.training.build import NO_PARTS, Parts
from boltzflow.training.loop import Progress, Trained
from boltzflow.training.race import with_field
from boltzflow.training.start import Start

if TYPE_CHECKING:
    from boltzflow.report.figures import Plots

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
        programs: The compiled programs of the run; None for new ones.
        measured: The report, where there is one already.
        progress: Whether `report` shows how far it is; None where standard error is a terminal, and in a notebook.
        on_progress: Called with each `Progress` of the report.
    """

    target: AbstractDensity
    config: Config
    seed: int
    trained: Trained
    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    parts: Parts = NO_PARTS
    programs: Programs | None = None
    measured: Report | None = None
    progress: bool | None = None
    on_progress: OnProgress | None = None

    @cached_property
    def draws(self) -> Draws:
        """Everything that the report is made from, each part drawn once."""
        programs = self.programs or programs_for(self.target, self.config, self.parts)
        config = with_field(self.config, self.trained.race)
        known = self.measured.sampler if self.measured else {}
        target = in_coordinates(self.target, self.pilot)
        return Draws(target, config, self.seed, self.trained, programs, known)

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
        """Rows of `step`, `seconds`, `loss`, and at up to twenty looks `reverse_ess`."""
        return self.trained.history

    @property
    def pilot(self) -> Pilot:
        """The findings of the pilot, before training."""
        return self.trained.pilot

    @property
    def flow(self) -> Flow:
        """The trained sampler, an `AbstractDistribution`, also where another route answers.

        Its points are those that the flow moves: standard normals of a posterior, points without bounds, and those of
        non-centered coordinates where `pilot.coordinates` says so. `sample` gives points of the target.
        """
        return self._checked_draws().flow

    @property
    def samples(self) -> Samples:
        """The flow's `config.num_eval_samples` samples, drawn once from the run's seed; the report is made from them.

        They are the flow's also where another route answers; `sample` draws from the route that answers.
        """
        return self._of_user(self._checked_draws().samples)

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
            bounds or periods, x lies inside them, and the other arrays are of x. With periods `log_prob` is the density
            of x and the radii over the known one of the radii, so that `log_weight` is -energy - log_prob. Of a
            posterior, x are standard normals, and `target.values(x)` the variables.

        Raises:
            InputError: `key` is no key, or `num_samples` no whole number of at least 1.
        """
        key = random_key(key)
        num_samples = whole_number("num_samples", num_samples, at_least=1)
        return self._of_user(self._answer.sample(key, num_samples))

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
        return self._of_user(self._answer.correct(key, num_samples, method))

    def _of_user(self, samples: _Points) -> _Points:
        """Samples in the coordinates of the user: energy and density are those of x, inside bounds and periods."""
        moved = self.draws.target
        if isinstance(moved, NonCentered):
            samples = self._mapped(samples, moved)
        target = self.target
        return self._mapped(samples, target) if isinstance(target, Energy) and target.is_mapped else samples

    def _mapped(self, samples: _Points, target: NonCentered | Energy) -> _Points:
        """Samples at the points that a target's own map gives."""
        with self.draws.programs.answering():
            x = np.asarray(map_points(target.constrain, samples.x), np.float64)
            log_jacobian = np.asarray(map_points(target.log_jacobian, samples.x), np.float64)
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
            unconstrained: Give `fn` the target's point of R^dim, where its user has other coordinates: the standard
                normals of a posterior, or the z of an energy with bounds or periods.

        Returns:
            The pytree of `fn` with an `Estimate` for each leaf.

        Raises:
            InputError: `fn` fails, returns NaN or is no function, or `num_samples` is no whole number of at least 0.
        """
        if not callable(fn):
            raise InputError(f"the observable must be a function of one point, got {shown(fn)}")
        num_samples = whole_number("num_samples", num_samples, at_least=0)
        of_target = fn if unconstrained else of_point(self.target, fn)
        moved = self.draws.target
        if isinstance(moved, NonCentered):
            of_target = of_point(moved, of_target)
        estimates = self._answer.expect(of_target, num_samples)
        return jax.tree.map(self._judged, estimates, is_leaf=lambda node: isinstance(node, Estimate))

    def log_z(self) -> Estimate:
        """log ∫ exp(-energy) in nats, with its standard error; not ok where the verdict distrusts the run."""
        return self._judged(self.report().estimates["log_z"])

    def log_z_gradient(self, slope: Callable[[Any], Any], num_samples: int = 0) -> Any:
        """Estimate ∂ log Z/∂λ = -E_p[∂f/∂λ] for parameters λ of the energy f, with a standard error.

        At the values of λ that the run was trained at, it is the slope of log Z, as of a free energy in a coupling.

        Args:
            slope: ∂f/∂λ as a function of one point, as in `expectation`: a number, an array, or a pytree of them.
            num_samples: How many new samples to draw; 0 takes the `samples` of the report.

        Returns:
            The pytree of `slope` with an `Estimate` for each leaf.

        Raises:
            InputError: As in `expectation`.
        """

        def negative(estimate: Estimate) -> Estimate:
            return replace(estimate, value=-estimate.value)

        estimates = self.expectation(slope, num_samples)
        return jax.tree.map(negative, estimates, is_leaf=lambda node: isinstance(node, Estimate))

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

    @property
    def _answer(self) -> Answer:
        """The route that answers. Raises `InputError` where the energy reads other data than in training."""
        return answer_by(self._checked_draws(), self.report().route)

    def report(
        self, *, again: bool = False, progress: bool | None = None, on_progress: OnProgress | None = None
    ) -> Report:
        """Every estimate with its error, exact values where known, the cost, and the verdict.

        It is measured when it is first asked for, and kept. A loaded run has the report that lies in its folder.

        Args:
            again: Measure it anew.
            progress: As in `fit`; None as the run was made.
            on_progress: As in `fit`; None as the run was made.
        """
        if again and self.measured:
            self.measured = None
            self.__dict__.pop("draws", None)  # which knows what the earlier report has found
        if self.measured is None:
            with followed(self.progress if progress is None else progress, on_progress or self.on_progress) as show:
                self.measured = self._measure(show)
        return self.measured

    def _measure(self, show: OnProgress) -> Report:
        start = time.perf_counter() - self.trained.cost.get("train_seconds", 0.0)
        steps = int(self.trained.cost.get("steps", 0))

        def tell(stage: str, share: float | None) -> None:
            show(Progress("evaluate", steps, steps, time.perf_counter() - start, message=stage, share=share))

        with following(tell):
            tell("", 0.0)
            return report_of(self._checked_draws(), self.name, self.options)

    @property
    def plot(self) -> "Plots":
        """Pictures of the run as matplotlib figures: `run.plot.path()`, `training`, `weights`, `marginals`, `corner`,
        `energy`."""
        from boltzflow.report.figures import Plots  # matplotlib is loaded where a figure is drawn

        return Plots(self._checked_draws(), self._shown)

    def _shown(self) -> Samples | None:
        """Samples of the route that answers, where that is not the flow."""
        if self.report().route == "flow":
            return None
        return self._answer.sample(stream_key(self.seed, Stream.FIGURES), _NUM_SHOWN)

    def figures(self) -> list[tuple[str, str, bytes]]:
        """(title, caption, PNG) of each figure of the report."""
        return self.plot.of_report()

    def __repr__(self) -> str:
        return "\n  ".join([f"<Run: {self._title}", *self._lines]) + ">"

    def _repr_html_(self) -> str:
        return "<br>".join([f"<b>{escape(self._title)}</b>", *map(escape, self._lines)])

    @property
    def _title(self) -> str:
        options = [f"{name} {value}" for name, value in self.options.items() if name != "dim"]
        name = self.name or type(self.target).__name__
        dim = f"dim {coordinates_of(self.target)}"
        return ", ".join([name, *options, dim, f"seed {self.seed}, preset {self.config.preset}"])

    @property
    def _lines(self) -> list[str]:
        """What the report says, which is measured when it is asked for and not here."""
        if self.measured:
            return self.measured.lines
        losses = [row["loss"] for row in self.history[-1:]]
        trained = f"{self.trained.cost.get('steps', 0):,.0f} steps" + "".join(f", loss {loss:.4g}" for loss in losses)
        return [trained, "not measured yet: log_z(), report() and expectation() do it"]

    def save(self, folder: str | Path) -> None:
        """Write `folder`/checkpoint, which `load` needs, and report.json if the report was measured. No file is code.

        What another run has left in the folder, its report too, is removed.

        Raises:
            InputError: `folder` is no path, or a file, or cannot be written, or it holds several seeds, or files of the
                same names that are not from boltzflow.
        """
        folder = folder_path(folder)
        check_writable(folder)
        run_folder.claim_for_checkpoint(folder)
        with self._checked_draws().programs.answering():
            checkpoint.save(folder / CHECKPOINT, self.trained, self._record())
        remove_others(folder)
        if self.measured:
            write_numbers(folder, self.measured)

    def as_start(self) -> Start:
        """What another run takes over that starts from this one.

        Raises:
            InputError: The energy reads other data than when the run was trained.
        """
        with self._checked_draws().programs.answering():
            identity = checkpoint.identity(self.trained, self._record())
        return Start(
            target=self.target,
            config=with_field(self.config, self.trained.race),
            parts=self.parts.names(),
            transport=self.trained.transport,
            pilot=self.trained.pilot,
            run=identity,
            name=self._title,
        )

    def _record(self) -> dict[str, Any]:
        """What is kept of a run beside its arrays, as it is read back."""
        record = {
            "seed": self.seed,
            "name": self.name,
            "options": self.options,
            "config": asdict(self.config),
            "parts": self.parts.names(),
            "history": self.history,
            "cost": self.trained.cost,
        }
        return json.loads(json.dumps(record))


def programs_for(target: AbstractDensity, config: Config, parts: Parts) -> Programs:
    """The programs of a run, which parts of the user's own share with no other run."""
    return programs_of(target, config.precision, "" if parts == NO_PARTS else f" and parts {next(_parts_seen)}")
