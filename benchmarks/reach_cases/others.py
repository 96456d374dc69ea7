"""Mixtures, a funnel, wells and particles."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import boltzflow
from benchmarks.reach_cases.case import Case
from boltzflow.densities.catalog import make_target

_MEANS = np.random.default_rng(7).uniform(-4, 4, (8, 50))
_LOG_WEIGHTS = np.log(np.arange(1, 9) / 36.0)
_MANY_WELL_32 = 164.695675
_PAIRS = np.triu_indices(4, 1)
_FREE_OF_MEAN = np.linalg.qr(np.concatenate([np.ones((4, 1)), np.eye(4)[:, 1:]], axis=1))[0][:, 1:]


def mixture_in_50(x: Float[Array, "50"]) -> Float[Array, ""]:
    """Eight Gaussians of unit width with weights 1 to 8 over 36, at random places of a cube."""
    square = jnp.sum((x - jnp.asarray(_MEANS)) ** 2, axis=1)
    return -jax.nn.logsumexp(jnp.asarray(_LOG_WEIGHTS) - 0.5 * square) + 25 * math.log(2 * math.pi)


def funnel(x: Float[Array, "10"]) -> Float[Array, ""]:
    """Neal's funnel: x_0 ~ N(0, 3²), and the variance of the others is e^{x_0}."""
    narrow = 0.5 * x[1:] ** 2 * jnp.exp(-x[0]) + 0.5 * x[0]
    return x[0] ** 2 / 18 + math.log(3) + 5 * math.log(2 * math.pi) + jnp.sum(narrow)


def four_particles(y: Float[Array, "6"]) -> Float[Array, ""]:
    """Four particles in a plane with a double well between every two, in coordinates without the center of mass."""
    x = jnp.asarray(_FREE_OF_MEAN) @ y.reshape(3, 2)
    distance = jnp.sqrt(jnp.sum((x[_PAIRS[0]] - x[_PAIRS[1]]) ** 2, axis=-1) + 1e-12)
    return jnp.sum(0.9 * (distance - 4) ** 4 - 4 * (distance - 4) ** 2)


OTHERS = {
    "gmm-40": Case(functools.partial(make_target, "gmm-40"), 0.0, 0.0, 0.005, "log_z", 3, "closed form"),
    "mixture in d = 50": Case(lambda: boltzflow.Energy(mixture_in_50, 50), 0.0, 0.0, 0.005, "log_z", 8, "closed form"),
    "many-well-32": Case(
        functools.partial(make_target, "many-well", num_pairs=16), _MANY_WELL_32, 0.0, 0.98, "ess", 3, "quadrature"
    ),
    "many-well-64": Case(
        functools.partial(make_target, "many-well", num_pairs=32), 2 * _MANY_WELL_32, 0.0, 0.9, "ess", 8, "quadrature"
    ),
    "funnel-10": Case(
        lambda: boltzflow.Energy(funnel, 10),
        0.0,
        0.0,
        0.02,
        "log_z",
        5,
        "closed form",
        "off by .0022 (FAB), −.07 (LFIS), on an A100",
    ),
    "DW-4": Case(lambda: boltzflow.Energy(four_particles, 6), 29.66723, 0.0, 0.01, "log_z", 5, "quadrature"),
}
