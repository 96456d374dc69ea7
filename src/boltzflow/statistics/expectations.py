"""Expectations under the target by self-normalized importance weights, over any number of samples.

The O(1/n) bias of the value is removed, the error is the jackknife's, and `ok` depends on the weights and on the
weights times the observable. Memory does not grow with the number of samples.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from boltzflow.errors import InputError
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.indexing import out_of_range
from boltzflow.numerics.tracing import depends_on_input
from boltzflow.statistics import weights
from boltzflow.statistics.estimates import Estimate
from boltzflow.statistics.weights import Floats

_PROBABILITY_BOUND = 3.0  # over n effective: the chance to miss an event of that probability is exp(-3), 5 %
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
        self._influences: list[Floats] = []

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
            self._influences = [tail * factor for tail in self._influences]
        else:
            self._shift = flat.mean(axis=0)
            self._sums = np.zeros((4, 4, flat.shape[1]))
            square = (flat - self._shift) ** 2
            concentration = square.max(axis=0) / np.maximum(square.sum(axis=0), 1e-300)
            self._columns = np.argsort(-concentration)[:_MAX_TAILED]
            self._influences = [np.zeros(0) for _ in range(2 * len(self._columns))]
        self._reference = largest

    def _keep_tails(self, log_w: Floats, weight: Floats, centered: Floats) -> None:
        """Keep the largest weights, and the largest influences of each observable on either side of its mean."""
        length = weights.tail_length(self.n) + 1
        self._tail = _largest(np.concatenate([self._tail, log_w]), length)
        mean = self._sums[0, 1] / self._sums[0, 0]
        for i, column in enumerate(self._columns):
            influence = weight * (centered[:, column] - mean[column])
            for side, sign in enumerate((1, -1)):
                both = np.concatenate([self._influences[2 * i + side], sign * influence])
                self._influences[2 * i + side] = _largest(both[both > 0], length)

    def estimate(self, shape: tuple[int, ...] = ()) -> Estimate:
        """The expectation over all batches, in the `shape` of one observation."""
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
        square = np.maximum(square, 0.0)
        widening = 1 + 2 * cube**2 / np.maximum(square, 1e-100) ** 3
        value = self._shift + mean + (self.n - 1) / self.n * cross
        stderr = np.sqrt((self.n - 1) / self.n * square) * widening
        effective = float(first[0] ** 2 / second[0])
        doubts = [failed, self._distrust(effective, float(1 / first[0]))]
        if self._range:
            low, high = self._range
            value = np.where(low == high, low, value)  # without the rounding of the sums
            if self._is_constant:
                stderr = np.zeros_like(stderr)
                doubts = []
            else:
                stderr, unseen = self._unseen(stderr, effective, shape)
                doubts.append(unseen)
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
        bound = min(1.0, _PROBABILITY_BOUND / effective)
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

    def _distrust(self, effective: float, largest_share: float) -> str:
        """`weights.distrust` of the weights, then of the weights times each observable, on either side of its mean."""
        if sentence := weights.distrust_numbers(effective, largest_share, *weights.top_shape(self._tail), self.n):
            return sentence
        for influence in filter(len, self._influences):
            # Where fewer samples have an influence than a tail is long, the next one below is 0.
            below = [-np.inf] if len(influence) <= weights.tail_length(self.n) else []
            shape = weights.top_shape(np.concatenate([np.log(influence), below]))
            if sentence := weights.distrust_tail(*shape, self.n, "weights times the values"):
                return sentence
        return ""


def _largest(values: Floats, num: int) -> Floats:
    return values if len(values) <= num else np.partition(values, len(values) - num)[-num:]


Batch = tuple[Float[np.ndarray, "num dim"], Float[np.ndarray, " num"]]


def expect(fn: Callable[[Float[Array, " dim"]], Any], dim: int, batches: Iterable[Batch]) -> Any:
    """E_p[fn(x)] from batches of samples x ~ q and log-weights: the pytree of `fn`, each leaf an `Estimate`.

    A leaf that does not depend on x is exact. An estimate is not ok where all sampled values are equal.

    Raises `InputError` where `fn` fails, is not numeric, is not finite at a sample whose weight is not zero, or depends
    on an entry beyond an array's end.
    """
    point = jax.ShapeDtypeStruct((dim,), jax.dtypes.canonicalize_dtype(float))
    try:
        found = jax.eval_shape(lambda x: jax.tree.map(jnp.asarray, fn(x)), point)
        paths, tree = jax.tree_util.tree_flatten_with_path(found)
        varies = depends_on_input(fn, point)
    except Exception as error:  # whatever a user's function raises
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(f"the observable fails on a point of shape ({dim},): {what}") from error
    if not paths:
        raise InputError("the observable returns nothing: return a number, an array, or a tree of them")
    names = []
    for path, leaf in paths:
        names.append(f"the observable's leaf {jax.tree_util.keystr(path)}" if path else "the observable")
        if not (leaf.dtype == bool or jnp.isdtype(leaf.dtype, ("real floating", "integral"))):
            raise InputError(f"{names[-1]} returns {leaf.dtype}: return real numbers")

    def flat(x):
        return [jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(fn(x))]

    sums = [StreamedExpectation(name, not varied) for name, varied in zip(names, varies, strict=True)]
    for x, log_weight in _indices_checked(fn, batches):
        for one, values in zip(sums, map_points(flat, x), strict=True):
            one.add(np.asarray(values), np.asarray(log_weight))
    return jax.tree.unflatten(tree, [one.estimate(leaf.shape) for one, (_, leaf) in zip(sums, paths, strict=True)])


def _indices_checked(fn: Callable[[Float[Array, " dim"]], Any], batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, after `fn` was found at the first points to use no index beyond an array's end."""
    batches = iter(batches)
    for x, log_weight in itertools.islice(batches, 1):
        if words := out_of_range(fn, x):
            raise InputError(
                f"the observable {words}, where JAX silently takes the nearest one; x has the dimension {x.shape[1]}"
            )
        yield x, log_weight
    yield from batches
