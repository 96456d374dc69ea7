"""The density nearest to a target that needs no flow: a Gaussian, or a mixture of Gaussians where one is not enough.

Expectation maximization on points of the target finds the components. Then the mixture draws points, weighs them by the
target, and repeats the step on these (population Monte Carlo for mixtures: Cappé, Douc, Guillin, Marin & Robert, 2008);
the same weights, truncated at √n times their mean (Ionides, 2008), decide on the number of components. A twentieth of
the mixture is the one Gaussian, so that no weight is large between or beyond the components (Hesterberg, 1995).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture, SubspaceMixture
from boltzflow.densities.student_t import StudentTMixture
from boltzflow.numerics import linalg
from boltzflow.numerics.batching import numpy_generator
from boltzflow.sampling.coverage import MIN_SHARE, energies_at
from boltzflow.sampling.expectation_maximization import (
    Cloud,
    Components,
    Points,
    Weights,
    climb,
    grown,
    log_prob,
    maximize,
    standard_normal,
)
from boltzflow.sampling.resampling import effective_sample_size, systematic_in_double
from boltzflow.statistics.estimates import pareto_k, tail_excess

DEFENSIVE = 0.05
_MAX_SIZE = 64  # in more directions no covariance is known well enough
_MAX_COMPONENTS = 64
_LOOK_AHEAD = 4  # times the best number of components
_POINTS_PER_PARAMETER = 5  # at least, of a component's mean: covariances of fewer points are noise
_DRAWS = 2**14  # at most, in a round of population Monte Carlo
_NEGLIGIBLE = 1e-3  # a share of weight
_DRAWS_PER_NUMBER = 2  # of the components' covariances
_WINDOW = 3  # rounds whose points are kept
_STEPS = 3  # of expectation maximization in a round
_FINAL_DRAWS = 2**15
_FINAL_ROUNDS = 6  # at most, while weights are heavy
_DEGREES = (20.0, 10.0, 5.0, 3.0, 2.0)  # of Student's t, that are tried
_LEAST_LIKELIHOOD = 3e-3  # by which a mean log-likelihood must rise
_PATIENCE = 1  # rounds without a rise
_ROUNDS = 10  # at most, of population Monte Carlo
# Shares of effective samples.
_ENOUGH = 0.95  # a Gaussian that keeps this share needs no mixture
_LEAST_SHARE = 0.01  # weights with a smaller share teach nothing
_LEAST_RISE = 0.005  # by which one more round must raise the share
_LEAST_GAIN = 0.02  # more components must gain more than this


@dataclass(frozen=True)
class FittedDensity:
    """A density near the target that needs no flow."""

    density: AbstractDistribution
    share: float  # of effective samples among its weighted samples
    heavy: bool  # whether the weights have a tail that matters and may have no variance
    num_energies: int  # energies of the target that the fit used

    def num_samples(self, error: float) -> float:
        """The number of weighted samples that give log Z to `error`: (1/share - 1) / error²; infinite if `heavy`."""
        return np.inf if self.heavy or not self.share else (1 / self.share - 1) / error / error


def fit_mixture(
    target: AbstractDensity,
    gaussian: Gaussian,
    subspace: Float[np.ndarray, "dim size"],
    x: Float[np.ndarray, "num dim"],
    key: PRNGKeyArray,
    *,
    defensive: float = DEFENSIVE,
) -> FittedDensity:
    """Return `gaussian`, or a mixture in its active `subspace` where that keeps more effective samples.

    `x` are points of the target. A share `defensive` of the mixture is `gaussian`, which serves the weights; a base of
    training takes 0, because this part would lie between the modes.
    """
    draws = _Draws(target, gaussian, subspace, numpy_generator(key), defensive)
    alone = draws.judged(draws.batch(standard_normal(draws.size), _FINAL_DRAWS), gaussian)
    if draws.size > _MAX_SIZE or alone.share >= _ENOUGH:
        return alone
    points = (np.asarray(x, np.float64) - gaussian.mean) @ (linalg.dense(gaussian.inverse_scale).T @ subspace)
    if is_sign_symmetric(target):
        points = np.concatenate([points[::2], -points[1::2]])
    return replace(_search(points, draws, alone), num_energies=draws.num_energies)


def _finished(candidates: list[Components], draws: "_Draws", alone: FittedDensity) -> FittedDensity:
    """The best of `alone` and of the candidates after rounds on many points."""
    best = alone
    for components in candidates:
        rounds = _Rounds(draws, _FINAL_ROUNDS)
        found = []
        for _ in range(_FINAL_ROUNDS):
            found.append(draws.judged(rounds.drawn(draws.defended(components), _FINAL_DRAWS)))
            gain = _quality(found[-1]) - max(map(_quality, found[:-1]), default=0.0)
            if not found[-1].heavy and gain < _LEAST_RISE:
                break
            if rounds.effective() < _LEAST_SHARE:
                break
            components = rounds.stepped(components)
        # Later rounds may have found points that weigh much.
        shares = rounds.shares(_FINAL_DRAWS**0.5)
        checked = [replace(one, share=min(one.share, share)) for one, share in zip(found, shares, strict=True)]
        last = max(range(len(found)), key=lambda i: _quality(checked[i]))
        if _quality(found[last]) > _quality(best):
            best = checked[last]
    return best


def _quality(fitted: FittedDensity) -> float:
    return fitted.share / (2 if fitted.heavy else 1)


def _search(points: Points, draws: "_Draws", best: FittedDensity) -> FittedDensity:
    """The density of most effective samples: `best`, or a mixture of 1, 2, 4, 8, ... components.

    The search ends where enough samples are effective, or where two doublings (three at first) have gained nothing.
    """
    most = min(_MAX_COMPONENTS, len(points) // (_POINTS_PER_PARAMETER * (points.shape[1] + 1)))
    enough = _ENOUGH * (1 - draws.defensive)
    components = maximize(Cloud(points), np.ones((len(points), 1)))
    best = _finished(_heavier(components, points), draws, best)
    if best.share >= _ENOUGH and not best.heavy:
        return best
    pending: list[Components] = []
    known = points
    share = best.share
    num = best_num = 1
    while 2 * num <= min(most, _LOOK_AHEAD * max(best_num, 2)):
        num *= 2
        refined = _refined(grown(Cloud(known), components, num, draws.rng), draws)
        components = refined.components
        if refined.share <= share + _LEAST_GAIN:
            continue
        best_num = num
        share = refined.share
        known = np.concatenate([points, refined.points])
        pending = [components, *_heavier(components, known[draws.rng.permutation(len(known))[: len(points)]])]
        if share >= enough:
            best = _finished(pending, draws, best)
            if not best.heavy:
                return best
            share = best.share
            pending = []
    return _finished(pending, draws, best)


def _heavier(components: Components, points: Points) -> list[Components]:
    """The mixture of Student's t in place of Gaussians, if it is likelier."""
    cloud = Cloud(points)
    likelihood, _ = climb(cloud, components)
    found = []
    for degrees in _DEGREES:
        higher, heavier = climb(cloud, components._replace(degrees=degrees))
        if higher < likelihood + _LEAST_LIKELIHOOD:
            break
        likelihood = higher
        components = heavier
        found = [heavier]
    return found


