"""The flow as the proposal of independence Metropolis: a Markov chain whose law is the target's.

A proposal of weight w' replaces a state of weight w with probability min(1, w'/w) (Hastings 1970; Tierney 1994).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


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
