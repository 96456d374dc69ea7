"""Expectations from independent groups of equally weighted, dependent samples, such as populations of SMC.

Samples of a group share ancestors, so that their own scatter says little. The scatter over groups measures the error,
by the jackknife and with Student's law for as many groups.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import stdtrit

from boltzflow.errors import InputError
from boltzflow.numerics.batching import map_points
from boltzflow.statistics.estimates import Estimate
from boltzflow.statistics.expectations import MIN_SEEN, PROBABILITY_BOUND
from boltzflow.statistics.observables import Observed
from boltzflow.statistics.weights import Floats

MIN_GROUPS = 3  # effective ones; at least four are drawn


def expect_over_groups(
    fn: Callable[[Float[Array, " dim"]], Any],
    x: Float[np.ndarray, "num_groups num dim"],
    log_z: Float[np.ndarray, " num_groups"],
    num_independent: int,
) -> Any:
    """E_p[fn(x)] from groups whose weights are exp(log_z): the pytree of `fn`, each leaf an `Estimate`.

    `num_independent` is the number of samples of a group without a common ancestor: it bounds the probability of an
    event that no sample saw. Raises `InputError` as `expectations.expect` does.
    """
    num_groups, num, dim = x.shape
    observed = Observed.of(fn, dim)
    leaves = []
    for points, *_ in observed.checked([(x.reshape(-1, dim), np.repeat(log_z, num))]):
        leaves = [np.asarray(leaf, np.float64) for leaf in map_points(observed.flat, points)]
    weight = np.exp(log_z - log_z.max())
    groups = _Groups(weight / weight.sum(), num_independent)
    estimates = []
    for leaf, name, shape, varies in zip(leaves, observed.names, observed.shapes, observed.varies, strict=True):
        value, stderr, doubt = groups.mean(leaf.reshape(num_groups, num, -1), name)
        if not varies:
            stderr = np.zeros_like(stderr)
            doubt = ""
        n = num_groups * num
        method = "independent populations"
        estimates.append(Estimate(value.reshape(shape)[()], stderr.reshape(shape)[()], n, method, not doubt, doubt))
    return jax.tree.unflatten(observed.tree, estimates)


class _Groups(NamedTuple):
    """The shares of the groups, which sum to one, and the independent samples in each."""

    share: Floats
    num_independent: int

    @property
    def effective(self) -> float:
        """The effective number of groups."""
        return 1 / float(np.sum(self.share**2))

    def mean(self, values: Float[np.ndarray, "num_groups num size"], name: str) -> tuple[Floats, Floats, str]:
        """The mean of each column, its error, and a doubt."""
        for word, test in (("NaN", np.isnan), ("infinite", np.isinf)):
            if bad := int(test(values).any(axis=2).sum()):
                total = values.shape[0] * values.shape[1]
                raise InputError(
                    f"{name} is {word} at {bad} of {total} samples; return finite values wherever samples are"
                )
        center = values[0].mean(axis=0)
        deviation = values - center
        mean = self.share @ deviation.mean(axis=1)
        deviation = deviation - mean
        stderr = np.maximum(self._jackknife(deviation.mean(axis=1)), self._least(deviation))
        low = values.min(axis=(0, 1))
        equal = low == values.max(axis=(0, 1))
        if not equal.any():
            return center + mean, stderr, self._doubt(deviation, name)
        unseen = min(1.0, PROBABILITY_BOUND / (self.effective * self.num_independent))
        is_event = (low == 0) | (low == 1)
        stderr = np.where(equal, np.where(is_event, unseen, np.inf), stderr)
        doubt = f"{name} has the same value at all samples, which shows no error."
        if np.all(is_event[equal]):
            doubt = f"{name} is an event that all samples saw or none: the error is a bound at 95 %, {unseen:.2g}."
        return np.where(equal, low, center + mean), stderr, doubt

    def _jackknife(self, means: Float[np.ndarray, "num_groups size"]) -> Floats:
        """The error from the change of the mean without each group, with Student's law for as many groups."""
        num_groups = len(means)
        share = self.share[:, None]
        change = share * means / np.maximum(1 - share, 1e-300)
        square = (num_groups - 1) / num_groups * np.sum((change - change.mean(axis=0)) ** 2, axis=0)
        return stdtrit(num_groups - 1, 0.975) / 1.96 * np.sqrt(square)

    def _least(self, deviation: Float[np.ndarray, "num_groups num size"]) -> Floats:
        """The error that as many independent samples would have."""
        variance = self.share @ np.mean(deviation**2, axis=1)
        return np.sqrt(variance / (self.effective * deviation.shape[1]))

    def _doubt(self, deviation: Float[np.ndarray, "num_groups num size"], name: str) -> str:
        """Why the scatter over groups is no error: too few groups, or too few that an observable depends on."""
        if self.effective < MIN_GROUPS:
            return (
                f"Only {self.effective:.1f} effective populations, fewer than {MIN_GROUPS}: their scatter is no error."
            )
        for sign in (1, -1):
            influence = self.share[:, None, None] * np.maximum(sign * deviation, 0.0)
            square = np.maximum(influence.sum(axis=(0, 1)) ** 2, 1e-300)
            samples = square / np.maximum(np.sum(influence**2, axis=(0, 1)), 1e-300)
            groups = square / np.maximum(np.sum(influence.sum(axis=1) ** 2, axis=0), 1e-300)
            if np.any((samples < MIN_SEEN) | (groups < MIN_GROUPS)):
                return (
                    f"{name} depends on {samples.min():.0f} effective samples of {groups.min():.1f} populations on one "
                    f"side of its mean, fewer than {MIN_SEEN} or {MIN_GROUPS}; draw more."
                )
        return ""
