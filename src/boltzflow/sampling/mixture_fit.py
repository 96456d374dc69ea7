"""The density nearest to a target that needs no flow: a Gaussian, or a mixture of them where that is not enough.

Where its weighted samples give log Z as well as was asked, nothing has to be trained. Expectation maximization on
points of the target finds the components. A few thousand correlated points leave covariances with an error that costs
more than the target's shape does; so the mixture then draws points of its own, weighs them by the target, and takes the
same step on these (population Monte Carlo for mixtures: Cappé, Douc, Guillin, Marin & Robert, 2008), and these weights
say whether more components are better. Weights are truncated at √n times their mean (Ionides, 2008), or one point in a
tail would decide; and a twentieth of the mixture is the one Gaussian, so that none is large between the components or
beyond them (a defensive mixture: Hesterberg, 1995).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture, SubspaceMixture
from boltzflow.numerics import linalg
from boltzflow.sampling.coverage import MIN_SHARE
from boltzflow.statistics.estimates import pareto_k, tail_excess

_MAX_SIZE, _MAX_COMPONENTS = 64, 64
_POINTS_PER_PARAMETER = 5  # of a component's mean, at least: covariances of fewer are noise
_ITERATIONS, _TOLERANCE = 25, 1e-3  # of the mean log-likelihood
_HAIR = 1e-9  # of a variance, so that components of few points have a Cholesky factor
_DRAWS, _FINAL_DRAWS, _ROUNDS = 2**14, 2**15, 2
DEFENSIVE = 0.05
_ENOUGH, _LEAST_SHARE, _LEAST_GAIN = 0.95, 0.03, 0.02
"""Of effective samples: a Gaussian needs no mixture; weights of fewer teach nothing; more components must gain more."""


class _Components(NamedTuple):
    """Of a mixture of K Gaussians in `size` dimensions; `scales` are lower triangles."""

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K size"]
    scales: Float[np.ndarray, "K size size"]


@dataclass(frozen=True)
class FittedDensity:
    """A density near the target's, as it stands, without a flow: `share` of effective samples among its weighted ones;
    whether their weights are `heavy`, with a tail that matters and may have no variance; and the energies that were
    asked for to find it."""

    density: AbstractDistribution
    share: float
    heavy: bool
    num_energies: int

    def num_samples(self, error: float) -> float:
        """How many weighted samples give log Z to `error`: (1/share - 1) / error²; infinite of heavy weights."""
        return np.inf if self.heavy or not self.share else (1 / self.share - 1) / error / error


Energies = Callable[[Float[np.ndarray, "num dim"]], Float[np.ndarray, " num"]]


def fit_mixture(
    target: AbstractDensity,
    energies: Energies,
    gaussian: Gaussian,
    subspace: Float[np.ndarray, "dim size"],
    x: Float[np.ndarray, "num dim"],
    key: PRNGKeyArray,
    *,
    defensive: float = DEFENSIVE,
) -> FittedDensity:
    """`gaussian`, or where it keeps less than 95 % of effective samples a mixture in its `subspace` fitted to `x`,
    points of the target, if that keeps more. `energies` are those of the target at many points. The `defensive` part of
    a mixture is `gaussian`: it is there for weights, and 0 for a base to train from, where it would lie between wells.

    In over 64 directions no covariance is known well enough for a mixture.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    draws = _Draws(gaussian, subspace, energies, rng, defensive)
    weight = draws.weigh(_one(subspace.shape[1]), _FINAL_DRAWS)[1]
    alone = FittedDensity(gaussian, _effective_share(weight), _heavy(weight), draws.num_energies)
    if subspace.shape[1] > _MAX_SIZE or alone.share >= _ENOUGH:
        return alone
    points = draws.inside(x)
    if is_sign_symmetric(target):
        points = np.concatenate([points[::2], -points[1::2]])
    components = _best(points, draws, alone.share)
    if components is None:
        return replace(alone, num_energies=draws.num_energies)
    weight = draws.weigh(components, _FINAL_DRAWS)[1]
    mixture = SubspaceMixture(gaussian, GaussianMixture(*components[:2], scales=components.scales), subspace)
    found = FittedDensity(mixture, _effective_share(weight), _heavy(weight), draws.num_energies)
    return max(found, replace(alone, num_energies=draws.num_energies), key=lambda one: one.share)


