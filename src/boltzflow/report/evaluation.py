"""From the draws of a run to its report: every estimate, the known values, and the findings that the verdict judges."""

import dataclasses
import functools
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from boltzflow.densities.base import AbstractDistribution, HasModes, coordinates_of, sample_batch
from boltzflow.densities.precision import shift_of_single
from boltzflow.model.flow import flow_log_prob
from boltzflow.numerics.batching import Stream, map_points, numpy_generator, stream_key
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.stages import stage
from boltzflow.report.draws import Draws
from boltzflow.report.report import Report, Verdict
from boltzflow.report.verdict import Findings, checks_of, judge, unchecked
from boltzflow.sampling.coverage import (
    MIN_SHARE,
    Region,
    behind_barriers,
    uncovered_regions,
    uncovered_share,
    weigh_missed_modes,
)
from boltzflow.sampling.flow_smc import FlowSMCSample, run_flow_smc
from boltzflow.sampling.pooling import num_heavy
from boltzflow.sampling.resampling import spread, systematic_in_double
from boltzflow.sampling.settling import FIRST_BATCH, settle
from boltzflow.statistics.estimates import (
    MIN_SAMPLES,
    Estimate,
    disagreement,
    exact,
    forward_ess,
    forward_kl,
    hausdorff,
    largest_weight_share,
    log_z_bounds,
    log_z_importance,
    log_z_pooled,
    pareto_k,
    reverse_ess,
    reverse_kl,
    tail_excess,
)
from boltzflow.storage.versions import own_version

_NUM_FORWARD = 20_000
_NUM_HAUSDORFF = 4096  # the paper's evaluation batch: the distance falls as samples grow
_NUM_COVERAGE = 1024
_NUM_PARTS = 10
_MIN_ANCESTORS = 100
_MIN_STDERR = 1e-4  # of a route along the path
_ROUNDINGS = 8  # of a rate of the size of log Z
_NUM_SETTLED = 4096


def evaluate(draws: Draws, name: str = "", options: Mapping[str, Any] | None = None) -> Report:
    """Measure everything that a report has, and judge it. The target's `name` and `options` are for the record."""
    with draws.programs.answering():
        return _evaluate(draws, name, options)


def _evaluate(draws: Draws, name: str, options: Mapping[str, Any] | None) -> Report:
    start = time.perf_counter()
    target = draws.target
    stage("samples and their weights", 0.0, 0.2)
    log_weight = draws.log_weights
    stage("error of the solver", 0.2, 0.35)
    solver_error, numerical_error = solver_errors(draws)
    weights = log_z_importance(log_weight)
    stage("annealing along the path", 0.35, 0.65)
    annealed = flow_smc(draws) if draws.config.loss == "continuity" else None
    importance = _widened(weights, numerical_error)
    stage("samples pooled with a Student t", 0.65, 0.75)
    estimates = _from_samples(draws, importance, numerical_error, annealed) | {"solver_error": solver_error}
    known: dict[str, Estimate] = {}
    stage("exact samples", 0.75, 0.8)
    if isinstance(target, AbstractDistribution):
        known["log_z"] = exact(float(target.log_z))
        estimates |= _from_exact_samples(draws, target, numerical_error)
    if isinstance(target, HasModes):
        estimates["hausdorff"] = hausdorff(np.asarray(target.modes), draws.samples.x[:_NUM_HAUSDORFF])
    stage("coverage of the target", 0.8, 0.95)
    uncovered, regions, num_unweighed = _uncovered(draws, estimates["log_z"].value)
    small = sum(region.share for region in regions if region.points is not None and region.share < MIN_SHARE)
    for route in ("log_z", "log_z_importance", "log_z_pooled"):  # a small missed mode is part of the error
        estimates[route] = _widened(estimates[route], -float(np.log1p(-small)))
    stage("moves of the samples", 0.95, 1.0)
    pooled = draws.answers_pooled
    answering = draws.pool.log_weight if pooled else log_weight
    findings = Findings(
        estimates=estimates,
        known=known,
        ess_count=estimates["pooled_ess" if pooled else "reverse_ess"].value * len(answering),
        sampling_error=weights.stderr,
        uncovered_share=uncovered,
        regions=[dataclasses.replace(one, center=draws.of_target(one.center[None])[0]) for one in regions],
        num_unweighed=num_unweighed,
        pilot_complaints=draws.pilot.complaints,
        skipped_share=draws.trained.cost.get("skipped_steps", 0) / max(1, draws.trained.cost["steps"]),
        sampled_exactly=isinstance(target, AbstractDistribution),
        nonfinite_share=draws.pilot.nonfinite_share,
        parts_sigma=_parts_sigma(answering),
        target_error=draws.config.log_z_error,
        untrained=draws.pilot.enough,
        pooled=pooled,
        pooled_tail=tail_excess(draws.pool.log_weight).value,
        num_descents=len(draws.pilot.wide_points),
        dim=target.dim,
        drift=_drift(draws),
        rounding=draws.rounding,
        trained_in_double=draws.trained.in_double,
        answers_in_double=draws.programs.double,
        field_choice=draws.trained.race.sentence if draws.trained.race else "",
        coordinates=draws.pilot.coordinates,
        started=draws.trained.started.sentence if draws.trained.started else "",
    )
    trustworthy, warnings, notes = judge(findings)
    if warnings and estimates["log_z"].ok:
        estimates["log_z"] = dataclasses.replace(estimates["log_z"], ok=False, reason=warnings[0])
    return Report(
        target={"name": name, **(options or {}), "dim": coordinates_of(target)},
        seed=draws.seed,
        preset=draws.config.preset,
        versions=versions(),
        estimates=estimates,
        verdict=Verdict(trustworthy, warnings, notes, unchecked(findings), checks_of(findings)),
        cost=_cost(draws, time.perf_counter() - start, annealed.num_gradients if annealed else 0),
        exact=known,
        sampler={"flow": draws.found},
    )


