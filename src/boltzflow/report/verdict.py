"""Whether to trust a run. Each check is a number of the findings beside its limit, with a sentence where it fails.

To add a check, write such a function and name it in `checks_of`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boltzflow.report.checks import Check, at_least, at_most, below, of_exact, of_pilot
from boltzflow.sampling.coverage import MIN_SHARE, Region
from boltzflow.statistics.estimates import Estimate, disagreement, joint_disagreement
from boltzflow.statistics.weights import MAX_K, told_apart

_MIN_EFFECTIVE = 500  # effective samples; below about this many the error bars themselves are in doubt
_MAX_SIGMA = 4.0
_MAX_JOINT_SIGMA = 3.5  # of all routes together
_MAX_ESS_ERROR = 0.25  # of the ESS itself
_MAX_PARTS_SIGMA = 6.0  # the largest of ten, whose errors are known to some digits only
_MAX_SOLVER_ERROR = 0.02
_MAX_SKIPPED = 0.2  # of the training steps
_OF_IMPORTANCE = ("log_z_importance", "reverse_ess", "pareto_k")
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
    coordinates: str = ""  # in which the target is sampled, and why; empty where in its own
    started: str = ""  # from which other run, and what was taken over; empty where from none


def judge(findings: Findings) -> tuple[bool, tuple[str, ...], tuple[str, ...]]:
    """(trustworthy, warnings, notes): trustworthy where no check fails."""
    checks = checks_of(findings)
    warnings = tuple(check.warning for check in checks if check.warning)
    return all(check.passed for check in checks), warnings, tuple(_notes(findings))


def checks_of(findings: Findings) -> tuple[Check, ...]:
    """Every check that applies, with the number that it looks at and its limit."""
    kinds = (_modes, _settled, _weights, _log_z_routes, _bound, _exact, _forward, _solver, _pilot)
    return tuple(check for kind in kinds for check in kind(findings))


def _modes(f: Findings) -> Iterator[Check]:
    large = [region for region in f.regions if region.share >= MIN_SHARE]
    for region in large:
        yield below(
            "probability around a mode that the sampler does not cover",
            region.share,
            MIN_SHARE,
            f"A region holding about {region.share:.0%} of the probability near x = {_point(region.center)} is not "
            "covered by the sampler: train longer, widen the base, or train with the continuity loss.",
        )
    if not large:
        near = f", one near x = {_point(f.regions[0].center)}" if f.regions else ""
        yield below(
            "probability that the sampler does not cover",
            f.uncovered_share,
            MIN_SHARE,
            f"About {f.uncovered_share:.1%} of the probability is not covered by the sampler, in several places{near}: "
            "train longer, widen the base, or train with the continuity loss.",
        )


def _settled(f: Findings) -> Iterator[Check]:
    yield at_most(
        "largest change of an average by moves that leave the target invariant, in errors",
        f.drift,
        _MAX_DRIFT,
        f"Moves that leave the target invariant change averages of the weighted samples by {f.drift:.1f} of their "
        "errors: a part of the target next to the samples is missing, as the neck of a funnel."
        + ("" if f.coordinates else " Write the energy in other coordinates, such as non-centered ones."),
    )


def _weights(f: Findings) -> Iterator[Check]:
    """The weights that answer: those of the flow, or of its samples pooled with those of a Student t.

    Only the first check that fails has a sentence, for the others are doubtful where it does.
    """
    failed = False
    for check in _of_weights(f):
        yield dataclasses.replace(check, warning="") if failed else check
        failed = failed or not check.passed


def _of_weights(f: Findings) -> Iterator[Check]:
    names = ("log_z_pooled", "pooled_ess", "pooled_pareto_k") if f.pooled else _OF_IMPORTANCE
    weights, ess, k = (f.estimates[name] for name in names)
    what = "expectations are" if f.estimates["log_z"].ok else "log Z and all expectations are"
    reason = f"By weights alone {what} not to be relied on: {weights.reason}"
    yield Check("Pareto k̂ of the weights", k.value, MAX_K, weights.ok, warning="" if weights.ok else reason)
    if weights.ok and not f.estimates["log_z"].ok:
        reason = f"log Z is not to be relied on: {f.estimates['log_z'].reason}"
        yield Check("log Z is to be relied on", 0.0, 1.0, False, least=True, warning=reason)
    yield at_least(
        "effective samples",
        f.ess_count,
        _MIN_EFFECTIVE,
        f"Only {f.ess_count:.0f} effective samples: draw more of them, or train longer.",
    )
    yield at_most(
        "error of the ESS over the ESS",
        ess.stderr / ess.value if ess.value > 0 else math.inf,
        _MAX_ESS_ERROR,
        f"The effective share of the samples is hardly known ({ess.value:.2g} ± {ess.stderr:.2g}): a few weights "
        "decide. Train longer, or use a wider base.",
    )
    tail = _tail_of_infinite_variance(f)
    yield below(
        "share of the weights in a tail of infinite variance",
        tail[1] if tail else 0.0,
        MIN_SHARE,
        f"The weights have a tail of infinite variance (Pareto k̂ = {_shown_k(tail[0])}, above "
        f"{_TAIL_OF_INFINITE_VARIANCE}) that holds {tail[1]:.1%} of them: train longer, or use a wider base."
        if tail
        else "",
    )
    yield at_most(
        "log Z from a tenth of the samples and from the others apart, in errors",
        f.parts_sigma,
        _MAX_PARTS_SIGMA,
        f"log Z from a tenth of the samples is {f.parts_sigma:.0f} of its errors away from log Z of the others: "
        "the error bars are too small. Train longer, or use a wider base.",
    )


def _tail_of_infinite_variance(f: Findings) -> tuple[float, float] | None:
    """k̂ of the weights that answer and the share that their tail holds, where k̂ is above a half."""
    k = f.estimates["pooled_pareto_k" if f.pooled else "pareto_k"].value
    share = f.pooled_tail if f.pooled else f.estimates["tail_excess"].value
    return (k, share) if k > _TAIL_OF_INFINITE_VARIANCE else None


def _shown_k(k: float) -> str:
    return told_apart(k, _TAIL_OF_INFINITE_VARIANCE)[0]


def _log_z_routes(f: Findings) -> Iterator[Check]:
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
        check = at_most(
            f"log Z by {_route_of(log_z)} and by {route} apart, in errors",
            disagreement(log_z, other),
            _MAX_SIGMA,
            f"log Z by {_route_of(log_z)} ({log_z.value:.4g} ± {log_z.stderr:.2g}) and by {route} "
            f"({other.value:.4g} ± {other.stderr:.2g}) disagree by more than {_MAX_SIGMA:.0f} of their errors: "
            f"{meaning}.",
        )
        disagree = disagree or not check.passed
        yield check
    annealed = log_z.method.startswith("annealed")
    others = [name for name in ("log_z_pilot", "log_z_annealed")[: 1 if annealed else 2] if name in f.estimates]
    answers = [log_z, *(f.estimates[name] for name in others if _compared(f, name))]
    sigma = joint_disagreement(answers)
    if not disagree and len(answers) > 1:
        yield at_most(
            "independent routes to log Z apart together, in σ",
            sigma,
            _MAX_JOINT_SIGMA,
            f"The {len(answers)} independent routes to log Z disagree together by {sigma:.1f} σ, more than "
            f"{_MAX_JOINT_SIGMA}: one of them has lost part of the target.",
        )


def _compared(f: Findings, route: str) -> bool:
    """Whether a route has an error bar to compare with."""
    return not f.pilot_complaints if route == "log_z_pilot" else route != "log_z_annealed" or f.estimates[route].ok


def _route_of(estimate: Estimate) -> str:
    if estimate.method.startswith("annealed"):
        return "annealing along the path"
    return "pooled weights" if estimate.method.startswith("flow") else "importance weights"


def _bound(f: Findings) -> Iterator[Check]:
    """The reverse KL divergence is never negative: below zero, the solver or the log-density is wrong."""
    reference = f.known.get("log_z", f.estimates["log_z_pilot"])
    kl = f.estimates["reverse_kl"]
    gap = kl.value + reference.value
    error = math.hypot(kl.stderr, reference.stderr)
    if math.isfinite(gap):
        yield at_least(
            "reverse KL divergence, in errors",
            gap / error if error else math.copysign(math.inf, gap) if gap else 0.0,
            -_MAX_SIGMA,
            f"The reverse KL divergence is {gap:.3g} ± {error:.2g}, below its bound of zero: the solver's error is too "
            "large (use more sampling steps).",
        )


def _exact(f: Findings) -> Iterator[Check]:
    if "log_z" in f.known:
        yield of_exact(disagreement(f.estimates["log_z"], f.known["log_z"]))


def _forward(f: Findings) -> Iterator[Check]:
    """A mixture that needed no training is exempt: its defensive part lies between the modes, where one exact sample
    dominates the forward ESS. The coverage check asks the exact samples instead."""
    forward = f.estimates.get("forward_ess")
    reverse = f.estimates["reverse_ess"]
    if forward and not f.untrained:
        yield Check(
            "forward ESS, against half the reverse ESS",
            forward.value,
            0.5 * reverse.value,
            forward.value > 0.5 * reverse.value,
            least=True,
        ).or_else(
            f"The forward ESS ({forward.value:.3f}, from exact samples) is less than half the reverse ESS "
            f"({reverse.value:.3f}): the sampler misses part of the target."
        )


def _solver(f: Findings) -> Iterator[Check]:
    """The comparison is with the samples' own error, because the error of log Z includes the solver's."""
    error = f.estimates["solver_error"].value
    yield at_most(
        "mean change of a log-weight with twice the solver steps",
        error,
        max(_MAX_SOLVER_ERROR, f.sampling_error),
        f"Log-weights change by {error:.2g} on average when the solver takes twice as many steps: use more "
        "sampling steps.",
    )


def _pilot(f: Findings) -> Iterator[Check]:
    yield of_pilot(f.pilot_complaints)
    yield at_most(
        "share of the training steps skipped",
        f.skipped_share,
        _MAX_SKIPPED,
        f"{f.skipped_share:.0%} of the training steps were skipped for a loss or gradient that was not finite.",
    )


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
    if 0 < f.skipped_share <= _MAX_SKIPPED:
        yield f"{f.skipped_share:.1%} of the training steps were skipped for a loss or gradient that was not finite."
    if f.nonfinite_share > _MAX_NONFINITE_SHARE:
        yield (
            f"The energy was not finite (NaN, or beyond its precision) at {f.nonfinite_share:.1%} of the points "
            "that the pilot proposed; such proposals are rejected."
        )
    if f.coordinates:
        yield f.coordinates
    if f.started:
        yield f.started
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
