"""The estimators against closed forms: q = N(0, 1) as the proposal, exp(-(x - MEAN)² / 2 SCALE²) as the target.

Statistical tests compare at 4.5 standard errors with fixed seeds: a correct estimator fails for one seed in 150,000.
Coverage counts 600 repeats and allows 3.4 binomial errors.
"""

import zlib

import numpy as np
import pytest

from boltzflow.errors import InputError
from boltzflow.statistics import estimates
from boltzflow.statistics.estimates import Estimate
from boltzflow.statistics.expectations import StreamedExpectation, expectation
from boltzflow.statistics.weights import Tail, distrust_numbers, distrust_tails, effective_share, fit_tails, tail_of

MEAN, SCALE = 0.5, 0.8
LOG_Z = np.log(SCALE * np.sqrt(2 * np.pi))
REVERSE_KL = -np.log(SCALE * np.sqrt(2 * np.pi)) + (1 + MEAN**2) / (2 * SCALE**2) + np.log(SCALE) - 0.5
FORWARD_KL = -np.log(SCALE) + (SCALE**2 + MEAN**2) / 2 - 0.5
SIGMAS = 4.5

ON_WEIGHTS = [
    estimates.log_z_importance,
    estimates.reverse_ess,
    estimates.forward_ess,
    estimates.reverse_kl,
    estimates.forward_kl,
    estimates.pareto_k,
    estimates.largest_weight_share,
    lambda log_weight: expectation(np.arange(len(log_weight)), log_weight),
]


def make_log_weight(x, mean=MEAN):
    return -((x - mean) ** 2) / (2 * SCALE**2) + x**2 / 2 + 0.5 * np.log(2 * np.pi)


def moment_ratio(a, b):
    """(∫ w dq)² / ∫ w² dq for w = N(a; b²) / N(0; 1) under q = N(0, 1), by quadrature."""
    x = np.linspace(-12, 12, 200_001)
    log_p = -((x - a) ** 2) / (2 * b**2) - np.log(b)
    return 1 / (np.exp(2 * log_p + x**2 / 2).sum() * (x[1] - x[0]) / np.sqrt(2 * np.pi))


@pytest.fixture
def rng(request):
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


def assert_agrees(estimate, truth):
    assert estimate.ok, estimate.reason
    assert np.all(np.abs(estimate.value - truth) <= SIGMAS * np.asarray(estimate.stderr)), (estimate, truth)


def test_reverse_metrics_match_closed_forms(rng):
    log_weight = make_log_weight(rng.normal(size=50_000))
    assert_agrees(estimates.log_z_importance(log_weight), LOG_Z)
    assert_agrees(estimates.reverse_kl(log_weight), REVERSE_KL)
    assert_agrees(estimates.reverse_ess(log_weight), moment_ratio(MEAN, SCALE))


def test_forward_metrics_match_closed_forms(rng):
    log_weight = make_log_weight(rng.normal(MEAN, SCALE, size=50_000))
    assert_agrees(estimates.forward_kl(log_weight, LOG_Z), FORWARD_KL)
    assert_agrees(estimates.forward_kl(log_weight), FORWARD_KL + LOG_Z)


def test_forward_ess_matches_its_closed_form(rng):
    """With q narrower than p, so that q/p has all its moments under p: p = N(MEAN, 1), q = N(0, SCALE²)."""
    x = rng.normal(MEAN, 1.0, size=50_000)
    log_weight = -((x - MEAN) ** 2) / 2 + x**2 / (2 * SCALE**2) + 3.0
    assert_agrees(estimates.forward_ess(log_weight), moment_ratio(-MEAN, SCALE))


def test_log_z_of_wrong_target_disagrees(rng):
    estimate = estimates.log_z_importance(make_log_weight(rng.normal(size=50_000), mean=MEAN) + 0.05)
    assert estimates.disagreement(estimate, estimates.exact(LOG_Z)) > SIGMAS


