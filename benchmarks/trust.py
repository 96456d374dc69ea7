"""The verdict on broken and healthy cases, as a confusion table.

A broken case has a wrong answer, or one that is right by accident: a collapsed flow, a missed mode, an energy with a
wrong gradient. It counts as caught where the report distrusts the run, or training is refused with a reason. A healthy
case counts as passed where the report trusts the run.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.store import Row, Store
from boltzflow.config import default_preset, with_changes
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.compiling import use_compilation_cache

NAME = "trust"
Make = Callable[[], boltzflow.AbstractDensity]
Case = tuple[Make, dict[str, Any]]


def mixture(weights: list[float], means: list[list[float]], variance: float = 1.0) -> Make:
    """A mixture of Gaussians with exact answers for the report."""
    return lambda: boltzflow.GaussianMixture(np.array(weights), np.array(means), variance)


def energy(fn: Callable, dim: int) -> Make:
    """An energy without any exact answer."""
    return lambda: boltzflow.Energy(fn, dim)


def hidden(make: Make) -> Make:
    """The same density as a bare energy, without any exact answer."""

    def bare() -> boltzflow.AbstractDensity:
        target = make()
        return boltzflow.Energy(target.energy, target.dim)

    return bare


@jax.custom_jvp
def _wrong_gradient(x):
    return 0.5 * jnp.sum(x**2)


_wrong_gradient.defjvp(lambda primals, tangents: (_wrong_gradient(primals[0]), 2 * jnp.dot(primals[0], tangents[0])))


def _cauchy(x):
    return jnp.sum(jnp.log1p(x**2))


def _two_posteriors(x):
    """Wells of unequal mass and width, 27 apart, in five dimensions: the narrow one holds a fifth of the mass."""
    far = 0.5 * jnp.sum(((x - 6) / 0.5) ** 2) - 4.1
    near = 0.5 * jnp.sum(((x + 6) / 1.5) ** 2)
    return -jnp.logaddexp(-far, -near)


NO_PILOT = {"pilot_fraction": 0.0, "warmup_fraction": 0.0}
NARROW = {"base": "gaussian", "base_std": 1.0}
TARGET_ERROR = {"log_z_error": 1e-3}
REVERSE_KL = {"loss": "reverse-kl", "num_steps": 400}

BROKEN: dict[str, Case] = {
    "reverse KL, mixture-4": (boltzflow.mixture_4, {**REVERSE_KL, **NARROW}),
    "reverse KL, mixture-4, nothing exact known": (hidden(boltzflow.mixture_4), {**REVERSE_KL, **NARROW}),
    "reverse KL, mixture-2": (boltzflow.mixture_2, {**REVERSE_KL, "base": "gaussian", "base_std": 2.0}),
    "reverse KL, chain at m = 6": (hidden(lambda: boltzflow.DoubleWell(16, 6.0)), {**REVERSE_KL, **NARROW}),
    "reverse KL, unequal wells in 5-D": (energy(_two_posteriors, 5), {**REVERSE_KL, **NARROW}),
    "a mode far outside the base": (
        hidden(mixture([0.7, 0.3], [[0, 0], [40, 0]])),
        {**NARROW, **NO_PILOT, "num_steps": 400},
    ),
    "linear path that teleports": (
        boltzflow.mixture_2,
        {"interpolation": "linear", "base": "gaussian", "base_std": 2.0, "num_steps": 400, **NO_PILOT},
    ),
    "a narrow needle of half the mass": (mixture([0.5, 0.5], [[0, 0], [30, 0]], 1e-4), {"num_steps": 300}),
    "heavy tails": (energy(_cauchy, 3), {"num_steps": 400}),
    "a base too narrow": (mixture([1.0], [[0, 0]], 25.0), {"base": "gaussian", "base_std": 0.05, "num_steps": 20}),
    "a wrong gradient": (energy(_wrong_gradient, 3), {}),
    "NaN in a region": (energy(lambda x: jnp.where(x[0] > 1.0, jnp.nan, 0.5 * jnp.sum(x**2)), 2), {"num_steps": 300}),
    "training stopped after 5 steps": (boltzflow.mixture_4, {"num_steps": 5}),
    "a mode that annealing misses, and a base without it": (energy(_two_posteriors, 5), {**NARROW, "num_steps": 300}),
    "heavy tails, target error": (energy(_cauchy, 3), TARGET_ERROR),
    "overflow in single precision": (energy(lambda x: 1e38 * jnp.sum((x / 0.1) ** 2), 2), {"num_steps": 100}),
    "an energy that falls forever": (energy(lambda x: x[0] + 0.5 * x[1] ** 2, 2), {"num_steps": 100}),
    "one solver step": (lambda: boltzflow.DoubleWell(16, 6.0), {"num_steps": 400, "sample_steps": 1}),
    "eight Euler steps": (boltzflow.mixture_4, {"num_steps": 1000, "sample_solver": "euler", "sample_steps": 8}),
    "five modes of 0.4 % each outside the base": (
        hidden(mixture([0.98, *[0.004] * 5], [[0, 0], [25, 0], [-25, 0], [0, 25], [0, -25], [18, 18]])),
        {**NARROW, **NO_PILOT, "num_steps": 400},
    ),
    "a learning rate of 3": (boltzflow.mixture_4, {"num_steps": 300, "learning_rate": 3.0}),
    "forty modes in 50 steps": (hidden(boltzflow.gmm_40), {"num_steps": 50}),
}


def _banana(x):
    return 0.5 * x[0] ** 2 / 4 + 0.5 * (x[1] - 0.3 * x[0] ** 2) ** 2 + 0.5 * jnp.sum(x[2:] ** 2)


def _logistic(x):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 4))
    labels = (features @ np.array([1.0, -2.0, 0.5, 0.0]) > 0).astype(float)
    margin = features @ x
    return jnp.sum(jnp.logaddexp(0.0, margin) - labels * margin) + 0.5 * jnp.sum(x**2) / 4


HEALTHY: dict[str, Case] = {
    "mixture-4": (boltzflow.mixture_4, {}),
    "mixture-2": (boltzflow.mixture_2, {}),
    "mixture-2, nothing exact known": (hidden(boltzflow.mixture_2), {}),
    "chain N = 4, m = 1.5": (lambda: boltzflow.DoubleWell(4, 1.5), {}),
    "chain N = 16, m = 1.5": (lambda: boltzflow.DoubleWell(16, 1.5), {}),
    "chain N = 16, m = 3": (lambda: boltzflow.DoubleWell(16, 3.0), {}),
    "chain N = 16, m = 4.5": (lambda: boltzflow.DoubleWell(16, 4.5), {}),
    "chain N = 16, m = 6": (lambda: boltzflow.DoubleWell(16, 6.0), {}),
    "chain N = 64, nothing exact known": (hidden(lambda: boltzflow.DoubleWell(64, 1.5)), {}),
    "a Gaussian far away": (mixture([1.0], [[200.0, -300.0]]), {}),
    "a Gaussian in 10-D, widths 0.1 to 10": (
        energy(lambda x: 0.5 * jnp.sum((x / np.geomspace(0.1, 10, 10)) ** 2), 10),
        {},
    ),
    "three uneven modes": (mixture([0.1, 0.3, 0.6], [[-6, 0], [0, 6], [6, -6]]), {}),
    "banana in 5-D": (energy(_banana, 5), {}),
    "skewed, exponential tails": (energy(lambda x: jnp.sum(jnp.logaddexp(-2 * x, 0.5 * x)), 3), {}),
    "logistic regression": (energy(_logistic, 4), {}),
    "quartic in 6-D": (energy(lambda x: jnp.sum(x**4), 6), {}),
    "a ring": (energy(lambda x: 2.0 * (jnp.linalg.norm(x) - 3.0) ** 2, 2), {}),
    "a mode that annealing misses": (energy(_two_posteriors, 5), {}),
    "mixture-4, target error": (boltzflow.mixture_4, TARGET_ERROR),
    "chain N = 16, m = 6, target error": (lambda: boltzflow.DoubleWell(16, 6.0), TARGET_ERROR),
    "chain N = 64, target error": (lambda: boltzflow.DoubleWell(64, 1.5), TARGET_ERROR),
    "banana in 5-D, target error": (energy(_banana, 5), TARGET_ERROR),
}


def main() -> None:
    use_compilation_cache()
    options = common.arguments(__doc__, [*BROKEN, *HEALTHY])
    store = Store(NAME, options.results, options.fresh)
    for name in options.targets:
        make, settings = BROKEN.get(name) or HEALTHY[name]
        measure = functools.partial(verdict_on, make, settings)
        store.measured(measure, target=name, expected="broken" if name in BROKEN else "healthy")


def verdict_on(make: Make, settings: dict[str, Any]) -> Row:
    """The verdict on a run, with its warnings and notes."""
    try:
        run = boltzflow.fit(make(), config=with_changes(default_preset(), settings))
        verdict = run.report().verdict
    except (InputError, TrainingError) as error:
        return {"trusted": False, "said": [f"refused: {error}"]}
    return {
        "trusted": bool(verdict.trustworthy),
        "said": list(verdict.warnings),
        "notes": list(verdict.notes),
        "seconds": run.trained.cost["train_seconds"],
    }


if __name__ == "__main__":
    main()