def versions() -> dict[str, str]:
    """The versions that produced the numbers, and the device."""
    packages = {name: version(name) for name in ("jax", "equinox", "diffrax", "optax", "numpy")}
    here = {"python": platform.python_version(), "device": str(jax.devices()[0].device_kind)}
    return {"boltzflow": own_version(), **packages, **here}


def flow_smc(draws: Draws) -> FlowSMCSample:
    """SMC along the learned path, whose moves correct the flow's errors."""
    key = stream_key(draws.seed, Stream.FLOW_SMC)
    return run_flow_smc(draws.trained.transport, key, solver_steps=draws.flow.num_steps)


def solver_errors(draws: Draws) -> tuple[Estimate, float]:
    """The solver's error of a log-weight, and the numerical error of log Z.

    The first is the mean |change of a log-weight| when the solver takes twice as many steps from the same start. The
    second adds, in quadrature, the change of log Z that is left at twice the steps and the rounding of the energy.
    """
    coarse = draws.resolutions.coarse.log_weight
    fine = draws.resolutions.fine.log_weight
    with np.errstate(invalid="ignore"):
        change = np.abs(fine - coarse)
    stderr = change.std(ddof=1) / np.sqrt(len(change))
    finite = np.isfinite(coarse) & np.isfinite(fine)
    shift = np.logaddexp.reduce(fine[finite]) - np.logaddexp.reduce(coarse[finite]) if finite.any() else 0.0
    estimate = Estimate(float(change.mean()), float(stderr), len(change), "|change of log-weight| at twice the steps")
    return estimate, float(np.hypot(draws.resolutions.factor * shift, draws.rounding))


# --- estimates --------------------------------------------------------------------------------------------------------


def _widened(estimate: Estimate, numerical_error: float) -> Estimate:
    """The estimate with an error in quadrature that does not fall as samples grow: the solver's bias, rounding."""
    return dataclasses.replace(estimate, stderr=float(np.hypot(estimate.stderr, numerical_error)))


