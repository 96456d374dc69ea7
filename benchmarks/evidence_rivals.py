"""Nested samplers at their own defaults, on the posteriors of `benchmarks.evidence`.

Each takes the map of the unit cube to standard normals, z = Φ⁻¹(u), from which our priors' quantile functions make the
variables, and the log-likelihood there in double precision. It is stopped after some minutes.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

import boltzflow

_LIVE = 500  # points of BlackJAX, which has no default: as dynesty
_LEFT = -3.0  # log of the share of the evidence in live points at which BlackJAX is stopped, as its documentation does


class Found(NamedTuple):
    """An answer: log Z, its stated error, and the calls of the likelihood."""

    log_z: float
    error: float
    calls: int


class TooLongError(Exception):
    """A rival did not end in its time."""


class Problem:
    """A posterior with bounded time, as nested samplers take it.

    Args:
        posterior: The posterior.
        limit: The seconds after which a call raises `TooLongError`.
    """

    def __init__(self, posterior: boltzflow.Posterior, limit: float):
        self.dim = posterior.dim
        self.calls = 0
        self._limit = limit
        self._end = time.perf_counter() + limit

        def log_likelihood(z):
            prior = jnp.sum(jax.scipy.stats.norm.logpdf(z))
            return -posterior.energy(z) - prior

        self.log_likelihood = log_likelihood
        self._one = jax.jit(log_likelihood)
        self._many = jax.jit(jax.vmap(log_likelihood))

    def to_normals(self, u: np.ndarray) -> np.ndarray:
        """z = Φ⁻¹(u), for points of the unit cube."""
        return ndtri(np.clip(u, 1e-300, 1 - 2**-53))

    def one(self, z: np.ndarray) -> float:
        """log L at one point."""
        self.check_time()
        self.calls += 1
        return float(self._one(z))

    def many(self, z: np.ndarray) -> np.ndarray:
        """log L at points `(num, dim)`, in batches of few lengths: each is compiled once."""
        self.check_time()
        self.calls += len(z)
        padded = np.concatenate([z, np.repeat(z[-1:], -len(z) % 128, axis=0)])
        return np.asarray(self._many(padded))[: len(z)]

    def check_time(self) -> None:
        """Raise `TooLongError` where the time is over."""
        if time.perf_counter() > self._end:
            raise TooLongError(f"not done after {self._limit / 60:g} minutes and {self.calls:,} calls")


def dynesty(problem: Problem, seed: int) -> Found:
    """Speagle 2020, the static sampler."""
    from dynesty import NestedSampler

    rng = np.random.default_rng(seed)
    sampler = NestedSampler(problem.one, problem.to_normals, problem.dim, rstate=rng)
    sampler.run_nested(print_progress=False)
    return Found(float(sampler.results.logz[-1]), float(sampler.results.logzerr[-1]), problem.calls)


def nautilus(problem: Problem, seed: int) -> Found:
    """Lange 2023. Its error is 1 / √N_eff, as its documentation says; points are handed over in batches."""
    from nautilus import Sampler

    sampler = Sampler(problem.to_normals, problem.many, n_dim=problem.dim, pass_dict=False, vectorized=True, seed=seed)
    sampler.run()
    return Found(float(sampler.log_z), float(sampler.n_eff) ** -0.5, problem.calls)


def blackjax(problem: Problem, seed: int) -> Found:
    """Nested slice sampling (Yallup et al. 2026), in standard normals: 2 dim steps, a tenth replaced at once."""
    import blackjax
    from blackjax.ns.utils import finalise, log_weights

    algorithm = blackjax.nss(
        logprior_fn=lambda z: jnp.sum(jax.scipy.stats.norm.logpdf(z)),
        loglikelihood_fn=problem.log_likelihood,
        num_inner_steps=max(5, 2 * problem.dim),
        num_delete=_LIVE // 10,
    )
    key, key_start, key_weights = jax.random.split(jax.random.key(seed), 3)
    state = algorithm.init(jax.random.normal(key_start, (_LIVE, problem.dim)))
    step = jax.jit(algorithm.step)
    dead = []
    problem.calls = _LIVE
    while state.integrator.logZ_live - state.integrator.logZ > _LEFT:
        problem.check_time()
        key, key_step = jax.random.split(key)
        state, info = step(key_step, state)
        dead.append(info)
        moves = info.update_info
        problem.calls += int(jnp.sum(moves.num_expansions) + jnp.sum(moves.num_shrink))
    log_z = jax.nn.logsumexp(log_weights(key_weights, finalise(state, dead)), axis=0)
    return Found(float(jnp.mean(log_z)), float(jnp.std(log_z)), problem.calls)


Rival = Callable[[Problem, int], Found]
RIVALS: dict[str, Rival] = {"dynesty": dynesty, "nautilus": nautilus, "blackjax": blackjax}


def answer(name: str, posterior: boltzflow.Posterior, seed: int, limit: float) -> Found:
    """What a rival says within `limit` seconds."""
    with jax.enable_x64(True):
        return RIVALS[name](Problem(posterior, limit), seed)