def test_gibbs_bounds_enclose_log_z(rng):
    reverse, forward = make_log_weight(rng.normal(size=2_000)), make_log_weight(rng.normal(MEAN, SCALE, size=2_000))
    bounds = estimates.log_z_bounds(reverse, forward)
    assert bounds["log_z_lower"].value < LOG_Z < bounds["log_z_upper"].value
    assert set(estimates.log_z_bounds(reverse)) == {"log_z_lower"}
    assert bounds["log_z_lower"].value == -estimates.reverse_kl(reverse).value


@pytest.mark.parametrize("n", [200, 2_000])
def test_intervals_cover_and_biases_vanish(rng, n):
    log_z, moments = [], []
    for _ in range(600):
        x = rng.normal(size=n)
        log_weight = make_log_weight(x)
        log_z.append(estimates.log_z_importance(log_weight))
        moments.append(expectation(np.stack([x, x**2], axis=1), log_weight))
    for answers, truth in ((log_z, LOG_Z), (moments, np.array([MEAN, MEAN**2 + SCALE**2]))):
        pull = np.array([(a.value - truth) / a.stderr for a in answers]).reshape(600, -1)
        covered = (np.abs(pull) < 1.96).mean(axis=0)
        assert np.all((covered > 0.92) & (covered < 0.98)), covered
        error = np.array([a.value - truth for a in answers]).reshape(600, -1)
        assert np.all(np.abs(error.mean(axis=0)) < SIGMAS * error.std(axis=0) / np.sqrt(600))


def test_intervals_cover_for_skewed_weights(rng):
    """Lognormal weights of ESS e⁻¹ and log w as observable: without the widening, coverage is 0.91 at n = 500."""
    pulls = []
    for _ in range(600):
        z = rng.normal(size=500)
        estimate = expectation(z, z)
        pulls.append((estimate.value - 1.0) / estimate.stderr)
    assert 0.92 < np.mean(np.abs(pulls) < 1.96) < 0.98


def test_expectation_keeps_trailing_shape_and_constants(rng):
    x = rng.normal(size=(4_000, 2, 3))
    log_weight = make_log_weight(x[:, 0, 0])
    estimate = expectation(x, log_weight)
    truth = np.zeros((2, 3))
    truth[0, 0] = MEAN
    assert estimate.value.shape == estimate.stderr.shape == (2, 3)
    assert_agrees(estimate, truth)
    constant = expectation(np.full(4_000, 0.1), log_weight)
    assert isinstance(constant.value, float)
    assert (constant.value, constant.stderr) == (0.1, np.inf)  # nobody said that the values cannot vary
    assert not constant.ok and "is 0.1 at all 4000 samples" in constant.reason


def test_expectation_is_ok_for_light_tails_only(rng):
    estimate = expectation(rng.standard_cauchy(20_000), np.zeros(20_000))
    assert not estimate.ok
    assert "times the values" in estimate.reason
    z = rng.normal(size=2_000)  # w |z - 1| is a mixture of two laws without Pareto tail; each side has one
    assert expectation(z, z).ok


def test_expectation_refuses_invalid_values():
    with pytest.raises(InputError, match="one value for each of the 5 weights"):
        expectation(np.zeros(4), np.zeros(5))
    with pytest.raises(InputError, match="the observable is NaN at 1 of 5 samples"):
        expectation([0.0, 1.0, np.nan, 0.0, 0.0], np.zeros(5))
    with pytest.raises(InputError, match="shape"):
        estimates.log_z_importance(np.zeros((2, 2)))
    behind_a_wall = expectation([np.nan, *np.tile([1.0, 3.0], 100)], [-np.inf, *np.zeros(200)])
    assert behind_a_wall.ok and behind_a_wall.value == pytest.approx(2.0) and behind_a_wall.n == 201