def _from_samples(
    draws: Draws, importance: Estimate, numerical_error: float, annealed: FlowSMCSample | None
) -> dict[str, Estimate]:
    log_weight = draws.log_weights
    pilot = draws.pilot
    of_pilot = Estimate(pilot.log_z, pilot.log_z_stderr, pilot.num_particles, "annealing, no flow")
    estimates = {
        "log_z": importance,
        "log_z_importance": importance,
        "log_z_pilot": _widened(of_pilot, draws.rounding),
    }
    if annealed:
        if not pilot.enough:
            estimates["log_z_rate"] = _log_z_rate(draws, float(np.std(log_weight[np.isfinite(log_weight)])))
        along_path = _widened(_log_z_annealed(annealed, importance, numerical_error), draws.rounding)
        estimates["log_z_annealed"] = along_path
        if along_path.ok and not importance.ok:
            estimates["log_z"] = along_path
    pool = draws.pool
    estimates["log_z_pooled"] = _widened(log_z_pooled(pool.log_weight, pool.control, pool.bound), numerical_error)
    if draws.answers_pooled:
        estimates["log_z"] = estimates["log_z_pooled"]
    return estimates | {
        "pooled_ess": dataclasses.replace(reverse_ess(pool.log_weight), method="x ~ flow and Student t"),
        "pooled_pareto_k": pareto_k(pool.log_weight),
        "reverse_ess": reverse_ess(log_weight),
        "reverse_kl": _widened(reverse_kl(log_weight), numerical_error),
        "pareto_k": pareto_k(log_weight),
        "tail_excess": tail_excess(log_weight),
        "largest_weight_share": largest_weight_share(log_weight),
    }


def _log_z_rate(draws: Draws, scatter: float) -> Estimate:
    """log Z_0 + ∫ C_t dt (Lemma 1). Its error is one of training: the scatter of the log-weights stands for it.

    After training in single precision C_t holds what that precision shifts the energy by.
    """
    transport = draws.trained.transport
    nodes, weights = np.polynomial.legendre.leggauss(64)
    rates = compiled(jax.vmap(transport.log_z_rate))(jnp.asarray((nodes + 1) / 2))
    value = float(transport.interpolation.base.log_z) + float(np.dot(weights / 2, np.asarray(rates)))
    shift = 0.0
    if not draws.trained.in_double:
        shift = shift_of_single(draws.target, draws.pilot.points) + _ROUNDINGS * float(np.finfo(np.float32).eps) * abs(
            value
        )
    return Estimate(value, float(np.hypot(scatter, shift)), 0, "integral of C_t")


def _log_z_annealed(sample: FlowSMCSample, importance: Estimate, numerical_error: float) -> Estimate:
    """log Z by SMC along the path. Without moves its particles are the flow's samples, with the doubts of these."""
    n = len(sample.x)
    few = sample.num_ancestors < _MIN_ANCESTORS or sample.ess * n < _MIN_ANCESTORS
    doubt = sample.doubt
    if few:
        doubt = f"Few particles came through: {sample.num_ancestors} ancestors, {sample.ess * n:.0f} effective."
    elif not sample.step_size and not importance.ok:
        doubt = f"No moves helped, so that these are weights of the flow's samples: {importance.reason}"
    stderr = float(np.hypot(max(sample.log_z_stderr, _MIN_STDERR), numerical_error))
    method = f"annealed along the path, moves of size {sample.step_size:g}"
    return Estimate(sample.log_z, stderr, n, method, not doubt, doubt)


def _from_exact_samples(draws: Draws, target: AbstractDistribution, numerical_error: float) -> dict[str, Estimate]:
    x, log_prob = sample_batch(target, stream_key(draws.seed, Stream.EXACT_SAMPLES), _NUM_FORWARD)
    log_weight = np.asarray(log_prob + float(target.log_z) - flow_log_prob(draws.flow, x), np.float64)
    # NaN means that the flow's density underflows, or that its inverse leaves the range of floats: q = 0 there.
    log_weight = np.where(np.isnan(log_weight), np.inf, log_weight)
    forward = forward_ess(log_weight)
    if not forward.ok:
        reason = f"Its own error bar is in doubt; log Z and expectations do not use it. {forward.reason}"
        forward = dataclasses.replace(forward, reason=reason)
    bounds = log_z_bounds(draws.log_weights, log_weight)
    return {
        "forward_ess": forward,
        "forward_kl": _widened(forward_kl(log_weight, float(target.log_z)), numerical_error),
        **{name: _widened(bound, numerical_error) for name, bound in bounds.items()},
    }


# --- findings for the verdict -----------------------------------------------------------------------------------------


