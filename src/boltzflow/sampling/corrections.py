"""Equally weighted samples of the target from a flow that is not perfect: by weights, by a chain, or along the path.

Each is exact as the number of proposals grows; none can reach what the flow never proposes, which is what the verdict
is for. Resampling repeats the points of large weight and is the cheapest; a chain repeats where it is stuck; annealing
moves points to where the flow comes too rarely, and is the one for a mediocre flow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, sample_batch
from boltzflow.errors import InputError
from boltzflow.model.continuity import Transport
from boltzflow.model.flow import Flow
from boltzflow.numerics.batching import map_points
from boltzflow.sampling.flow_smc import NUM_PARTICLES, run_flow_smc

Correction = Literal["importance", "metropolis", "annealed"]
CORRECTIONS: tuple[str, ...] = get_args(Correction)
NUM_CHAINS = 4
_PROPOSALS = 4  # for each sample that is wanted by weights
_WARMUP = 0.1  # the share of a chain that is thrown away


@dataclass(frozen=True)
class Corrected:
    """Equally weighted samples `x` `(num, dim)` of the target with their `energy` `(num,)`.

    `chain`: of Metropolis, the chain that each belongs to, `(num,)`, its states in order; `num_distinct` of the samples
    are different points; `acceptance` of the proposals or moves, NaN where there are none.
    """

    x: Float[Array, "num dim"]
    energy: Float[Array, " num"]
    method: str
    num_distinct: int
    acceptance: float
    chain: Int[np.ndarray, " num"] | None = None


def correct(
    flow: Flow, transport: Transport, target: AbstractDensity, key: PRNGKeyArray, num: int, method: str
) -> Corrected:
    """`num` samples by the `method` "importance", "metropolis" or "annealed". Raises `InputError` for another one."""
    methods: dict[str, Callable[..., Corrected]] = {
        "importance": _importance, "metropolis": _metropolis, "annealed": _annealed,
    }  # fmt: skip
    if method not in methods:
        raise InputError(f"a correction is one of {', '.join(methods)}, got {method!r}")
    return methods[method](flow, transport, target, key, num)


def _proposals(flow: Flow, target: AbstractDensity, key: PRNGKeyArray, num: int):
    x, log_prob = sample_batch(flow, key, num)
    energy = map_points(target.energy, x)
    return x, energy, _clean(-np.asarray(energy, np.float64) - np.asarray(log_prob, np.float64))


def _clean(log_weight: Float[np.ndarray, " num"]) -> Float[np.ndarray, " num"]:
    """Weights that are no numbers count as zero; raises `InputError` where none is left."""
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    if not np.isfinite(log_weight).any():
        raise InputError("no sample of this flow has a weight above zero: nothing can be corrected")
    return log_weight


def _importance(flow, transport, target, key, num) -> Corrected:
    draw_key, resample_key = jax.random.split(key)
    x, energy, log_weight = _proposals(flow, target, draw_key, _PROPOSALS * num)
    return _resampled(x, energy, log_weight, resample_key, num, "importance", float("nan"))


def _annealed(flow, transport, target, key, num) -> Corrected:
    parts, keys = [], jax.random.split(key, -(-num // NUM_PARTICLES) + 1)
    size = None  # found once
    for part_key in keys[1:]:
        part = run_flow_smc(transport, part_key, solver_steps=flow.num_steps, step_size=size)
        size = part.step_size
        parts.append(part)
    x, log_weight = jnp.concatenate([part.x for part in parts]), np.concatenate([part.log_weight for part in parts])
    acceptance = float(np.mean([part.acceptance for part in parts]))
    energy = map_points(target.energy, x)
    return _resampled(x, energy, _clean(log_weight), keys[0], num, "annealed", acceptance)


def _resampled(x, energy, log_weight, key, num, method, acceptance) -> Corrected:
    """Systematic resampling, in an order that says nothing; in double precision, for there may be millions."""
    rng, share = _generator(key), np.exp(log_weight - np.logaddexp.reduce(log_weight))
    cumulative = np.cumsum(share)
    positions = (np.arange(num) + rng.uniform()) / num * cumulative[-1]
    index = rng.permutation(np.minimum(np.searchsorted(cumulative, positions), len(share) - 1))
    return Corrected(x[index], energy[index], method, len(np.unique(index)), acceptance)


def _generator(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _metropolis(flow, transport, target, key, num) -> Corrected:
    draw_key, chain_key = jax.random.split(key)
    kept = -(-num // NUM_CHAINS)
    length = kept + int(np.ceil(_WARMUP * kept))
    x, energy, log_weight = _proposals(flow, target, draw_key, NUM_CHAINS * length)
    rng = _generator(chain_key)
    share = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    start = rng.choice(len(share), size=NUM_CHAINS, p=share / share.sum())
    chains = independence_metropolis(log_weight.reshape(NUM_CHAINS, length), rng, start)
    index = chains.index[:, -kept:].ravel()[:num]
    chain = np.repeat(np.arange(NUM_CHAINS), kept)[:num]
    return Corrected(x[index], energy[index], "metropolis", len(np.unique(index)), chains.acceptance, chain)


# --- independence Metropolis ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chains:
    """Of `num_chains` chains of `length` states: the proposal that each state is, `(num_chains, length)`, and which
    share of proposals was accepted."""

    index: Int[np.ndarray, "num_chains length"]
    acceptance: float


def independence_metropolis(
    log_weight: Float[np.ndarray, "num_chains length"], rng: np.random.Generator, start: Int[np.ndarray, " num_chains"]
) -> Chains:
    """Chains over proposals of these log-weights, a row for each chain; `start` is the flat index of its first state.

    A log-weight of NaN is one of -inf: such a proposal is never accepted.
    """
    num_chains, length = log_weight.shape
    flat = np.where(np.isnan(log_weight), -np.inf, log_weight).ravel()
    state, index = np.asarray(start), np.empty((num_chains, length), np.int64)
    threshold = np.log(rng.uniform(size=(length, num_chains)))
    accepted = 0
    for k in range(length):
        proposal = np.arange(num_chains) * length + k
        with np.errstate(invalid="ignore"):
            accept = threshold[k] < flat[proposal] - flat[state]
        accept |= (flat[state] == -np.inf) & (flat[proposal] > -np.inf)
        state = np.where(accept, proposal, state)
        accepted += int(accept.sum())
        index[:, k] = state
    return Chains(index, accepted / (num_chains * length))
