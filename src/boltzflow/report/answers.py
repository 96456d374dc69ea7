"""The answer of a run: the flow's where the verdict trusts it, else that of the best route without a flow.

The routes are tried in this order, and the first one that passes its checks answers:

1. "flow": weighted samples of the flow, alone or pooled with those of a Student t.
2. "mixture": weighted samples of the density fitted to the pilot's points, pooled likewise.
3. "smc": independent populations of sequential Monte Carlo, from that density where it is of use.

Where none passes, the answer is that of sequential Monte Carlo, and it is distrusted.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.numerics.batching import map_points, numpy_generator
from boltzflow.report.draws import Draws
from boltzflow.report.evaluation import evaluate
from boltzflow.report.populations import evaluate_populations
from boltzflow.report.report import Report
from boltzflow.report.samples import Samples
from boltzflow.sampling.corrections import Corrected, correct
from boltzflow.statistics.estimates import Estimate
from boltzflow.statistics.expectations import expect
from boltzflow.statistics.groups import expect_over_groups


class Answer(abc.ABC):
    """Samples and expectations of the route that answers."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, num_samples: int) -> Samples:
        """New samples with their weights."""

    @abc.abstractmethod
    def expect(self, fn: Callable[[Float[Array, " dim"]], Any], num_samples: int) -> Any:
        """E_p[fn(x)] with an `Estimate` for each leaf; from the samples of the report where `num_samples` is 0."""

    @abc.abstractmethod
    def correct(self, key: PRNGKeyArray, num_samples: int, method: str) -> Corrected:
        """New samples of equal weight by one of `corrections.CORRECTIONS`."""


@dataclasses.dataclass(frozen=True)
class WeightedAnswer(Answer):
    """Weighted samples of a flow, or of a fitted mixture, which is a flow that moves nothing."""

    draws: Draws

    def sample(self, key, num_samples):
        return self.draws.answering_samples(key, num_samples)

    def expect(self, fn, num_samples):
        draws = self.draws
        coarse, fine, factor = draws.resolutions
        with draws.programs.of_observable(fn, draws.target.dim):
            estimates = expect(fn, draws.target.dim, draws.batches(num_samples))
            both = [expect(fn, draws.target.dim, [batch]) for batch in (coarse, fine)]

        def with_solver_error(estimate: Estimate, before: Estimate, after: Estimate) -> Estimate:
            change = factor * np.abs(np.subtract(after.value, before.value))
            stderr = np.hypot(estimate.stderr, np.where(np.isfinite(change), change, np.inf))
            return dataclasses.replace(estimate, stderr=stderr[()])

        return jax.tree.map(with_solver_error, estimates, *both, is_leaf=lambda node: isinstance(node, Estimate))

    def correct(self, key, num_samples, method):
        draws = self.draws
        flow = draws.flow
        with draws.programs.answering():
            return correct(flow, draws.trained.transport, draws.target, key, num_samples, method)


@dataclasses.dataclass(frozen=True)
class PopulationAnswer(Answer):
    """Particles of independent populations of SMC, of equal weight within a population."""

    draws: Draws

    def sample(self, key, num_samples):
        """Particles without replacement where they are enough, and else with more populations.

        Their log-density is that of the target, normalized by the estimated log Z: all have the same log-weight.
        """
        populations = self.draws.more_populations(num_samples)
        rng = numpy_generator(key)
        num_of_group = rng.multinomial(num_samples, populations.share)
        parts = []
        for points, num in zip(populations.x, num_of_group, strict=True):
            parts.append(points[rng.permutation(np.resize(np.arange(len(points)), num))])
        x = rng.permutation(np.concatenate(parts))
        with self.draws.programs.answering():
            energy = np.asarray(map_points(self.draws.target.energy, x), np.float64)
        log_z = np.full(len(x), float(populations.log_z.value))
        return Samples(x, log_z, -energy - log_z, energy)

    def expect(self, fn, num_samples):
        populations = self.draws.more_populations(num_samples)
        with self.draws.programs.of_observable(fn, self.draws.target.dim):
            found = expect_over_groups(fn, populations.x, populations.log_z_of_group, populations.num_ancestors)
            if populations.before is None:
                return found
            before = expect_over_groups(fn, *populations.before, populations.num_ancestors)

        def with_change(estimate: Estimate, before: Estimate) -> Estimate:
            """What the last fourfold of the moves changed, beyond the noise of this change, may still be missing."""
            change = np.abs(np.subtract(estimate.value, before.value)) - np.hypot(estimate.stderr, before.stderr)
            return dataclasses.replace(estimate, stderr=np.hypot(estimate.stderr, np.maximum(change, 0.0))[()])

        return jax.tree.map(with_change, found, before, is_leaf=lambda node: isinstance(node, Estimate))

    def correct(self, key, num_samples, method):
        """The particles, which have equal weights whatever the method."""
        found = self.sample(key, num_samples)
        num_distinct = len(np.unique(found.x, axis=0))
        acceptance = self.draws.populations.acceptance
        return Corrected(found.x, found.energy, "sequential Monte Carlo", num_distinct, acceptance)


def answer_by(draws: Draws, route: str) -> Answer:
    """The answer by a route, which a report names."""
    if route == "smc":
        return PopulationAnswer(draws)
    return WeightedAnswer(draws.of_mixture or draws if route == "mixture" else draws)


def report_of(draws: Draws, name: str = "", options: Mapping[str, Any] | None = None) -> Report:
    """The report of a run with the verdict on its answer, after the routes were tried in their order."""
    of_flow = evaluate(draws, name, options)
    if of_flow.verdict.trustworthy or draws.config.route == "flow":
        return of_flow
    if draws.of_mixture:
        of_mixture = evaluate(draws.of_mixture, name, options)
        if of_mixture.verdict.trustworthy:
            return _instead(draws, of_flow, of_mixture, "mixture", "a mixture fitted to the pilot's points")
    return _instead(draws, of_flow, evaluate_populations(draws, of_flow), "smc", "sequential Monte Carlo")


def _instead(draws: Draws, of_flow: Report, found: Report, route: str, what: str) -> Report:
    """The flow's report with the answer and the verdict of another route, and the reason as a note."""
    note = f"The flow is not relied on, and {what} answers. Of the flow: {of_flow.verdict.warnings[0]}"
    of_run = [draws.pilot.coordinates, draws.trained.started.sentence if draws.trained.started else ""]
    told = [sentence for sentence in of_run if sentence and sentence not in found.verdict.notes]
    verdict = dataclasses.replace(found.verdict, notes=(note, *told, *found.verdict.notes))
    answer = found.estimates["log_z"]
    return dataclasses.replace(
        of_flow,
        route=route,
        estimates={**of_flow.estimates, "log_z": answer, f"log_z_{route}": answer},
        verdict=verdict,
        sampler={**of_flow.sampler, route: found.sampler["flow"]},
        cost={name: value + found.cost.get(name, 0) for name, value in of_flow.cost.items()},
    )
