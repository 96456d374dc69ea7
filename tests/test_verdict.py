"""The judge alone: each check fails on findings made for it, and only that one."""

import dataclasses
import re

import numpy as np
import pytest

from boltzflow.report.verdict import Findings, checks_of, judge, unchecked
from boltzflow.sampling.coverage import Region, uncovered_regions, uncovered_share
from boltzflow.statistics.estimates import Estimate


def estimate(value, stderr=0.001, ok=True, reason=""):
    return Estimate(value, stderr, 1000, "test", ok, reason)


GOOD = Findings(
    estimates={
        "log_z": estimate(1.0), "log_z_importance": estimate(1.0), "log_z_pilot": estimate(1.01, 0.02),
        "log_z_rate": estimate(1.02, 0.05), "log_z_annealed": estimate(1.002),
        "reverse_ess": estimate(0.99), "forward_ess": estimate(0.99), "reverse_kl": estimate(-0.995),
        "pareto_k": estimate(0.2), "tail_excess": estimate(0.01), "solver_error": estimate(1e-4),
    },
    known={"log_z": estimate(1.0, 0.0)},
    ess_count=99_000,
    regions=(),
    uncovered_share=0.0,
    num_unweighed=0,
    sampling_error=1e-3,
    pilot_complaints=(),
    skipped_share=0.0,
    sampled_exactly=True,
    nonfinite_share=0.0,
)  # fmt: skip


def changed(**estimates):
    return dataclasses.replace(GOOD, estimates={**GOOD.estimates, **estimates})


def pooled(**estimates):
    """Findings whose answers come from pooled samples: the flow's own weights are in doubt."""
    answers = {
        "log_z": dataclasses.replace(estimate(1.0), method="flow and Student-t pooled"),
        "log_z_importance": estimate(1.0, ok=False, reason="Heavy tail."),
        "log_z_pooled": estimate(1.0),
        "pooled_ess": estimate(0.9),
        "pooled_pareto_k": estimate(-0.3),
    }
    return dataclasses.replace(changed(**(answers | estimates)), pooled=True)


def test_good_findings_are_trusted_without_a_word():
    assert judge(GOOD) == (True, (), ())


