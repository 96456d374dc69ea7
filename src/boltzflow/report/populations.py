"""The verdict on an answer by independent populations of sequential Monte Carlo.

The complaints of the pilot count here too: from a mixture fitted to its points the populations lack what these lack.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from boltzflow.numerics.batching import Stream, stream_key
from boltzflow.report.checks import Check, at_least, at_most, of_exact, of_pilot
from boltzflow.report.draws import Draws
from boltzflow.report.report import Report, Verdict
from boltzflow.sampling.coverage import MIN_SHARE, Region
from boltzflow.sampling.mode_search import missed_modes
from boltzflow.sampling.populations import RISE, Populations, far_from_particles
from boltzflow.sampling.resampling import spread
from boltzflow.statistics.estimates import Estimate, disagreement
from boltzflow.statistics.groups import MIN_GROUPS

_MAX_DRIFT = 6.0  # errors, of the largest of some hundred averages
_MAX_SCALES = 10.0  # of the force; 1 to 7 on posteriors, mixtures and particles, 17 and more on funnels
_MAX_SCATTER = 1.0  # of log Z over populations: beyond it the mean of Z hangs on a few of them
_MIN_ACCEPTANCE = 0.2
_MIN_ANCESTORS = 30
_MIN_STDERR = 1e-3
_NUM_COVERAGE = 4096
_NOTE = "This target has no exact samples: modes that neither the pilot nor the particles have visited cannot be seen."


def evaluate_populations(draws: Draws, of_flow: Report) -> Report:
    """log Z by populations of SMC, its verdict, and what it cost beyond the flow's report."""
    start = time.perf_counter()
    populations = draws.populations
    log_z = log_z_of(populations, draws.rounding)
    with draws.programs.answering():
        found = [*_missed(draws, populations), *_unreached(draws, populations)]
    missed = [dataclasses.replace(one, center=draws.of_target(one.center[None])[0]) for one in found]
    checks = tuple(checks_of(populations, log_z, missed, of_flow, draws.pilot.complaints))
    warnings = tuple(check.warning for check in checks if check.warning)
    if warnings and log_z.ok:
        log_z = dataclasses.replace(log_z, ok=False, reason=warnings[0])
    notes = (_NOTE,) if of_flow.verdict.unchecked else ()
    return dataclasses.replace(
        of_flow,
        estimates={"log_z": log_z},
        verdict=Verdict(not warnings, warnings, notes, of_flow.verdict.unchecked, checks),
        cost={"total_seconds": time.perf_counter() - start, "gradient_evaluations": populations.num_gradients},
    )


def log_z_of(populations: Populations, rounding: float) -> Estimate:
    """log Z with the error of the scatter over populations and of the energy's rounding."""
    found = populations.log_z
    num_groups, num, _ = populations.x.shape
    effective = _effective_populations(populations)
    doubt = ""
    if effective < MIN_GROUPS:
        doubt = f"Only {effective:.1f} effective populations of {num_groups}: their scatter is no error bar."
    method = f"{num_groups} populations of {num} particles, {populations.num_moves} moves at each β"
    stderr = float(np.hypot(max(found.stderr, _MIN_STDERR), rounding))
    return Estimate(found.value, stderr, num_groups * num, method, not doubt, doubt)


def _missed(draws: Draws, populations: Populations) -> list[Region]:
    """Modes around the pilot's minima that no particle is in."""
    x = spread(populations.x.reshape(-1, populations.x.shape[2]), _NUM_COVERAGE)
    scale = np.std(x, axis=0) + 1e-12
    key = stream_key(draws.seed, Stream.MISSED_MODES)
    return missed_modes(draws.target, x, float(populations.log_z.value), draws.pilot.minima, scale, key)


def _unreached(draws: Draws, populations: Populations) -> list[Region]:
    """The part of the target that the pilot's points know, from the wide base or the narrow one, and no particle."""
    regions = []
    for points in draws.pilot.point_sets:
        far = far_from_particles(populations, np.asarray(points, np.float64))
        if len(far) >= MIN_SHARE * len(points):
            regions.append(Region(far[0], len(far) / len(points)))
    return sorted(regions, key=lambda region: -region.share)[:1]


def checks_of(
    populations: Populations,
    log_z: Estimate,
    missed: Sequence[Region],
    of_flow: Report,
    complaints: Sequence[str],
) -> Iterator[Check]:
    """Every check, with the number that it looks at and its limit."""
    beta = populations.last_beta
    yield at_least(
        "last inverse temperature β",
        beta,
        1.0,
        f"Sequential Monte Carlo stopped at inverse temperature β = {beta:.3g} of 1.",
    )
    for region in missed:
        warning = (
            f"A region holding about {region.share:.0%} of the probability near x = {_point(region.center)} holds no "
            "particle of sequential Monte Carlo."
        )
        yield Check("probability that holds no particle", region.share, MIN_SHARE, False, warning=warning)
    if not missed:
        yield Check("probability that holds no particle", 0.0, MIN_SHARE, True)
    yield at_most(
        "largest change of an average by moves that leave the target invariant, in errors",
        populations.drift,
        _MAX_DRIFT,
        f"Moves that leave the target invariant change averages of the particles by {populations.drift:.1f} of "
        "their errors: a part of the target next to them is missing, as the neck of a funnel.",
    )
    yield at_most(
        "how many times narrower the narrowest places are",
        populations.scales,
        _MAX_SCALES,
        f"One particle in two hundred is in a place {populations.scales:.0f} times narrower than most, as the neck "
        "of a funnel, which moves enter too slowly to show what is missing there. Write the energy in coordinates of "
        "which one is the log-scale of others; those of a Posterior with its priors are.",
    )
    yield at_most(
        "rise of log Z with four times the moves, in errors",
        populations.rise,
        RISE,
        f"log Z by sequential Monte Carlo still rose, with {populations.num_moves} moves at each inverse "
        "temperature in place of a quarter of them: the particles do not follow the target as it changes."
        if np.isfinite(populations.rise)
        else "No more moves could be afforded to see whether log Z by sequential Monte Carlo rises with them.",
    )
    effective = _effective_populations(populations)
    warning = "" if log_z.ok else f"log Z is not to be relied on: {log_z.reason}"
    yield Check("effective populations", effective, MIN_GROUPS, log_z.ok, least=True, warning=warning)
    scatter = float(np.std(populations.log_z_of_group, ddof=1))
    yield at_most(
        "scatter of log Z over populations",
        scatter,
        _MAX_SCATTER,
        f"log Z of the populations scatters by {scatter:.2g}: each of them has too few particles." if log_z.ok else "",
    )
    yield at_least(
        "lowest acceptance of the moves",
        populations.acceptance,
        _MIN_ACCEPTANCE,
        f"Moves of the particles were accepted only {populations.acceptance:.0%} of the time.",
    )
    yield at_least(
        "starting points that a population descends from",
        populations.num_ancestors,
        _MIN_ANCESTORS,
        f"The particles of a population descend from only {populations.num_ancestors} starting points.",
    )
    if "log_z" in of_flow.exact:
        yield of_exact(disagreement(log_z, of_flow.exact["log_z"]))
    yield of_pilot(complaints)


def _effective_populations(populations: Populations) -> float:
    return 1 / float(np.sum(populations.share**2))


def _point(x: np.ndarray) -> str:
    shown = ", ".join(f"{value:.3g}" for value in x[:4])
    return f"({shown}{', ...' if len(x) > 4 else ''})"
