"""Expectations under the target by self-normalized importance weights, over any number of samples.

The O(1/n) bias of the value is removed. The error is the jackknife's and, in quadrature, what the tail of the weights
times the observable may hold beyond the sample. `ok` depends on the weights and on the weights times the observable.
Memory does not grow with the number of samples.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from boltzflow.errors import InputError
from boltzflow.numerics.batching import map_points
from boltzflow.statistics import weights
from boltzflow.statistics.estimates import Estimate, widened
from boltzflow.statistics.observables import Batch, Observed
from boltzflow.statistics.weights import Floats

PROBABILITY_BOUND = 3.0  # over n effective: the chance to miss an event of that probability is exp(-3), 5 %
MIN_SEEN = 20  # effective samples behind an observable, on either side of its mean
_MAX_TAILED = 32  # observables whose tails are fitted: the ones that depend most on few samples in the first batch


def expectation(values: ArrayLike, log_weight: ArrayLike) -> Estimate:
    """E_p[O] from samples x ~ q: Σ w O / Σ w, for `values` of O of shape `(n, ...)` and log-weights `(n,)`."""
    values = np.asarray(values, np.float64)
    log_w = weights.as_log_weight(log_weight)
    if values.ndim == 0 or len(values) != len(log_w):
        raise InputError(
            f"expected one value for each of the {len(log_w)} weights, got values of shape {values.shape}."
        )
    sums = StreamedExpectation()
    sums.add(values, log_w)
    return sums.estimate(values.shape[1:])


class StreamedExpectation:
    """Σ w O / Σ w of k observables at once, O of shape `(n, k)`, over batches of any size.

    Sums are relative to the largest weight so far and to the mean of the first batch, which keeps all digits. The
    values are called `name` in messages. With `is_constant` they are known not to depend on the sample.
    """

    def __init__(self, name: str = "the observable", is_constant: bool = False) -> None:
        self._name = name
        self._is_constant = is_constant
        self._range: tuple[Floats, Floats] | None = None  # the smallest and the largest value of each column
        self.n = 0
        self.num_nan = 0
        self.num_infinite = 0
        self._reference = -np.inf  # the largest log-weight
        self._shift = np.zeros(0)
        self._columns = np.zeros(0, int)
        self._sums = np.zeros((4, 4, 0))  # [power of w - 1, power of O, column]
        self._tail = np.zeros(0)
        self._influences: list[Floats] = []  # rows of weight and value; above, then below the mean, of each column

    def add(self, values: ArrayLike, log_weight: ArrayLike) -> None:
        """Add one batch. Raises `InputError` for a value that is not finite where the weight is not zero."""
        log_w = weights.as_log_weight(log_weight)
        if not len(log_w):
            return
        flat = np.asarray(values, np.float64).reshape(len(log_w), -1)
        kept = log_w < np.inf  # NaN is not
        self.num_nan += int(np.isnan(log_w).sum())
        self.num_infinite += int(np.isposinf(log_w).sum())
        flat = np.where(np.isneginf(log_w)[:, None], 0.0, flat)[kept]
        log_w = log_w[kept]
        for word, test in (("NaN", np.isnan), ("infinite", np.isinf)):
            if bad := int(test(flat).any(axis=1).sum()):
                raise InputError(
                    f"{self._name} is {word} at {bad} of {len(flat)} samples; return finite values wherever samples are"
                )
        if not len(log_w):
            return
        self._extend_range(flat[log_w > -np.inf])
        self.n += len(log_w)
        self._rescale(float(log_w.max()), flat)
        if not np.isfinite(self._reference):  # all weights so far are zero
            return
        weight = np.exp(log_w - self._reference)
        centered = flat - self._shift
        for power in range(3):
            for order in range(power + 2):
                self._sums[power, order] += (weight ** (power + 1)) @ centered**order
        self._keep_tails(log_w, weight, centered)

    def _extend_range(self, flat: Floats) -> None:
        if not len(flat):
            return
        low, high = flat.min(axis=0), flat.max(axis=0)
        if self._range:
            low, high = np.minimum(low, self._range[0]), np.maximum(high, self._range[1])
        self._range = low, high

    def _rescale(self, largest: float, flat: Floats) -> None:
        """Make all sums relative to the log-weight `largest`, if it is the largest so far."""
        if not np.isfinite(largest) or largest <= self._reference:
            return
        if np.isfinite(self._reference):
            factor = np.exp(self._reference - largest)
            for power in range(4):
                self._sums[power] *= factor ** (power + 1)
            self._influences = [tail * [[factor], [1.0]] for tail in self._influences]
        else:
            self._shift = flat.mean(axis=0)
            self._sums = np.zeros((4, 4, flat.shape[1]))
            square = (flat - self._shift) ** 2
            concentration = square.max(axis=0) / np.maximum(square.sum(axis=0), 1e-300)
            self._columns = np.argsort(-concentration)[:_MAX_TAILED]
            self._influences = [np.zeros((2, 0)) for _ in range(2 * len(self._columns))]
        self._reference = largest

    def _keep_tails(self, log_w: Floats, weight: Floats, centered: Floats) -> None:
        """Keep the largest weights, and the largest influences of each observable on either side of its mean.

        The mean moves from batch to batch: of each influence its weight and value are kept, and of them twice as many
        as the tail is long.
        """
        length = weights.tail_length(self.n) + 1
        self._tail = _largest(np.concatenate([self._tail, log_w]), length)
        for i, column in enumerate(self._columns):
            new = np.stack([weight, centered[:, column]])
            for side in (2 * i, 2 * i + 1):
                pairs = np.concatenate([self._influences[side], new], axis=1)
                pairs = pairs[:, self._influence(side, pairs) > 0]
                if pairs.shape[1] > 2 * length:
                    pairs = pairs[:, np.argpartition(self._influence(side, pairs), -2 * length)[-2 * length :]]
                self._influences[side] = pairs

    def _influence(self, side: int, pairs: Floats) -> Floats:
        """w (O - mean), or its negative on the odd sides, from rows of weights and values."""
        column = self._columns[side // 2]
        mean = self._sums[0, 1, column] / self._sums[0, 0, column]
        return (-1) ** side * pairs[0] * (pairs[1] - mean)

    def estimate(self, shape: tuple[int, ...] = (), bound: "StreamedExpectation | None" = None) -> Estimate:
        """The expectation over all batches, in the `shape` of one observation.

        `bound` has the same observables with weights that bound these up to a constant, on some of the samples: where
        its tails are light, those here need no check.
        """
        method = "self-normalized weights"
        total = self.n + self.num_nan + self.num_infinite
        failed = weights.failed_weights(self.num_nan, self.num_infinite, total)
        if self.n < 2 or not np.isfinite(self._reference):
            known = self.n == 1 and len(self._shift)
            value = self._shift.reshape(shape)[()] if known else np.full(shape, np.nan)[()]
            reason = weights.hopeless(np.full(self.n, self._reference))
            return Estimate(value, np.full(shape, np.inf)[()], self.n, method, False, f"{failed} {reason}".strip())
        first, second, third = self._sums[:3, 0]
        mean = self._sums[0, 1] / first
        # Leaving sample i out changes the value by -u_i / (1 - s_i), s_i its share and u_i = s_i (O_i - mean).
        square = (self._sums[1, 2] - 2 * mean * self._sums[1, 1] + mean**2 * second) / first**2
        cube = self._sums[2, 3] - 3 * mean * self._sums[2, 2] + 3 * mean**2 * self._sums[2, 1] - mean**3 * third
        cube /= first**3
        cross = (self._sums[1, 1] - mean * second) / first**2  # Σ s u
        value = self._shift + mean + (self.n - 1) / self.n * cross
        sides = self._sides()
        bounded = bound is not None and bound.n >= weights.MIN_EFFECTIVE and not bound._distrust_tails(bound._sides())
        hidden = np.zeros(len(mean))
        hidden[self._columns] = np.hypot(*np.reshape([side.unseen for side in sides], (-1, 2)).T) / first[0]
        hidden *= not bounded
        stderr = widened((self.n - 1) / self.n * np.maximum(square, 0.0), cube, hidden)
        effective = float(first[0] ** 2 / second[0])
        doubt = weights.distrust_numbers(effective, float(1 / first[0]), [], self.n)
        doubt = doubt or ("" if bounded else self._distrust_tails(sides))
        doubts = [failed, doubt]
        if self._range:
            low, high = self._range
            value = np.where(low == high, low, value)  # without the rounding of the sums
            if self._is_constant:
                stderr = np.zeros_like(stderr)
                doubts = []
            else:
                stderr, unseen = self._unseen(stderr, effective, shape)
                doubts.append(unseen or ("" if doubt else self._distrust_seen(sides)))
        reason = " ".join(filter(None, doubts))
        return Estimate(value.reshape(shape)[()], stderr.reshape(shape)[()], self.n, method, not reason, reason)

    def _unseen(self, stderr: Floats, effective: float, shape: tuple[int, ...]) -> tuple[Floats, str]:
        """The errors, and a sentence on the first column whose sampled values are all equal, or "".

        Such values show no spread from which an error could be had. Of an event that no sample saw, or every sample,
        the probability is within 3/n of 0 or 1, n the effective number of samples.
        """
        low, high = self._range or (np.zeros(0), np.zeros(0))
        equal = low == high
        if not equal.any():
            return stderr, ""
        is_event = equal & ((low == 0) | (low == 1))
        bound = min(1.0, PROBABILITY_BOUND / effective)
        column = int(np.argmax(equal))
        entry = f", entry [{', '.join(map(str, np.unravel_index(column, shape)))}]," if shape else ""
        if is_event[column]:
            seen = "no sample" if low[column] == 0 else "every sample"
            limit = f"at most {bound:.2g}" if low[column] == 0 else f"at least {1 - bound:.6g}"
            sentence = (
                f"{self._name}{entry} is {low[column]:g} at all {self.n} samples: if it is an event, {seen} saw it, "
                f"and its probability is {limit} (three over the {effective:.0f} effective samples, at 95 %)."
            )
        else:
            sentence = f"{self._name}{entry} is {low[column]:g} at all {self.n} samples, which shows no error."
        return np.where(equal, np.where(is_event, bound, np.inf), stderr), sentence

    def _sides(self) -> list["_Side"]:
        """The tails of the weights times each observable, on either side of its mean."""
        length = weights.tail_length(self.n) + 1
        influences = [self._influence(side, pairs) for side, pairs in enumerate(self._influences)]
        return [_Side.of(_largest(influence[influence > 0], length), self.n) for influence in influences]

    def _distrust_tails(self, sides: Sequence["_Side"]) -> str:
        """`weights.distrust_tails` of the weights, then of the weights times each observable."""
        if not np.isfinite(self._reference):
            return weights.hopeless(np.full(self.n, self._reference))
        if sentence := weights.distrust_tails(weights.fit_tails(self._tail, self.n), self.n):
            return sentence
        tails = (weights.distrust_tails(s.tails, self.n, "weights times the values") for s in sides if s.tails)
        return next(filter(None, tails), "")

    def _distrust_seen(self, sides: Sequence["_Side"]) -> str:
        fewest = min((side.effective for side in sides), default=np.inf)
        if fewest >= MIN_SEEN:
            return ""
        return (
            f"An observable depends on {fewest:.1f} effective samples of {self.n}, fewer than {MIN_SEEN}, on one side "
            "of its mean; draw more."
        )


class _Side(NamedTuple):
    """The largest influences w (O - mean) of an observable on one side of its mean."""

    tails: Sequence[weights.Tail]  # empty where nothing lies on this side
    effective: float  # (Σ u)² / Σ u²
    unseen: float  # what the tail may hold beyond the sample

    @classmethod
    def of(cls, influence: Floats, n: int) -> "_Side":
        """Of the largest influences among n samples."""
        if not len(influence):
            return cls((), np.inf, 0.0)
        # Where fewer samples have an influence than a tail is long, the next one below is 0.
        below = [-np.inf] if len(influence) <= weights.tail_length(n) else []
        tails = weights.fit_tails(np.concatenate([np.log(influence), below]), n)
        effective = influence.sum() ** 2 / (influence**2).sum()
        return cls(tails, float(effective), float(influence.max()) * weights.tail_error(tails))


def _largest(values: Floats, num: int) -> Floats:
    return values if len(values) <= num else np.partition(values, len(values) - num)[-num:]


def expect(fn: Callable[[Float[Array, " dim"]], Any], dim: int, batches: Iterable[Batch]) -> Any:
    """E_p[fn(x)] from batches of samples x ~ q and log-weights: the pytree of `fn`, each leaf an `Estimate`.

    A leaf that does not depend on x is exact. An estimate is not ok where all sampled values are equal. A third array
    of a batch has log-weights that bound the others, as in `StreamedExpectation.estimate`, or -inf.

    Raises `InputError` where `fn` fails, is not numeric, is not finite at a sample whose weight is not zero, or depends
    on an entry beyond an array's end.
    """
    observed = Observed.of(fn, dim)
    sums = [StreamedExpectation(name, not varied) for name, varied in zip(observed.names, observed.varies, strict=True)]
    bounds = [StreamedExpectation() for _ in observed.names]
    for x, log_weight, *more in observed.checked(batches):
        for one, bound, values in zip(sums, bounds, map_points(observed.flat, x), strict=True):
            one.add(np.asarray(values), np.asarray(log_weight))
            for log_bound in map(np.asarray, more):
                bound.add(np.asarray(values)[log_bound > -np.inf], log_bound[log_bound > -np.inf])
    estimates = [
        one.estimate(shape, bound if bound.n else None)
        for one, bound, shape in zip(sums, bounds, observed.shapes, strict=True)
    ]
    return jax.tree.unflatten(observed.tree, estimates)