def _best(points, draws: "_Draws", share: float) -> _Components | None:
    """With as many components, in powers of two, as keep more effective samples; None where one does as well."""
    size = points.shape[1]
    most, best, best_num = min(_MAX_COMPONENTS, len(points) // (_POINTS_PER_PARAMETER * (size + 1))), None, 1
    components = _maximize(points, np.ones((len(points), 1)))
    while 2 * len(components.weights) <= min(most, max(4, 2 * best_num)):  # until twice as many are no better
        climbs = [_climb(points, start) for start in _twice(points, components)]
        components = max(climbs, key=lambda found: found[0])[1]
        refined, kept = _refined(components, draws)
        if kept > share + _LEAST_GAIN:
            best, best_num, share = refined, len(components.weights), kept
    return best


def _refined(components: _Components, draws: "_Draws") -> tuple[_Components, float]:
    """The components, defended, after steps on weighted points of their own; and the effective share of the last."""
    defended = draws.defended(components)
    for _ in range(_ROUNDS):
        own, weight = draws.weigh(defended, _DRAWS)
        if _effective_share(_truncated(weight)) < _LEAST_SHARE:
            return defended, 0.0
        components = _maximize(own, _truncated(weight)[:, None] * _responsibilities(own, components))
        defended = draws.defended(components)
    return defended, _effective_share(_truncated(draws.weigh(defended, _DRAWS)[1]))


# --- weights ----------------------------------------------------------------------------------------------------------


class _Draws:
    """Points of mixtures in some `subspace` of a `gaussian`, weighed by the target; counts the energies asked for."""

    def __init__(
        self, gaussian: Gaussian, subspace: np.ndarray, energies: Energies, rng: np.random.Generator, defensive: float
    ):
        self._mean, self._scale, self._into = gaussian.mean, linalg.dense(gaussian.scale), subspace
        self._whiten = linalg.dense(gaussian.inverse_scale).T @ subspace
        self._log_det = linalg.log_det(gaussian.scale)
        self._energies, self._rng, self._defensive, self.num_energies = energies, rng, defensive, 0

    def inside(self, x) -> Float[np.ndarray, "num size"]:
        """y = Rᵀ L⁻¹(x - mean), in double precision."""
        return (np.asarray(x, np.float64) - self._mean) @ self._whiten

    def defended(self, components: _Components) -> _Components:
        """With a part of the gaussian."""
        if not self._defensive:
            return components
        one = _one(components.means.shape[1])
        weights = np.concatenate([(1 - self._defensive) * components.weights, [self._defensive]])
        shapes = [np.concatenate(pair) for pair in zip(components[1:], one[1:], strict=True)]
        return _Components(weights / weights.sum(), *shapes)

    def weigh(self, components: _Components, num: int) -> tuple[np.ndarray, np.ndarray]:
        """`num` points y `(num, size)` and their weights, of mean one; all zero where no energy is finite."""
        dim, size = self._into.shape
        which = self._rng.choice(len(components.weights), size=num, p=components.weights)
        y, z = self._rng.normal(size=(num, size)), self._rng.normal(size=(num, dim))
        for k, (mean, scale) in enumerate(zip(components.means, components.scales, strict=True)):
            y[which == k] = mean + y[which == k] @ scale.T
        z += (y - z @ self._into) @ self._into.T
        rest = 0.5 * (np.sum(z**2, axis=1) - np.sum(y**2, axis=1)) + 0.5 * (dim - size) * np.log(2 * np.pi)
        log_prob = np.logaddexp.reduce(_log_parts(y, components), axis=1) - rest - self._log_det
        energy = self._energies(self._mean + z @ self._scale.T)
        self.num_energies += num
        log_weight = np.where(np.isfinite(energy), -energy - log_prob, -np.inf)
        if not np.isfinite(log_weight.max()):
            return y, np.zeros(num)
        return y, np.exp(log_weight - np.logaddexp.reduce(log_weight) + np.log(num))


def _truncated(weight: Float[np.ndarray, " num"]) -> Float[np.ndarray, " num"]:
    return np.minimum(weight, np.sqrt(len(weight)))


def _effective_share(weight: Float[np.ndarray, " num"]) -> float:
    return float(weight.sum() ** 2 / (np.sum(weight**2) + 1e-300) / len(weight))


def _heavy(weight: Float[np.ndarray, " num"]) -> bool:
    """Whether k̂ is 0.5 or more of a tail that holds more than nothing: k̂ is a shape, and knows no size."""
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight)
    return not weight.any() or (pareto_k(log_weight).value >= 0.5 and tail_excess(log_weight).value >= MIN_SHARE)


