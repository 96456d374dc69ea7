"""Posteriors of data that many papers share: eight schools and logistic regressions."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import boltzflow
from benchmarks import reach_cases
from benchmarks.evidence_cases.case import Case
from boltzflow.priors import HalfCauchy, Normal

_DATA = Path(__file__).parent / "data"
_SHARED = Path(reach_cases.__file__).parent / "data"
_EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
_ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools() -> boltzflow.Posterior:
    """Effects of coaching in eight schools, centered, with a normalized half-Cauchy prior of their spread."""

    def log_likelihood(theta: Float[Array, "8"]) -> Float[Array, ""]:
        return jnp.sum(jax.scipy.stats.norm.logpdf(_EFFECT, theta, _ERROR))

    return boltzflow.Posterior(
        log_likelihood,
        {"mu": Normal(0.0, 5.0), "tau": HalfCauchy(5.0), "theta": lambda mu, tau: Normal(mu, tau, shape=8)},
    )


def _table(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The columns, and the class of each row as 1 or -1."""
    rows = [line.split(",") for line in file.read_text().split()]
    columns = np.array([row[:-1] for row in rows], float)
    return columns, np.array([1.0 if row[-1] == rows[0][-1] else -1.0 for row in rows])


def _standardized(columns: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and standard deviation 1; one that is constant becomes 0."""
    spread = columns.std(axis=0)
    return (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Columns of standard deviation 1."""
    return columns / columns.std(axis=0)


def regression(file: Path, prepared: Callable[[np.ndarray], np.ndarray]) -> boltzflow.Posterior:
    """Logistic regression with an intercept and weights N(0, 1)."""
    columns, sign = _table(file)
    design = np.concatenate([np.ones((len(sign), 1)), prepared(columns)], axis=1)

    def log_likelihood(weights: Float[Array, " num"]) -> Float[Array, ""]:
        return jnp.sum(jax.nn.log_sigmoid(sign * (design @ weights)))

    return boltzflow.Posterior(log_likelihood, {"weights": Normal(shape=design.shape[1])})


DATA_SETS = {
    "eight schools": Case(eight_schools, -31.311349),
    "German credit": Case(functools.partial(regression, _DATA / "german.csv", _scaled), -531.280, 0.002),
    "sonar": Case(functools.partial(regression, _SHARED / "sonar.csv", _standardized), -108.381, 0.018),
    "ionosphere": Case(functools.partial(regression, _DATA / "ionosphere.csv", _standardized), -111.608, 0.026),
}
