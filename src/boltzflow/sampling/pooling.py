"""Samples of a flow pooled with samples of the same flow from a Student t: weights that are bounded in the tails.

All samples get the weight of the mixture of which they are a stratified sample (Veach & Guibas, 1995; Hesterberg, 1995;
Elvira, Martino, Luengo & Bugallo, 2019):

    w(x) = exp(-f(x)) / q(x),    q = (n_1 q_1 + n_2 q_2) / n

The second density is that of the flow started from a Student t instead of its base: it follows the target's shape, and
its tails are heavier. No weight exceeds exp(-f) n / (n_2 q_2), which is bounded where the target's tails are lighter.
The mean of q_1/q over the pool is known to be 1: as a control variate it takes back what the t costs where the flow
is good (Owen & Zhou, 2000).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, sample_batch
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.student_t import StudentT
from boltzflow.model.flow import Flow, flow_log_prob, sample_flow
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.hmc import preconditioner

SHARE = 0.2  # of the heavy-tailed part in the pool
_NUM_OF_BASE = 8192  # samples from which the covariance of a base is taken
_DEGREES = 3.0  # a variance exists, and tails are heavier than those of most targets


class Pool(NamedTuple):
    """Pooled samples with their log-weights -energy - log q, and the ratio of the flow's density to q.

    `bound` has the log-weights -energy - log q_2 of the heavy-tailed samples, and -inf for those of the flow. Up to a
    factor they bound the pooled weights: where their tail is light, so is that of the pool.
    """

    x: Float[np.ndarray, "num dim"]
    log_weight: Float[np.ndarray, " num"]
    control: Float[np.ndarray, " num"]
    bound: Float[np.ndarray, " num"]


def heavy_tailed(flow: Flow, lattice: tuple[int, ...] | None, key: PRNGKeyArray) -> Flow:
    """The flow from a Student t of three degrees, whose L Lᵀ is the covariance of the base: it is √3 as wide."""
    base = flow.base
    if isinstance(base, Gaussian):
        return _from_base(flow, StudentT(base.mean, _DEGREES, scale_tril=base.scale))
    points, _ = sample_batch(base, key, _NUM_OF_BASE)
    scale = np.asarray(preconditioner(jnp.asarray(points), lattice).scale, np.float64)
    mean = np.asarray(points, np.float64).mean(axis=0)
    if lattice is None:
        return _from_base(flow, StudentT(mean, _DEGREES, scale_tril=np.tril(scale)))
    return _from_base(flow, StudentT(np.full_like(mean, mean.mean()), _DEGREES, scale_tril=Circulant(scale)))


def _from_base(flow: Flow, base: StudentT) -> Flow:
    return Flow(base, flow.field, solver=flow.solver, num_steps=flow.num_steps)


def num_heavy(num: int) -> int:
    """How many of `num` pooled samples are heavy-tailed."""
    return round(SHARE * num)


def pool(
    x: Float[Array | np.ndarray, "num_flow dim"],
    log_prob: Float[Array | np.ndarray, " num_flow"],
    energy: Float[Array | np.ndarray, " num_flow"],
    flow: Flow,
    target: AbstractDensity,
    heavy: Flow,
    key: PRNGKeyArray,
    num: int,
) -> Pool:
    """Samples of the flow, with its log-density and the energy there, pooled with `num` new ones of `heavy`.

    Each density at the samples of the other is integrated backward. Where that fails it is zero.
    """
    new, new_heavy = sample_flow(heavy, key, num)
    of_flow = _joined(log_prob, flow_log_prob(flow, new))
    of_heavy = _joined(flow_log_prob(heavy, x), new_heavy)
    log_share = np.log(np.array([len(x), num]) / (len(x) + num))
    log_q = np.logaddexp(log_share[0] + of_flow, log_share[1] + of_heavy)
    minus_energy = -np.concatenate(
        [np.asarray(energy, np.float64), np.asarray(map_points(target.energy, new), np.float64)]
    )
    bound = np.where(np.arange(len(log_q)) < len(x), -np.inf, minus_energy - of_heavy)
    return Pool(np.concatenate([np.asarray(x), np.asarray(new)]), minus_energy - log_q, np.exp(of_flow - log_q), bound)


def _joined(a: Float[Array | np.ndarray, " n"], b: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n_plus_m"]:
    joined = np.concatenate([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    return np.where(np.isnan(joined), -np.inf, joined)