def _one(size: int) -> _Components:
    """The gaussian itself."""
    return _Components(np.ones(1), np.zeros((1, size)), np.eye(size)[None])


# --- expectation maximization -----------------------------------------------------------------------------------------


def _twice(y, components: _Components) -> list[_Components]:
    """Every component cut in two, across the direction in which its points are most, or least, of two lumps.

    Of points with covariance 1 and independent parts, the kurtosis of each part is an eigenvalue of E[‖u‖² u uᵀ], up to
    a constant (Cardoso, 1989): 1 is two points, 3 a Gaussian, above it tails.
    """
    shares = _responsibilities(y, components)
    cut: dict[int, list[np.ndarray]] = {0: [], -1: []}
    for share, mean, scale in zip(shares.T, components.means, components.scales, strict=True):
        u = (y - mean) @ np.linalg.inv(scale).T
        fourth = (share[:, None] * np.sum(u**2, axis=1, keepdims=True) * u).T @ u / share.sum()
        axes = np.linalg.eigh(fourth)[1]
        for which, columns in cut.items():
            side = u @ axes[:, which] > 0
            columns += [share * side, share * ~side]
    return [_maximize(y, np.stack(columns, axis=1)) for columns in cut.values()]


def _climb(y, components: _Components) -> tuple[float, _Components]:
    """Expectation maximization until the likelihood rises no more; the mean log-likelihood, and where it ended."""
    likelihood = -np.inf
    for _ in range(_ITERATIONS):
        parts = _log_parts(y, components)
        total = np.logaddexp.reduce(parts, axis=1)
        if total.mean() < likelihood + _TOLERANCE:
            break
        likelihood = float(total.mean())
        components = _maximize(y, np.exp(parts - total[:, None]))
    return likelihood, components


def _log_parts(y, components: _Components) -> Float[np.ndarray, "num K"]:
    """log w_k N(y; m_k, S_k), by one product with all L_k⁻¹ side by side."""
    (num, size), number = y.shape, len(components.weights)
    inverse = np.linalg.inv(components.scales)
    z = y @ inverse.reshape(-1, size).T
    z -= np.einsum("kij,kj->ki", inverse, components.means).ravel()
    np.square(z, out=z)
    log_dets = np.log(np.einsum("kii->ki", components.scales)).sum(axis=1)
    constant = np.log(components.weights) - log_dets - 0.5 * size * np.log(2 * np.pi)
    return constant - 0.5 * z.reshape(num, number, size).sum(axis=2)


def _responsibilities(y, components: _Components) -> Float[np.ndarray, "num K"]:
    parts = _log_parts(y, components)
    return np.exp(parts - np.logaddexp.reduce(parts, axis=1, keepdims=True))


def _maximize(y, share: Float[np.ndarray, "num K"]) -> _Components:
    """The components of the largest likelihood where each point belongs to each by `share`, covariances shrunk a little
    to their diagonals; those that hold fewer points than dimensions are left out, besides the largest. `y` is whitened:
    no mean is far."""
    num, size = y.shape
    effective = share.sum(axis=0) ** 2 / (np.sum(share**2, axis=0) + 1e-300)
    kept = effective >= min(size + 2, effective.max())
    share, effective = share[:, kept], effective[kept]
    total = share.sum(axis=0)
    means = (share.T @ y) / total[:, None]
    second = (share[:, :, None] * y[:, None, :]).reshape(num, -1).T @ y
    covariances = second.reshape(-1, size, size) / total[:, None, None] - means[:, :, None] * means[:, None, :]
    diagonals = np.einsum("kii->ki", covariances)[:, :, None] * np.eye(size)
    shrink = np.minimum(0.5, size / (4 * effective))[:, None, None]
    scales = np.linalg.cholesky((1 - shrink) * covariances + shrink * diagonals + _HAIR * np.eye(size))
    return _Components(total / total.sum(), means, scales)
