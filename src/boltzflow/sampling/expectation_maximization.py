"""Mixtures of Gaussians by expectation maximization, from starts that split components and starts from clusters.

A log-density of a component is linear in the products 1, y_i and y_i y_j of a point, and so are the moments that
maximize the likelihood. Both steps are therefore one matrix product for all points and all components.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from boltzflow.sampling.resampling import effective_sample_size

_BLOCK = 2**17  # products computed at a time
_KEPT = 2**24  # products that are kept for the next step
_ITERATIONS = 50
_FEW_ITERATIONS = 5  # between the two halves of a doubling
_TOLERANCE = 3e-4  # of the mean log-likelihood
_JITTER = 1e-9  # of a variance, so that components of few points have a Cholesky factor
_LEAST_SHARE = 1e-3  # of a point, by which it counts for a split

Points = Float[np.ndarray, "num size"]
Weights = Float[np.ndarray, " num"]


class Components(NamedTuple):
    """A mixture of K Gaussians in `size` dimensions."""

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K size"]
    scales: Float[np.ndarray, "K size size"]  # lower triangles
    degrees: float = np.inf  # of Student's t, for all components; infinite for Gaussians


class Cloud:
    """Points with weights and, unless they are too many, the products 1, y_i, and y_i y_j for i ≤ j of each."""

    def __init__(self, y: Points, weight: Weights | None = None):
        self.y = y
        self.weight = np.ones(len(y)) if weight is None else weight
        size = y.shape[1]
        self.num_products = 1 + size + size * (size + 1) // 2
        rows = max(256, _BLOCK // self.num_products)
        self._parts = [slice(i, min(i + rows, len(y))) for i in range(0, len(y), rows)]
        self._kept: dict[int, np.ndarray] = {}

    def blocks(self) -> Iterator[tuple[slice, Float[np.ndarray, "products num"]]]:
        """The points in blocks, with their products."""
        for part in self._parts:
            if part.start in self._kept:
                yield part, self._kept[part.start]
                continue
            y = np.ascontiguousarray(self.y[part].T)
            size = len(y)
            products = np.empty((self.num_products, y.shape[1]))
            products[0] = 1
            products[1 : 1 + size] = y
            start = 1 + size
            for i in range(size):
                products[start : start + size - i] = y[i] * y[i:]
                start += size - i
            if self.num_products * len(self.y) <= _KEPT:
                self._kept[part.start] = products
            yield part, products


def standard_normal(size: int) -> Components:
    return Components(np.ones(1), np.zeros((1, size)), np.eye(size)[None])


# --- the two steps ----------------------------------------------------------------------------------------------------


class _Law(NamedTuple):
    """A mixture as coefficients of the products: half the squared distances, and the logs of the amplitudes."""

    half: Float[np.ndarray, "K products"]
    log_amplitude: Float[np.ndarray, "K 1"]
    size: int
    degrees: float


def _law(components: Components) -> _Law:
    size = components.means.shape[1]
    nu = components.degrees
    inverse = np.linalg.inv(components.scales)
    precision = np.swapaxes(inverse, 1, 2) @ inverse
    pull = np.einsum("kij,kj->ki", precision, components.means)
    constant = 0.5 * np.sum(pull * components.means, axis=1)
    rows, columns = np.triu_indices(size)
    products = np.where(rows == columns, 0.5, 1.0) * precision[:, rows, columns]
    half = np.concatenate([constant[:, None], -pull, products], axis=1)
    log_dets = np.log(np.einsum("kii->ki", components.scales)).sum(axis=1)
    log_norm = 0.5 * size * np.log(2 * np.pi)
    if np.isfinite(nu):
        log_norm = gammaln(nu / 2) - gammaln((nu + size) / 2) + 0.5 * size * np.log(nu * np.pi)
    return _Law(half, (np.log(components.weights) - log_dets - log_norm)[:, None], size, nu)


def _expectation(
    products: Float[np.ndarray, "products num"], law: _Law
) -> tuple[Float[np.ndarray, "K num"], Weights, Float[np.ndarray, "K num"] | None]:
    """The share by which each point belongs to each component, the log-density there, and the weight of its square.

    The weight is (ν + size)/(ν + distance²), by which a component of Student's t counts a point of its share.
    """
    half = law.half @ products
    np.maximum(half, 0.0, out=half)
    down = None
    if np.isfinite(law.degrees):
        half *= 2 / law.degrees
        down = (1 + law.size / law.degrees) / (1 + half)
        np.log1p(half, out=half)
        half *= 0.5 * (law.degrees + law.size)
    parts = np.subtract(law.log_amplitude, half, out=half)
    largest = parts.max(axis=0)
    parts -= largest
    np.exp(parts, out=parts)
    total = parts.sum(axis=0)
    parts /= total
    return parts, largest + np.log(total), down


def log_prob(y: Points, components: Components) -> Weights:
    """The log-density of each point."""
    law = _law(components)
    return np.concatenate([_expectation(products, law)[1] for _, products in Cloud(y).blocks()])


class _Moments:
    """Sums over points of their shares, of the squares of these, and of the products."""

    def __init__(self, num: int, num_products: int):
        self.held = np.zeros(num)
        self.squares = np.zeros(num)
        self.sums = np.zeros((num, num_products))

    def add(self, share: Float[np.ndarray, "K num"], products: np.ndarray, down: np.ndarray | None = None) -> None:
        self.held += share.sum(axis=1)
        self.squares += np.einsum("kn,kn->k", share, share)
        self.sums += (share if down is None else share * down) @ products.T

    def components(self, size: int, degrees: float) -> Components:
        """Those of the largest likelihood; only the largest of them may hold fewer points than dimensions."""
        effective = self.held**2 / (self.squares + 1e-300)
        kept = effective >= min(size + 2, effective.max())
        held, total, sums = self.held[kept], self.sums[kept, 0], self.sums[kept]
        means = sums[:, 1 : 1 + size] / total[:, None]
        rows, columns = np.triu_indices(size)
        covariances = np.empty((len(total), size, size))
        covariances[:, rows, columns] = covariances[:, columns, rows] = sums[:, 1 + size :] / total[:, None]
        covariances -= means[:, :, None] * means[:, None, :]
        covariances *= (total / held)[:, None, None]
        return Components(held / held.sum(), means, _scales(covariances, effective[kept]), degrees)


def maximize(cloud: Cloud, share: Float[np.ndarray, "num K"]) -> Components:
    """The Gaussians of the largest likelihood for given shares of each point."""
    moments = _Moments(share.shape[1], cloud.num_products)
    for part, products in cloud.blocks():
        moments.add((cloud.weight[part, None] * share[part]).T, products)
    return moments.components(cloud.y.shape[1], np.inf)


def climb(cloud: Cloud, components: Components, most: int = _ITERATIONS) -> tuple[float, Components]:
    """Expectation maximization until the mean log-likelihood stops rising; the likelihood and the components."""
    likelihood = -np.inf
    for _ in range(most):
        law = _law(components)
        moments = _Moments(len(components.weights), cloud.num_products)
        higher = 0.0
        for part, products in cloud.blocks():
            share, log_prob, down = _expectation(products, law)
            higher += float(cloud.weight[part] @ log_prob)
            share *= cloud.weight[part]
            moments.add(share, products, down)
        higher /= cloud.weight.sum()
        if higher < likelihood + _TOLERANCE:
            break
        likelihood = higher
        components = moments.components(cloud.y.shape[1], components.degrees)
    return likelihood, components


def _shares(cloud: Cloud, components: Components) -> Float[np.ndarray, "num K"]:
    law = _law(components)
    return np.concatenate([_expectation(products, law)[0] for _, products in cloud.blocks()], axis=1).T


def _scales(covariances: Float[np.ndarray, "K size size"], effective: Float[np.ndarray, " K"]) -> np.ndarray:
    """Their Cholesky factors, shrunk to the diagonal as the number of points asks."""
    size = covariances.shape[1]
    diagonals = np.einsum("kii->ki", covariances)[:, :, None] * np.eye(size)
    shrink = np.minimum(0.5, size / (4 * effective))[:, None, None]
    return np.linalg.cholesky((1 - shrink) * covariances + shrink * diagonals + _JITTER * np.eye(size))


# --- starts -----------------------------------------------------------------------------------------------------------


def grown(cloud: Cloud, components: Components, num: int, rng: np.random.Generator) -> Components:
    """The best of the climbs to `num` components: from components cut in two, and from clusters."""
    halfway = (len(components.weights) + num) // 2
    split = components
    if halfway > len(components.weights):
        split = _split(cloud, components, halfway - len(components.weights))
        split = climb(cloud, split, _FEW_ITERATIONS)[1]
    split = _split(cloud, split, num - len(split.weights))
    climbs = [climb(cloud, start) for start in (split, clusters(cloud, num, rng))]
    return max(climbs, key=lambda found: found[0])[1]


def clusters(cloud: Cloud, num: int, rng: np.random.Generator) -> Components:
    """Components around seeds far from each other (k-means++: Arthur & Vassilvitskii, 2007)."""
    y = cloud.y
    nearest = np.zeros(len(y), int)
    distance = np.full(len(y), np.inf)
    chance = np.ones(len(y))
    for k in range(num):
        seed = y[rng.choice(len(y), p=chance / chance.sum())]
        from_seed = np.sum((y - seed) ** 2, axis=1)
        nearest[from_seed < distance] = k
        distance = np.minimum(distance, from_seed)
        if not distance.any():
            break
        chance = distance
    return maximize(cloud, (nearest[:, None] == np.arange(num)).astype(float))


def _split(cloud: Cloud, components: Components, num: int) -> Components:
    """The components, of which the `num` that gain most likelihood are cut in two, each along its best axis."""
    share = _shares(cloud, components)
    cuts = [_best_cut(cloud.y, *each) for each in zip(share.T, components.means, components.scales, strict=True)]
    order = np.argsort([-gain for gain, _ in cuts], kind="stable")
    columns = []
    for rank, k in enumerate(order):
        side = cuts[k][1]
        columns += [share[:, k] * side, share[:, k] * ~side] if rank < num else [share[:, k]]
    return maximize(cloud, np.stack(columns, axis=1))


def _best_cut(
    y: Points, share: Weights, mean: Float[np.ndarray, " size"], scale: Float[np.ndarray, "size size"]
) -> tuple[float, np.ndarray]:
    """The gain in likelihood, and the side of each point, of the best cut of a component in two.

    Candidates are the axes of smallest and of largest kurtosis, eigenvectors of E[‖u‖² u uᵀ] for whitened points u
    with independent parts (Cardoso, 1989), and E[‖u‖² u], along which the width changes, as along a funnel.
    """
    near = share > _LEAST_SHARE
    u = (y[near] - mean) @ np.linalg.inv(scale).T
    weight = share[near]
    bent = (weight * np.sum(u**2, axis=1))[:, None] * u
    axes = np.linalg.eigh(bent.T @ u)[1]
    best = (-np.inf, np.zeros(len(y), bool))
    for axis in (axes[:, 0], axes[:, -1], bent.sum(axis=0)):
        along = (y - mean) @ np.linalg.solve(scale.T, axis)
        side = along > 0
        gain = sum(_hard_likelihood(u[part], weight[part], weight.sum()) for part in (side[near], ~side[near]))
        if gain > best[0]:
            best = (gain, side)
    return best


def _hard_likelihood(u: Points, weight: Weights, total: float) -> float:
    """The log-likelihood of one Gaussian, up to a constant, less the number of its parameters."""
    size = u.shape[1]
    held = weight.sum()
    if held == 0 or effective_sample_size(weight) < size + 2:
        return -np.inf
    mean = weight @ u / held
    covariance = (weight[:, None] * u).T @ u / held - np.outer(mean, mean) + _JITTER * np.eye(size)
    log_det = np.linalg.slogdet(covariance)[1]
    return held * (np.log(held / total) - 0.5 * log_det) - 0.5 * size * (size + 3)
