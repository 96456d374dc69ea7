"""Samples of a flow pooled with samples of a Student t around the target: weights that are bounded in the tails.

All samples get the weight of the mixture of which they are a stratified sample (Veach & Guibas, 1995; Hesterberg, 1995;
Elvira, Martino, Luengo & Bugallo, 2019):

    w(x) = exp(-f(x)) / q(x),    q = (n_1 q_1 + n_2 q_2) / n

No weight exceeds exp(-f) n / (n_2 q_2), so that all are bounded where the target's tails are lighter than those of the
t. The mean of q_1/q over the pool is known to be 1: as a control variate it takes back what the t costs where the flow
is good (Owen & Zhou, 2000).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, sample_batch
from boltzflow.densities.student_t import StudentT
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.hmc import preconditioner

SHARE = 0.2  # of the t in the pool
_DEGREES = 3.0  # a variance exists, and tails are heavier than those of most targets


class Pool(NamedTuple):
    """Pooled samples with their log-weights -energy - log q, and the ratio of the flow's density to q.

    `bound` has the log-weights -energy - log q_2 of the t's own samples, and -inf for those of the flow. Up to a factor
    they bound the pooled weights: where their tail is light, so is that of the pool.
    """

    x: Float[np.ndarray, "num dim"]
    log_weight: Float[np.ndarray, " num"]
    control: Float[np.ndarray, " num"]
    bound: Float[np.ndarray, " num"]


def heavy_tailed(points: Float[Array | np.ndarray, "num dim"], lattice: tuple[int, ...] | None) -> StudentT:
    """The Student t of three degrees around points of the target; its L Lᵀ is their covariance, so it is √3 as wide."""
    scale = np.asarray(preconditioner(jnp.asarray(points, float), lattice).scale, np.float64)
    mean = np.asarray(points, np.float64).mean(axis=0)
    if lattice is None:
        return StudentT(mean, _DEGREES, scale_tril=np.tril(scale))
    return StudentT(np.full_like(mean, mean.mean()), _DEGREES, scale_tril=Circulant(scale))


def num_heavy(num: int) -> int:
    """How many of `num` pooled samples are of the t."""
    return round(SHARE * num)


def pool(
    x: Float[Array | np.ndarray, "num_flow dim"],
    log_prob: Float[Array | np.ndarray, " num_flow"],
    energy: Float[Array | np.ndarray, " num_flow"],
    flow: Flow,
    target: AbstractDensity,
    heavy: StudentT,
    key: PRNGKeyArray,
    num: int,
) -> Pool:
    """Samples of the flow, with its log-density and the energy there, pooled with `num` new ones of `heavy`.

    At the new ones the flow is integrated backward. Where that fails it has no density.
    """
    new, new_heavy = sample_batch(heavy, key, num)
    new_flow = map_points(flow.log_prob, new)
    of_flow = _joined(log_prob, jnp.where(jnp.isnan(new_flow), -jnp.inf, new_flow))
    of_heavy = _joined(map_points(heavy.log_prob, jnp.asarray(x)), new_heavy)
    log_share = np.log(np.array([len(x), num]) / (len(x) + num))
    log_q = np.logaddexp(log_share[0] + of_flow, log_share[1] + of_heavy)
    minus_energy = -_joined(energy, map_points(target.energy, new))
    bound = np.where(np.arange(len(log_q)) < len(x), -np.inf, minus_energy - of_heavy)
    return Pool(np.concatenate([np.asarray(x), np.asarray(new)]), minus_energy - log_q, np.exp(of_flow - log_q), bound)


def _joined(a: Float[Array | np.ndarray, " n"], b: Float[Array, " m"]) -> Float[np.ndarray, " n_plus_m"]:
    return np.concatenate([np.asarray(a, np.float64), np.asarray(b, np.float64)])