def test_every_check_has_its_number_and_its_limit():
    checks = {check.name: check for check in checks_of(GOOD)}
    assert len(checks) == len(checks_of(GOOD)) >= 15 and all(check.passed for check in checks.values())
    effective = checks["effective samples"]
    assert (effective.found, effective.limit, effective.least) == (99_000.0, 500.0, True)
    drift = checks["largest change of an average by moves that leave the target invariant, in errors"]
    assert (drift.found, drift.limit, drift.least) == (0.0, 6.0, False)
    for check in checks.values():
        assert check.found >= check.limit if check.least else check.found <= check.limit


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        (dataclasses.replace(GOOD, regions=[Region(np.array([30.0, 0.0]), 0.3)]), "about 30% .* x = \\(30, 0\\)"),
        (
            dataclasses.replace(GOOD, regions=[Region(np.array([30.0, 0.0]), 0.003)] * 3, uncovered_share=0.009),
            "About 0.9% .* in several places, one near x = \\(30, 0\\)",
        ),
        (
            changed(log_z_importance=estimate(1.0, ok=False, reason="Heavy tail.")),
            "expectations are not .*: Heavy tail",
        ),
        (changed(log_z_annealed=estimate(1.01)), "annealing along the path .* disagree"),
        (changed(reverse_ess=estimate(0.48, 0.42)), "hardly known \\(0.48 ± 0.42\\)"),
        (changed(pareto_k=estimate(0.66), tail_excess=estimate(0.018)), "k̂ = 0.66, above 0.5.* holds 1.8%"),
        (changed(log_z=estimate(1.0, ok=False, reason="It drifts.")), "log Z is not to be relied on: It drifts"),
        (changed(log_z_pilot=estimate(1.07, 0.02), log_z_annealed=estimate(0.995)), "routes .* disagree together by 4"),
        (pooled(log_z_pooled=estimate(1.0, ok=False, reason="Heavy.")), "By weights alone .* Heavy"),
        (pooled(pooled_ess=estimate(0.3, 0.1)), "hardly known"),
        (dataclasses.replace(pooled(pooled_pareto_k=estimate(0.6)), pooled_tail=0.02), "k̂ = 0.60"),
        (pooled(log_z_pilot=estimate(1.2, 0.02)), "log Z by pooled weights .* annealed pilot .* disagree"),
        (dataclasses.replace(GOOD, ess_count=120.0), "Only 120 effective samples"),
        (dataclasses.replace(GOOD, parts_sigma=9.0), "a tenth of the samples is 9 of its errors"),
        (changed(log_z_pilot=estimate(1.2, 0.02)), "annealed pilot .* disagree"),
        (changed(log_z_rate=estimate(1.5, 0.05)), "rate C_t .* disagree"),
        (changed(reverse_kl=estimate(-1.1)), "below its bound"),
        (dataclasses.replace(GOOD, known={"log_z": estimate(1.006, 0.0)}), "away from the exact value"),
        (changed(forward_ess=estimate(0.3)), "forward ESS"),
        (changed(solver_error=estimate(0.5)), "sampling steps"),
        (changed(solver_error=estimate(0.07), log_z=estimate(1.0, 0.1)), "sampling steps"),  # the error is the solver's
        (changed(solver_error=estimate(float("nan"))), "sampling steps"),
        (dataclasses.replace(GOOD, pilot_complaints=("It stopped.",)), "It stopped."),
        (dataclasses.replace(GOOD, skipped_share=0.4), "40% of the training steps"),
        (dataclasses.replace(GOOD, drift=7.0), "by 7.0 of their errors: a part of the target next to the samples"),
        (dataclasses.replace(GOOD, drift=float("nan")), "Moves that leave the target invariant"),
    ],
)
def test_each_check_fails_alone_and_says_why(findings, words):
    trustworthy, warnings, _ = judge(findings)
    assert not trustworthy and len(warnings) == 1
    assert re.search(words, warnings[0])
    failed = [check for check in checks_of(findings) if not check.passed]
    assert warnings[0] in [check.warning for check in failed]


def test_the_forward_ess_of_an_untrained_mixture_is_exempt():
    findings = changed(forward_ess=estimate(0.1, ok=False, reason="One weight is 90 % of the sum."))
    assert not judge(findings)[0]
    assert judge(dataclasses.replace(findings, untrained=True))[0]


def test_a_target_error_that_is_not_reached_is_a_note():
    for asked, said in ((0.0, False), (0.002, False), (0.0005, True)):
        trustworthy, _, notes = judge(dataclasses.replace(GOOD, target_error=asked))
        assert trustworthy and any("was 0.0005, and 0.001 was reached" in note for note in notes) == said


def test_notes_do_not_distrust():
    thin = changed(pareto_k=estimate(0.6), tail_excess=estimate(0.001))
    trustworthy, _, notes = judge(dataclasses.replace(thin, sampled_exactly=False))
    assert trustworthy
    assert any("infinite variance" in note for note in notes) and any("no exact samples" in note for note in notes)


def test_a_small_missed_mode_that_was_weighed_is_a_note():
    well = Region(np.array([30.0, 0.0]), 0.004, points=np.array([[30.0, 0.0]]))
    for known_to, said in ((1e-3, True), (1e-2, False)):
        trustworthy, _, notes = judge(dataclasses.replace(GOOD, regions=[well], sampling_error=known_to))
        assert trustworthy and any("about 0.004 of the probability near x = (30, 0)" in note for note in notes) == said


def test_minima_that_were_not_weighed_are_a_note():
    trustworthy, _, notes = judge(dataclasses.replace(GOOD, num_unweighed=3))
    assert trustworthy and "does not reach 3 more minima" in notes[0]


