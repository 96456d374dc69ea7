"""Healthy cases: ordinary targets, of the kinds that people bring."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from scipy.special import k1

import boltzflow
from benchmarks.trust_cases import asked, energies
from benchmarks.trust_cases.broken import PLANE, fit
from benchmarks.trust_cases.case import (
    HARDLY,
    QUICK,
    TARGET_ERROR,
    Case,
    Changed,
    Fit,
    Make,
    Observed,
    energy,
    evidence,
    hidden,
    mixture,
    quadrature,
    regression,
    student,
)
from boltzflow.interop.callback import Callback


def correlated(condition: float, dim: int) -> Make:
    """A rotated Gaussian whose variances spread by `condition`, without exact answers."""
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(dim, dim)))[0]
    scales = rotation / np.geomspace(1, math.sqrt(condition), dim)
    return energy(lambda x: 0.5 * jnp.sum((x @ scales) ** 2), dim)


def correlated_log_z(condition: float, dim: int) -> float:
    return 0.5 * dim * PLANE + 0.25 * dim * math.log(condition)


def skewed(x):
    """sinh(asinh x - 0.6) is standard normal in each coordinate. Normalized."""
    z = jnp.sinh(jnp.arcsinh(x) - 0.6)
    return energies.normal(z) - jnp.sum(0.5 * jnp.log1p(z**2) - 0.5 * jnp.log1p(x**2))


def phi_four(x):
    """φ⁴ on a periodic lattice of 4 x 4 sites."""
    phi = x.reshape(4, 4)
    bonds = sum((jnp.roll(phi, 1, axis) - phi) ** 2 for axis in (0, 1))
    return jnp.sum(0.5 * bonds + 0.25 * phi**2 + 0.1 * phi**4)


def free_field(x):
    phi = x.reshape(4, 4)
    bonds = sum((jnp.roll(phi, 1, axis) - phi) ** 2 for axis in (0, 1))
    return jnp.sum(0.5 * bonds + 0.25 * phi**2)


def free_field_log_z() -> float:
    k = 2 - 2 * np.cos(2 * np.pi * np.arange(4) / 4)
    return float(8 * PLANE - 0.5 * np.log(0.5 + k[:, None] + k).sum())


def double_well(x):
    return jnp.sum((x**2 - 1) ** 2) + 0.5 * x[0] * x[1]


def tilted_ring(x):
    return 2.0 * (jnp.sqrt(jnp.sum(x**2) + 1e-6) - 4.0) ** 2 + 0.2 * x[0]


def wrapped(x):
    return -2 * jnp.cos(2 * x[0] - 1) + 0.5 * (x[0] / 2) ** 2 + 0.5 * (x[1] - 0.3 * x[0]) ** 2


def _quartic(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sum(x**4, axis=1), 4 * x**3


def _coupled(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = x[:, 1] - 0.3 * x[:, 0] ** 2
    gradient = np.stack([x[:, 0] - 0.6 * x[:, 0] * y, y], axis=1)
    return 0.5 * (x[:, 0] ** 2 + y**2), gradient


def gamma_by_a_map(x):
    """x = log of gamma variables of shapes 2 and 5."""
    return jnp.sum(jnp.exp(x) - jnp.array([2.0, 5.0]) * x)


def beta_by_a_map(x):
    """x = logit of a beta variable of shapes 2 and 3, and a unit Gaussian."""
    return 5 * jnp.logaddexp(0.0, x[0]) - 2 * x[0] + 0.5 * x[1] ** 2


def counts(x):
    """Two counts of 10⁵ and their log-rates, for exposures of 10."""
    return jnp.sum(10 * jnp.exp(x) - jnp.array([100_000.0, 120_000.0]) * x)


def unequal(small: float, dim: int) -> Make:
    """A small mode beside a large one, eight standard deviations away."""
    means = np.zeros((2, dim))
    means[1, 0] = 8.0
    return hidden(mixture([1 - small, small], means))


GAUSSIAN = functools.partial(fit, "Gaussian")
MIXTURE = functools.partial(fit, "mixture")
UNEQUAL = functools.partial(fit, "unequal modes")
SKEWED = functools.partial(fit, "skewed")
BANANA = functools.partial(fit, "banana")
QUARTIC = functools.partial(fit, "quartic")
RING = functools.partial(fit, "ring")
STUDENT = functools.partial(fit, "Student t")
EXPONENTIAL = functools.partial(fit, "exponential tail")
REGRESSION = functools.partial(fit, "regression")
COUNTS = functools.partial(fit, "counts")
OFFSET = functools.partial(fit, "offset")
CHAIN = functools.partial(fit, "chain")
LATTICE = functools.partial(fit, "lattice")
WITH_ERROR = functools.partial(fit, "target error")
HIERARCHY = functools.partial(fit, "hierarchy")
CALLBACK = functools.partial(fit, "callback")
MAPPED = functools.partial(fit, "bounded variable")

BANANA_5 = math.log(2.0) + 2.5 * PLANE
RADIAL = PLANE + math.log(3.0) + 0.5 * math.log(math.pi / 2)  # 2π ∫ r exp(-2 (r - 3)²) dr, but for exp(-18)

HEALTHY: dict[str, Case] = {
    "mixture-4": MIXTURE(boltzflow.mixture_4, {}),
    "mixture-2": MIXTURE(boltzflow.mixture_2, {}),
    "mixture-2, nothing exact known": MIXTURE(hidden(boltzflow.mixture_2), {}, 0.0),
    "chain N = 4, m = 1.5": CHAIN(lambda: boltzflow.DoubleWell(4, 1.5), {}),
    "chain N = 16, m = 1.5": CHAIN(lambda: boltzflow.DoubleWell(16, 1.5), {}),
    "chain N = 16, m = 3": CHAIN(lambda: boltzflow.DoubleWell(16, 3.0), {}),
    "chain N = 16, m = 4.5": CHAIN(lambda: boltzflow.DoubleWell(16, 4.5), {}),
    "chain N = 16, m = 6": CHAIN(lambda: boltzflow.DoubleWell(16, 6.0), {}),
    "chain N = 64, nothing exact known": CHAIN(
        hidden(lambda: boltzflow.DoubleWell(64, 1.5)), {}, lambda: float(boltzflow.DoubleWell(64, 1.5).log_z)
    ),
    "a Gaussian far away": GAUSSIAN(mixture([1.0], [[200.0, -300.0]]), {}),
    "a Gaussian in 10-D, widths 0.1 to 10": GAUSSIAN(
        energy(lambda x: 0.5 * jnp.sum((x / np.geomspace(0.1, 10, 10)) ** 2), 10), {}, 5 * PLANE
    ),
    "three uneven modes": MIXTURE(mixture([0.1, 0.3, 0.6], [[-6, 0], [0, 6], [6, -6]]), {}),
    "banana in 5-D": BANANA(energy(energies.banana(0.3, 5), 5), {}, BANANA_5),
    "skewed, exponential tails": EXPONENTIAL(
        energy(lambda x: jnp.sum(jnp.logaddexp(-2 * x, 0.5 * x)), 3),
        {},
        lambda: 3 * quadrature(lambda x: jnp.logaddexp(-2 * x[0], 0.5 * x[0]), (-40, 120), num=80_001)(),
    ),
    "logistic regression": REGRESSION(energy(energies.logistic(4, 50), 4), {}),
    "quartic in 6-D": QUARTIC(energy(lambda x: jnp.sum(x**4), 6), {}, 6 * math.log(2 * math.gamma(1.25))),
    "a ring": RING(energy(lambda x: 2.0 * (jnp.linalg.norm(x) - 3.0) ** 2, 2), {}, RADIAL),
    "a mode that annealing misses": MIXTURE(energy(energies.two_posteriors, 5), {}, energies.TWO_POSTERIORS_LOG_Z),
    "mixture-4, target error": WITH_ERROR(boltzflow.mixture_4, dict(TARGET_ERROR)),
    "chain N = 16, m = 6, target error": WITH_ERROR(lambda: boltzflow.DoubleWell(16, 6.0), dict(TARGET_ERROR)),
    "chain N = 64, target error": WITH_ERROR(lambda: boltzflow.DoubleWell(64, 1.5), dict(TARGET_ERROR)),
    "banana in 5-D, target error": WITH_ERROR(energy(energies.banana(0.3, 5), 5), dict(TARGET_ERROR), BANANA_5),
    # Gaussians
    "a Gaussian in one dimension": GAUSSIAN(
        energy(lambda x: 0.5 * (x[0] - 2) ** 2 / 9, 1), HARDLY, PLANE / 2 + math.log(3)
    ),
    "a tilted Gaussian": GAUSSIAN(correlated(400.0, 2), HARDLY, correlated_log_z(400.0, 2)),
    "a Gaussian of condition 10⁴ in 6-D": GAUSSIAN(correlated(1e4, 6), HARDLY, correlated_log_z(1e4, 6)),
    "a Gaussian in 30-D": GAUSSIAN(correlated(10.0, 30), HARDLY, correlated_log_z(10.0, 30)),
    "a narrow Gaussian far away": GAUSSIAN(hidden(mixture([1.0], [[50.0, -20.0]], 1e-4)), HARDLY, 0.0),
    # mixtures
    "two modes 12 apart in 5-D": MIXTURE(
        hidden(mixture([0.5, 0.5], [[-6.0, 0, 0, 0, 0], [6.0, 0, 0, 0, 0]])), QUICK, 0.0
    ),
    "modes of widths 1 and 0.5 in 3-D": MIXTURE(
        hidden(mixture([0.6, 0.4], [[-3, 0, 0], [3, 1, 0]], np.array([1.0, 0.25]))), QUICK, 0.0
    ),
    "a mode of 3 % in 10-D": UNEQUAL(unequal(0.03, 10), QUICK, 0.0),
    "a mode of 1 % in 10-D": UNEQUAL(unequal(0.01, 10), QUICK, 0.0),
    "modes of 1, 9 and 90 % in 2-D": UNEQUAL(
        hidden(mixture([0.01, 0.09, 0.9], [[-7, 0], [0, 7], [5, -5]])), QUICK, 0.0
    ),
    # shapes
    "sinh-arcsinh in 4-D": SKEWED(energy(skewed, 4), QUICK, 0.0),
    "Gumbel in 3-D": SKEWED(energy(lambda x: jnp.sum(x + jnp.exp(-x)), 3), QUICK, 0.0),
    "log-gamma of shape 0.8": SKEWED(energy(lambda x: jnp.sum(jnp.exp(x) - 0.8 * x), 2), QUICK, 2 * math.lgamma(0.8)),
    "a mild banana": BANANA(energy(energies.banana(0.1, 2), 2), QUICK, math.log(2.0) + PLANE),
    "a bent banana": BANANA(energy(energies.banana(0.8, 2), 2), QUICK, math.log(2.0) + PLANE),
    "a sextic": QUARTIC(energy(lambda x: jnp.sum(x**6), 3), QUICK, 3 * math.log(2 * math.gamma(7 / 6))),
    "coupled double wells": QUARTIC(energy(double_well, 2), QUICK, quadrature(double_well, (-4, 4), (-4, 4))),
    "a tilted ring": RING(energy(tilted_ring, 2), QUICK, quadrature(tilted_ring, (-9, 9), (-9, 9))),
    "Student t, ν = 5, in 3-D": STUDENT(energy(energies.student_t(5.0, 3), 3), QUICK, student(5.0, 3)),
    "Student t, ν = 10, in 5-D": STUDENT(energy(energies.student_t(10.0, 5), 5), QUICK, student(10.0, 5)),
    "independent Student t, ν = 7": STUDENT(
        energy(lambda x: jnp.sum(4 * jnp.log1p(x**2 / 7)), 2), QUICK, 2 * student(7.0, 1)
    ),
    "a smooth Laplace": EXPONENTIAL(
        energy(lambda x: jnp.sum(jnp.sqrt(1 + x**2)), 2), QUICK, 2 * math.log(2 * float(k1(1.0)))
    ),
    "logistic densities": EXPONENTIAL(energy(lambda x: jnp.sum(x + 2 * jnp.logaddexp(0.0, -x)), 3), QUICK, 0.0),
    "hyperbolic secants": EXPONENTIAL(
        energy(lambda x: jnp.sum(jnp.logaddexp(x, -x)), 3), QUICK, 3 * math.log(math.pi / 2)
    ),
    "a phase with a prior": Case("periodic", Fit(energy(wrapped, 2), QUICK, quadrature(wrapped, (-13, 13), (-12, 12)))),
    # data
    "logistic regression in 2-D": REGRESSION(
        energy(energies.logistic(2, 30), 2), QUICK, quadrature(energies.logistic(2, 30), (-14, 14), (-14, 14))
    ),
    "Poisson regression": REGRESSION(
        energy(energies.poisson, 2), QUICK, quadrature(energies.poisson, (-1, 3), (-3, 4))
    ),
    "linear regression, errors of 0.3": REGRESSION(
        energy(energies.linear_regression(0.3), 6), HARDLY, lambda: evidence(*regression(8, 0.3), 0.3)
    ),
    "linear regression, errors of 10⁻⁴": REGRESSION(
        energy(energies.linear_regression(1e-4), 6), HARDLY, lambda: evidence(*regression(8, 1e-4), 1e-4)
    ),
    "Julian days in double precision": REGRESSION(
        energy(energies.light_curve(None), 2), HARDLY, lambda: evidence(*energies.days()[1:], 0.1)
    ),
    "counts of 10⁵": COUNTS(
        energy(counts, 2), HARDLY, sum(math.lgamma(n) - n * math.log(10) for n in (100_000.0, 120_000.0))
    ),
    "counts of 0, 1 and 3": COUNTS(
        energy(lambda x: jnp.sum(jnp.exp(x) - jnp.array([0.5, 1.5, 3.5]) * x), 3),
        QUICK,
        sum(map(math.lgamma, (0.5, 1.5, 3.5))),
    ),
    "an offset of 10⁷": OFFSET(energy(lambda x: 1e7 + 0.5 * jnp.sum(x**2), 2), HARDLY, PLANE - 1e7),
    "an offset of -10⁷ on two modes": OFFSET(
        energy(lambda x: -jnp.logaddexp(-0.5 * jnp.sum((x - 3) ** 2), -0.5 * jnp.sum((x + 3) ** 2)) - 1e7, 2),
        QUICK,
        PLANE + math.log(2) + 1e7,
    ),
    "3,000 observations summed by a scan": Case(
        "sum over data", Fit(energy(energies.scan_sum(None), 2), HARDLY, energies.scan_log_z)
    ),
    "3,000 observations summed at once": Case(
        "sum over data",
        Fit(
            energy(
                lambda x: (
                    jnp.sum(0.5 * (energies.SCAN - x[0]) ** 2 + 0.5 * PLANE)
                    + energies.normal(x[0], 10.0)
                    + energies.normal(x[1])
                ),
                2,
            ),
            HARDLY,
            energies.scan_log_z,
        ),
    ),
    "eight schools, non-centered": HIERARCHY(energy(energies.schools_noncentered, 10), QUICK, energies.SCHOOLS_LOG_Z),
    "a funnel of sd 0.5": HIERARCHY(energy(lambda x: energies.funnel(x, 0.5), 4), QUICK, 0.0),
    "gamma variables by their logarithms": MAPPED(energy(gamma_by_a_map, 2), QUICK, math.lgamma(2) + math.lgamma(5)),
    "a beta variable by its logit": MAPPED(
        energy(beta_by_a_map, 2), QUICK, math.lgamma(2) + math.lgamma(3) - math.lgamma(5) + PLANE / 2
    ),
    # physics
    "φ⁴ on 4 x 4 sites": LATTICE(
        energy(phi_four, 16, lattice_shape=(4, 4), sign_symmetric=True), {**QUICK, "field": "lattice"}
    ),
    "a free field on 4 x 4 sites": LATTICE(
        energy(free_field, 16, lattice_shape=(4, 4), sign_symmetric=True),
        {**HARDLY, "field": "lattice"},
        free_field_log_z,
    ),
    "chain N = 16, m = 3, as a lattice": LATTICE(lambda: boltzflow.DoubleWell(16, 3.0), {**QUICK, "field": "lattice"}),
    # ways of asking
    "Poisson regression, target error": WITH_ERROR(
        energy(energies.poisson, 2), {"log_z_error": 3e-3}, quadrature(energies.poisson, (-1, 3), (-3, 4))
    ),
    "Student t, ν = 8, target error": WITH_ERROR(
        energy(energies.student_t(8.0, 3), 3), {"log_z_error": 3e-3}, student(8.0, 3)
    ),
    "three seeds": Case(
        "several fits", asked.SeveralSeeds(Fit(energy(energies.banana(0.2, 3), 3), QUICK, math.log(2.0) + 1.5 * PLANE))
    ),
    "one function, other data": Case("several fits", Changed(asked.dictionary)),
    "one closure, other data": Case("several fits", Changed(asked.closure)),
    "quartic in NumPy": CALLBACK(lambda: Callback(_quartic, 2), QUICK, 2 * math.log(2 * math.gamma(1.25))),
    "a banana in NumPy": CALLBACK(lambda: Callback(_coupled, 2), QUICK, PLANE),
    "a tail probability": Case(
        "observable", Observed(mixture([1.0], [[0.0, 0.0]]), lambda x: x[0] > 1.5, 0.5 * math.erfc(1.5 / math.sqrt(2)))
    ),
    "a second moment of a banana": Case(
        "observable", Observed(energy(energies.banana(0.3, 2), 2), lambda x: x[1] ** 2, 1 + 3 * 0.09 * 16, QUICK)
    ),
    "the share of a mode": Case(
        "observable", Observed(mixture([0.3, 0.7], [[-5, 0], [5, 0]]), lambda x: (x[0] < 0).astype(float), 0.3, QUICK)
    ),
    "a run loaded from its folder": Case("folder", asked.Folder(asked.as_it_is)),
    "a run without its report": Case("folder", asked.Folder(asked.report_removed)),
}
