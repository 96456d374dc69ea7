"""What a report is made from: the flow, its samples with their log-weights, and the same samples at two resolutions.

Evaluation and figures take `Draws`. Everything in it is drawn once, when it is first needed, from random streams of the
run's seed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, AbstractDistribution, lattice_of
from boltzflow.densities.noncentered import NonCentered
from boltzflow.densities.precision import Programs, rounding_error
from boltzflow.model.flow import Flow, sample_flow, with_resolution
from boltzflow.model.integrate import SOLVERS
from boltzflow.numerics.batching import BATCH_SIZE, Stream, map_points, numpy_generator, stream_key
from boltzflow.numerics.stages import advance, stage
from boltzflow.numerics.tracing import num_operations
from boltzflow.numerics.validation import whole_number
from boltzflow.report.samples import Samples
from boltzflow.sampling.pilot import Pilot, with_fitted_base, with_fitted_mixture, with_wide_part
from boltzflow.sampling.pooling import Pool, heavy_tailed, num_heavy, pool
from boltzflow.sampling.populations import Populations, grown, run_populations
from boltzflow.statistics.estimates import MOST_SAMPLES, log_z_importance, log_z_pooled, pareto_k, samples_for
from boltzflow.statistics.expectations import Batch
from boltzflow.training.build import NO_PARTS, make_flow, make_transport
from boltzflow.training.loop import Trained

_STREAM_BATCH = 2**15
_MOST_OF_A_FLOW = 2**20  # samples for log Z alone: half a minute, where those of a mixture take a second
_COMPARED = 4096  # pooled samples where the flow answers: a check
MAX_K_OF_FLOW = 0.5  # above it the pooled samples answer, if they can
_LEAST_SHARE = 0.02  # of effective samples of a mixture, to be looked at
_ERROR_OF_SMC = 0.01  # of log Z by sequential Monte Carlo, where none is asked for
_OPERATIONS = 3e10  # numbers that a core computes in about a minute, energies and moves together
_OPERATIONS_OF_A_MOVE = 400.0
_MOST_CHEAP = 2.0**26
FIRST_STEPS = 8
_MOST_STEPS = 128
_TOLERANCE = 1e-4  # mean |change of a log-weight| at twice the steps; of a fourth-order method a sixteenth is left then


class Weighted(NamedTuple):
    """Points and their log-weights -energy - log q, in double precision."""

    x: Float[np.ndarray, "num dim"]
    log_weight: Float[np.ndarray, " num"]


class Resolutions(NamedTuple):
    """The same starting points carried in the flow's own number of steps, and in twice as many.

    The error that a method of order p still has is `factor` = 2ᵖ / (2ᵖ - 1) times the change between the two.
    """

    coarse: Weighted
    fine: Weighted
    factor: float


@dataclass
class Draws:
    """The flow of a trained run and everything that is drawn from it; the target is in the coordinates of the pilot."""

    target: AbstractDensity
    config: Config
    seed: int
    trained: Trained
    programs: Programs
    known: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # `Report.sampler` of an earlier report

    @property
    def found(self) -> dict[str, Any]:
        """What another process need not find again: the number of solver steps, and whether pooled samples answer."""
        return {"solver_steps": self.flow.num_steps, "pooled": self.answers_pooled}

    @property
    def _known(self) -> Mapping[str, Any]:
        return self.known.get("flow", {})

    @property
    def pilot(self) -> Pilot:
        """The pilot's findings."""
        return self.trained.pilot

    def of_target(self, points: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, "num dim"]:
        """Points that the flow moves, in the target's own coordinates."""
        if not isinstance(self.target, NonCentered):
            return points
        with self.programs.answering():
            return np.asarray(map_points(self.target.constrain, points), np.float64)

    def log_jacobian(self, points: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, " num"]:
        """The target's own energy at points that the flow moves, minus their energy in its coordinates."""
        if not isinstance(self.target, NonCentered):
            return np.zeros(len(points))
        with self.programs.answering():
            return np.asarray(map_points(self.target.log_jacobian, points), np.float64)

    @property
    def flow(self) -> Flow:
        """The sampler, with as many solver steps as its measured error needs where the settings leave them open."""
        return self._chosen[0]

    @cached_property
    def _chosen(self) -> tuple[Flow, Resolutions | None]:
        """The sampler, and the samples by which its number of steps was chosen, where it was."""
        flow = make_flow(self.config, self.trained.transport)
        if self.config.sample_steps:
            return flow, None
        if steps := self._known.get("solver_steps"):
            return with_resolution(flow, steps), None
        with self.programs.answering():
            return with_sufficient_steps(flow, self.target, stream_key(self.seed, Stream.SOLVER_STEPS))

    def sample(self, key: PRNGKeyArray, num_samples: int) -> Samples:
        """Independent samples of the flow with their weights."""
        num_samples = whole_number("num_samples", num_samples, at_least=1)
        flow = self.flow
        with self.programs.answering():
            x, log_prob = sample_flow(flow, key, num_samples)
            energy = map_points(self.target.energy, x)
        found = [np.asarray(array, np.float64) for array in (x, log_prob, energy)]
        return Samples(found[0], -found[2] - found[1], found[1], found[2])

    @cached_property
    def samples(self) -> Samples:
        """The `config.num_eval_samples` samples behind the report."""
        return self.sample(stream_key(self.seed, Stream.REPORT_SAMPLES), self.config.num_eval_samples)

    @cached_property
    def log_weights(self) -> Float[np.ndarray, " num"]:
        """The log-weights of `samples` in double precision, and of further samples that a target error of log Z needs.

        Of the further samples, 2²⁴ at most or 2²⁰ of a trained flow, nothing but their log-weights is kept.
        """
        found = self.samples.log_weight
        most = MOST_SAMPLES if self.pilot.enough else _MOST_OF_A_FLOW
        num = samples_for(self.config.log_z_error, found, most)
        parts = [found]
        for start in range(len(found), num, _STREAM_BATCH):
            key = jax.random.fold_in(stream_key(self.seed, Stream.MORE_WEIGHTS), start)
            more = self.sample(key, min(_STREAM_BATCH, num - start))
            parts.append(more.log_weight)
            advance(start / num)
        return np.concatenate(parts)

    @cached_property
    def heavy(self) -> Flow:
        """The flow from a Student t in place of its base."""
        key = jax.random.fold_in(stream_key(self.seed, Stream.HEAVY_TAILS), 1)
        flow = self.flow
        with self.programs.answering():
            return heavy_tailed(flow, lattice_of(self.target), key)

    @cached_property
    def pool(self) -> Pool:
        """Samples pooled with those of `heavy`: few, for comparison, where the flow's own weights have a variance."""
        num = min(_COMPARED, len(self.samples.x)) if self._has_variance else len(self.samples.x)
        return self._pooled(self.samples, num, stream_key(self.seed, Stream.HEAVY_TAILS))

    def _pooled(self, samples: Samples, total: int, key: PRNGKeyArray) -> Pool:
        num = num_heavy(total)
        kept = total - num
        x, log_prob, energy = samples.x[:kept], samples.log_prob[:kept], samples.energy[:kept]
        flow, heavy = self.flow, self.heavy
        with self.programs.answering():
            return pool(x, log_prob, energy, flow, self.target, heavy, key, num)

    @cached_property
    def _has_variance(self) -> bool:
        return log_z_importance(self.log_weights).ok and pareto_k(self.log_weights).value <= MAX_K_OF_FLOW

    @cached_property
    def answers_pooled(self) -> bool:
        """Whether pooled samples answer: where the flow's weights may have no variance, and those of the pool do."""
        if "pooled" in self._known:
            return self._known["pooled"]
        return not self._has_variance and log_z_pooled(self.pool.log_weight, self.pool.control, self.pool.bound).ok

    def batches(self, num_samples: int) -> Iterator[Batch]:
        """Points and log-weights of the route that answers, batch by batch.

        They are those of the report, or `num_samples` new ones where it is not 0.
        """
        num_samples = whole_number("num_samples", num_samples, at_least=0)
        if num_samples == 0:
            yield _batch(self.pool if self.answers_pooled else self.samples)
        for start in range(0, num_samples, _STREAM_BATCH):
            key = jax.random.fold_in(stream_key(self.seed, Stream.EXPECTATIONS), start // _STREAM_BATCH)
            samples = self.sample(key, min(_STREAM_BATCH, num_samples - start))
            if self.answers_pooled:
                yield _batch(self._pooled(samples, len(samples.x), jax.random.fold_in(key, 1)))
            else:
                yield _batch(samples)

    def answering_samples(self, key: PRNGKeyArray, num_samples: int) -> Samples:
        """New samples of the flow, pooled with those of a Student t where these answer, in a random order."""
        samples = self.sample(key, num_samples)
        if not self.answers_pooled:
            return samples
        found = self._pooled(samples, num_samples, jax.random.fold_in(key, 1))
        order = numpy_generator(key).permutation(num_samples)
        x, log_weight = found.x[order], found.log_weight[order]
        with self.programs.answering():
            energy = np.asarray(map_points(self.target.energy, x), np.float64)
        return Samples(x, log_weight, -energy - log_weight, energy)

    # --- routes without a flow ---

    @cached_property
    def of_mixture(self) -> "Draws | None":
        """The draws of the mixture fitted to the pilot's points; None where few of its samples are effective."""
        if self.pilot.enough:
            return None
        key = stream_key(self.seed, Stream.MIXTURE)
        stage("fitting a mixture to the pilot's points")
        with self.programs.answering():
            pilot, fitted = with_fitted_mixture(self._own_pilot, self.target, key)
            if fitted.share < _LEAST_SHARE:
                return None
            transport = make_transport(self.config, NO_PARTS, self.target, pilot, key)
        cost = dict.fromkeys(self.trained.cost, 0.0) | {"gradient_evaluations": fitted.num_energies}
        known = {"flow": self.known.get("mixture", {})}
        return Draws(self.target, self.config, self.seed, Trained(transport, pilot, [], cost), self.programs, known)

    @cached_property
    def populations(self) -> Populations:
        """Independent populations of SMC without a flow."""
        error = self.config.log_z_error or _ERROR_OF_SMC
        key = stream_key(self.seed, Stream.POPULATIONS)
        with self.programs.answering():
            most = max(self.trained.cost["gradient_evaluations"], min(_MOST_CHEAP, self._affordable_gradients()))
            return run_populations(self.target, self._base_of_smc, key, error=error, most_gradients=most)

    def more_populations(self, num_samples: int) -> Populations:
        """The populations, and more of them until there are at least `num_samples` particles."""
        with self.programs.answering():
            return grown(self.populations, self.target, self._base_of_smc, num_samples)

    @cached_property
    def _base_of_smc(self) -> AbstractDistribution:
        """The fitted mixture where it is of use, or else the pilot's base, in equal parts with a wide Gaussian."""
        own = self._own_pilot
        base = self.of_mixture.pilot.base if self.of_mixture else own.base
        with self.programs.answering():
            return with_wide_part(base, own, self.target)

    @cached_property
    def _own_pilot(self) -> Pilot:
        with self.programs.answering():
            return with_fitted_base(self.pilot, self.target)

    def _affordable_gradients(self) -> float:
        """How many gradients of the energy, with the moves between them, take about a minute."""
        point = jax.ShapeDtypeStruct((self.target.dim,), jax.dtypes.canonicalize_dtype(float))
        operations = num_operations(jax.value_and_grad(self.target.energy), point)
        return _OPERATIONS / (operations + self.target.dim**2 + _OPERATIONS_OF_A_MOVE)

    @cached_property
    def resolutions(self) -> Resolutions:
        """Samples from the same starting points in the flow's own steps and in twice as many.

        They are those of the search for the number of steps, drawn again where there was none.
        """
        flow, found = self._chosen
        if found:
            return found
        with self.programs.answering():
            return two_resolutions(flow, self.target, stream_key(self.seed, Stream.SOLVER_STEPS))

    @cached_property
    def rounding(self) -> float:
        """The error of log Z from the rounding of the energy, measured at points of the pilot."""
        with self.programs.answering():
            return rounding_error(self.target, np.asarray(self.pilot.points))


def _batch(answer: Pool | Samples) -> Batch:
    if isinstance(answer, Pool):
        return answer.x, answer.log_weight, answer.bound
    return answer.x, answer.log_weight


def two_resolutions(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> Resolutions:
    """8192 samples at both resolutions: flows of any resolution start from the same points at the same key."""
    fine = with_resolution(flow, 2 * flow.num_steps)
    return _compared(flow, _weighted(flow, target, key), _weighted(fine, target, key))


def _compared(flow: Flow, coarse: Weighted, fine: Weighted) -> Resolutions:
    power = 2.0 ** SOLVERS[flow.solver].order
    return Resolutions(coarse, fine, power / (power - 1))


def with_sufficient_steps(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> tuple[Flow, Resolutions | None]:
    """`flow` with the fewest of 8, 16, 32, ... solver steps whose measured error is small enough, and its samples.

    The samples are those of `two_resolutions`; None where no steps beyond the last were tried. Doubling these steps
    changes a sample's log-weight by at most 10⁻⁴ on average. The search ends at 128 steps, or where rounding stops the
    convergence; the verdict judges the change.
    """
    coarse = with_resolution(flow, FIRST_STEPS)
    before = _weighted(coarse, target, key)
    last = np.inf
    while coarse.num_steps < _MOST_STEPS:
        fine = with_resolution(flow, 2 * coarse.num_steps)
        after = _weighted(fine, target, key)
        with np.errstate(invalid="ignore"):
            changes = np.abs(after.log_weight - before.log_weight)
            change = np.nanmean(changes) if np.isfinite(changes).any() else 0.0
        if change <= _TOLERANCE or change > last / 2:
            return coarse, _compared(coarse, before, after)
        coarse = fine
        before = after
        last = change
    return coarse, None


def _weighted(flow: Flow, target: AbstractDensity, key: PRNGKeyArray) -> Weighted:
    x, log_prob = sample_flow(flow, key, BATCH_SIZE)
    return Weighted(
        np.asarray(x), -np.asarray(map_points(target.energy, x), np.float64) - np.asarray(log_prob, np.float64)
    )
