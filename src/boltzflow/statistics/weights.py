"""Reliability of importance weights: effective samples, the largest share, the Pareto tail k̂.

References: Zhang & Stephens, Technometrics 51 (2009) for the fit; Vehtari, Simpson, Gelman, Yao & Gabry, Pareto
smoothed importance sampling, JMLR 25 (2024) for its use on weights, the length of the tail and the threshold.
Every `distrust...` function returns a sentence, empty where nothing is wrong.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boltzflow.errors import InputError

MIN_EFFECTIVE = 100
MAX_SHARE = 0.05
MIN_TAIL = 5
FLAT_TAIL = 1e-6  # nats between the first and the last weight of the tail
Floats = NDArray[np.float64]


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


def distrust(log_w: Floats) -> str:
    """Why averages over these weights are not reliable: too few effective samples, one large share, a high k̂."""
    if sentence := hopeless(log_w):
        return sentence
    n = len(log_w)
    return distrust_numbers(n * effective_share(log_w), float(shares(log_w).max()), *tail_shape(log_w), n)


def distrust_numbers(effective: float, largest_share: float, k: float, length: int, n: int) -> str:
    """`distrust` of n weights from their effective samples, largest share, and the k̂ fitted to `length` of them."""
    if effective < MIN_EFFECTIVE * (1 - 1e-9):
        shown, _ = told_apart(effective, MIN_EFFECTIVE, 1)
        return f"Only {shown} effective samples of {n}, fewer than {MIN_EFFECTIVE}; draw or train more."
    return distrust_share(largest_share) or distrust_tail(k, length, n)


def distrust_share(share: float) -> str:
    """Why one weight dominates, if its share is above 5 %."""
    if share <= MAX_SHARE:
        return ""
    percent, _ = told_apart(100 * share, 100 * MAX_SHARE, 1)
    return f"One weight holds {percent}% of the sum, more than {MAX_SHARE:.0%}."


def distrust_tail(k: float, length: int, n: int, what: str = "weights") -> str:
    """Why a tail of shape k, fitted to `length` of n weights, permits no error bar."""
    if np.isnan(k) and length < MIN_TAIL:
        return f"The tail of the {what} could not be fitted: {length} different values of {n}, fewer than {MIN_TAIL}."
    if np.isnan(k):
        return f"The tail of the {what} could not be fitted: its {length} values span too many orders of magnitude."
    limit = min(1 - 1 / float(np.log10(max(n, 11))), 0.7)  # Vehtari et al., 2024
    if k > limit:
        return "The {} have a heavy tail: Pareto k̂ = {}, above {}.".format(what, *told_apart(k, limit))
    return ""


def told_apart(value: float, limit: float, decimals: int = 2) -> tuple[str, str]:
    """Two different numbers with so many decimals, or with as many more as show that they differ."""
    while decimals < 16 and f"{value:.{decimals}f}" == f"{limit:.{decimals}f}":
        decimals += 1
    return f"{value:.{decimals}f}", f"{limit:.{decimals}f}"


def tail_length(n: int) -> int:
    """The length of the tail of n weights: the min(n/5, 3√n) largest."""
    return int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))


def tail_shape(log_w: Floats) -> tuple[float, int]:
    """The shape k̂ of the upper tail of exp(log_w), and how many weights it was fitted to."""
    return top_shape(np.sort(log_w)[-tail_length(len(log_w)) - 1 :])


def tail_excess(log_w: Floats) -> float:
    """Σ_tail (w - u) / Σ w, u the next weight below the tail."""
    top = np.sort(log_w)[-tail_length(len(log_w)) - 1 :] - log_w.max()
    return float((np.exp(top) - np.exp(top[0])).sum() / np.exp(log_w - log_w.max()).sum())


def top_shape(top: Floats) -> tuple[float, int]:
    """`tail_shape` from the log-weights of the tail and of the next one below it, in any order."""
    top = np.sort(top)
    if top[-1] - top[0] < FLAT_TAIL:
        return 0.0, 0
    weight = np.exp(top - top[-1])
    exceedances = weight[weight > weight[0]] - weight[0]
    k = _fit_generalized_pareto(exceedances) if len(exceedances) >= MIN_TAIL else float("nan")
    return k, len(exceedances) if np.isfinite(k) else int(np.sum(top > top[0]))  # exp may underflow


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # NaN where the exceedances span too much
def _fit_generalized_pareto(x: Floats) -> float:
    """The shape k of positive exceedances, sorted upward (Zhang & Stephens, 2009).

    Empirical Bayes over the profile likelihood of b = -k/σ; shrunk towards 1/2 with the weight of ten observations.
    """
    m = len(x)
    num_points = 30 + int(np.sqrt(m))
    quartile = x[int(m / 4 + 0.5) - 1]
    b = (1 - np.sqrt(num_points / (np.arange(1, num_points + 1) - 0.5))) / (3 * quartile) + 1 / x[-1]
    shape = np.log1p(-b[:, None] * x).mean(axis=1)
    log_likelihood = m * (np.log(-b / shape) - shape - 1)
    posterior = np.exp(log_likelihood - log_likelihood.max())
    best = float((b * posterior).sum() / posterior.sum())
    return (m * float(np.log1p(-best * x).mean()) + 10 * 0.5) / (m + 10)
