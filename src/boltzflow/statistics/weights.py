"""Whether importance weights may be believed: effective samples, the largest share, the Pareto tail k̂.

References: Zhang & Stephens, Technometrics 51 (2009) for the fit; Vehtari, Simpson, Gelman, Yao & Gabry, Pareto
smoothed importance sampling, JMLR 25 (2024) for its use on weights, the length of the tail and the threshold.
Every `distrust...` function answers with a sentence, empty where nothing is wrong.
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
    """The log-weights in float64; raises InputError unless their shape is `(n,)`."""
    log_w = np.asarray(log_weight, dtype=np.float64)
    if log_w.ndim != 1:
        raise InputError(f"expected log-weights of shape (n,), one for each sample, got shape {log_w.shape}.")
    return log_w


def screen(log_weight: ArrayLike) -> tuple[Floats, str]:
    """The log-weights that are numbers or -inf (a true zero weight), and a sentence that counts the others."""
    log_w = as_log_weight(log_weight)
    num_nan, num_inf = int(np.isnan(log_w).sum()), int(np.isposinf(log_w).sum())
    if not num_nan + num_inf:
        return log_w, ""
    return log_w[log_w < np.inf], failed_weights(num_nan, num_inf, len(log_w))


def failed_weights(num_nan: int, num_infinite: int, total: int) -> str:
    """How many weights of `total` are no numbers."""
    return f"{num_nan} of {total} weights are NaN and {num_infinite} are infinite; they were left out."


def count_non_finite(log_weight: ArrayLike) -> dict[str, int]:
    """How many of the log-weights, shape `(n,)`, are NaN (`nan`), +inf (`plus_inf`) and -inf (`minus_inf`)."""
    log_w = as_log_weight(log_weight)
    masks = {"nan": np.isnan(log_w), "plus_inf": np.isposinf(log_w), "minus_inf": np.isneginf(log_w)}
    return {name: int(mask.sum()) for name, mask in masks.items()}


def shares(log_w: Floats) -> Floats:
    """The normalized weights w / Σ w, shape `(n,)`; at least one must be above zero."""
    weight = np.exp(log_w - log_w.max())
    return weight / weight.sum()


def hopeless(log_w: Floats) -> str:
    """Why no error bar can be given at all, or an empty string."""
    if len(log_w) == 0:
        return "There are no samples."
    if not np.isfinite(log_w).any():
        return f"All {len(log_w)} weights are zero: every energy is infinite."
    return "One sample has no error bar; draw more." if len(log_w) == 1 else ""


def distrust(log_w: Floats) -> str:
    """Why averages over these weights are not to be relied on: too few effective samples, one large share, a high k̂."""
    if sentence := hopeless(log_w):
        return sentence
    share = shares(log_w)
    return distrust_numbers(1 / float((share**2).sum()), float(share.max()), *tail_shape(log_w), len(log_w))


def distrust_numbers(effective: float, largest_share: float, k: float, length: int, n: int) -> str:
    """The same of n weights by what they come to: effective samples, largest share, k̂ fitted to `length` of them."""
    if effective < MIN_EFFECTIVE * (1 - 1e-9):
        return f"Only {effective:.1f} effective samples of {n}, fewer than {MIN_EFFECTIVE}; draw or train more."
    return distrust_share(largest_share) or distrust_tail(k, length, n)


def distrust_share(share: float) -> str:
    """Why one weight counts for too much."""
    return f"One weight holds {share:.1%} of the sum, more than {MAX_SHARE:.0%}." if share > MAX_SHARE else ""


def distrust_tail(k: float, length: int, n: int, what: str = "weights") -> str:
    """Why a tail of shape k, fitted to `length` of n weights, leaves no usable error bar."""
    if np.isnan(k):
        return f"The tail of the {what} could not be fitted: {length} different values of {n}, fewer than {MIN_TAIL}."
    limit = tail_threshold(n)
    return f"The {what} have a heavy tail: Pareto k̂ = {k:.2f}, above {limit:.2f}." if k > limit else ""


def tail_threshold(n: int) -> float:
    """The k̂ above which n weights give no usable error bar: min(1 - 1/log10 n, 0.7) (Vehtari et al., 2024)."""
    return min(1 - 1 / float(np.log10(max(n, 11))), 0.7)


def tail_length(n: int) -> int:
    """How many of the largest of n weights are the tail: min(n/5, 3√n)."""
    return int(np.ceil(min(0.2 * n, 3 * np.sqrt(n))))


def tail_shape(log_w: Floats) -> tuple[float, int]:
    """The shape k̂ of the upper tail of exp(log_w) and the length of the tail it was fitted to.

    `log_w`: shape `(n,)`, finite or -inf. The tail is the min(n/5, 3√n) largest weights above the next one.
    """
    return top_shape(np.sort(log_w)[-tail_length(len(log_w)) - 1 :])


def tail_excess(log_w: Floats) -> float:
    """What the tail holds above where it begins, as a share of all weights: Σ_tail (w - u) / Σ w, u the next one below.

    All that a misjudged tail can change is a few times this.
    """
    top = np.sort(log_w)[-tail_length(len(log_w)) - 1 :] - log_w.max()
    return float((np.exp(top) - np.exp(top[0])).sum() / np.exp(log_w - log_w.max()).sum())


def top_shape(top: Floats) -> tuple[float, int]:
    """What `tail_shape` says, from the logarithms of the tail and of the next one below it, in any order.

    Weights whose upper tail is flat have none to fit: (0, 0). Too few different ones to fit: (nan, their number).
    """
    top = np.sort(top)
    if top[-1] - top[0] < FLAT_TAIL:
        return 0.0, 0
    weight = np.exp(top - top[-1])
    exceedances = weight[weight > weight[0]] - weight[0]
    if len(exceedances) < MIN_TAIL:
        return float("nan"), len(exceedances)
    return _fit_generalized_pareto(exceedances), len(exceedances)


def _fit_generalized_pareto(x: Floats) -> float:
    """The shape k from positive exceedances, sorted upward: Zhang & Stephens (2009).

    Empirical Bayes over the profile likelihood of b = -k/σ on a fixed set of points; then, after Vehtari et al., drawn
    towards 1/2 with the weight of ten observations.
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
