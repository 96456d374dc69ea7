"""Reliability of importance weights: effective samples, the largest share, the Pareto tail k̂.

References: Zhang & Stephens, Technometrics 51 (2009) for the fit; Vehtari, Simpson, Gelman, Yao & Gabry, Pareto
smoothed importance sampling, JMLR 25 (2024) for its use on weights, the length of the tail and the threshold.
Every `distrust...` function returns a sentence, empty where nothing is wrong.

k̂ alone selects for luck: it is low just where the tail went unseen. Hence three rules. k̂ is judged with its own error
on top. It is also fitted to the top quarter and sixteenth of the tail, where a rare heavy part stands out. What the
fitted tail may hold beyond the sample is part of the error (`tail_error`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzflow.errors import InputError

MIN_EFFECTIVE = 100
MAX_SHARE = 0.05
MIN_TAIL = 5
FLAT_TAIL = 1e-6  # nats between the first and the last weight of the tail
MAX_K = 0.7  # for many samples
_PARTS = (4, 16)  # the tail is also fitted to its largest quarter and sixteenth
_MIN_PART = 25  # of such a part; the fit to fewer weights says nothing
_MARGINS = (1.0, 1.0, 0.0)  # errors of k̂ that are added before it is compared: whole tail, quarter, sixteenth
_LEAST_EXTRAPOLATED = 50  # weights in a tail from which its unseen part is judged
_LIGHT = 0.5  # tails with a smaller k̂ plus its error need no extrapolation
_MOST_K = 0.99  # beyond it a tail has no mean
Floats = NDArray[np.float64]


class Tail(NamedTuple):
    """A generalized Pareto fit to the largest weights; scale and excess are in units of the largest weight."""

    k: float  # NaN where there are too few different weights
    length: int  # how many weights it was fitted to; 0 where they are all equal
    scale: float  # σ
    excess: float  # Σ (w - u), u the next weight below

    @property
    def stderr(self) -> float:
        """The error of k̂ from a maximum-likelihood fit, (1 + k)/√length."""
        return float(max(1 + self.k, 0.5) / np.sqrt(self.length)) if self.length else 0.0


def as_log_weight(log_weight: ArrayLike) -> Floats:
    """The log-weights in float64. Raises `InputError` unless their shape is `(n,)`."""
    log_w = np.asarray(log_weight, dtype=np.float64)
    if log_w.ndim != 1:
        raise InputError(f"expected log-weights of shape (n,), one for each sample, got shape {log_w.shape}.")
    return log_w


def screen(log_weight: ArrayLike) -> tuple[Floats, str]:
    """The log-weights that are finite or -inf (a weight of zero), and a sentence that counts the others."""
    log_w = as_log_weight(log_weight)
    failed = failed_weights(int(np.isnan(log_w).sum()), int(np.isposinf(log_w).sum()), len(log_w))
    return log_w[log_w < np.inf], failed  # NaN is not


def failed_weights(num_nan: int, num_infinite: int, total: int) -> str:
    """A sentence that counts the weights left out of `total`, empty if there are none."""
    sentence = f"{num_nan} of {total} weights are NaN and {num_infinite} are infinite; they were left out."
    return sentence if num_nan + num_infinite else ""


def shares(log_w: Floats) -> Floats:
    """The normalized weights w / Σ w, shape `(n,)`, of log-weights that are finite or -inf, at least one finite."""
    weight = np.exp(log_w - log_w.max())
    return weight / weight.sum()


def effective_share(log_w: Floats) -> float:
    """The effective sample size as a fraction of n, (Σ w)² / (n Σ w²) in (0, 1]; 0 if no weight is above zero."""
    if not np.isfinite(log_w).any():
        return 0.0
    return min(1 / (len(log_w) * float((shares(log_w) ** 2).sum())), 1.0)


def hopeless(log_w: Floats) -> str:
    """Why no error bar exists at all, or an empty string."""
    if len(log_w) == 0:
        return "There are no samples."
    if not np.isfinite(log_w).any():
        return f"All {len(log_w)} weights are zero: every energy is infinite."
    return "One sample has no error bar; draw more." if len(log_w) == 1 else ""


def distrust(log_w: Floats, tails: Sequence[Tail] | None = None) -> str:
    """Why averages over these weights are not reliable: too few effective samples, one large share, a heavy tail.

    `tails` are the fits to their tail, if these are known; an empty list leaves the tail out.
    """
    if sentence := hopeless(log_w):
        return sentence
    n = len(log_w)
    tails = fit_tails(tail_of(log_w), n) if tails is None else tails
    return distrust_numbers(n * effective_share(log_w), float(shares(log_w).max()), tails, n)


def is_light(log_w: Floats) -> bool:
    """Whether the weights above zero are enough, and have a tail that permits error bars."""
    positive = log_w[np.isfinite(log_w)]
    n = len(positive)
    if n < MIN_EFFECTIVE or (log_w == np.inf).any():
        return False
    return not distrust_tails(fit_tails(tail_of(positive), n), n)


def distrust_numbers(effective: float, largest_share: float, tails: Sequence[Tail], n: int) -> str:
    """`distrust` of n weights from their effective samples, their largest share, and the fits to their tail.

    Without fits the tail is not judged.
    """
    if effective < MIN_EFFECTIVE * (1 - 1e-9):
        shown, _ = told_apart(effective, MIN_EFFECTIVE, 1)
        return f"Only {shown} effective samples of {n}, fewer than {MIN_EFFECTIVE}; draw or train more."
    return distrust_share(largest_share) or (distrust_tails(tails, n) if tails else "")


def distrust_share(share: float) -> str:
    """Why one weight dominates, if its share is above 5 %."""
    if share <= MAX_SHARE:
        return ""
    percent, _ = told_apart(100 * share, 100 * MAX_SHARE, 1)
    return f"One weight holds {percent}% of the sum, more than {MAX_SHARE:.0%}."


def distrust_tails(tails: Sequence[Tail], n: int, what: str = "weights") -> str:
    """Why the tail of n weights permits no error bar: k̂ plus its own error is above the limit.

    In the last of three parts, whose k̂ is hardly known, k̂ itself must be above.
    """
    whole, *parts = tails
    if np.isnan(whole.k):
        found = f"{whole.length} different values of {n}, fewer than {MIN_TAIL}"
        if whole.length >= MIN_TAIL:
            found = f"its {whole.length} values span too many orders of magnitude"
        return f"The tail of the {what} could not be fitted: {found}."
    limit = min(1 - 1 / float(np.log10(max(n, 11))), MAX_K)  # Vehtari et al., 2024
    for tail, margin in zip([whole, *parts], _MARGINS, strict=False):
        if tail.k + margin * tail.stderr > limit:
            which = "" if tail is whole else f"largest {tail.length} "
            return (
                f"The {which}{what} have a heavy tail: Pareto k̂ = {tail.k:.2f} ± {tail.stderr:.2f}, not safely below "
                f"{limit:.2f}."
            )
    return ""


def tail_error(tails: Sequence[Tail]) -> float:
    """What the tail may hold beyond the sample, in units of the largest weight.

    The fitted tail of m weights has the sum m σ / (1 - k). The error is the largest amount, over the fits, by which
    this sum at k̂ plus its own error exceeds the sum in the sample. A mean of n weights has 1/n of it. Where k̂ plus its
    error is small, the variance of the sample knows enough of the tail, and where the tail is short, nothing can be
    extrapolated: then this is 0.
    """
    if not tails or tails[0].length < _LEAST_EXTRAPOLATED:
        return 0.0
    held = [
        tail.length * tail.scale / (1 - min(tail.k + tail.stderr, _MOST_K)) - tail.excess
        for tail in tails
        if tail.length and tail.k + tail.stderr > _LIGHT
    ]
    return max([0.0, *held])


def told_apart(value: float, limit: float, decimals: int = 2) -> tuple[str, str]:
    """Two different numbers with so many decimals, or with as many more as show that they differ."""
    while decimals < 16 and f"{value:.{decimals}f}" == f"{limit:.{decimals}f}":
        decimals += 1
    return f"{value:.{decimals}f}", f"{limit:.{decimals}f}"


def tail_length(n: int) -> int:
    """The length of the tail of n weights: the min(n/5, 3√n) largest."""
    return int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))


def tail_of(log_w: Floats) -> Floats:
    """The log-weights of the tail and the next one below it, sorted upward."""
    length = tail_length(len(log_w)) + 1
    return np.sort(log_w if len(log_w) <= length else np.partition(log_w, len(log_w) - length)[-length:])


def tail_excess(log_w: Floats) -> float:
    """Σ_tail (w - u) / Σ w, u the next weight below the tail."""
    top = tail_of(log_w) - log_w.max()
    return float((np.exp(top) - np.exp(top[0])).sum() / np.exp(log_w - log_w.max()).sum())


def fit_tails(top: Floats, n: int) -> list[Tail]:
    """Fits to the tail of n weights, to its top quarter and to its top sixteenth, where these are long enough.

    `top` has the log-weights of the tail and of the next one below it.
    """
    top = np.sort(top)
    tails = [_fit_tail(top)]
    for part in _PARTS:
        length = int(np.ceil(tail_length(n) / part))
        if length >= _MIN_PART and len(top) > length and tails[0].length:
            tail = _fit_tail(top[-length - 1 :])
            tails += [tail] if np.isfinite(tail.k) else []
    return tails


def _fit_tail(top: Floats) -> Tail:
    """The fit to sorted log-weights above the first of them."""
    if top[-1] - top[0] < FLAT_TAIL:
        return Tail(0.0, 0, 0.0, 0.0)
    weight = np.exp(top - top[-1])
    exceedances = weight[weight > weight[0]] - weight[0]
    k, scale = _fit_generalized_pareto(exceedances) if len(exceedances) >= MIN_TAIL else (float("nan"), 0.0)
    length = len(exceedances) if np.isfinite(k) else int(np.sum(top > top[0]))  # exp may underflow
    return Tail(k, length, scale if np.isfinite(k) else 0.0, float(exceedances.sum()))


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # NaN where the exceedances span too much
def _fit_generalized_pareto(x: Floats) -> tuple[float, float]:
    """The shape k and the scale σ of positive exceedances, sorted upward (Zhang & Stephens, 2009).

    Empirical Bayes over the profile likelihood of b = -k/σ; k is shrunk towards 1/2 as if by ten more observations.
    """
    m = len(x)
    num_points = 30 + int(np.sqrt(m))
    quartile = x[int(m / 4 + 0.5) - 1]
    b = (1 - np.sqrt(num_points / (np.arange(1, num_points + 1) - 0.5))) / (3 * quartile) + 1 / x[-1]
    shape = np.log1p(-b[:, None] * x).mean(axis=1)
    log_likelihood = m * (np.log(-b / shape) - shape - 1)
    posterior = np.exp(log_likelihood - log_likelihood.max())
    best = float((b * posterior).sum() / posterior.sum())
    k = float(np.log1p(-best * x).mean())
    return (m * k + 10 * 0.5) / (m + 10), -k / best