def _parts_sigma(log_weight: Float[np.ndarray, " num"]) -> float:
    """How far log Z from a tenth of the samples is from that of the other nine, in errors; the largest of the ten."""
    usable = log_weight[log_weight < np.inf]
    tenths = [usable[start::_NUM_PARTS] for start in range(_NUM_PARTS)]  # pooled samples stand in order of their origin
    if min(map(len, tenths)) < MIN_SAMPLES or not all(np.isfinite(part).any() for part in tenths):
        return 0.0  # too few to compare; the weights' own checks apply
    parts = [log_z_importance(part) for part in tenths]
    others = [log_z_importance(np.concatenate(tenths[:i] + tenths[i + 1 :])) for i in range(_NUM_PARTS)]
    return max(disagreement(part, rest) for part, rest in zip(parts, others, strict=True))


def _uncovered(draws: Draws, log_z: float) -> tuple[float, list[Region], int]:
    """The coverage check: the share of the target's points that the flow hardly reaches, and the regions they form.

    Its points are the pilot's, from the run's base and from a wide one, and exact samples where there are some. Where
    that share is small, the modes around the pilot's minima are weighed too. The last number counts the minima that
    were left.
    """
    target = draws.target
    probes = [spread(points, _NUM_COVERAGE) for points in draws.pilot.point_sets]
    wide = probes[1]
    minima = np.asarray(draws.pilot.minima)
    if isinstance(target, AbstractDistribution):
        probes.append(sample_batch(target, stream_key(draws.seed, Stream.COVERAGE), _NUM_COVERAGE)[0])
    x = np.concatenate([*probes, draws.pilot.minima])
    centered = -np.asarray(map_points(target.energy, x) + flow_log_prob(draws.flow, x)) - log_z
    *parts, at_minima = np.split(centered, np.cumsum([len(probe) for probe in probes]))
    share, worst, part = max(
        ((uncovered_share(part), probe, part) for probe, part in zip(probes, parts, strict=True)),
        key=lambda one: one[0],
    )
    regions = uncovered_regions(np.asarray(worst), part)
    if share >= MIN_SHARE:
        return share, regions, 0
    scale = np.std(np.asarray(wide), axis=0) + 1e-12
    key = stream_key(draws.seed, Stream.MISSED_MODES)
    log_prob = functools.partial(flow_log_prob, draws.flow)
    away = behind_barriers(target, minima, np.asarray(wide), scale)
    missed, left = weigh_missed_modes(target, log_prob, minima[away], at_minima[away], log_z, scale, key)
    # A minimum behind no barrier is part of what the pilot found, or a hole in the middle of it.
    holes, _ = weigh_missed_modes(target, log_prob, minima[~away], at_minima[~away], log_z, scale, key)
    return share, [*regions, *missed, *holes], left


def _drift(draws: Draws) -> float:
    """How far moves that leave the target invariant carry averages of the samples that answer, in errors.

    The samples are resampled by their weights. Moves bring weight into parts next to them that no sample has reached,
    as the neck of a funnel.
    """
    x, log_weight, *_ = next(iter(draws.batches(0)))
    finite = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    if not np.isfinite(finite).any():
        return 0.0
    key = stream_key(draws.seed, Stream.SETTLING)
    index = systematic_in_double(numpy_generator(key), finite, _NUM_SETTLED)
    settled = settle(draws.target, np.asarray(x)[index], key, most_moves=FIRST_BATCH)
    copies = len(index) / len(np.unique(index))
    return settled.first_drift / float(np.sqrt(copies))


def _cost(draws: Draws, seconds: float, num_gradients: int) -> dict[str, float]:
    """The cost of training and of the report: its samples, checks and SMC run, but not the weighing of missed modes."""
    forward = _NUM_FORWARD if isinstance(draws.target, AbstractDistribution) else 0
    cost = dict(draws.trained.cost)
    cost["total_seconds"] = cost["train_seconds"] + cost["compile_seconds"] + seconds
    cost["gradient_evaluations"] += num_gradients
    coverage = (len(draws.pilot.point_sets) + (forward > 0)) * _NUM_COVERAGE + len(draws.pilot.minima)
    weighed = len(draws.log_weights) + 2 * len(draws.resolutions.coarse.x) + num_heavy(len(draws.pool.x))
    cost["energy_evaluations"] = weighed + forward + coverage
    return cost