class _Refined(NamedTuple):
    """Components after population Monte Carlo, the share of effective samples, and equally weighted points."""

    components: Components
    share: float
    points: Points


def _refined(components: Components, draws: "_Draws") -> _Refined:
    """The components of most effective samples among those of some rounds of population Monte Carlo."""
    best = _Refined(components, 0.0, np.empty((0, draws.size)))
    rounds = _Rounds(draws, _WINDOW)
    stalled = 0
    num = int(np.clip(_DRAWS_PER_NUMBER * components.scales.size, _DRAWS // 2, _DRAWS))
    for _ in range(_ROUNDS):
        rounds.drawn(draws.defended(components), num)
        share = rounds.shares(num**0.5)[-1]
        gain = share - best.share
        if gain > 0:
            best = _Refined(components, share, rounds.points())
        stalled = 0 if gain >= _LEAST_RISE else stalled + 1
        if stalled > _PATIENCE or rounds.effective() < _LEAST_SHARE:
            break
        components = rounds.stepped(components)
    return best


class _Batch(NamedTuple):
    """Points of a mixture, with the log of the target up to a constant there."""

    proposal: Components
    y: Points
    log_target: Weights

    def log_weight(self) -> Weights:
        return _normalized(self.log_target - log_prob(self.y, self.proposal))

    def share(self) -> float:
        """Of effective samples."""
        return _effective_share(np.exp(self.log_weight()))


class _Rounds:
    """Rounds of population Monte Carlo: points of mixtures, each of which is fitted to the points of those before.

    The points weigh by the last few mixtures together, so that none weighs much where one of them is large (adaptive
    multiple importance sampling: Cornuet, Marin, Mira & Robert, 2012).
    """

    def __init__(self, draws: "_Draws", window: int):
        self._draws = draws
        self._window = window
        self._batches: list[_Batch] = []
        self._y = np.empty((0, draws.size))
        self._log_target = np.empty(0)
        self._log_probs: list[Weights] = []  # of all points, under the proposal of each batch
        self._log_ratio = np.empty(0)  # of the target to the mean of the proposals
        self._weight = np.empty(0)

    def drawn(self, defended: Components, num: int) -> _Batch:
        """A new batch of points of a mixture; the oldest batch goes where there are too many."""
        if len(self._batches) == self._window:
            oldest = len(self._batches.pop(0).y)
            self._log_probs = [each[oldest:] for each in self._log_probs[1:]]
        new = self._draws.batch(defended, num)
        added = [log_prob(new.y, batch.proposal) for batch in self._batches]
        self._batches.append(new)
        self._y = np.concatenate([batch.y for batch in self._batches])
        self._log_target = np.concatenate([batch.log_target for batch in self._batches])
        self._log_probs = [np.concatenate(pair) for pair in zip(self._log_probs, added, strict=True)]
        self._log_probs.append(log_prob(self._y, defended))
        log_nums = np.log([[len(batch.y)] for batch in self._batches]) - np.log(len(self._y))
        self._log_ratio = self._log_target - np.logaddexp.reduce(log_nums + np.stack(self._log_probs), axis=0)
        self._weight = _truncated(np.exp(_normalized(self._log_ratio)))
        return new

    def effective(self) -> float:
        """The share of effective samples among all points, their weights truncated."""
        return _effective_share(self._weight)

    def shares(self, most: float) -> list[float]:
        """The share of effective samples that each proposal keeps, Z² over the mean square of its weights.

        All points measure it: those of another proposal may lie where this one is too small. Weights above `most` times
        the mean are truncated.
        """
        log_num = np.log(len(self._y))
        log_z = np.logaddexp.reduce(self._log_ratio) - log_num
        if not np.isfinite(log_z):
            return [0.0] * len(self._batches)
        shares = []
        for log_q in self._log_probs:
            log_weight = np.minimum(self._log_target - log_q - log_z, np.log(most))
            log_square = np.logaddexp.reduce(self._log_ratio - log_z + log_weight) - log_num
            shares.append(float(np.exp(min(-log_square, 0.0))))
        return shares

    def stepped(self, components: Components) -> Components:
        """The components after steps on the points that hold all but a thousandth of the weight."""
        order = np.argsort(self._weight)
        order = order[np.cumsum(self._weight[order]) >= _NEGLIGIBLE * self._weight.sum()]
        return climb(Cloud(self._y[order], self._weight[order]), components, most=_STEPS)[1]

    def points(self) -> Points:
        """Equally weighted points, as many as are effective."""
        num = min(int(effective_sample_size(self._weight)), _DRAWS // 2)
        return self._y[systematic_in_double(self._draws.rng, np.log(self._weight + 1e-300), num)]


def _normalized(log_weight: Weights) -> Weights:
    """The log-weights, of mean weight one; all are -inf where none is finite."""
    if not np.isfinite(log_weight.max()):
        return np.full(len(log_weight), -np.inf)
    return log_weight - np.logaddexp.reduce(log_weight) + np.log(len(log_weight))


@dataclass
class _Draws:
    """Points of mixtures in a `subspace` of a `gaussian`, weighted by the target; counts the energies used."""

    target: AbstractDensity
    gaussian: Gaussian
    subspace: Float[np.ndarray, "dim size"]
    rng: np.random.Generator
    defensive: float
    num_energies: int = 0

    @property
    def size(self) -> int:
        return self.subspace.shape[1]

    def defended(self, components: Components) -> Components:
        """The components with the defensive part of the Gaussian."""
        if not self.defensive:
            return components
        one = standard_normal(self.size)
        weights = np.concatenate([(1 - self.defensive) * components.weights, [self.defensive]])
        means, scales = np.concatenate([components.means, one.means]), np.concatenate([components.scales, one.scales])
        return Components(weights / weights.sum(), means, scales, components.degrees)

    def judged(self, batch: _Batch, density: AbstractDistribution | None = None) -> FittedDensity:
        """The proposal of the batch, which is `density` if given, with the quality of its weights."""
        log_weight = batch.log_weight()
        nowhere = not np.isfinite(log_weight.max())
        # k̂ measures the shape of the tail alone: the tail must also hold a share that matters.
        heavy = nowhere or (pareto_k(log_weight).value >= 0.5 and tail_excess(log_weight).value >= MIN_SHARE)
        density = self._density(batch.proposal) if density is None else density
        return FittedDensity(density, batch.share(), heavy, self.num_energies)

    def _density(self, components: Components) -> SubspaceMixture:
        weights, means, scales, degrees = components
        if np.isfinite(degrees):
            return SubspaceMixture(
                self.gaussian, StudentTMixture(weights, means, degrees, scales=scales), self.subspace
            )
        return SubspaceMixture(self.gaussian, GaussianMixture(weights, means, scales=scales), self.subspace)

    def batch(self, components: Components, num: int) -> _Batch:
        """`num` points y of the components, with the target there and at a normal point z outside the subspace."""
        dim, size = self.subspace.shape
        which = self.rng.choice(len(components.weights), size=num, p=components.weights)
        y = self.rng.normal(size=(num, size))
        if np.isfinite(components.degrees):
            y *= np.sqrt(components.degrees / self.rng.chisquare(components.degrees, size=(num, 1)))
        z = self.rng.normal(size=(num, dim))
        for k, (mean, scale) in enumerate(zip(components.means, components.scales, strict=True)):
            y[which == k] = mean + y[which == k] @ scale.T
        z += (y - z @ self.subspace) @ self.subspace.T
        rest = 0.5 * (np.sum(z**2, axis=1) - np.sum(y**2, axis=1)) + 0.5 * (dim - size) * np.log(2 * np.pi)
        energy = energies_at(self.target, self.gaussian.mean + z @ linalg.dense(self.gaussian.scale).T)
        self.num_energies += num
        return _Batch(components, y, np.where(np.isfinite(energy), rest - energy, -np.inf))


def _truncated(weight: Weights) -> Weights:
    return np.minimum(weight, np.sqrt(len(weight)))


def _effective_share(weight: Weights) -> float:
    return float(effective_sample_size(weight) / len(weight))