def test_light_weights_have_no_heavy_tail():
    """Weights so equal that their tail holds next to nothing, and nothing wrong with them: not a word."""
    assert judge(changed(tail_excess=estimate(1e-8), pareto_k=estimate(-0.1))) == (True, (), ())


def test_pooled_samples_answer_for_a_flow_with_heavy_tails():
    """The flow's own weights in doubt are then a note, and a warning where nothing else answers."""
    trustworthy, _, notes = judge(pooled())
    assert trustworthy and any("pooled with those of a Student t" in note for note in notes)
    assert not judge(dataclasses.replace(pooled(), pooled=False))[0]


def test_what_was_not_checked_is_said():
    """3 of N descents end in a mode of width s where N s^dim = 3; with exact samples nothing is left to say."""
    assert unchecked(GOOD) == ""
    blind = dataclasses.replace(GOOD, sampled_exactly=False, num_descents=4096, dim=10)
    assert "narrower than about 0.49 times" in unchecked(blind) and "4096 descents" in unchecked(blind)
    assert "0.027 times" in unchecked(dataclasses.replace(blind, dim=2))
    assert unchecked(dataclasses.replace(blind, num_descents=0)) == "modes that the pilot has not visited"


def test_uncovered_regions_are_found_apart_and_small_misfits_are_not():
    rng = np.random.default_rng(0)
    centers = np.array([[-8.0, -8], [-8, 8], [8, -8], [8, 8]])[np.arange(1000) % 4]
    points = centers + rng.normal(size=(1000, 2))
    assert uncovered_regions(points, rng.normal(size=1000)) == []
    log_ratio = np.where(np.arange(1000) % 4 < 2, np.where(np.arange(1000) % 4 == 0, 20.0, np.inf), 0.1)
    regions = uncovered_regions(points, log_ratio)
    assert [region.share for region in regions] == [0.25, 0.25]
    found = sorted(tuple(np.round(region.center).tolist()) for region in regions)
    assert found == [(-8.0, -8.0), (-8.0, 8.0)]
    assert uncovered_share(log_ratio) == 0.5 and uncovered_share(np.array([0.0, np.nan, -np.inf, np.inf])) == 0.5
    assert uncovered_regions(points, np.full(1000, np.nan))  # a density that is NaN covers nothing


def test_the_verdict_names_the_route_that_log_z_came_from():
    heavy = estimate(5.0, ok=False, reason="Heavy tail.")
    annealed = dataclasses.replace(estimate(1.5), method="annealed along the path, moves of size 0.1")
    _, warnings, _ = judge(changed(log_z=annealed, log_z_importance=heavy, log_z_annealed=annealed))
    routes = [warning for warning in warnings if "disagree" in warning]
    assert routes and all(warning.startswith("log Z by annealing along the path (1.5 ± 0.001)") for warning in routes)
    assert not any("importance" in warning for warning in routes)
    _, warnings, _ = judge(changed(log_z_rate=estimate(1.5, 0.05)))
    assert warnings[0].startswith("log Z by importance weights (1 ± 0.001) and by the rate C_t")


def test_a_number_at_its_limit_is_printed_with_the_digits_that_show_it():
    _, _, notes = judge(changed(pareto_k=estimate(0.5004), tail_excess=estimate(0.001)))
    assert "k̂ = 0.5004, above 0.5" in notes[0]


def test_an_annealed_route_in_doubt_is_not_compared():
    assert judge(changed(log_z_annealed=estimate(9.0, ok=False, reason="Few particles came through.")))[0]


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        (dataclasses.replace(GOOD, trained_in_double=True), "Training took place in double precision"),
        (dataclasses.replace(GOOD, answers_in_double=False), "are in single precision"),
        (dataclasses.replace(GOOD, rounding=0.5), "The rounding of the energy, 0.5, is larger"),
        (dataclasses.replace(GOOD, field_choice="The field is lattice: ..."), "The field is lattice: ..."),
    ],
)
def test_notes_tell_the_precision_and_the_field(findings, words):
    trustworthy, _, notes = judge(findings)
    assert trustworthy and any(words in note for note in notes)
