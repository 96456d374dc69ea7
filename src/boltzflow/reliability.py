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
    failed = f"{num_nan} of {len(log_w)} weights are NaN and {num_inf} are infinite; they were left out."
    return log_w[log_w < np.inf], failed


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
    effective = 1 / float((share**2).sum())
    if effective < MIN_EFFECTIVE * (1 - 1e-9):
        return (
            f"Only {effective:.1f} effective samples of {len(log_w)}, fewer than {MIN_EFFECTIVE}; draw or train more."
        )
    return distrust_share(float(share.max())) or distrust_tail(*tail_shape(log_w), len(log_w))


def distrust_share(share: float) -> str:
    """Why one weight counts for too much."""
    return f"One weight holds {share:.1%} of the sum, more than {MAX_SHARE:.0%}." if share > MAX_SHARE else ""


def distrust_tail(k: float, length: int, n: int, what: str = "weights") -> str:
    """Why a tail of shape k, fitted to `length` of n weights, leaves no usable error bar."""
    if np.isnan(k):
        return f"The tail of the {what} could not be fitted: {length} different values of {n}, fewer than {MIN_TAIL}."
    limit = tail_threshold(n)
    return f"The {what} have a heavy tail: Pareto k̂ = {k:.2f}, above {limit:.2f}." if k > limit else ""


def distrust_values(influence: Floats) -> str:
    """Why weights that are fine in themselves are not so times the values: a heavy tail on either side.

    `influence`: weight times (value - mean), shape `(n, k)`. The sides are fitted apart: together they are a mixture,
    which no Pareto law describes. Of many columns only the 32 most concentrated ones are looked at.
    """
    square = influence**2
    concentration = square.max(axis=0) / np.maximum(square.sum(axis=0), 1e-300)
    for column in influence.T[np.argsort(-concentration)[:32]]:
        for side in (column, -column):
            if np.any(side > 0):
                log_side = np.log(np.maximum(side, 0), where=side > 0, out=np.full(len(side), -np.inf))
                if sentence := distrust_tail(*tail_shape(log_side), len(side), "weights times the values"):
                    return sentence
    return ""


def tail_threshold(n: int) -> float:
    """The k̂ above which n weights give no usable error bar: min(1 - 1/log10 n, 0.7) (Vehtari et al., 2024)."""
    return min(1 - 1 / float(np.log10(max(n, 11))), 0.7)


def tail_shape(log_w: Floats) -> tuple[float, int]:
    """The shape k̂ of the upper tail of exp(log_w) and the length of the tail it was fitted to.

    `log_w`: shape `(n,)`, finite or -inf. The tail is the min(n/5, 3√n) largest weights above the next one.
    Weights whose upper tail is flat have none to fit: (0, 0). Too few different ones to fit: (nan, their number).
    """
    n = len(log_w)
    top = np.sort(log_w)[-int(np.ceil(min(0.2 * n, 3 * np.sqrt(n)))) - 1 :]
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
