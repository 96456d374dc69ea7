"""Equally weighted samples of the target from an imperfect flow: by importance resampling, Metropolis chains, or SMC.

Each method is exact in the limit of many proposals. None can reach a region that the flow never proposes; the verdict
of the report covers that case. Importance resampling is the cheapest and repeats points of large weight, a Metropolis
chain repeats a point where it is stuck, and SMC along the path suits a mediocre flow.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError
from boltzflow.model.continuity import Transport
from boltzflow.model.flow import Flow, sample_flow
from boltzflow.numerics.batching import map_points, numpy_generator
from boltzflow.sampling.flow_smc import NUM_PARTICLES, run_flow_smc
from boltzflow.sampling.resampling import systematic_in_double

CORRECTIONS = ("importance", "metropolis", "annealed")
NUM_CHAINS = 4
_PROPOSALS = 4  # per sample, for importance resampling
_WARMUP = 0.1  # the share of a chain that is discarded

Points = Float[np.ndarray, "num_proposals dim"]
Energies = Float[np.ndarray, " num_proposals"]
LogWeights = Float[np.ndarray, " num_proposals"]


@dataclass(frozen=True)
class Corrected:
    """Equally weighted samples of the target, and how they were made.

    Args:
        x: The samples, `(num, dim)`.
        energy: The target's energy, `(num,)`.
        method: The correction.
        num_distinct: How many different points are in `x`.
        acceptance: The share of proposals or moves that was accepted; NaN for importance resampling.
        chain: For "metropolis" the chain of each sample, `(num,)`; the states of a chain are in order.
    """

    x: Float[np.ndarray, "num dim"]
    energy: Float[np.ndarray, " num"]
    method: str
    num_distinct: int
    acceptance: float
    chain: Int[np.ndarray, " num"] | None = None

    def __repr__(self) -> str:
        num, dim = self.x.shape
        moved = "" if np.isnan(self.acceptance) else f", acceptance {self.acceptance:.0%}"
        different = f"{self.num_distinct:,} different points{moved}"
        return f"<Corrected: {num:,} samples of equal weight in {dim} dimensions, by {self.method}; {different}>"


def correct(
    flow: Flow, transport: Transport, target: AbstractDensity, key: PRNGKeyArray, num: int, method: str
) -> Corrected:
    """Draw `num` equally weighted samples of `target` by one of `CORRECTIONS`; "annealed" is SMC along the path."""
    if method not in CORRECTIONS:
        raise InputError(f"a correction is one of {', '.join(CORRECTIONS)}, got {method!r}")
    if method == "annealed":
        return _annealed(flow, transport, target, key, num)
    return (_importance if method == "importance" else _metropolis)(flow, target, key, num)


def _importance(flow: Flow, target: AbstractDensity, key: PRNGKeyArray, num: int) -> Corrected:
    draw_key, resample_key = jax.random.split(key)
    x, energy, log_weight = _proposals(flow, target, draw_key, _PROPOSALS * num)
    return _resampled(x, energy, log_weight, resample_key, num, "importance", float("nan"))


def _annealed(flow: Flow, transport: Transport, target: AbstractDensity, key: PRNGKeyArray, num: int) -> Corrected:
    resample_key, *run_keys = jax.random.split(key, -(-num // NUM_PARTICLES) + 1)
    runs = [run_flow_smc(transport, run_keys[0], solver_steps=flow.num_steps)]
    for run_key in run_keys[1:]:  # with the step size that the first run has chosen
        runs.append(run_flow_smc(transport, run_key, solver_steps=flow.num_steps, step_size=runs[0].step_size))
    x = np.concatenate([run.x for run in runs])
    log_weight = _usable(np.concatenate([run.log_weight for run in runs]))
    acceptance = float(np.mean([run.acceptance for run in runs]))
    return _resampled(
        x, np.asarray(map_points(target.energy, x)), log_weight, resample_key, num, "annealed", acceptance
    )


def _metropolis(flow: Flow, target: AbstractDensity, key: PRNGKeyArray, num: int) -> Corrected:
    draw_key, chain_key = jax.random.split(key)
    kept = -(-num // NUM_CHAINS)
    length = kept + int(np.ceil(_WARMUP * kept))
    x, energy, log_weight = _proposals(flow, target, draw_key, NUM_CHAINS * length)
    rng = numpy_generator(chain_key)
    share = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    start = rng.choice(len(share), size=NUM_CHAINS, p=share / share.sum())
    states, acceptance = independence_metropolis(log_weight.reshape(NUM_CHAINS, length), rng, start)
    index = states[:, -kept:].ravel()[:num]
    chain = np.repeat(np.arange(NUM_CHAINS), kept)[:num]
    return Corrected(x[index], energy[index], "metropolis", len(np.unique(index)), acceptance, chain)


def _proposals(flow: Flow, target: AbstractDensity, key: PRNGKeyArray, num: int) -> tuple[Points, Energies, LogWeights]:
    x, log_prob = sample_flow(flow, key, num)
    energy = np.asarray(map_points(target.energy, x), np.float64)
    return np.asarray(x), energy, _usable(-energy - np.asarray(log_prob, np.float64))


def _usable(log_weight: LogWeights) -> LogWeights:
    """-inf for every log-weight that is not finite; raises `InputError` where all are."""
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    if not np.isfinite(log_weight).any():
        raise InputError("no sample of this flow has a weight above zero: nothing can be corrected")
    return log_weight


def _resampled(
    x: Points, energy: Energies, log_weight: LogWeights, key: PRNGKeyArray, num: int, method: str, acceptance: float
) -> Corrected:
    rng = numpy_generator(key)
    index = rng.permutation(systematic_in_double(rng, log_weight, num))
    return Corrected(x[index], energy[index], method, len(np.unique(index)), acceptance)


def independence_metropolis(
    log_weight: Float[np.ndarray, "num_chains length"], rng: np.random.Generator, start: Int[np.ndarray, " num_chains"]
) -> tuple[Int[np.ndarray, "num_chains length"], float]:
    """The proposal of each state of chains from `start`, an index of the flat `log_weight`, and the accepted share."""
    num_chains, length = log_weight.shape
    flat = np.where(np.isnan(log_weight), -np.inf, log_weight).ravel()
    state = np.asarray(start)
    index = np.empty((num_chains, length), np.int64)
    threshold = np.log(rng.uniform(size=(length, num_chains)))
    num_accepted = 0
    for k in range(length):
        proposal = np.arange(num_chains) * length + k
        with np.errstate(invalid="ignore"):
            accept = threshold[k] < flat[proposal] - flat[state]
        accept |= (flat[state] == -np.inf) & (flat[proposal] > -np.inf)
        state = np.where(accept, proposal, state)
        num_accepted += int(accept.sum())
        index[:, k] = state
    return index, num_accepted / (num_chains * length)
