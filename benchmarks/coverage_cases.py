"""The targets of `benchmarks.coverage`, and flows to them that are as bad as wanted.

Most targets are the image of a simple density under a flow that is known exactly. The flow that samples has another
base and a weaker field, by an amount that is raised until the reverse ESS has fallen to what is wanted. Student t's are
met by mixtures of Gaussians of many widths, the chains by a trained flow.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.special import ndtr

import boltzflow
from benchmarks.trust_cases import energies
from benchmarks.trust_cases.case import student
from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import Transport
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import AbstractInterpolation

Exact = tuple[float, float, float]


@dataclass(frozen=True)
class Task:
    """A target with exact answers, and its flows.

    Args:
        group: "setting", where thresholds of the verdict may be set, or "judged", where they are judged.
        target: Makes the target.
        log_z: Its log Z; None where the target knows it.
        exact: Mean, mean square and tail probability of one coordinate.
        axis: Which coordinate.
        threshold: Where its tail begins.
        transport: The flow to a target, worse by the amount given; 0 is the best.
    """

    group: str
    target: Callable[[], AbstractDensity]
    log_z: float | Callable[[], float] | None
    exact: Callable[[], Exact]
    axis: int
    threshold: float
    transport: Callable[[AbstractDensity, float], Transport]

    def observe(self, x: np.ndarray) -> list[np.ndarray]:
        """The coordinate, its square, and whether it is in the tail, at points `(num, dim)`."""
        at = np.asarray(x, np.float64)[:, self.axis]
        return [at, at**2, (at > self.threshold).astype(float)]


# --- fields whose flow is known, and their paths ----------------------------------------------------------------------


class Still(AbstractVectorField):
    """V = 0."""

    dim: int

    def velocity(self, t, x):
        return jnp.zeros_like(x)

    def velocity_and_divergence(self, t, x):
        return jnp.zeros_like(x), jnp.zeros((), x.dtype)

    def inverse(self, t, x):
        """Where the point x at time t came from, and log |∂x/∂z|."""
        return x, 0.0


class Bend(AbstractVectorField):
    """V = (0, b x_0², 0, ...)."""

    dim: int
    strength: Any

    def velocity(self, t, x):
        return jnp.zeros_like(x).at[1].set(self.strength * x[0] ** 2)

    def velocity_and_divergence(self, t, x):
        return self.velocity(t, x), jnp.zeros((), x.dtype)

    def inverse(self, t, x):
        return x - t * self.velocity(t, x), 0.0


class Widen(AbstractVectorField):
    """V = ½ b x_0 (0, x_1, x_2, ...): a funnel."""

    dim: int
    strength: Any

    def velocity(self, t, x):
        return (0.5 * self.strength * x[0] * x).at[0].set(0.0)

    def velocity_and_divergence(self, t, x):
        return self.velocity(t, x), 0.5 * (self.dim - 1) * self.strength * x[0]

    def inverse(self, t, x):
        rate = 0.5 * t * self.strength * x[0]
        return (x * jnp.exp(-rate)).at[0].set(x[0]), (self.dim - 1) * rate


class Skew(AbstractVectorField):
    """V = b √(1 + x²) in each coordinate: x = sinh(asinh z + b t)."""

    dim: int
    strength: Any

    def velocity(self, t, x):
        return self.strength * jnp.sqrt(1 + x**2)

    def velocity_and_divergence(self, t, x):
        return self.velocity(t, x), jnp.sum(self.strength * x / jnp.sqrt(1 + x**2))

    def inverse(self, t, x):
        z = jnp.sinh(jnp.arcsinh(x) - self.strength * t)
        return z, jnp.sum(0.5 * jnp.log1p(x**2) - 0.5 * jnp.log1p(z**2))


class Scaled(AbstractVectorField):
    """A trained field, weaker by a factor."""

    field: AbstractVectorField
    factor: Any
    dim: int

    def velocity(self, t, x):
        return self.factor * self.field.velocity(t, x)

    def velocity_and_divergence(self, t, x):
        velocity, divergence = self.field.velocity_and_divergence(t, x)
        return self.factor * velocity, self.factor * divergence


class Carried(AbstractInterpolation):
    """f_t = e_t + t (f_1 - e_1), e_t the energy of the flow's own density at t: errors grow evenly along the path."""

    base: AbstractDistribution
    target: AbstractDensity
    field: Any

    def energy(self, t, x):
        return self._own(t, x) + t * (self.target.energy(x) - self._own(1.0, x))

    def _own(self, t, x):
        z, log_det = self.field.inverse(t, x)
        return self.base.energy(z) + log_det


def carried(base: AbstractDistribution, field: AbstractVectorField, target: AbstractDensity) -> Transport:
    return Transport(field, Carried(base, target, field), jnp.zeros_like)  # no route asks for the rate


# --- families of targets ----------------------------------------------------------------------------------------------


