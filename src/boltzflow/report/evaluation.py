"""From a run to its report: every estimate, what is known exactly, and whether to believe any of it.

The verdict is what this module is for. It asks the samples themselves (weights, k̂, solver error), the pilot, which
found points and minima of the target without the flow and asks whether the flow would ever come to them, and exact
answers where there are some. Each check that fails is a sentence; one is enough to distrust the run.
"""

import dataclasses
import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.densities.base import AbstractDistribution, HasModes, sample_batch
from boltzflow.numerics.batching import Stream, map_points, stream_key
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.report.report import Report, Verdict
from boltzflow.report.verdict import Findings, judge
from boltzflow.sampling.coverage import (
    MIN_SHARE,
    Region,
    behind_barriers,
    uncovered_regions,
    uncovered_share,
    weigh_missed_modes,
)
from boltzflow.sampling.flow_smc import FlowSMCSample, run_flow_smc
from boltzflow.sampling.resampling import spread
from boltzflow.statistics import estimates as estimators
from boltzflow.statistics.estimates import Estimate

if TYPE_CHECKING:
    from boltzflow.run import Run

_NUM_FORWARD = 20_000
_NUM_HAUSDORFF = 4096  # the paper's evaluation batch: the distance falls as samples grow
_NUM_PROBE = 1024
_NUM_PARTS = 10
_MIN_ANCESTORS = 100
_MIN_STDERR = 1e-4  # single precision along the path


def evaluate(run: "Run") -> Report:
    """Everything there is to say about a run."""
    start = time.perf_counter()
    samples, target = run.samples, run.target
    log_weight = run.log_weights
    solver_error, numerical_error = solver_errors(run)
    weights = estimators.log_z_importance(log_weight)
    annealed = anneal(run) if run.config.loss == "continuity" else None
    importance = _widened(weights, numerical_error)
    estimates = _from_samples(run, log_weight, importance, numerical_error, annealed) | {"solver_error": solver_error}
    known: dict[str, Estimate] = {}
    if isinstance(target, AbstractDistribution):
        known["log_z"] = estimators.exact(float(target.log_z))
        estimates |= _from_exact_samples(run, target, numerical_error)
    if isinstance(target, HasModes):
        estimates["hausdorff"] = estimators.hausdorff(np.asarray(target.modes), samples.x[:_NUM_HAUSDORFF])
    uncovered, regions, num_unweighed = _uncovered(run, estimates["log_z"].value)
    small = sum(region.share for region in regions if region.points is not None and region.share < MIN_SHARE)
    for name in ("log_z", "log_z_importance"):  # what was weighed and is too little to distrust the run for is known
        estimates[name] = _widened(estimates[name], -float(np.log1p(-small)))
    findings = Findings(
        estimates=estimates,
        known=known,
        ess_count=estimates["reverse_ess"].value * len(log_weight),
        sampling_error=weights.stderr,
        uncovered_share=uncovered,
        regions=regions,
        num_unweighed=num_unweighed,
        pilot_complaints=run.pilot.complaints,
        skipped_share=run.trained.cost.get("skipped_steps", 0) / max(1, run.trained.cost["steps"]),
        sampled_exactly=isinstance(target, AbstractDistribution),
        nonfinite_share=run.pilot.nonfinite_share,
        parts_sigma=_parts_sigma(log_weight),
        asked_error=run.config.log_z_error,
        untrained=run.pilot.enough,
    )
    trustworthy, warnings, notes = judge(findings)
    return Report(
        target={"name": run.name, **run.options, "dim": target.dim},
        seed=run.seed,
        preset=run.config.preset,
        versions=versions(),
        estimates=estimates,
        verdict=Verdict(trustworthy, warnings, notes),
        cost=_cost(run, time.perf_counter() - start, annealed.num_gradients if annealed else 0),
        exact=known,
    )


