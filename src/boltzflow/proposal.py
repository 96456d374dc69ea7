"""The density nearest to a target that needs no flow: a Gaussian, or a mixture of them where that is not enough.

Where its weighted samples give log Z as well as was asked, nothing has to be trained. Expectation maximization on
points of the target finds the components, their number by the likelihood of points left out. A few thousand correlated
points leave covariances with an error that costs more than the target's shape does; so the mixture then draws points of
its own, weighs them by the target, and takes the same step on these (population Monte Carlo for mixtures: Cappé, Douc,
Guillin, Marin & Robert, 2008). Weights are truncated at √n times their mean (Ionides, 2008), or one point in a tail
would decide.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from . import linalg
from .bases import Gaussian, Mixture
from .compilation import Stopwatch
from .densities import AbstractDensity, AbstractDistribution, is_sign_symmetric
from .estimators import pareto_k
from .gaussian_mixture import GaussianMixture

_MAX_SIZE, _MAX_COMPONENTS = 64, 64
_POINTS_PER_PARAMETER = 5  # of a component's mean, at least: covariances of fewer are noise
_ITERATIONS, _TOLERANCE = 40, 1e-3  # of the mean log-likelihood
_LEAST_GAIN = 0.01  # of the log-likelihood of a point left out, for twice the components
_DRAWS, _ROUNDS = 2**15, 3
_ENOUGH, _LEAST_SHARE = 0.95, 0.03  # effective samples: a Gaussian needs no mixture; weights of fewer teach it nothing


class _Components(NamedTuple):
    """Of a mixture of K Gaussians in `size` dimensions; `scales` are lower triangles."""

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K size"]
    scales: Float[np.ndarray, "K size size"]


@dataclass(frozen=True)
class Proposal:
    """A density near the target's, as it stands, without a flow: `share` of effective samples among its weighted ones,
    `pareto_k` of the weights' tail, and the energies that were asked for to find it."""

    density: AbstractDistribution
    share: float
    pareto_k: float
    num_energies: int

    def num_samples(self, error: float) -> float:
        """How many weighted samples give log Z to `error`: (1/share - 1) / error²; infinite where the weights have a
        tail that may have no variance."""
        return (1 / self.share - 1) / error**2 if self.share > 0 and self.pareto_k < 0.5 else np.inf


def fit_proposal(
    target: AbstractDensity,
    frame: Gaussian,
    directions: Float[np.ndarray, "dim size"],
    x: Float[np.ndarray, "num dim"],
    key: PRNGKeyArray,
    watch: Stopwatch,
) -> Proposal:
    """`frame`, or where it keeps less than 95 % of effective samples a mixture in its `directions` fitted to `x`,
    points of the target, if that keeps more. In over 64 directions no covariance is known well enough for one."""
    keys = jax.random.split(key, _ROUNDS + 2)
    weight = _weigh(frame, target, keys[0], watch)[1]
    alone = Proposal(frame, _effective_share(weight), _tail(weight), _DRAWS)
    if directions.shape[1] > _MAX_SIZE or alone.share >= _ENOUGH:
        return alone
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    points = _inside(frame, directions, x)
    if is_sign_symmetric(target):
        points = np.concatenate([points, -points])
    components = _fit(points, rng)
    if len(components.weights) == 1:
        return alone
    asked = _DRAWS
    for number, round_key in enumerate(keys[1:]):
        mixture = Mixture(frame, _inner(components), directions)
        drawn, weight = _weigh(mixture, target, round_key, watch)
        asked += _DRAWS
        if _effective_share(_truncated(weight)) < _LEAST_SHARE:
            break
        if number < _ROUNDS:
            own = _inside(frame, directions, drawn)
            components = _maximize(own, _truncated(weight)[:, None] * _responsibilities(own, components))
    best = max((alone, Proposal(mixture, _effective_share(weight), _tail(weight), asked)), key=lambda one: one.share)
    return replace(best, num_energies=asked)


def _inside(frame: Gaussian, directions, x) -> Float[np.ndarray, "num size"]:
    """y = Rᵀ L⁻¹(x - mean), in double precision."""
    return (np.asarray(x, np.float64) - frame.mean) @ (linalg.dense(frame.inverse_scale).T @ directions)


