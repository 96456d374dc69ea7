"""Statistics of arrays, each returned with its own error bar and a word on whether it can be believed.

Everywhere `log_weight = -energy - log_prob`, the log of the unnormalized target over the normalized proposal, shape
`(n,)`, in nats. A log-weight of -inf is a point of infinite energy: a true zero weight, which is kept. NaN and +inf are
failures: the answer is that of the other samples, its `ok` is False and its `reason` counts them. All sums run in
float64. Errors and biases are leave-one-out (jackknife), in closed form.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from boltzflow.errors import InputError
from boltzflow.statistics import weights as reliability
from boltzflow.statistics.weights import Floats

MIN_SAMPLES = 30
MOST_SAMPLES = 2**24  # that one number is worth: their log-weights are 128 MiB
TOO_FEW = f"Too few samples: {{}}, where at least {MIN_SAMPLES} are needed."


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number, its standard error, from how many samples, by which method, and whether it may be believed.

    `ok` is False where the number is not to be relied on; `reason` then says why in one sentence. `value` and `stderr`
    are floats, or arrays of an observable's own shape. An exact value has n = 0. What is not finite is never ok.
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


def exact(value: float, method: str = "exact", stderr: float = 0.0) -> Estimate:
    """A value known without sampling; `stderr` is the error of the computation (quadrature, say), usually 0."""
    return Estimate(float(value), float(stderr), 0, method)


def log_z_importance(log_weight: ArrayLike) -> Estimate:
    """The log of the normalization by importance weights, x ~ q: log Z = log (1/n) Σ_i exp(log_weight_i).

    The O(1/n) bias of the logarithm is removed by the jackknife. `ok` is False below 100 effective samples, where one
    weight exceeds 5 % of the sum, or where k̂ passes its threshold. Raises InputError unless the shape is `(n,)`.
    """
    log_w, failed = reliability.screen(log_weight)
    n, method, distrust = len(log_w), "importance weights", reliability.distrust(log_w)
    if reliability.hopeless(log_w):
        return _estimate(log_w.max() if n else np.nan, np.inf, n, method, failed, distrust)
    log_mean = log_w.max() + np.log(np.exp(log_w - log_w.max()).mean())
    with np.errstate(divide="ignore"):
        left_out = np.log1p(-reliability.shares(log_w)) - np.log1p(-1 / n)  # relative to log_mean
    bias, stderr = _jackknife(left_out)
    return _estimate(log_mean - bias, stderr, n, method, failed, distrust)


def samples_for(error: float, log_weight: ArrayLike, most: int = MOST_SAMPLES) -> int:
    """How many samples with weights like these give log Z to the standard `error`: (1/ESS - 1) / error², and a tenth
    more, up to `most`; as many as there are for an `error` of 0, or where the weights are not to be relied on."""
    log_w, _ = reliability.screen(log_weight)
    num = len(np.asarray(log_weight))
    if not error or reliability.distrust(log_w):
        return num
    share = float(reverse_ess(log_w).value)
    return max(num, int(np.ceil(min(most, 1.1 * (1 / share - 1) / error / error))))


def log_z_bounds(log_weight: ArrayLike, forward_log_weight: ArrayLike | None = None) -> dict[str, Estimate]:
    """Bounds on log Z that need no exponential: E_q[log_weight] ≤ log Z ≤ E_p[log_weight] (Gibbs).

    Returns `log_z_lower`, from `log_weight` at x ~ q, and, given exact samples x ~ p, `log_z_upper`.
    """
    bounds = {"log_z_lower": _mean(log_weight, 1.0, 0.0, "mean log-weight, x ~ q")}
    if forward_log_weight is not None:
        bounds["log_z_upper"] = _mean(forward_log_weight, 1.0, 0.0, "mean log-weight, x ~ p")
    return bounds


def reverse_kl(log_weight: ArrayLike) -> Estimate:
    """The reverse KL divergence minus log Z, x ~ q: E_q[log q + f] = -E_q[log_weight], never below -log Z (Eq. 21)."""
    return _mean(log_weight, -1.0, 0.0, "x ~ q; KL minus log Z")


def forward_kl(log_weight: ArrayLike, log_z: float = 0.0) -> Estimate:
    """The forward KL divergence, from log-weights at exact samples x ~ p: E_p[log_weight] - log Z (Eq. 24).

    Without `log_z` it is the number the paper prints, the divergence plus log Z; with it, the divergence itself.
    """
    return _mean(log_weight, 1.0, -log_z, "x ~ p; KL" + ("" if log_z else " plus log Z"))


def reverse_ess(log_weight: ArrayLike) -> Estimate:
    """The effective sample size of x ~ q as a fraction of n, in (0, 1]: (Σ w)² / (n Σ w²) (Eq. 22).

    It cannot see a mode that q never visits. The estimate is (22) itself, which is too high where few samples count.
    """
    return _ess(log_weight, "x ~ q")


def forward_ess(log_weight: ArrayLike) -> Estimate:
    """The effective sample size from exact samples x ~ p, a fraction in (0, 1]: (Σ u)² / (n Σ u²), u = q/p (Eq. 25).

    `log_weight` is that of the samples of p; +inf is a point that q cannot reach, a true u = 0, and is kept.
    """
    return _ess(-np.asarray(log_weight, dtype=np.float64), "x ~ p")


def hausdorff(modes: ArrayLike, x: ArrayLike) -> Estimate:
    """The distance from the worst-covered mode to its nearest sample: max_m min_x |m - x| (Eq. 23).

    `modes`: shape `(num_modes, dim)`; `x`: shape `(n, dim)`. It falls as n grows. The error is the spread of the same
    distance over ten tenths of the sample, an upper bound on that of the whole. Raises InputError on other shapes.
    """
    centers, points = np.asarray(modes, dtype=np.float64), np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or centers.ndim != 2 or centers.shape[1] != points.shape[1] or not len(centers):
        raise InputError(f"expected modes (num_modes, dim) and x (n, dim), got {centers.shape} and {points.shape}.")
    finite = points[np.isfinite(points).all(axis=1)]
    bad, n, method = len(points) - len(finite), len(finite), "nearest sample"
    failed = f"{bad} of {len(points)} samples are not finite and were left out." if bad else ""
    if n < MIN_SAMPLES:
        value = np.sqrt(_nearest_squared(centers, finite).max()) if n else np.nan
        return _estimate(value, np.inf, n, method, failed, TOO_FEW.format(n))
    nearest = np.sqrt([_nearest_squared(centers, part) for part in np.array_split(finite, 10)])
    return _estimate(nearest.min(axis=0).max(), nearest.max(axis=1).std(ddof=1), n, method, failed)


def pareto_k(log_weight: ArrayLike) -> Estimate:
    """The Pareto tail index k̂ of the weights: moments of order below 1/k̂ exist (Vehtari et al., JMLR 25, 2024).

    `ok` is False above min(1 - 1/log10 n, 0.7). Weights that are all alike have no tail: the value is then 0. The
    error is that of the maximum-likelihood fit to a tail of length m, (1 + k̂)/√m.
    """
    log_w, failed = reliability.screen(log_weight)
    if sentence := reliability.hopeless(log_w):
        return _estimate(np.nan, np.inf, len(log_w), "generalized Pareto fit", failed, sentence)
    k, length = reliability.tail_shape(log_w)
    stderr = max(1 + k, 0.5) / np.sqrt(length) if length else 0.0
    method = f"generalized Pareto fit to {length} weights" if length else "the weights have no tail"
    return _estimate(k, stderr, len(log_w), method, failed, reliability.distrust_tail(k, length, len(log_w)))


def tail_excess(log_weight: ArrayLike) -> Estimate:
    """What the tail that k̂ is fitted to holds above its beginning: Σ_tail (w - u) / Σ w, u the next weight below it.

    Where this share is small a heavy tail can spoil error bars, and hardly the answers.
    """
    log_w, failed = reliability.screen(log_weight)
    if sentence := reliability.hopeless(log_w):
        return _estimate(np.nan, 0.0, len(log_w), "sample tail", failed, sentence)
    return _estimate(reliability.tail_excess(log_w), 0.0, len(log_w), "sample tail", failed)


def largest_weight_share(log_weight: ArrayLike) -> Estimate:
    """The share of the largest weight in the sum of all, max w / Σ w, in [1/n, 1]; it describes the sample."""
    log_w, failed = reliability.screen(log_weight)
    if not np.isfinite(log_w).any():
        return _estimate(np.nan, 0.0, len(log_w), "sample maximum", failed, reliability.hopeless(log_w))
    share = float(reliability.shares(log_w).max())
    return _estimate(share, 0.0, len(log_w), "sample maximum", failed, reliability.distrust_share(share))


def disagreement(a: Estimate, b: Estimate) -> float:
    """How many combined standard errors lie between two independent estimates: |a - b| / √(σ_a² + σ_b²).

    Of arrays, the largest. Infinite, so that no comparison passes by accident, where either is not finite.
    """
    gap, scale = np.abs(np.subtract(a.value, b.value)), np.maximum(np.abs(a.value), np.abs(b.value))
    combined = np.hypot(a.stderr, b.stderr)
    if not (np.isfinite(gap).all() and np.isfinite(combined).all()):
        return float("inf")
    gap = np.where(gap > 64 * np.finfo(np.float64).eps * np.maximum(scale, 1.0), gap, 0.0)  # rounding is no quarrel
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(gap == 0, 0.0, gap / combined)))


def _estimate(value: Any, stderr: Any, n: int, method: str, *doubts: str) -> Estimate:
    """An estimate that is ok unless there is a doubt."""
    value, stderr = (float(v) if np.ndim(v) == 0 else v for v in (value, stderr))
    return Estimate(value, stderr, n, method, not any(doubts), " ".join(filter(None, doubts)))


def _jackknife(left_out: Floats) -> tuple[Any, Any]:
    """Bias and standard error from the n leave-one-out answers minus the full one, along the first axis.

    To second order (Edgeworth) the 95 % interval of a mean of skewness γ covers 0.25 γ² too little, and samples that
    miss the tail show too small a γ; widening the error by 1 + 2 γ² makes up for both (tests).
    """
    n = len(left_out)
    if not np.isfinite(left_out).all():  # one sample is the whole answer
        return 0.0, np.inf
    mean = left_out.mean(axis=0)
    square, cube = (((left_out - mean) ** power).sum(axis=0) for power in (2, 3))
    widening = 1 + 2 * cube**2 / np.maximum(square, 1e-100) ** 3
    return (n - 1) * mean, np.sqrt((n - 1) / n * square) * widening


def _mean(log_weight: ArrayLike, sign: float, shift: float, method: str) -> Estimate:
    """The mean of sign * log_weight + shift; an infinite log-weight makes it infinite, and is counted."""
    log_w = reliability.as_log_weight(log_weight)
    terms = log_w[~np.isnan(log_w)]
    n, infinite, num_nan = len(terms), int(np.isinf(terms).sum()), len(log_w) - len(terms)
    doubts = [f"{num_nan} of {len(log_w)} log-weights are NaN; they were left out."] if num_nan else []
    doubts += [f"{infinite} of {len(log_w)} log-weights are infinite."] if infinite else []
    doubts += [TOO_FEW.format(n)] if n < MIN_SAMPLES else []
    with np.errstate(invalid="ignore"):
        value = sign * terms.mean() + shift if n else np.nan
    stderr = np.inf if infinite or n < 2 else terms.std(ddof=1) / np.sqrt(n)
    return _estimate(value, stderr, n, method, *doubts)


def _ess(log_weight: ArrayLike, method: str) -> Estimate:
    """(Σ w)² / (n Σ w²) of exp(log_weight), with a jackknife error."""
    log_w, failed = reliability.screen(log_weight)
    n, distrust = len(log_w), reliability.distrust(log_w)
    if reliability.hopeless(log_w):
        return _estimate(1.0 if n == 1 and np.isfinite(log_w[0]) else np.nan, np.inf, n, method, failed, distrust)
    share = reliability.shares(log_w)
    square = (share**2).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        left_out = (1 - share) ** 2 / ((n - 1) * (square - share**2))
    return _estimate(min(1 / (n * square), 1.0), _jackknife(left_out)[1], n, method, failed, distrust)


def _nearest_squared(modes: Floats, x: Floats) -> Floats:
    """The squared distance from each mode to its nearest point of x, `(num_modes,)`, a bounded block at a time."""
    rows = max(1, 2**21 // modes.size)
    blocks = (x[i : i + rows, None, :] - modes for i in range(0, len(x), rows))
    return np.min([(block**2).sum(axis=-1).min(axis=0) for block in blocks], axis=0)
