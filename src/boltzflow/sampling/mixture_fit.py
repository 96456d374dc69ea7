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
from boltzflow.numerics import linalg
from boltzflow.numerics.batching import numpy_generator
from boltzflow.sampling.coverage import MIN_SHARE, energies_at
from boltzflow.sampling.resampling import effective_sample_size
from boltzflow.statistics.estimates import pareto_k, tail_excess

DEFENSIVE = 0.05
_MAX_SIZE = 64  # in more directions no covariance is known well enough
_MAX_COMPONENTS = 64
_POINTS_PER_PARAMETER = 5  # at least, of a component's mean: covariances of fewer points are noise
_ITERATIONS = 25
_TOLERANCE = 1e-3  # of the mean log-likelihood
_JITTER = 1e-9  # of a variance, so that components of few points have a Cholesky factor
_DRAWS = 2**14
_FINAL_DRAWS = 2**15
_ROUNDS = 2
# Shares of effective samples.
_ENOUGH = 0.95  # a Gaussian that keeps this share needs no mixture
_LEAST_SHARE = 0.03  # weights with a smaller share teach nothing
_LEAST_GAIN = 0.02  # more components must gain more than this


Points = Float[np.ndarray, "num size"]  # in the active subspace
Weights = Float[np.ndarray, " num"]


class _Components(NamedTuple):
    """A mixture of K Gaussians in `size` dimensions."""

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K size"]
    scales: Float[np.ndarray, "K size size"]  # lower triangles


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
    alone = draws.judged(gaussian, _standard_normal(subspace.shape[1]))
    if subspace.shape[1] > _MAX_SIZE or alone.share >= _ENOUGH:
        return alone
    points = (np.asarray(x, np.float64) - gaussian.mean) @ (linalg.dense(gaussian.inverse_scale).T @ subspace)
    if is_sign_symmetric(target):
        points = np.concatenate([points[::2], -points[1::2]])
    best = alone
    components = _best(points, draws, alone.share)
    if components is not None:
        mixture = SubspaceMixture(gaussian, GaussianMixture(*components[:2], scales=components.scales), subspace)
        best = max(draws.judged(mixture, components), alone, key=lambda one: one.share)
    return replace(best, num_energies=draws.num_energies)