def _inner(components: _Components) -> GaussianMixture:
    return GaussianMixture(components.weights, components.means, scales=components.scales)


# --- weights ----------------------------------------------------------------------------------------------------------


def _weigh(
    proposal: AbstractDistribution, target: AbstractDensity, key: PRNGKeyArray, watch: Stopwatch
) -> tuple[Float[np.ndarray, "num dim"], Float[np.ndarray, " num"]]:
    """Points of `proposal`, and their weights, of mean one; all zero where no energy is finite."""
    x, log_prob, energy = (np.asarray(a, np.float64) for a in watch.run(_draw, proposal, target, key, num=_DRAWS))
    log_weight = np.where(np.isfinite(energy), -energy - log_prob, -np.inf)
    if not np.isfinite(log_weight.max()):
        return x, np.zeros(len(x))
    return x, np.exp(log_weight - np.logaddexp.reduce(log_weight) + np.log(len(x)))


def _draw(proposal, target, key, *, num: int):
    x, log_prob = jax.vmap(proposal.sample_and_log_prob)(jax.random.split(key, num))
    return x, log_prob, jax.vmap(target.energy)(x)


def _truncated(weight: Float[np.ndarray, " num"]) -> Float[np.ndarray, " num"]:
    return np.minimum(weight, np.sqrt(len(weight)))


def _effective_share(weight: Float[np.ndarray, " num"]) -> float:
    return float(weight.sum() ** 2 / (np.sum(weight**2) + 1e-300) / len(weight))


def _tail(weight: Float[np.ndarray, " num"]) -> float:
    with np.errstate(divide="ignore"):
        return float(pareto_k(np.log(weight)).value) if weight.any() else np.inf


# --- expectation maximization -----------------------------------------------------------------------------------------


def _fit(y: Float[np.ndarray, "num size"], rng: np.random.Generator) -> _Components:
    """With as many components, in powers of two, as raise the likelihood of the half that was left out."""
    half, other = np.array_split(rng.permutation(y), 2)
    most = min(_MAX_COMPONENTS, len(half) // (_POINTS_PER_PARAMETER * (y.shape[1] + 1)))
    best = components = _maximize(half, np.ones((len(half), 1)))
    while 2 * len(components.weights) <= min(most, 4 * len(best.weights)):  # of what did not help, one doubling more
        components = max((_climb(half, start) for start in _twice(half, components)), key=lambda found: found[0])[1]
        if _log_likelihood(other, components) > _log_likelihood(other, best) + _LEAST_GAIN:
            best = components
    return _climb(y, best)[1]


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
    """log w_k N(y; m_k, S_k)."""
    constant = 0.5 * y.shape[1] * np.log(2 * np.pi)
    parts = []
    for weight, mean, scale in zip(*components, strict=True):
        z = (y - mean) @ np.linalg.inv(scale).T
        parts.append(np.log(weight) - np.log(np.diag(scale)).sum() - constant - 0.5 * np.sum(z**2, axis=1))
    return np.stack(parts, axis=1)


def _responsibilities(y, components: _Components) -> Float[np.ndarray, "num K"]:
    parts = _log_parts(y, components)
    return np.exp(parts - np.logaddexp.reduce(parts, axis=1, keepdims=True))


def _log_likelihood(y, components: _Components) -> float:
    return float(np.logaddexp.reduce(_log_parts(y, components), axis=1).mean())


def _maximize(y, share: Float[np.ndarray, "num K"]) -> _Components:
    """The components of the largest likelihood where each point belongs to each by `share`, covariances shrunk a little
    to their diagonals; those that hold fewer points than dimensions are left out."""
    size = y.shape[1]
    kept, means, scales = [], [], []
    for column in share.T:
        total = column.sum()
        effective = total**2 / (np.sum(column**2) + 1e-300)
        if effective < size + 2:
            continue
        mean = column @ y / total
        centered = y - mean
        covariance = (column[:, None] * centered).T @ centered / total
        shrink = min(0.5, size / (4 * effective))
        diagonal = np.diag(np.diag(covariance)) + 1e-12 * np.eye(size)
        kept.append(total)
        means.append(mean)
        scales.append(np.linalg.cholesky((1 - shrink) * covariance + shrink * diagonal))
    return _Components(np.array(kept) / np.sum(kept), np.array(means), np.array(scales))
