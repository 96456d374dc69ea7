"""Necks: how narrow the narrowest places of a target are, and coordinates in which they are as wide as the others.

The map is fitted to points of the target. Each coordinate is Gaussian given some that come before it, with a mean and
a log-scale that are linear in these (a heteroscedastic regression). A coordinate comes late where its scale follows
others. Terms are added one at a time, by the rise of the mean log-likelihood that their score promises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from boltzflow.densities.base import AbstractDensity, lattice_of
from boltzflow.densities.noncentered import NonCentering
from boltzflow.sampling.gaussian_fit import gradients_at
from boltzflow.sampling.hmc import preconditioner
from boltzflow.sampling.resampling import spread

_NARROWEST = 0.995  # the quantile of the force
_LEAST_RISE = 0.01  # of a mean log-likelihood, by one more term; noise of a thousand points promises 0.001
_LEAST_GAIN = 0.1  # of that of all coordinates together, by scales that vary
_MOST_STEPS = 30  # of scoring
_TOLERANCE = 1e-3
_LARGEST_SQUARE = 50.0  # of a residual in units of its scale: one far point moves no scale by much
_BEYOND = 1.0  # how far a log-scale goes on beyond those of the points, in units of their range
_MOST_DIMENSIONS = 64  # dim² regressions take half a minute
_NUM_FOR_ORDER = 1024  # points, of those that the regressions at the end are fitted to
_MOST_TERMS = 6  # of a regression: dense correlations are left to the base

Column = Float[np.ndarray, " num"]


def narrowness(target: AbstractDensity, points: Float[np.ndarray, "num dim"]) -> float:
    """How many times narrower than most the place of one point in two hundred is.

    It is a high quantile of the force over its median, in units of the points' covariance: near 1 on a Gaussian, and
    e^{x₀/2} varies by as much in the neck of a funnel.
    """
    scale = preconditioner(jnp.asarray(points), lattice_of(target))
    force = np.linalg.norm(np.asarray(scale.pull(jnp.asarray(gradients_at(target, points)))), axis=1)
    return float(np.quantile(force, _NARROWEST) / max(float(np.median(force)), 1e-300))


def fit_noncentering(x: Float[np.ndarray, "num dim"]) -> NonCentering | None:
    """The map for equally weighted points; None where scales that vary make them hardly likelier."""
    x = np.asarray(x, np.float64)
    dim = x.shape[1]
    center, width = x.mean(axis=0), x.std(axis=0)
    if dim > _MOST_DIMENSIONS or not np.all(width > 0):
        return None
    u = (x - center) / width
    few = np.asarray(spread(u, _NUM_FOR_ORDER))
    order = _reordered(few, _ordered(few))
    means, log_scales = np.zeros((2, dim, dim + 1))
    rank = np.zeros(dim, int)
    gain = 0.0
    for place, i in enumerate(order):
        fitted = _select(u, i, order[:place], order[:place])
        if not fitted.in_scale:  # what is linear alone is left to the base
            continue
        means[i, [0, *(1 + j for j in fitted.in_mean)]] = fitted.mean
        log_scales[i, [0, *(1 + j for j in fitted.in_scale)]] = fitted.log_scale
        before = [*fitted.in_mean, *fitted.in_scale]
        rank[i] = 1 + rank[before].max() if before else 0
        gain += _gain(u, i, fitted)
    if gain < _LEAST_GAIN:
        return None
    s = log_scales[:, 0] + u @ log_scales[:, 1:].T
    low, high = s.min(axis=0), s.max(axis=0)
    beyond = _BEYOND * (high - low)
    return NonCentering(center, width, means, log_scales, low - beyond, high + beyond, rank.tolist())


def narrowest(noncentering: NonCentering, x: Float[np.ndarray, "num dim"]) -> float:
    """How narrow the narrowest places of points are by the map: a low quantile of their lowest log-scale."""
    u = (x - noncentering.center) / noncentering.width
    s = noncentering.log_scales[:, 0] + u @ noncentering.log_scales[:, 1:].T
    return float(np.quantile(np.min(s - np.median(s, axis=0), axis=1), 1 - _NARROWEST))


def _ordered(u: Float[np.ndarray, "num dim"]) -> list[int]:
    """The coordinates, each after those that its scale follows.

    The next one is that whose scale follows others the least, its mean given by those before it. Where several follow
    none, it is the one that would follow the others least if these gave its mean too.
    """
    dim = u.shape[1]
    others = [[j for j in range(dim) if j != i] for i in range(dim)]
    at_last = [_gain(u, i, _select(u, i, others[i], others[i])) for i in range(dim)]
    order: list[int] = []
    left = list(range(dim))
    while left:
        gains = {i: _gain(u, i, _select(u, i, order, others[i])) for i in left}
        free = [i for i in left if gains[i] < _LEAST_RISE]
        order.append(min(free, key=lambda i: at_last[i]) if free else min(left, key=lambda i: gains[i]))
        left.remove(order[-1])
    return order


def _reordered(u: Float[np.ndarray, "num dim"], order: list[int]) -> list[int]:
    """The order in which no mean moved before what it is the mean of makes the two likelier.

    Of a group and its members the order says which is given by which: both ways their means are linear in each other,
    and one way alone their scales are simple.
    """
    order = list(order)
    fits = {i: _select(u, i, order[:place], order[:place]) for place, i in enumerate(order)}
    for _ in range(len(order)):
        for late, early in [(i, j) for i in order for j in fits[i].in_mean]:
            place = order.index(early)
            sooner = _select(u, late, order[:place], order[:place])
            later = _select(u, early, [*order[:place], late], [*order[:place], late])
            rise = sooner.likelihood + later.likelihood - fits[late].likelihood - fits[early].likelihood
            if rise > _LEAST_RISE:
                order.remove(late)
                order.insert(place, late)
                fits |= {late: sooner, early: later}
                break
        else:
            break
    return order


@dataclass
class _Regression:
    """The terms of a coordinate's mean and log-scale, their coefficients after the constant, and its likelihood."""

    in_mean: list[int] = field(default_factory=list)
    in_scale: list[int] = field(default_factory=list)
    mean: Column = field(default_factory=lambda: np.zeros(1))
    log_scale: Column = field(default_factory=lambda: np.zeros(1))
    likelihood: float = -np.inf  # the mean log-likelihood, up to a constant