def _parts_sigma(log_weight: np.ndarray) -> float:
    """How far log Z from a tenth of the samples is from that of the other nine, in errors; the largest of the ten."""
    usable = log_weight[log_weight < np.inf]
    tenths = np.array_split(usable, _NUM_PARTS)
    if min(map(len, tenths)) < estimators.MIN_SAMPLES or not all(np.isfinite(part).any() for part in tenths):
        return 0.0  # too few to say; the weights' own checks speak then
    parts = [estimators.log_z_importance(part) for part in tenths]
    others = [estimators.log_z_importance(np.concatenate(tenths[:i] + tenths[i + 1 :])) for i in range(_NUM_PARTS)]
    return max(estimators.disagreement(part, rest) for part, rest in zip(parts, others, strict=True))


def _uncovered(run: "Run", log_z: float) -> tuple[float, list[Region], int]:
    """What the flow does not cover of the points that the pilot found, from the run's base or from a wide one, and of
    exact samples where there are some: the share of these points, and regions of them; where that is nothing to speak
    of, of the wells around the minima, and how many minima were left."""
    points, wide = (spread(points, _NUM_PROBE) for points in (run.pilot.points, run.pilot.wide_points))
    probes, minima = [points, wide], np.asarray(run.pilot.minima)
    if isinstance(run.target, AbstractDistribution):
        probes.append(sample_batch(run.target, stream_key(run.seed, Stream.COVERAGE), _NUM_PROBE)[0])
    x = jnp.concatenate([*probes, run.pilot.minima])
    excess = -np.asarray(map_points(run.target.energy, x) + map_points(run.flow.log_prob, x)) - log_z
    *parts, last = np.split(excess, np.cumsum([len(probe) for probe in probes]))
    share, points, part = max(
        ((uncovered_share(part), probe, part) for probe, part in zip(probes, parts, strict=True)),
        key=lambda one: one[0],
    )
    regions = uncovered_regions(np.asarray(points), part)
    if share >= MIN_SHARE:
        return share, regions, 0
    scale, key = np.std(np.asarray(wide), axis=0) + 1e-12, stream_key(run.seed, Stream.MISSED_MODES)
    away = behind_barriers(run.target, minima, np.asarray(wide), scale, Stopwatch())
    wells, left = weigh_missed_modes(run.target, run.flow.log_prob, minima[away], last[away], log_z, scale, key)
    # What is behind nothing is a part of what the pilot found, or a hole in the midst of it.
    holes, _ = weigh_missed_modes(run.target, run.flow.log_prob, minima[~away], last[~away], log_z, scale, key)
    return share, [*regions, *wells, *holes], left


def versions() -> dict[str, str]:
    """The versions that produced the numbers, and on what."""
    packages = {name: version(name) for name in ("boltzflow", "jax", "equinox", "diffrax", "optax", "numpy")}
    return packages | {"python": platform.python_version(), "device": str(jax.devices()[0].device_kind)}


def _widened(estimate: Estimate, numerical_error: float) -> Estimate:
    """The error of sampling is not all of it: the solver's bias and rounding do not fall as samples grow."""
    return dataclasses.replace(estimate, stderr=float(np.hypot(estimate.stderr, numerical_error)))


def anneal(run: "Run") -> FlowSMCSample:
    """By Langevin moves along the learned path, which mend what the flow leaves undone."""
    return run_flow_smc(run.trained.transport, stream_key(run.seed, Stream.FLOW_SMC), solver_steps=run.flow.num_steps)


def _from_samples(
    run: "Run", log_weight: np.ndarray, importance: Estimate, numerical_error: float, annealed: FlowSMCSample | None
) -> dict[str, Estimate]:
    estimates = {
        "log_z": importance,
        "log_z_importance": importance,
        "log_z_pilot": Estimate(run.pilot.log_z, run.pilot.log_z_stderr, run.pilot.num_particles, "annealing, no flow"),
    }
    if annealed:
        if not run.pilot.enough:
            estimates["log_z_rate"] = _log_z_rate(run, float(np.std(log_weight[np.isfinite(log_weight)])))
        estimates["log_z_annealed"] = along_path = _log_z_annealed(annealed)
        if along_path.ok and not importance.ok:
            estimates["log_z"] = along_path
    return estimates | {
        "reverse_ess": estimators.reverse_ess(log_weight),
        "reverse_kl": _widened(estimators.reverse_kl(log_weight), numerical_error),
        "pareto_k": estimators.pareto_k(log_weight),
        "tail_excess": estimators.tail_excess(log_weight),
        "largest_weight_share": estimators.largest_weight_share(log_weight),
    }