@pytest.mark.parametrize("k", [0.3, 0.5, 0.9])
def test_pareto_k_finds_known_tail_exponents(rng, k):
    weights = rng.uniform(size=200_000) ** -k  # P(w > s) = s^(-1/k): a generalized Pareto tail of shape k
    estimate = estimates.pareto_k(np.log(weights))
    assert abs(estimate.value - k) < SIGMAS * estimate.stderr
    assert estimate.ok == (k < 0.7)
    assert estimates.log_z_importance(np.log(weights)).ok == (k < 0.7)


def test_tail_excess_is_share_of_tail_above_its_beginning():
    """For 10,000 weights of 1 and 100 of 3 it is 200 of 10,300; for equal weights, 0."""
    weights = np.concatenate([np.ones(10_000), np.full(100, 3.0)])
    assert estimates.tail_excess(np.log(weights)).value == pytest.approx(200 / 10_300)
    assert estimates.tail_excess(np.zeros(500)).value == 0


def test_pareto_k_of_bounded_weights_is_below_zero_and_of_equal_ones_zero(rng):
    assert estimates.pareto_k(np.log(rng.uniform(size=20_000))).value < 0
    assert estimates.pareto_k(np.zeros(500)).value == 0
    assert estimates.pareto_k(1e-9 * rng.normal(size=500)).ok


@pytest.mark.parametrize("function", ON_WEIGHTS)
def test_estimates_ignore_order_and_offset_of_weights(rng, function):
    log_weight = 0.3 * rng.normal(size=1_000)
    order = rng.permutation(1_000)
    values = rng.normal(size=1_000)

    def of(log_w, v):
        on_values = function is ON_WEIGHTS[-1]
        return expectation(v, log_w) if on_values else function(log_w)

    base, permuted, shifted = (
        of(log_weight, values),
        of(log_weight[order], values[order]),
        of(log_weight + 700.0, values),
    )
    shift = {estimates.log_z_importance: 700.0, estimates.reverse_kl: -700.0, estimates.forward_kl: 700.0}
    assert permuted.value == pytest.approx(base.value, rel=1e-9)
    assert shifted.value - shift.get(function, 0.0) == pytest.approx(base.value, abs=1e-9)
    assert shifted.stderr == pytest.approx(base.stderr, rel=1e-6)
    assert base.ok


@pytest.mark.parametrize("function", ON_WEIGHTS)
@pytest.mark.parametrize(
    "log_weight",
    [[], [1.0], [np.nan], [-np.inf] * 50, [0.0] + [-900.0] * 500, [np.nan] * 3 + [0.0] * 200],
    ids=["empty", "one", "nan", "zeros", "dominated", "some-nan"],
)
def test_degenerate_weights_are_refused_with_a_sentence(function, log_weight):
    estimate = function(np.array(log_weight))
    if len(log_weight) == 501 and function in (estimates.reverse_kl, estimates.forward_kl, estimates.forward_ess):
        assert estimate.ok  # one outlier of 501 has little influence on means of log-weights and on q/p
    else:
        assert not estimate.ok
        assert estimate.reason.endswith(".")


def test_failures_are_counted_and_zero_weights_kept(rng):
    log_weight = np.concatenate([np.full(500, -np.inf), np.zeros(500)])
    log_z = estimates.log_z_importance(log_weight)
    assert (log_z.value, log_z.n, log_z.ok) == (pytest.approx(np.log(0.5), abs=4 * log_z.stderr), 1_000, True)
    assert estimates.reverse_ess(log_weight).value == pytest.approx(0.5)
    divergence = estimates.reverse_kl(log_weight)
    assert (divergence.value, divergence.ok) == (np.inf, False)
    assert "500 of 1000 log-weights are infinite" in divergence.reason
    broken = np.concatenate([log_weight, [np.nan, np.inf, np.inf]])
    assert "1 of 1003 weights are NaN and 2 are infinite" in estimates.log_z_importance(broken).reason


