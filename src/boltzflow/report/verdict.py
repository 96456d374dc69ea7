"""Whether to trust a run. Each check is a function of the findings that yields a sentence where it fails.

To add a check, write such a function and name it in `judge`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boltzflow.sampling.coverage import MIN_SHARE, Region
from boltzflow.statistics.estimates import Estimate, disagreement, joint_disagreement
from boltzflow.statistics.weights import told_apart

_MIN_EFFECTIVE = 500  # effective samples; below about this many the error bars themselves are in doubt
_MAX_SIGMA = 4.0
_MAX_JOINT_SIGMA = 3.5  # of all routes together
_MAX_ESS_ERROR = 0.25  # of the ESS itself
_MAX_EXACT_SIGMA = 5.0
_MAX_PARTS_SIGMA = 6.0  # the largest of ten, whose errors are known to some digits only
_MAX_SOLVER_ERROR = 0.02
_TAIL_OF_INFINITE_VARIANCE = 0.5
_MAX_DRIFT = 6.0  # the largest of some hundred averages
_MAX_NONFINITE_SHARE = 0.05  # some trial moves overflow on every steep energy, and are rejected


@dataclass(frozen=True)
class Findings:
    """Everything that the checks of the verdict look at."""

    estimates: Mapping[str, Estimate]  # by name
    known: Mapping[str, Estimate]  # known values by name
    ess_count: float  # effective samples
    regions: Sequence[Region]  # of the target, where the sampler hardly comes
    uncovered_share: float  # of the coverage check's points
    num_unweighed: int  # minima that the sampler does not reach and that were not weighed
    sampling_error: float  # of log Z by weights, without the solver's
    pilot_complaints: Sequence[str]
    skipped_share: float  # of the training steps
    sampled_exactly: bool  # the target has exact samples
    nonfinite_share: float  # of the energies of the pilot's proposals
    parts_sigma: float = 0.0  # distance of log Z from a tenth of the samples to the others', in errors, at most
    target_error: float = 0.0  # of log Z; 0 where none was asked for
    untrained: bool = False  # a fitted mixture was enough
    pooled: bool = False  # answers come from the samples pooled with those of a Student t
    pooled_tail: float = 0.0  # the share that the tail of the pooled weights holds
    num_descents: int = 0  # of the search for minima
    dim: int = 0
    drift: float = 0.0  # of the weighted samples by moves that leave the target invariant, in errors
    rounding: float = 0.0  # of the energy, in log Z
    trained_in_double: bool = False
    answers_in_double: bool = True
    field_choice: str = ""  # which field was trained, and why; empty where there was one


def judge(findings: Findings) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """(trustworthy, warnings, notes): trustworthy where there is no warning."""
    checks = (_modes, _settled, _weights, _log_z_routes, _bound, _exact, _forward, _solver, _pilot)
    warnings = tuple(sentence for check in checks for sentence in check(findings))
    return not warnings, warnings, tuple(_notes(findings))


def _modes(f: Findings) -> Iterator[str]:
    for region in f.regions:
        if region.share >= MIN_SHARE:
            yield (
                f"A region holding about {region.share:.0%} of the probability near x = {_point(region.center)} is not "
                "covered by the sampler: train longer, widen the base, or train with the continuity loss."
            )
    if f.uncovered_share >= MIN_SHARE and not any(region.share >= MIN_SHARE for region in f.regions):
        yield (
            f"About {f.uncovered_share:.1%} of the probability is not covered by the sampler, in several places, one "
            f"near x = {_point(f.regions[0].center)}: train longer, widen the base, or train with the continuity loss."
        )


def _settled(f: Findings) -> Iterator[str]:
    if not f.drift <= _MAX_DRIFT:
        yield (
            f"Moves that leave the target invariant change averages of the weighted samples by {f.drift:.1f} of their "
            "errors: a part of the target next to the samples is missing, as the neck of a funnel. Write the energy in "
            "other coordinates, such as non-centered ones."
        )


def _weights(f: Findings) -> Iterator[str]:
    """The weights that answer: those of the flow, or of its samples pooled with those of a Student t."""
    names = ("log_z_pooled", "pooled_ess") if f.pooled else ("log_z_importance", "reverse_ess")
    weights, ess = (f.estimates[name] for name in names)
    tail = _tail_of_infinite_variance(f)
    if not weights.ok:
        what = "expectations are" if f.estimates["log_z"].ok else "log Z and all expectations are"
        yield f"By weights alone {what} not to be relied on: {weights.reason}"
    elif not f.estimates["log_z"].ok:
        yield f"log Z is not to be relied on: {f.estimates['log_z'].reason}"
    elif f.ess_count < _MIN_EFFECTIVE:
        yield f"Only {f.ess_count:.0f} effective samples: draw more of them, or train longer."
    elif not ess.stderr <= _MAX_ESS_ERROR * ess.value:
        yield (
            f"The effective share of the samples is hardly known ({ess.value:.2g} ± {ess.stderr:.2g}): a few weights "
            "decide. Train longer, or use a wider base."
        )
    elif tail and tail[1] >= MIN_SHARE:
        yield (
            f"The weights have a tail of infinite variance (Pareto k̂ = {_shown_k(tail[0])}, above "
            f"{_TAIL_OF_INFINITE_VARIANCE}) that holds {tail[1]:.1%} of them: train longer, or use a wider base."
        )
    elif not f.parts_sigma <= _MAX_PARTS_SIGMA:
        yield (
            f"log Z from a tenth of the samples is {f.parts_sigma:.0f} of its errors away from log Z of the others: "
            "the error bars are too small. Train longer, or use a wider base."
        )


def _tail_of_infinite_variance(f: Findings) -> tuple[float, float] | None:
    """k̂ of the weights that answer and the share that their tail holds, where k̂ is above a half."""
    k = f.estimates["pooled_pareto_k" if f.pooled else "pareto_k"].value
    share = f.pooled_tail if f.pooled else f.estimates["tail_excess"].value
    return (k, share) if k > _TAIL_OF_INFINITE_VARIANCE else None


def _shown_k(k: float) -> str:
    return told_apart(k, _TAIL_OF_INFINITE_VARIANCE)[0]


def _log_z_routes(f: Findings) -> Iterator[str]:
    log_z = f.estimates["log_z"]
    routes = (
        ("log_z_pilot", "the annealed pilot", "the sampler has lost part of the target, or the pilot has"),
        ("log_z_annealed", "annealing along the path", "the sampler has lost part of the target"),
        ("log_z_rate", "the rate C_t", "training has not converged, or the sampler has lost part of the target"),
    )
    disagree = False
    for name, route, meaning in routes:
        other = f.estimates.get(name)
        if other is None or not _compared(f, name):
            continue
        if not disagreement(log_z, other) <= _MAX_SIGMA:
            disagree = True
            yield (
                f"log Z by {_route_of(log_z)} ({log_z.value:.4g} ± {log_z.stderr:.2g}) and by {route} "
                f"({other.value:.4g} ± {other.stderr:.2g}) disagree by more than {_MAX_SIGMA:.0f} of their errors: "
                f"{meaning}."
            )
    annealed = log_z.method.startswith("annealed")
    others = [name for name in ("log_z_pilot", "log_z_annealed")[: 1 if annealed else 2] if name in f.estimates]
    answers = [log_z, *(f.estimates[name] for name in others if _compared(f, name))]
    sigma = joint_disagreement(answers)
    if not disagree and not sigma <= _MAX_JOINT_SIGMA:
        yield (
            f"The {len(answers)} independent routes to log Z disagree together by {sigma:.1f} σ, more than "
            f"{_MAX_JOINT_SIGMA}: one of them has lost part of the target."
        )


def _compared(f: Findings, route: str) -> bool:
    """Whether a route has an error bar to compare with."""
    return not f.pilot_complaints if route == "log_z_pilot" else route != "log_z_annealed" or f.estimates[route].ok


def _route_of(estimate: Estimate) -> str:
    if estimate.method.startswith("annealed"):
        return "annealing along the path"
    return "pooled weights" if estimate.method.startswith("flow") else "importance weights"


def _bound(f: Findings) -> Iterator[str]:
    """The reverse KL divergence is never negative: below zero, the solver or the log-density is wrong."""
    reference = f.known.get("log_z", f.estimates["log_z_pilot"])
    kl = f.estimates["reverse_kl"]
    gap = kl.value + reference.value
    error = math.hypot(kl.stderr, reference.stderr)
    if math.isfinite(gap) and gap < -_MAX_SIGMA * error:
        yield (
            f"The reverse KL divergence is {gap:.3g} ± {error:.2g}, below its bound of zero: the solver's error is too "
            "large (use more sampling steps)."
        )


def _exact(f: Findings) -> Iterator[str]:
    if "log_z" in f.known:
        pull = disagreement(f.estimates["log_z"], f.known["log_z"])
        if not pull <= _MAX_EXACT_SIGMA:
            yield f"log Z is {pull:.1f} of its errors away from the exact value: part of the target is missing."


def _forward(f: Findings) -> Iterator[str]:
    """A mixture that needed no training is exempt: its defensive part lies between the modes, where one exact sample
    dominates the forward ESS. The coverage check asks the exact samples instead."""
    forward = f.estimates.get("forward_ess")
    reverse = f.estimates["reverse_ess"]
    if forward and not f.untrained and not forward.value > 0.5 * reverse.value:
        yield (
            f"The forward ESS ({forward.value:.3f}, from exact samples) is less than half the reverse ESS "
            f"({reverse.value:.3f}): the sampler misses part of the target."
        )


def _solver(f: Findings) -> Iterator[str]:
    """The comparison is with the samples' own error, because the error of log Z includes the solver's."""
    error = f.estimates["solver_error"]
    if not error.value <= max(_MAX_SOLVER_ERROR, f.sampling_error):
        yield (
            f"Log-weights change by {error.value:.2g} on average when the solver takes twice as many steps: use more "
            "sampling steps."
        )


def _pilot(f: Findings) -> Iterator[str]:
    if f.pilot_complaints:
        yield "The search for modes is in doubt: " + " ".join(f.pilot_complaints)
    if f.skipped_share > 0.2:
        yield f"{f.skipped_share:.0%} of the training steps were skipped for a loss or gradient that was not finite."


def _notes(f: Findings) -> Iterator[str]:
    if not f.sampled_exactly:
        yield (
            "This target has no exact samples: coverage is checked only for modes that the pilot found. Reverse ESS "
            "and reverse KL cannot see a mode that neither the pilot nor the flow has visited."
        )
    for region in f.regions:
        if region.points is not None and f.sampling_error < region.share < MIN_SHARE:
            yield (
                f"A region holding about {region.share:.1g} of the probability near x = {_point(region.center)} is not "
                "covered by the sampler: the error of log Z includes that, the errors of expectations do not."
            )
    if f.num_unweighed:
        yield (
            f"The sampler does not reach {f.num_unweighed} more minima of the energy beyond barriers, besides the "
            "lowest: the probability around them has not been measured."
        )
    log_z = f.estimates["log_z"]
    if f.target_error and not log_z.stderr <= 1.1 * f.target_error:
        yield (
            f"The target error of log Z was {f.target_error:.2g}, and {log_z.stderr:.2g} was reached: train longer, or "
            "set a larger one."
        )
    tail = _tail_of_infinite_variance(f)
    if tail and tail[1] < MIN_SHARE:
        yield (
            f"The weights have a tail of infinite variance (Pareto k̂ = {_shown_k(tail[0])}, above "
            f"{_TAIL_OF_INFINITE_VARIANCE}), which holds {tail[1]:.2g} of them: the errors hold what it may hide."
        )
    if f.pooled:
        yield (
            "The flow's own weights are not reliable: log Z and expectations come from its samples pooled with those "
            "of a Student t. Averages of your own with `samples` and `log_weights`, which are the flow's, do not."
        )
    if 0 < f.skipped_share <= 0.2:
        yield f"{f.skipped_share:.1%} of the training steps were skipped for a loss or gradient that was not finite."
    if f.nonfinite_share > _MAX_NONFINITE_SHARE:
        yield (
            f"The energy was not finite (NaN, or beyond its precision) at {f.nonfinite_share:.1%} of the points "
            "that the pilot proposed; such proposals are rejected."
        )
    if f.field_choice:
        yield f.field_choice
    if f.trained_in_double:
        yield "Training took place in double precision: the energy's rounding in single precision is above 0.01."
    if not f.answers_in_double:
        yield "Samples, energies and weights are in single precision."
    if f.rounding > f.sampling_error:
        yield f"The rounding of the energy, {f.rounding:.2g}, is larger than the samples' own error of log Z."


def unchecked(f: Findings) -> str:
    """What no check of this run could have seen, in one sentence without its full stop; empty with exact samples.

    A descent from a random point ends in a mode of width s, relative to the target's, about once in s^-dim: of N
    descents all miss it with a probability of 5 % where N s^dim = 3.
    """
    if f.sampled_exactly:
        return ""
    if not (f.num_descents and f.dim):
        return "modes that the pilot has not visited"
    width = min(1.0, (3 / f.num_descents) ** (1 / f.dim))
    return (
        f"a mode narrower than about {width:.2g} times the spread of the target, in each of its {f.dim} directions, "
        f"would probably not have been found by {f.num_descents} descents"
    )


def _point(x: np.ndarray) -> str:
    shown = ", ".join(f"{value:.3g}" for value in x[:4])
    return f"({shown}{', ...' if len(x) > 4 else ''})"