def _best(points: Points, draws: "_Draws", share: float) -> _Components | None:
    """The mixture that keeps most effective samples, of 2, 4, 8, ... components; None where none gains on `share`."""
    most = min(_MAX_COMPONENTS, len(points) // (_POINTS_PER_PARAMETER * (points.shape[1] + 1)))
    best = None
    best_num = 1
    components = _maximize(points, np.ones((len(points), 1)))
    while 2 * len(components.weights) <= min(most, max(4, 2 * best_num)):  # until twice as many are no better
        climbs = [_climb(points, start) for start in _split(points, components)]
        components = max(climbs, key=lambda found: found[0])[1]
        refined, kept = _refined(components, draws)
        if kept > share + _LEAST_GAIN:
            best = refined
            best_num = len(components.weights)
            share = kept
    return best


def _refined(components: _Components, draws: "_Draws") -> tuple[_Components, float]:
    """The defended components after steps on their own weighted points, and the effective share of the last weights."""
    defended = draws.defended(components)
    for _ in range(_ROUNDS):
        own, weight = draws.weigh(defended, _DRAWS)
        weight = _truncated(weight)
        if _effective_share(weight) < _LEAST_SHARE:
            return defended, 0.0
        components = _maximize(own, weight[:, None] * _expectation(own, components)[0])
        defended = draws.defended(components)
    return defended, _effective_share(_truncated(draws.weigh(defended, _DRAWS)[1]))


@dataclass
class _Draws:
    """Points of mixtures in a `subspace` of a `gaussian`, weighted by the target; counts the energies used."""

    target: AbstractDensity
    gaussian: Gaussian
    subspace: Float[np.ndarray, "dim size"]
    rng: np.random.Generator
    defensive: float
    num_energies: int = 0

    def defended(self, components: _Components) -> _Components:
        """The components with the defensive part of the Gaussian."""
        if not self.defensive:
            return components
        one = _standard_normal(components.means.shape[1])
        weights = np.concatenate([(1 - self.defensive) * components.weights, [self.defensive]])
        return _Components(weights / weights.sum(), *map(np.concatenate, zip(components[1:], one[1:], strict=True)))

    def judged(self, density: AbstractDistribution, components: _Components) -> FittedDensity:
        """`density`, which is these components in the subspace, with the quality of its weights."""
        weight = self.weigh(components, _FINAL_DRAWS)[1]
        with np.errstate(divide="ignore"):
            log_weight = np.log(weight)
        # k̂ measures the shape of the tail alone: the tail must also hold a share that matters.
        heavy = not weight.any() or (pareto_k(log_weight).value >= 0.5 and tail_excess(log_weight).value >= MIN_SHARE)
        return FittedDensity(density, _effective_share(weight), heavy, self.num_energies)

    def weigh(self, components: _Components, num: int) -> tuple[Points, Weights]:
        """`num` points y and their weights, of mean one; all weights are zero where no energy is finite."""
        dim, size = self.subspace.shape
        which = self.rng.choice(len(components.weights), size=num, p=components.weights)
        y = self.rng.normal(size=(num, size))
        z = self.rng.normal(size=(num, dim))
        for k, (mean, scale) in enumerate(zip(components.means, components.scales, strict=True)):
            y[which == k] = mean + y[which == k] @ scale.T
        z += (y - z @ self.subspace) @ self.subspace.T
        rest = 0.5 * (np.sum(z**2, axis=1) - np.sum(y**2, axis=1)) + 0.5 * (dim - size) * np.log(2 * np.pi)
        log_prob = np.logaddexp.reduce(_log_parts(y, components), axis=1) - rest - linalg.log_det(self.gaussian.scale)
        energy = energies_at(self.target, self.gaussian.mean + z @ linalg.dense(self.gaussian.scale).T)
        self.num_energies += num
        log_weight = np.where(np.isfinite(energy), -energy - log_prob, -np.inf)
        if not np.isfinite(log_weight.max()):
            return y, np.zeros(num)
        return y, np.exp(log_weight - np.logaddexp.reduce(log_weight) + np.log(num))


def _truncated(weight: Weights) -> Weights:
    return np.minimum(weight, np.sqrt(len(weight)))


def _effective_share(weight: Weights) -> float:
    return float(effective_sample_size(weight) / len(weight))


def _standard_normal(size: int) -> _Components:
    return _Components(np.ones(1), np.zeros((1, size)), np.eye(size)[None])


# --- expectation maximization -----------------------------------------------------------------------------------------


def _split(y: Points, components: _Components) -> list[_Components]:
    """Two starts with every component cut in two, across its direction of smallest and of largest kurtosis.

    These are eigenvectors of E[‖u‖² u uᵀ] for whitened points u with independent parts (Cardoso, 1989).
    """
    shares, _ = _expectation(y, components)
    cut: dict[int, list[np.ndarray]] = {0: [], -1: []}
    for share, mean, scale in zip(shares.T, components.means, components.scales, strict=True):
        u = (y - mean) @ np.linalg.inv(scale).T
        fourth = (share[:, None] * np.sum(u**2, axis=1, keepdims=True) * u).T @ u / share.sum()
        axes = np.linalg.eigh(fourth)[1]
        for which, columns in cut.items():
            side = u @ axes[:, which] > 0
            columns += [share * side, share * ~side]
    return [_maximize(y, np.stack(columns, axis=1)) for columns in cut.values()]


def _climb(y: Points, components: _Components) -> tuple[float, _Components]:
    """Expectation maximization until the mean log-likelihood stops rising; the likelihood and the components."""
    likelihood = -np.inf
    for _ in range(_ITERATIONS):
        share, higher = _expectation(y, components)
        if higher < likelihood + _TOLERANCE:
            break
        likelihood = higher
        components = _maximize(y, share)
    return likelihood, components


def _expectation(y: Points, components: _Components) -> tuple[Float[np.ndarray, "num K"], float]:
    """The share by which each point belongs to each component, and the mean log-likelihood."""
    parts = _log_parts(y, components)
    total = np.logaddexp.reduce(parts, axis=1)
    return np.exp(parts - total[:, None]), float(total.mean())


def _log_parts(y: Points, components: _Components) -> Float[np.ndarray, "num K"]:
    """log w_k N(y; m_k, S_k), by one product with all L_k⁻¹ side by side."""
    num, size = y.shape
    inverse = np.linalg.inv(components.scales)
    z = y @ inverse.reshape(-1, size).T
    z -= np.einsum("kij,kj->ki", inverse, components.means).ravel()
    np.square(z, out=z)
    log_dets = np.log(np.einsum("kii->ki", components.scales)).sum(axis=1)
    constant = np.log(components.weights) - log_dets - 0.5 * size * np.log(2 * np.pi)
    return constant - 0.5 * z.reshape(num, -1, size).sum(axis=2)


def _maximize(y: Points, share: Float[np.ndarray, "num K"]) -> _Components:
    """The components of the largest likelihood; only the largest of them may hold fewer points than dimensions."""
    num, size = y.shape
    effective = effective_sample_size(share)
    kept = effective >= min(size + 2, effective.max())
    share = share[:, kept]
    total = share.sum(axis=0)
    means = (share.T @ y) / total[:, None]
    second = (share[:, :, None] * y[:, None, :]).reshape(num, -1).T @ y
    covariances = second.reshape(-1, size, size) / total[:, None, None] - means[:, :, None] * means[:, None, :]
    diagonals = np.einsum("kii->ki", covariances)[:, :, None] * np.eye(size)
    shrink = np.minimum(0.5, size / (4 * effective[kept]))[:, None, None]
    scales = np.linalg.cholesky((1 - shrink) * covariances + shrink * diagonals + _JITTER * np.eye(size))
    return _Components(total / total.sum(), means, scales)