def test_forward_ess_detects_missing_mode_and_reverse_ess_does_not(rng):
    """q covers one of two equal modes: the reverse ESS is 1, the forward one 1/2 (q/p is 2 or 0)."""
    assert estimates.reverse_ess(np.full(1_000, np.log(0.5))).value == pytest.approx(1.0)
    at_exact_samples = np.where(rng.uniform(size=20_000) < 0.5, np.inf, np.log(0.5))
    assert_agrees(estimates.forward_ess(at_exact_samples), 0.5)
    assert estimates.forward_kl(at_exact_samples).value == np.inf


def test_effective_share_is_the_fraction_of_equal_weights(rng):
    log_weight = rng.normal(size=1_000)
    assert effective_share(log_weight) == estimates.reverse_ess(log_weight).value
    assert effective_share(np.array([3.0, 3.0, -np.inf, -np.inf])) == 0.5
    assert effective_share(np.full(5, -np.inf)) == 0.0


def test_hausdorff_is_the_worst_nearest_distance(rng):
    modes = np.array([[0.0, 0.0], [3.0, 4.0]])
    at_origin = np.zeros((100, 2))
    assert estimates.hausdorff(modes, at_origin) == Estimate(5.0, 0.0, 100, "nearest sample")
    x = rng.normal(size=(3_000, 2))
    brute = np.sqrt(((x[:, None] - modes) ** 2).sum(-1)).min(0).max()
    assert estimates.hausdorff(modes, x).value == pytest.approx(brute, rel=1e-12)
    many = rng.normal(size=(400, 3_000))  # more than one block of distances
    assert estimates.hausdorff(many[-1:] + 1.0, many).value == pytest.approx(np.sqrt(3_000), rel=1e-9)
    at_origin[0] = np.nan
    assert "1 of 100 samples are not finite" in estimates.hausdorff(modes, at_origin).reason
    assert not estimates.hausdorff(modes, at_origin[1:10]).ok
    with pytest.raises(InputError, match="num_modes, dim"):
        estimates.hausdorff(modes, np.zeros((100, 3)))


def test_disagreement_counts_combined_errors():
    assert estimates.disagreement(Estimate(1.0, 0.3, 10), Estimate(2.0, 0.4, 10)) == pytest.approx(2.0)
    assert estimates.disagreement(estimates.exact(0.1 + 0.2), estimates.exact(0.3)) == 0.0
    assert estimates.disagreement(estimates.exact(0.1), estimates.exact(0.3)) == np.inf
    assert estimates.disagreement(Estimate(np.nan, 1.0, 10), estimates.exact(0.3)) == np.inf
    both = Estimate(np.zeros(2), np.ones(2), 10), Estimate(np.array([0.0, 3.0]), np.zeros(2), 10)
    assert estimates.disagreement(*both) == pytest.approx(3.0)


def test_float32_input_is_summed_in_float64(rng):
    log_weight = (1e-3 * rng.normal(size=100_000)).astype(np.float32)
    assert estimates.log_z_importance(log_weight) == estimates.log_z_importance(log_weight.astype(np.float64))


# --- streamed ---------------------------------------------------------------------------------------------------------


def one_by_one(values, log_weight):
    """Value, error and bias of Σ w O / Σ w by leaving each sample out in turn."""
    w = np.exp(log_weight - log_weight.max())
    full = w @ values / w.sum()
    left_out = np.array([np.delete(w, i) @ np.delete(values, i) / np.delete(w, i).sum() for i in range(len(w))])
    n = len(w)
    return n * full - (n - 1) * left_out.mean(), np.sqrt((n - 1) * np.var(left_out))


def test_streamed_expectation_is_jackknife():
    rng = np.random.default_rng(5)
    log_weight, values = rng.normal(0, 0.4, 2_000), 1e4 + rng.normal(size=2_000)
    value, stderr = one_by_one(values, log_weight)
    estimate = expectation(values, log_weight)
    assert estimate.value == pytest.approx(value, abs=1e-3 * stderr)
    assert estimate.stderr == pytest.approx(stderr, rel=0.02)  # widened a little for skewness


