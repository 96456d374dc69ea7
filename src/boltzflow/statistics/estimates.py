"""Statistics of log-weights and samples, each an `Estimate` with its standard error and a statement on its validity.

Everywhere `log_weight = -energy - log_prob`, the log of the unnormalized target over the normalized proposal, shape
`(n,)`, in nats. A log-weight of -inf is a sample of infinite energy: its weight is zero and is kept. NaN and +inf are
failures: they are left out, `ok` is False and `reason` counts them. Sums run in float64. Errors and biases are
leave-one-out (jackknife), in closed form. Every function raises `InputError` unless the shape is `(n,)`.
"""

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import chdtrc, ndtri, stdtrit

from boltzflow.errors import InputError
from boltzflow.statistics import weights
from boltzflow.statistics.notation import concise_array
from boltzflow.statistics.weights import Floats

MIN_SAMPLES = 30
MOST_SAMPLES = 2**24  # drawn for log Z; their log-weights take 128 MiB
_MAX_CONTROL_SIGMA = 5.0
TOO_FEW = f"Too few samples: {{}}, where at least {MIN_SAMPLES} are needed."


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its standard error, and whether it is reliable.

    It is shown as 1.05093(5), which is 1.05093 ± 0.00005, and with `!` and the reason where it is not reliable.

    Args:
        value: A float, or an array of an observable's shape.
        stderr: The standard error, of the same shape.
        n: How many samples were used; 0 for an exact value.
        method: How the value was found.
        ok: Whether the value is reliable. Always False if `value` or `stderr` is not finite.
        reason: Why the value is not reliable, in one sentence; empty if it is.
    """

    value: Any
    stderr: Any
    n: int
    method: str = ""
    ok: bool = True
    reason: str = ""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.value).all() and np.isfinite(self.stderr).all()):
            object.__setattr__(self, "ok", False)
            object.__setattr__(self, "reason", self.reason or "The estimate is not finite.")

    def __repr__(self) -> str:
        return f"{self._number}{'' if self.ok else f' ! {self.reason}'}"

    def _repr_html_(self) -> str:
        doubt = "" if self.ok else f"<br><small>Not to be relied on: {escape(self.reason)}</small>"
        return f"<code>{escape(self._number)}{'' if self.ok else ' !'}</code>{doubt}"

    @property
    def _number(self) -> str:
        return concise_array(self.value, self.stderr)


def exact(value: float, method: str = "exact", stderr: float = 0.0) -> Estimate:
    """A value known without sampling; `stderr` is the error of the computation, such as that of a quadrature."""
    return Estimate(float(value), float(stderr), 0, method)


def log_z_importance(log_weight: ArrayLike, *, bounded: bool = False) -> Estimate:
    """log Z by importance weights, x ~ q: log Z = log (1/n) Σ_i exp(log_weight_i), its O(1/n) bias removed.

    The error holds that of the jackknife and, in quadrature, what the tail of the weights may hold beyond the sample.
    The tail of weights that are known to be `bounded` needs no check.
    """
    log_w, failed = weights.screen(log_weight)
    n = len(log_w)
    tails = [] if bounded or weights.hopeless(log_w) else weights.fit_tails(weights.tail_of(log_w), n)
    doubt = weights.distrust(log_w, tails)
    if weights.hopeless(log_w):
        return _estimate(log_w.max() if n else np.nan, np.inf, n, "importance weights", failed, doubt)
    mean = np.exp(log_w - log_w.max()).mean()
    with np.errstate(divide="ignore"):
        left_out = np.log1p(-weights.shares(log_w)) - np.log1p(-1 / n)  # relative to the log of the mean
    unseen = weights.tail_error(tails) / (n * mean)
    bias, stderr = _jackknife(left_out, unseen)
    return _estimate(log_w.max() + np.log(mean) - bias, stderr, n, "importance weights", failed, doubt)


def log_z_pooled(log_weight: ArrayLike, control: ArrayLike, bound: ArrayLike) -> Estimate:
    """log Z by the weights of samples pooled from several densities, with a control variate of mean 1.

    log Z = log (1/n) Σ_i (w_i - β (c_i - 1)), β the regression of w on c, the `control`: the ratio of one of the
    densities to the pooled one. If the mean of c is more than five errors away from 1, that density is wrong. `bound`
    are log-weights that bound those of the pool up to a constant, on samples of their own (-inf elsewhere): where their
    tail is light, that of the pool needs no check.
    """
    log_w = weights.as_log_weight(log_weight)
    ratio = weights.as_log_weight(control)[log_w < np.inf]
    bounded = weights.is_light(weights.as_log_weight(bound))
    plain = log_z_importance(log_w, bounded=bounded)
    method = "flow and Student-t pooled"
    log_w, _ = weights.screen(log_w)
    if not np.isfinite(plain.stderr):
        return dataclasses.replace(plain, method=method)
    n = len(log_w)
    weight = np.exp(log_w - log_w.max())
    deviation = ratio - ratio.mean()
    variance = (deviation**2).mean()
    slope = (weight * deviation).mean() / variance if variance > 1e-12 else 0.0
    corrected = weight - slope * (ratio - 1)
    off = abs(ratio.mean() - 1) / max(np.sqrt(variance / n), 1e-6)
    doubt = ""
    if not off <= _MAX_CONTROL_SIGMA:
        doubt = f"The flow's density does not integrate to 1 over the pooled samples: {ratio.mean():.4g}."
    elif corrected.mean() <= 0:
        doubt = "The control variate exceeds the weights."
    if doubt:
        return dataclasses.replace(plain, method=method, ok=False, reason=f"{doubt} {plain.reason}".strip())
    tails = [] if bounded else weights.fit_tails(weights.tail_of(log_w), n)
    unseen = weights.tail_error(tails) / (n * corrected.mean())
    with np.errstate(divide="ignore"):
        left_out = np.log1p(-corrected / corrected.sum()) - np.log1p(-1 / n)
    bias, stderr = _jackknife(left_out, unseen)
    value = log_w.max() + np.log(corrected.mean()) - bias
    return dataclasses.replace(plain, value=float(value), stderr=stderr, method=method)


def log_z_of_groups(log_weight: Float[np.ndarray, "num_groups num"]) -> Estimate:
    """log Z by the weights of independent groups of dependent samples, with the error of their scatter.

    The error is the jackknife's over groups, times t/1.96 with t the 95 % point of Student's law of as many groups.
    """
    largest = log_weight.max()
    method = "independent groups of weights"
    if len(log_weight) < 2 or not np.isfinite(largest):
        return _estimate(np.nan, np.inf, log_weight.size, method, TOO_FEW.format(len(log_weight)))
    sums = np.exp(log_weight - largest).sum(axis=1)
    with np.errstate(divide="ignore"):
        left_out = np.log1p(-sums / sums.sum()) - np.log1p(-1 / len(sums))
    few = stdtrit(len(sums) - 1, 0.975) / 1.96
    value = largest + np.log(sums.sum() / log_weight.size)
    return _estimate(value, few * _jackknife(left_out)[1], log_weight.size, method)


def samples_for(error: float, log_weight: ArrayLike, most: int = MOST_SAMPLES) -> int:
    """How many samples with weights like these give log Z the target error: 1.2 (1/ESS - 1) / error², at most `most`.

    No sample is added if `error` is 0 or the weights are not reliable.
    """
    log_w, _ = weights.screen(log_weight)
    num = len(np.asarray(log_weight))
    if not error or weights.distrust(log_w):
        return num
    share = weights.effective_share(log_w)
    return max(num, int(np.ceil(min(most, 1.2 * (1 / share - 1) / error / error))))


def log_z_bounds(log_weight: ArrayLike, forward_log_weight: ArrayLike | None = None) -> dict[str, Estimate]:
    """Bounds on log Z without an exponential (Gibbs): E_q[log_weight] ≤ log Z ≤ E_p[log_weight], if that is given."""
    bounds = {"log_z_lower": _mean(log_weight, 1.0, 0.0, "mean log-weight, x ~ q")}
    if forward_log_weight is not None:
        bounds["log_z_upper"] = _mean(forward_log_weight, 1.0, 0.0, "mean log-weight, x ~ p")
    return bounds


def reverse_kl(log_weight: ArrayLike) -> Estimate:
    """The reverse KL divergence minus log Z, x ~ q: E_q[log q + f] = -E_q[log_weight], never below -log Z (Eq. 21)."""
    return _mean(log_weight, -1.0, 0.0, "x ~ q; KL minus log Z")


def forward_kl(log_weight: ArrayLike, log_z: float = 0.0) -> Estimate:
    """The forward KL divergence from exact samples x ~ p: E_p[log_weight] - log Z (Eq. 24)."""
    return _mean(log_weight, 1.0, -log_z, "x ~ p; KL" + ("" if log_z else " plus log Z"))


def reverse_ess(log_weight: ArrayLike) -> Estimate:
    """The effective sample size of samples x ~ q as a fraction of n, in (0, 1]: (Σ w)² / (n Σ w²) (Eq. 22)."""
    return _ess(log_weight, "x ~ q")


def forward_ess(log_weight: ArrayLike) -> Estimate:
    """The effective sample size from exact samples x ~ p, in (0, 1]: (Σ u)² / (n Σ u²) with u = q/p (Eq. 25).

    A log-weight of +inf is a sample that q cannot reach: u = 0, and it is kept.
    """
    return _ess(-np.asarray(log_weight, dtype=np.float64), "x ~ p")


def hausdorff(modes: ArrayLike, x: ArrayLike) -> Estimate:
    """The largest distance from a mode, `(num_modes, dim)`, to its nearest sample, `(n, dim)` (Eq. 23).

    The error is the spread over ten tenths of the samples, an upper bound on that of all of them.
    """
    from scipy.spatial import KDTree  # half a second to import, and few targets have known modes

    centers = np.asarray(modes, dtype=np.float64)
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or centers.ndim != 2 or centers.shape[1] != points.shape[1] or not len(centers):
        raise InputError(f"expected modes (num_modes, dim) and x (n, dim), got {centers.shape} and {points.shape}.")
    finite = points[np.isfinite(points).all(axis=1)]
    n = len(finite)
    failed = f"{len(points) - n} of {len(points)} samples are not finite and were left out." if n < len(points) else ""
    parts = [part for part in np.array_split(finite, 10) if len(part)]
    nearest = np.array([KDTree(part).query(centers)[0] for part in parts])  # (parts, num_modes)
    value = nearest.min(axis=0).max() if n else np.nan
    if n < MIN_SAMPLES:
        return _estimate(value, np.inf, n, "nearest sample", failed, TOO_FEW.format(n))
    return _estimate(value, nearest.max(axis=1).std(ddof=1), n, "nearest sample", failed)


def pareto_k(log_weight: ArrayLike) -> Estimate:
    """The Pareto tail index k̂ of the weights: moments of order below 1/k̂ exist (Vehtari et al., JMLR 25, 2024).

    The standard error is that of the maximum-likelihood fit to a tail of length m, (1 + k̂)/√m.
    """
    log_w, failed = weights.screen(log_weight)
    if sentence := weights.hopeless(log_w):
        return _estimate(np.nan, np.inf, len(log_w), "generalized Pareto fit", failed, sentence)
    tails = weights.fit_tails(weights.tail_of(log_w), len(log_w))
    whole = tails[0]
    method = f"generalized Pareto fit to {whole.length} weights" if whole.length else "the weights have no tail"
    return _estimate(whole.k, whole.stderr, len(log_w), method, failed, weights.distrust_tails(tails, len(log_w)))


def tail_excess(log_weight: ArrayLike) -> Estimate:
    """The share of the weights' tail above its beginning: Σ_tail (w - u) / Σ w, u the next weight below the tail.

    Where this share is small, a heavy tail can spoil error bars and hardly the values.
    """
    log_w, failed = weights.screen(log_weight)
    sentence = weights.hopeless(log_w)
    value = np.nan if sentence else weights.tail_excess(log_w)
    return _estimate(value, 0.0, len(log_w), "sample tail", failed, sentence)


def largest_weight_share(log_weight: ArrayLike) -> Estimate:
    """The share of the largest weight, max w / Σ w, in [1/n, 1]: a property of this sample, without error bar."""
    log_w, failed = weights.screen(log_weight)
    if not np.isfinite(log_w).any():
        return _estimate(np.nan, 0.0, len(log_w), "sample maximum", failed, weights.hopeless(log_w))
    share = float(weights.shares(log_w).max())
    return _estimate(share, 0.0, len(log_w), "sample maximum", failed, weights.distrust_share(share))


def disagreement(a: Estimate, b: Estimate) -> float:
    """The largest |a - b| / √(σ_a² + σ_b²) of two independent estimates; infinite where one of them is not finite."""
    gap = np.abs(np.subtract(a.value, b.value))
    scale = np.maximum(np.abs(a.value), np.abs(b.value))
    combined = np.hypot(a.stderr, b.stderr)
    if not (np.isfinite(gap).all() and np.isfinite(combined).all()):
        return float("inf")
    gap = np.where(gap > 64 * np.finfo(np.float64).eps * np.maximum(scale, 1.0), gap, 0.0)  # less is rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(gap == 0, 0.0, gap / combined)))


def joint_disagreement(estimates: Sequence[Estimate]) -> float:
    """How far independent estimates of one number are from their weighted mean, as a normal deviate of the same χ².

    Estimates that are not finite, or have no error, are left out.
    """
    finite = [e for e in estimates if np.isfinite(e.value) and np.isfinite(e.stderr) and e.stderr > 0]
    if len(finite) < 2:
        return 0.0
    value, stderr = (np.array([getattr(e, name) for e in finite]) for name in ("value", "stderr"))
    pulls = (value - np.average(value, weights=stderr**-2.0)) / stderr
    return chi_squared_sigma(float(np.sum(pulls**2)), len(finite) - 1)


def chi_squared_sigma(chi_squared: float, degrees_of_freedom: int) -> float:
    """The |z| that a normal number exceeds as rarely as χ² exceeds `chi_squared`; √χ² for one degree of freedom."""
    if not np.isfinite(chi_squared):
        return float("inf")
    return max(0.0, -float(ndtri(chdtrc(degrees_of_freedom, chi_squared) / 2)))


def _estimate(value: Any, stderr: Any, n: int, method: str, *doubts: str) -> Estimate:
    """An estimate that is ok unless a doubt is not empty."""
    return Estimate(float(value), float(stderr), n, method, not any(doubts), " ".join(filter(None, doubts)))


def widened(square: Any, cube: Any, unseen: Any) -> Any:
    """√square, wider for what the sample does not show; square and cube are sums of powers of the influences.

    To second order (Edgeworth) the 95 % interval of a mean of skewness γ covers 0.25 γ² too little, and a sample that
    misses the tail underestimates γ. Widening the error by 1 + 2 γ² corrects both (see the tests). A heavy tail may
    hold more, `unseen`, which is then added in quadrature instead.
    """
    skewness = 1 + 2 * cube**2 / np.maximum(square, 1e-100) ** 3
    return np.maximum(np.sqrt(square) * skewness, np.sqrt(square + unseen**2))


def _jackknife(left_out: Floats, unseen: float = 0.0) -> tuple[float, float]:
    """Bias and standard error from the n leave-one-out answers minus the full one."""
    n = len(left_out)
    if not np.isfinite(left_out).all():  # one sample holds all of the weight
        return 0.0, np.inf
    mean = left_out.mean()
    square = (n - 1) / n * ((left_out - mean) ** 2).sum()
    cube = ((left_out - mean) ** 3).sum()
    return (n - 1) * mean, float(widened(square, cube, unseen))


def _mean(log_weight: ArrayLike, sign: float, shift: float, method: str) -> Estimate:
    """The mean of sign * log_weight + shift, with a doubt that counts infinite log-weights and NaN."""
    log_w = weights.as_log_weight(log_weight)
    terms = log_w[~np.isnan(log_w)]
    n = len(terms)
    infinite = int(np.isinf(terms).sum())
    num_nan = len(log_w) - n
    doubts = [f"{num_nan} of {len(log_w)} log-weights are NaN; they were left out."] if num_nan else []
    doubts += [f"{infinite} of {len(log_w)} log-weights are infinite."] if infinite else []
    doubts += [TOO_FEW.format(n)] if n < MIN_SAMPLES else []
    with np.errstate(invalid="ignore"):
        value = sign * terms.mean() + shift if n else np.nan
    stderr = np.inf if infinite or n < 2 else terms.std(ddof=1) / np.sqrt(n)
    return _estimate(value, stderr, n, method, *doubts)


def _ess(log_weight: ArrayLike, method: str) -> Estimate:
    """(Σ w)² / (n Σ w²) of w = exp(log_weight), with a jackknife error."""
    log_w, failed = weights.screen(log_weight)
    n = len(log_w)
    doubt = weights.distrust(log_w)
    if weights.hopeless(log_w):
        return _estimate(1.0 if n == 1 and np.isfinite(log_w[0]) else np.nan, np.inf, n, method, failed, doubt)
    share = weights.shares(log_w)
    with np.errstate(divide="ignore", invalid="ignore"):
        left_out = (1 - share) ** 2 / ((n - 1) * ((share**2).sum() - share**2))
    return _estimate(weights.effective_share(log_w), _jackknife(left_out)[1], n, method, failed, doubt)