def _select(u: Float[np.ndarray, "num dim"], i: int, for_mean: Sequence[int], for_scale: Sequence[int]) -> _Regression:
    """The regression of coordinate `i` on those of the given ones that make it likelier."""
    found = _Regression()
    while True:
        residual, s = _climb(u, i, found)
        square = np.minimum(residual**2, _LARGEST_SQUARE)
        rises = np.zeros((2, u.shape[1]))
        of_mean = [j for j in for_mean if j not in (*found.in_mean, *found.in_scale)]
        of_scale = [j for j in for_scale if j not in found.in_scale]
        rises[0, of_mean] = _promised(residual, u[:, of_mean] * np.exp(-s)[:, None])
        rises[1, of_scale] = _promised(square - square.mean(), u[:, of_scale])
        which, term = np.unravel_index(np.argmax(rises), rises.shape)
        num_terms = len(found.in_mean) + len(found.in_scale)
        if rises[which, term] < _LEAST_RISE or num_terms == _MOST_TERMS:
            return found
        if which:
            found.in_scale.append(int(term))
            found.in_mean = [j for j in found.in_mean if j != term]
        else:
            found.in_mean.append(int(term))


def _promised(score: Column, terms: Float[np.ndarray, "num terms"]) -> Float[np.ndarray, " terms"]:
    """The rise of the mean log-likelihood by each term, to second order: half of its squared correlation."""
    scale = np.mean(score**2) * np.mean(terms**2, axis=0)
    return 0.5 * np.mean(score[:, None] * terms, axis=0) ** 2 / np.maximum(scale, 1e-300)


def _climb(u: Float[np.ndarray, "num dim"], i: int, found: _Regression) -> tuple[Column, Column]:
    """Set the coefficients to the likeliest; return the residuals in units of their scale, and the log-scales.

    A mean that moves with the scale is fitted beside them and left to z: by a constant times the scale, and by what a
    likelihood pulls, which goes with the variance. Both vanish in a neck, where a wrong coefficient would not.
    """
    num = len(u)
    in_mean, in_scale = _columns(u, found.in_mean), _columns(u, found.in_scale)
    log_scale = np.zeros(in_scale.shape[1])
    for _ in range(_MOST_STEPS):
        shrunk = np.exp(-in_scale @ log_scale)[:, None]
        terms = np.concatenate([in_mean * shrunk, in_mean / shrunk, np.ones((num, 1))], axis=1)
        coefficients = np.linalg.lstsq(terms, u[:, i] * shrunk[:, 0], rcond=1e-10)[0]
        residual = u[:, i] * shrunk[:, 0] - terms @ coefficients
        square = np.minimum(residual**2, _LARGEST_SQUARE)
        step = np.linalg.lstsq(2 * in_scale.T @ in_scale / num, in_scale.T @ (square - 1) / num, rcond=1e-10)[0]
        log_scale = log_scale + step
        if np.abs(in_scale @ step).max() < _TOLERANCE:
            break
    found.mean = coefficients[: in_mean.shape[1]]
    found.log_scale = log_scale
    s = in_scale @ log_scale
    found.likelihood = -float(np.mean(s + 0.5 * residual**2))
    return residual, s


def _columns(u: Float[np.ndarray, "num dim"], terms: Sequence[int]) -> Float[np.ndarray, "num terms"]:
    return np.concatenate([np.ones((len(u), 1)), u[:, list(terms)]], axis=1)


def _gain(u: Float[np.ndarray, "num dim"], i: int, found: _Regression) -> float:
    """The rise of the mean log-likelihood by a scale that varies."""
    if not found.in_scale:
        return 0.0
    in_mean = _columns(u, found.in_mean)
    residual = u[:, i] - in_mean @ np.linalg.lstsq(in_mean, u[:, i], rcond=None)[0]
    return float(np.log(residual.std()) - np.mean(_columns(u, found.in_scale) @ found.log_scale))