@pytest.mark.parametrize("sizes", [(10_000,), (1, 9_999), (100,) * 100, (9_000, 1_000)])
def test_expectation_does_not_depend_on_batch_size(sizes):
    rng = np.random.default_rng(6)
    log_weight = 300 + rng.normal(0, 1.0, 10_000) + np.linspace(-2, 2, 10_000)  # the largest weight keeps growing
    values = rng.normal(size=(10_000, 3)) + np.array([0.0, 1e3, -5.0])
    whole, sums, start = expectation(values, log_weight), StreamedExpectation(), 0
    for size in sizes:
        sums.add(values[start : start + size], log_weight[start : start + size])
        start += size
    parts = sums.estimate((3,))
    np.testing.assert_allclose(parts.value, whole.value, rtol=1e-10)
    np.testing.assert_allclose(parts.stderr, whole.stderr, rtol=1e-6)
    assert parts.ok == whole.ok and parts.n == whole.n == 10_000


def test_streamed_expectation_detects_heavy_tail():
    rng = np.random.default_rng(7)
    heavy = 0.9 * rng.exponential(size=40_000)  # weights of a Pareto law of index 0.9
    sums = StreamedExpectation()
    for part in np.split(heavy, 40):
        sums.add(np.zeros(len(part)), part)
    assert not sums.estimate().ok and "k̂" in sums.estimate().reason


@pytest.mark.parametrize("num_seen", [1, 3])
def test_expectation_of_rare_event_is_not_ok(num_seen):
    """Even if all weights are equal: three samples of 20,000 give no useful error bar."""
    values = np.zeros(20_000)
    values[:num_seen] = 1.0
    estimate = expectation(values, np.zeros(20_000))
    assert not estimate.ok and "weights times the values" in estimate.reason


def test_streamed_expectation_keeps_only_tails():
    rng, sums = np.random.default_rng(8), StreamedExpectation()
    for _ in range(50):
        sums.add(rng.normal(size=(4_000, 2)), rng.normal(0, 0.1, 4_000))
    kept = len(sums._tail) + sum(len(tail) for tail in sums._influences)
    assert kept < 6 * 3 * np.sqrt(200_000)
    assert abs(sums.estimate((2,)).value).max() < 5 / np.sqrt(200_000)


@pytest.mark.parametrize("lowest", [-720.0, -740.0, -760.0, -5000.0])
@pytest.mark.filterwarnings("error")
def test_a_tail_that_spans_too_much_is_told_as_that(lowest):
    """A quarter of the tail underflows beside its largest weight."""
    log_weight = np.r_[np.full(19_896, -9000.0), lowest + np.linspace(0, 1, 103), 0.0]
    tails = fit_tails(tail_of(log_weight), 20_000)
    assert np.isnan(tails[0].k)
    assert distrust_tails(tails, 20_000).endswith("its 104 values span too many orders of magnitude.")


def test_a_tail_of_few_values_is_told_as_that():
    tails = fit_tails(tail_of(np.r_[np.zeros(19_998), 1.0, 2.0]), 20_000)
    assert distrust_tails(tails, 20_000).endswith("2 different values of 20000, fewer than 5.")


def test_a_number_beyond_its_limit_is_printed_apart_from_it():
    light = [Tail(0.1, 99, 1.0, 1.0)]
    assert "k̂ = 0.85 ± 0.18, not safely below 0.70." in distrust_tails([Tail(0.85, 100, 1.0, 1.0)], 10**6)
    assert distrust_tails([Tail(0.5, 100, 1.0, 1.0)], 10**6) == ""
    assert "Only 99.98 effective samples of 500, fewer than 100;" in distrust_numbers(99.98, 0.01, light, 500)
    assert "holds 5.004% of the sum, more than 5%." in distrust_numbers(200, 0.05004, light, 500)