def _log_z_rate(run: "Run", spread: float) -> Estimate:
    """log Z_0 + ∫ C_t dt (Lemma 1). Its error is one of training and not of sampling: the scatter of log-weights."""
    transport = run.trained.transport
    nodes, weights = np.polynomial.legendre.leggauss(64)
    rates = jax.vmap(transport.log_z_rate)(jnp.asarray((nodes + 1) / 2, jnp.float32))
    value = float(transport.interpolation.base.log_z) + float(np.dot(weights / 2, np.asarray(rates)))
    return Estimate(value, spread, 0, "integral of C_t")


def _log_z_annealed(sample: FlowSMCSample) -> Estimate:
    n, doubt = len(sample.x), ""
    if sample.num_ancestors < _MIN_ANCESTORS or sample.ess * n < _MIN_ANCESTORS:
        doubt = f"Few particles came through: {sample.num_ancestors} ancestors, {sample.ess * n:.0f} effective."
    method = f"annealed along the path, moves of size {sample.step_size:g}"
    return Estimate(sample.log_z, max(sample.log_z_stderr, _MIN_STDERR), n, method, not doubt, doubt)


def solver_errors(run: "Run") -> tuple[Estimate, float]:
    """The mean |change of a sample's log-weight| at twice the solver's steps from the same start, and the numerical
    error of log Z: what its change at twice the steps leaves, and rounding in single precision, in quadrature."""
    coarse_weight, fine_weight = (one.log_weight for one in (run.resolutions.coarse, run.resolutions.fine))
    with np.errstate(invalid="ignore"):
        change = np.abs(fine_weight - coarse_weight)
    stderr = change.std(ddof=1) / np.sqrt(len(change))
    finite = np.isfinite(coarse_weight) & np.isfinite(fine_weight)
    shift = (
        np.logaddexp.reduce(fine_weight[finite]) - np.logaddexp.reduce(coarse_weight[finite]) if finite.any() else 0.0
    )
    estimate = Estimate(float(change.mean()), float(stderr), len(change), "|change of log-weight| at twice the steps")
    rounding = np.finfo(np.float32).eps * float(np.mean(np.abs(run.samples.energy)))
    return estimate, float(np.hypot(run.resolutions.factor * shift, rounding))


def _from_exact_samples(run: "Run", target: AbstractDistribution, numerical_error: float) -> dict[str, Estimate]:
    x, log_prob = sample_batch(target, stream_key(run.seed, Stream.EXACT_SAMPLES), _NUM_FORWARD)
    log_weight = np.asarray(log_prob + float(target.log_z) - map_points(run.flow.log_prob, x), np.float64)
    # Where the flow's density underflows, or its inverse leaves the range of floats, it does not come: q = 0.
    log_weight = np.where(np.isnan(log_weight), np.inf, log_weight)
    forward_ess = estimators.forward_ess(log_weight)
    if not forward_ess.ok:
        reason = f"Its own error bar is in doubt; log Z and expectations do not use it. {forward_ess.reason}"
        forward_ess = dataclasses.replace(forward_ess, reason=reason)
    bounds = estimators.log_z_bounds(run.log_weights, log_weight)
    return {
        "forward_ess": forward_ess,
        "forward_kl": _widened(estimators.forward_kl(log_weight, float(target.log_z)), numerical_error),
        **{name: _widened(bound, numerical_error) for name, bound in bounds.items()},
    }


def _cost(run: "Run", seconds: float, num_gradients: int) -> dict[str, float]:
    """What training cost, and the report's own samples, checks and `num_gradients` of its annealing; not the looks
    into wells that the flow misses."""
    forward = _NUM_FORWARD if isinstance(run.target, AbstractDistribution) else 0
    cost = dict(run.trained.cost)
    cost["total_seconds"] = cost["train_seconds"] + cost["compile_seconds"] + seconds
    cost["gradient_evaluations"] += num_gradients
    probes = (2 + (forward > 0)) * _NUM_PROBE + len(run.pilot.minima)
    cost["energy_evaluations"] = len(run.log_weights) + forward + 2 * len(run.resolutions.coarse.x) + probes
    return cost