def _worse(amount: float, dim: int, mean: Any = 0.0, scale: Any = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviations, shifted, and narrower and wider by turns; the first is narrower."""
    signs = np.where(np.arange(dim) % 2, 1.0, -1.0)
    return mean + 0.3 * amount * np.ones(dim) * scale, scale * np.exp(0.5 * amount * signs)


def image(
    group: str,
    field: Callable[[float], AbstractVectorField],
    std: Any,
    exact: Callable[[], Exact],
    axis: int,
    tail: float,
) -> Task:
    """The image of a Gaussian with these standard deviations under the flow of `field(1)`."""
    field_of_target = field(1.0)
    dim = field_of_target.dim
    widths = std * np.ones(dim)

    def energy(x):
        z, log_det = field_of_target.inverse(1.0, x)
        return energies.normal(z, jnp.asarray(widths)) + log_det

    def transport(target: AbstractDensity, amount: float) -> Transport:
        mean, scale = _worse(amount, dim, scale=widths)
        return carried(Gaussian(mean, scale_tril=scale), field(math.exp(-0.3 * amount)), target)

    return Task(group, lambda: boltzflow.Energy(energy, dim), 0.0, exact, axis, tail, transport)


def normal_average(*fns: Callable[[np.ndarray], np.ndarray]) -> Exact:
    """Averages of functions of a standard normal variable, by the trapezoid rule."""
    z = np.linspace(-12, 12, 40_001)
    weight = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    mean, square, tail = (float(weight @ fn(z)) for fn in fns)
    return mean, square, tail


def banana(group: str, bend: float, dim: int, tail: float) -> Task:
    def exact() -> Exact:
        return normal_average(lambda z: bend * z**2, lambda z: 1 + bend**2 * z**4, lambda z: ndtr(bend * z**2 - tail))

    return image(group, lambda factor: Bend(dim, np.asarray(bend * factor)), 1.0, exact, 1, tail)


def funnel(group: str, std: float, dim: int) -> Task:
    """The tail is beside the mouth; the neck is where the mean is too high."""
    widths = np.r_[std, np.ones(dim - 1)]
    tail = 1.5 * std
    exact = functools.partial(lambda: (0.0, std**2, float(ndtr(-1.5))))
    return image(group, lambda factor: Widen(dim, np.asarray(factor)), widths, exact, 0, tail)


def skewed(group: str, skew: float, dim: int, tail: float) -> Task:
    def x(z: np.ndarray) -> np.ndarray:
        return np.sinh(np.arcsinh(z) + skew)

    def exact() -> Exact:
        mean, square, _ = normal_average(x, lambda z: x(z) ** 2, np.ones_like)
        return mean, square, float(ndtr(-np.sinh(np.arcsinh(tail) - skew)))

    return image(group, lambda factor: Skew(dim, np.asarray(skew * factor)), 1.0, exact, 0, tail)


def mixture(group: str, make: Callable[[], boltzflow.GaussianMixture], axis: int, tail: float) -> Task:
    """The flow has less of the small modes, and other widths."""

    def exact() -> Exact:
        target = make()
        means, stds = target.means[:, axis], np.sqrt(target.covariances[:, axis])
        moments = np.stack([means, means**2 + stds**2, ndtr((means - tail) / stds)])
        mean, square, share = (float(value) for value in moments @ target.weights)
        return mean, square, share

    def transport(target: Any, amount: float) -> Transport:
        log_weight = np.log(target.weights) * (1 + amount) - 0.3 * amount * np.arange(len(target.weights))
        weights = np.exp(log_weight - np.logaddexp.reduce(log_weight))
        scale = np.stack([_worse(amount, target.dim, scale=scale)[1] for scale in np.asarray(target.scales)])
        base = boltzflow.GaussianMixture(weights / weights.sum(), target.means, scale**2)
        return carried(base, Still(target.dim), target)

    return Task(group, make, None, exact, axis, tail, transport)


def unequal(group: str, small: float, dim: int) -> Task:
    means = np.zeros((2, dim))
    means[1, 0] = 8.0
    return mixture(group, lambda: boltzflow.GaussianMixture([1 - small, small], means, np.ones((2, dim))), 0, 4.0)


_EDGES = np.array([0, 1e-4, 1e-3, 0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0])


def heavy(group: str, nu: float, dim: int, tail: float) -> Task:
    """A Student t, x = z √(ν/χ²); the flow has ten values of χ² in place of all, and the fewer the closer they are."""
    nodes = stats.chi2.ppf((_EDGES[1:] + _EDGES[:-1]) / 2, nu)
    log_std = 0.5 * np.log(nu / nodes)
    weights = np.diff(_EDGES)

    def transport(target: AbstractDensity, amount: float) -> Transport:
        middle = float(weights @ log_std)
        std = np.exp(middle + math.exp(-amount) * (log_std - middle) - 0.1 * amount)
        base = boltzflow.GaussianMixture(weights, np.zeros((len(std), dim)), np.outer(std**2, np.ones(dim)))
        return carried(base, Still(dim), target)

    exact = functools.partial(lambda: (0.0, nu / (nu - 2), float(stats.t.sf(tail, nu))))
    make = functools.partial(boltzflow.Energy, energies.student_t(nu, dim), dim)
    return Task(group, make, student(nu, dim), exact, 0, tail, transport)


def posterior(group: str, fn: Callable, low: float, high: float, tail: float) -> Task:
    """A posterior in two dimensions; its moments are sums over a grid, and its flow is a Gaussian with them."""

    @functools.cache
    def moments() -> tuple[float, np.ndarray, np.ndarray, Exact]:
        axis = np.linspace(low, high, 801)
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        values = -energies.on_grid(fn, points)
        log_z = float(np.logaddexp.reduce(values)) + 2 * math.log(axis[1] - axis[0])
        share = np.exp(values - np.logaddexp.reduce(values))
        x = points[:, 0]
        # Half of the weight of the points at the threshold, which are on the grid, is beyond it.
        beyond = (x > tail + 1e-9) + 0.5 * (np.abs(x - tail) <= 1e-9)
        mean = share @ points
        covariance = (points - mean).T * share @ (points - mean)
        return log_z, mean, covariance, (float(mean[0]), float(share @ x**2), float(share @ beyond))

    def transport(target: AbstractDensity, amount: float) -> Transport:
        _, mean, covariance, _ = moments()
        shift, factor = _worse(amount, 2)
        root = np.linalg.cholesky(covariance)
        return carried(Gaussian(mean + root @ shift, scale_tril=root * factor), Still(2), target)

    make = functools.partial(boltzflow.Energy, fn, 2)
    return Task(group, make, lambda: moments()[0], lambda: moments()[3], 0, tail, transport)


def gaussian(group: str) -> Task:
    """A correlated Gaussian in ten dimensions with variances from 0.1 to 10."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    mean = rng.normal(size=10)
    target = Gaussian(mean, rotation @ np.diag(np.geomspace(0.1, 10, 10)) @ rotation.T)
    root = np.asarray(target.scale)
    variance = float(np.sum(root[0] ** 2))

    def transport(target: AbstractDensity, amount: float) -> Transport:
        shift, factor = _worse(amount, 10)
        return carried(Gaussian(mean + root @ shift, scale_tril=root * factor), Still(10), target)

    exact = functools.partial(
        lambda: (float(mean[0]), float(mean[0] ** 2 + variance), float(ndtr((mean[0] - 4) / math.sqrt(variance))))
    )
    return Task(group, lambda: target, None, exact, 0, 4.0, transport)


def chain(group: str, mass: float, tail: float) -> Task:
    """A flow that is trained briefly, its field then weaker."""

    @functools.cache
    def trained() -> Transport:
        return boltzflow.fit(boltzflow.DoubleWell(16, mass), preset="quick").trained.transport

    def transport(target: AbstractDensity, amount: float) -> Transport:
        best = trained()
        field = Scaled(best.field, np.asarray(math.exp(-amount)), target.dim)
        return Transport(field, best.interpolation, best.log_z_rate)

    def exact() -> Exact:
        target = boltzflow.DoubleWell(16, mass)
        beyond = target.site_expectation(lambda phi: (phi > tail) + 0.5 * (phi == tail))
        return 0.0, target.site_expectation(lambda phi: phi**2), beyond

    return Task(group, lambda: boltzflow.DoubleWell(16, mass), None, exact, 0, tail, transport)


TASKS: dict[str, Task] = {
    "Student t, ν = 5, 3-D": heavy("setting", 5.0, 3, 3.0),
    "skewed 4-D": skewed("setting", 0.4, 4, 3.0),
    "banana 2-D": banana("setting", 0.3, 2, 2.5),
    "funnel sd 1, 4-D": funnel("setting", 1.0, 4),
    "mode of 1 %, 10-D": unequal("setting", 0.01, 10),
    "mode of 3 %, 20-D": unequal("setting", 0.03, 20),
    "logistic regression 2-D": posterior("setting", energies.logistic(2, 30), -12.0, 12.0, 3.6),
    "mixture-4": mixture("setting", boltzflow.mixture_4, 0, 10.0),
    "double-well N=16 m=1.5": chain("setting", 1.5, 2.0),
    "Student t, ν = 3, 2-D": heavy("judged", 3.0, 2, 4.0),
    "skewed 2-D": skewed("judged", 0.9, 2, 6.0),
    "bent banana 3-D": banana("judged", 1.0, 3, 5.0),
    "funnel sd 2, 5-D": funnel("judged", 2.0, 5),
    "mode of 3 %, 10-D": unequal("judged", 0.03, 10),
    "mode of 1 %, 20-D": unequal("judged", 0.01, 20),
    "Poisson regression 2-D": posterior("judged", energies.poisson, -3.0, 5.0, 1.35),
    "mixture-2": mixture("judged", boltzflow.mixture_2, 0, 6.0),
    "double-well N=16 m=6": chain("judged", 6.0, 2.9),
    "gaussian 10-D": gaussian("judged"),
}
