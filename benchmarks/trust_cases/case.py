"""What a case is, and the ways in which cases ask: by a fit, by an observable, and with data that change."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp

import boltzflow

Make = Callable[[], boltzflow.AbstractDensity]
Exact = float | Callable[[], float] | None
QUICK: Mapping[str, Any] = {"preset": "quick"}
HARDLY: Mapping[str, Any] = {"preset": "quick", "num_steps": 50}
"""Enough for a target that the fitted base is close to."""
TARGET_ERROR: Mapping[str, Any] = {"log_z_error": 1e-3}


@dataclass(frozen=True)
class Answer:
    """What was answered, and whether the package stands behind it; `exact` is the right answer where it is known."""

    trusted: bool
    said: list[str]
    estimate: boltzflow.Estimate
    exact: float | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    unchecked: str = ""


@dataclass(frozen=True)
class Case:
    """One case of a kind. `ask` answers, or raises `InputError` or `TrainingError` where the package refuses."""

    kind: str
    ask: Callable[[], Answer]


@dataclass(frozen=True)
class Fit:
    """Fits a target and asks for log Z and the verdict."""

    make: Make
    settings: Mapping[str, Any]
    log_z: Exact = None

    def __call__(self) -> Answer:
        return judged(boltzflow.fit(self.make(), config=dict(self.settings)), self.log_z)


def judged(run: boltzflow.Run, log_z: Exact) -> Answer:
    """log Z of a run, with the verdict of its report."""
    report = run.report()
    exact = float(run.target.log_z) if isinstance(run.target, boltzflow.AbstractDistribution) else known(log_z)
    return Answer(
        report.verdict.trustworthy,
        list(report.verdict.warnings),
        report.estimates["log_z"],
        exact,
        list(report.verdict.notes),
        run.trained.cost["train_seconds"],
        report.verdict.unchecked,
    )


def known(exact: Exact) -> float | None:
    """The right answer, computed if it is a function."""
    return exact() if callable(exact) else exact


@dataclass(frozen=True)
class Observed:
    """Fits a target and asks for the expectation of one number; its `ok` stands for trust."""

    make: Make
    fn: Callable[[Any], Any]
    exact: float
    settings: Mapping[str, Any] = field(default_factory=lambda: HARDLY)

    def __call__(self) -> Answer:
        run = boltzflow.fit(self.make(), config=dict(self.settings))
        estimate = run.expectation(self.fn)
        return Answer(estimate.ok, [estimate.reason] if estimate.reason else [], estimate, self.exact)


@dataclass(frozen=True)
class Changed:
    """Fits a function, changes the data that it reads, and asks again: after a second fit, or without one.

    `make` returns the function, its dimension, what changes its data, and log Z after that.
    """

    make: Callable[[], tuple[Callable, int, Callable[[], None], float]]
    refit: bool = True

    def __call__(self) -> Answer:
        fn, dim, change, log_z = self.make()
        run = boltzflow.fit(boltzflow.Energy(fn, dim), config=dict(HARDLY))
        if self.refit:
            run.report()
        change()
        if self.refit:
            run = boltzflow.fit(boltzflow.Energy(fn, dim), config=dict(HARDLY))
        return judged(run, log_z)


# --- targets ----------------------------------------------------------------------------------------------------------


def mixture(weights: list[float], means: Any, variance: Any = 1.0) -> Make:
    """A mixture of Gaussians with exact answers for the report."""
    return lambda: boltzflow.GaussianMixture(np.array(weights), np.array(means), variance)


def energy(fn: Callable, dim: int, **declared: Any) -> Make:
    """An energy without any exact answer for the report."""
    return lambda: boltzflow.Energy(fn, dim, **declared)


def hidden(make: Make) -> Make:
    """The same density as a bare energy, without any exact answer for the report."""

    def bare() -> boltzflow.AbstractDensity:
        target = make()
        return boltzflow.Energy(target.energy, target.dim)

    return bare


# --- exact values -----------------------------------------------------------------------------------------------------


def quadrature(fn: Callable, *ranges: tuple[float, float], num: int = 1001) -> Callable[[], float]:
    """log ∫ exp(-fn) over a box in one or two dimensions, by the trapezoid rule in double precision."""

    def log_z() -> float:
        axes = [np.linspace(low, high, num) for low, high in ranges]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        with jax.enable_x64(True):
            energies = np.asarray(jax.vmap(fn)(points), np.float64)
        return float(logsumexp(-energies)) + sum(math.log(axis[1] - axis[0]) for axis in axes)

    return log_z


def student(nu: float, dim: int) -> float:
    """log Z of the energy ½ (ν + dim) log(1 + |x|²/ν)."""
    return math.lgamma(nu / 2) + dim / 2 * math.log(nu * math.pi) - math.lgamma((nu + dim) / 2)


def evidence(features: np.ndarray, values: np.ndarray, error: float) -> float:
    """log ∫ N(values; features w, error²) N(w; 0, 1) dw."""
    num, dim = features.shape
    precision = features.T @ features / error**2 + np.eye(dim)
    mean = np.linalg.lstsq(np.r_[features / error, np.eye(dim)], np.r_[values / error, np.zeros(dim)], rcond=None)[0]
    square = ((values - features @ mean) ** 2).sum() / error**2 + (mean**2).sum()
    constants = num * math.log(error) + 0.5 * num * math.log(2 * math.pi)
    return float(-0.5 * np.linalg.slogdet(precision)[1] - constants - 0.5 * square)


@functools.cache
def regression(seed: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Features `(50, 6)` and values `(50,)` of a linear regression, in double precision."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(50, 6))
    return features, features @ np.array([0.7, -1.2, 0.3, 2.0, -0.4, 1.1]) + error * rng.normal(size=50)
