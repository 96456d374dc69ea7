"""Broken cases: the answer is wrong, right by accident, or the question has none."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from benchmarks.trust_cases import asked, energies
from benchmarks.trust_cases.case import (
    HARDLY,
    QUICK,
    TARGET_ERROR,
    Case,
    Changed,
    Exact,
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

NO_PILOT = {"pilot_fraction": 0.0, "warmup_fraction": 0.0}
NARROW = {"base": "gaussian", "base_std": 1.0}
REVERSE_KL = {"loss": "reverse-kl", "num_steps": 400}
PLANE = math.log(2 * math.pi)
UNIT = mixture([1.0], [[0.0, 0.0]])


def fit(kind: str, make: Make, settings: dict | None = None, log_z: Exact = None) -> Case:
    return Case(kind, Fit(make, QUICK if settings is None else settings, log_z))


def wells(distance: float, stds: tuple[float, ...], dim: int) -> Make:
    """Wells of equal mass in a row, one for each width."""
    means = np.zeros((len(stds), dim))
    means[:, 0] = distance * np.arange(len(stds))
    return hidden(mixture([1 / len(stds)] * len(stds), means, np.square(stds)))


def _by_hand(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A factor 2 is forgotten."""
    return np.sum(x**2, axis=1), x


def _next_to(x):
    """A chain whose last bond is meant to be periodic, and is not."""
    return jax.lax.fori_loop(0, 6, lambda i, f: f + 0.5 * (x[i + 1] - x[i]) ** 2 + 0.5 * x[i] ** 2, 0.0 * x[0])


def _single(fn):
    return lambda x: fn(x.astype(jnp.float32))


def _tilted(x):
    return 1e6 + 0.5 * jnp.sum(x**2) + 3 * jnp.tanh(x[0])


def _plain(x):
    return 0.5 * jnp.sum(x**2)


def _observed(fn, exact: float, dim: int = 2) -> Case:
    return Case("observable", Observed(mixture([1.0], np.zeros((1, dim))), fn, exact))


COLLAPSED = functools.partial(fit, "collapsed flow")
MISSED = functools.partial(fit, "missed mode")
SCALES = functools.partial(fit, "two scales")
NECK = functools.partial(fit, "neck")
HEAVY = functools.partial(fit, "heavy tail")
IMPROPER = functools.partial(fit, "improper")
GRADIENT = functools.partial(fit, "wrong gradient")
INDEX = functools.partial(fit, "index")
NAN = functools.partial(fit, "not a number")
WALL = functools.partial(fit, "wall")
JUMP = functools.partial(fit, "jump")
OVERFLOW = functools.partial(fit, "overflow")
SINGLE = functools.partial(fit, "single precision")
HARDLY_TRAINED = functools.partial(fit, "hardly trained")
SOLVER = functools.partial(fit, "solver")
RATE = functools.partial(fit, "learning rate")
BASE = functools.partial(fit, "base")
SYMMETRY = functools.partial(fit, "symmetry")
NEEDLE = functools.partial(fit, "needle")


BROKEN: dict[str, Case] = {
    "reverse KL, mixture-4": COLLAPSED(boltzflow.mixture_4, {**REVERSE_KL, **NARROW}),
    "reverse KL, mixture-4, nothing exact known": COLLAPSED(hidden(boltzflow.mixture_4), {**REVERSE_KL, **NARROW}, 0.0),
    "reverse KL, mixture-2": COLLAPSED(boltzflow.mixture_2, {**REVERSE_KL, "base": "gaussian", "base_std": 2.0}),
    "reverse KL, chain at m = 6": COLLAPSED(
        hidden(lambda: boltzflow.DoubleWell(16, 6.0)),
        {**REVERSE_KL, **NARROW},
        lambda: float(boltzflow.DoubleWell(16, 6.0).log_z),
    ),
    "reverse KL, unequal wells in 5-D": COLLAPSED(
        energy(energies.two_posteriors, 5), {**REVERSE_KL, **NARROW}, energies.TWO_POSTERIORS_LOG_Z
    ),
    "a mode far outside the base": MISSED(
        hidden(mixture([0.7, 0.3], [[0, 0], [40, 0]])), {**NARROW, **NO_PILOT, "num_steps": 400}, 0.0
    ),
    "linear path that teleports": MISSED(
        boltzflow.mixture_2,
        {"interpolation": "linear", "base": "gaussian", "base_std": 2.0, "num_steps": 400, **NO_PILOT},
    ),
    "a narrow needle of half the mass": NEEDLE(mixture([0.5, 0.5], [[0, 0], [30, 0]], 1e-4), {"num_steps": 300}),
    "heavy tails": HEAVY(energy(energies.cauchy, 3), {"num_steps": 400}, 3 * math.log(math.pi)),
    "a base too narrow": BASE(mixture([1.0], [[0, 0]], 25.0), {"base": "gaussian", "base_std": 0.05, "num_steps": 20}),
    "a wrong gradient": GRADIENT(energy(energies.wrong_gradient, 3), {}, 1.5 * PLANE),
    "NaN in a region": NAN(energy(lambda x: jnp.where(x[0] > 1.0, jnp.nan, _plain(x)), 2), {"num_steps": 300}),
    "training stopped after 5 steps": HARDLY_TRAINED(boltzflow.mixture_4, {"num_steps": 5}),
    "a mode that annealing misses, and a base without it": MISSED(
        energy(energies.two_posteriors, 5), {**NARROW, "num_steps": 300}, energies.TWO_POSTERIORS_LOG_Z
    ),
    "heavy tails, target error": HEAVY(energy(energies.cauchy, 3), dict(TARGET_ERROR), 3 * math.log(math.pi)),
    "overflow in single precision": OVERFLOW(
        energy(lambda x: 1e38 * jnp.sum((x / 0.1) ** 2), 2), {"num_steps": 100}, math.log(math.pi * 1e-40)
    ),
    "an energy that falls forever": IMPROPER(energy(lambda x: x[0] + 0.5 * x[1] ** 2, 2), {"num_steps": 100}),
    "one solver step": SOLVER(lambda: boltzflow.DoubleWell(16, 6.0), {"num_steps": 400, "sample_steps": 1}),
    "eight Euler steps": SOLVER(boltzflow.mixture_4, {"num_steps": 1000, "sample_solver": "euler", "sample_steps": 8}),
    "five modes of 0.4 % each outside the base": MISSED(
        hidden(mixture([0.98, *[0.004] * 5], [[0, 0], [25, 0], [-25, 0], [0, 25], [0, -25], [18, 18]])),
        {**NARROW, **NO_PILOT, "num_steps": 400},
        0.0,
    ),
    "a learning rate of 3": RATE(boltzflow.mixture_4, {"num_steps": 300, "learning_rate": 3.0}),
    "forty modes in 50 steps": HARDLY_TRAINED(hidden(boltzflow.gmm_40), {"num_steps": 50}, 0.0),
    # two scales
    "wells of widths 1 and 0.3 in 10-D": SCALES(wells(6, (1.0, 0.3), 10), log_z=0.0),
    "wells of widths 5 and 0.05 in 6-D": SCALES(wells(20, (5.0, 0.05), 6), log_z=0.0),
    "wells of widths 1, 0.2 and 0.1 in 8-D": SCALES(wells(7, (1.0, 0.2, 0.1), 8), log_z=0.0),
    # necks
    "eight schools, centered": NECK(energy(energies.schools_centered, 10), log_z=energies.SCHOOLS_LOG_Z),
    "a funnel of sd 3 in 10-D": NECK(energy(lambda x: energies.funnel(x, 3.0), 10), log_z=0.0),
    "a funnel of sd 1.5 in 4-D": NECK(energy(lambda x: energies.funnel(x, 1.5), 4), log_z=0.0),
    "a horseshoe of two effects": NECK(energy(energies.horseshoe, 5), log_z=energies.horseshoe_log_z),
    "a funnel in a funnel": NECK(energy(energies.nested_funnel, 3), log_z=0.0),
    # heavy tails
    "Student t, ν = 1, in 4-D": HEAVY(energy(energies.student_t(1.0, 4), 4), log_z=student(1.0, 4)),
    "Student t, ν = 2, in 3-D": HEAVY(energy(energies.student_t(2.0, 3), 3), log_z=student(2.0, 3)),
    "tails of x^-2.4 in each coordinate": HEAVY(
        energy(lambda x: 1.2 * jnp.sum(jnp.log1p(x**2)), 2),
        log_z=2 * (0.5 * math.log(math.pi) + math.lgamma(0.7) - math.lgamma(1.2)),
    ),
    # improper
    "a plateau": IMPROPER(energy(lambda x: 5 * jnp.sum(x**2) / (1 + jnp.sum(x**2)), 2)),
    "a flat coordinate": IMPROPER(energy(lambda x: 0.5 * x[0] ** 2 + 0.5 * x[2] ** 2, 3)),
    "a flat direction across the coordinates": IMPROPER(energy(lambda x: 0.5 * (x[0] - x[1]) ** 2, 2)),
    "a phase without a prior": IMPROPER(energy(lambda x: 2 * jnp.cos(x[0]) + 0.5 * x[1] ** 2, 2)),
    "it falls far outside": IMPROPER(energy(lambda x: 0.5 * jnp.sum(x**2) - 0.002 * jnp.sum(x**4), 2)),
    "eight schools with a flat prior on log τ": IMPROPER(energy(energies.schools_improper, 10)),
    "tails of |x|^-0.8": IMPROPER(energy(lambda x: 0.4 * jnp.sum(jnp.log1p(x**2)), 2)),
    # gradients
    "stop_gradient on one factor": GRADIENT(
        energy(lambda x: 0.5 * jnp.sum(jax.lax.stop_gradient(x) * x), 3), log_z=1.5 * PLANE
    ),
    "half the gradient near the mean": GRADIENT(energy(energies.half_gradient_at_the_mean, 3), log_z=1.5 * PLANE),
    "a gradient by hand, in NumPy": GRADIENT(lambda: Callback(_by_hand, 2), log_z=math.log(math.pi)),
    # indices beyond the dimension
    "x[5] in four dimensions": INDEX(energy(lambda x: _plain(x) + 0.5 * (x[5] - 1) ** 2, 4), HARDLY),
    "a gather beyond the end": INDEX(energy(lambda x: _plain(x) + x[jnp.array([0, 7])].sum(), 3), HARDLY),
    "a loop to x[i + 1]": INDEX(energy(_next_to, 6), HARDLY),
    "a dynamic slice beyond the end": INDEX(
        energy(lambda x: _plain(x) + jnp.sum(jax.lax.dynamic_slice(x, (3,), (3,))), 4), HARDLY
    ),
    # NaN, walls and jumps
    "a square root of a negative": NAN(energy(lambda x: _plain(x) + jnp.sqrt(x[0]), 2)),
    "NaN beyond six standard deviations": NAN(
        energy(lambda x: jnp.where(x[0] > 6.0, jnp.nan, _plain(x)), 2), HARDLY, PLANE
    ),
    "a half-space behind an infinite wall": WALL(
        energy(lambda x: jnp.where(x[0] > 0, _plain(x), jnp.inf), 2), log_z=math.log(math.pi)
    ),
    "a box of infinite walls": WALL(
        energy(lambda x: jnp.where(jnp.all(jnp.abs(x) < 1), 0.0 * x[0], jnp.inf), 2), log_z=math.log(4.0)
    ),
    "a wall of height 10⁴": WALL(energy(lambda x: _plain(x) + 1e4 * (x[0] < 0), 2), log_z=math.log(math.pi)),
    "a jump of three": JUMP(
        energy(lambda x: _plain(x) + 3.0 * (x[0] > 0), 2), log_z=math.log(math.pi) + math.log1p(math.exp(-3))
    ),
    "a staircase": JUMP(
        energy(lambda x: _plain(x) + jnp.floor(2 * x[0]), 2),
        log_z=quadrature(lambda x: _plain(x) + jnp.floor(2 * x[0]), (-12, 10), (-9, 9), num=2201),
    ),
    # floating point
    "an exponential of an exponential": OVERFLOW(
        energy(lambda x: jnp.exp(jnp.exp(3 * x[0])) + _plain(x), 2),
        log_z=quadrature(lambda x: jnp.exp(jnp.exp(jnp.minimum(3 * x[0], 6.0))) + _plain(x), (-9, 3), (-9, 9)),
    ),
    "rates of exp(60 x)": OVERFLOW(
        energy(lambda x: jnp.exp(60 * x[0]) - 600 * x[0] + 0.5 * x[1] ** 2, 2),
        log_z=math.lgamma(10) - math.log(60) + PLANE / 2,
    ),
    "3,000 terms summed in single precision": SINGLE(
        energy(energies.scan_sum(jnp.float32), 2), log_z=energies.scan_log_z
    ),
    "errors of 3·10⁻⁶, data in single precision": SINGLE(
        energy(energies.linear_regression(3e-6, jnp.float32), 6), log_z=lambda: evidence(*regression(8, 3e-6), 3e-6)
    ),
    "Julian days in single precision": SINGLE(
        energy(energies.light_curve(jnp.float32), 2), log_z=lambda: evidence(*energies.days()[1:], 0.1)
    ),
    "an offset of 10⁷ in single precision": SINGLE(energy(_single(lambda x: 1e7 + _plain(x)), 2), log_z=PLANE - 1e7),
    # stale data
    "a dictionary changed, fitted again": Case("stale data", Changed(asked.dictionary)),
    "an array changed in place, fitted again": Case("stale data", Changed(asked.array_in_place)),
    "an attribute changed, fitted again": Case("stale data", Changed(asked.bound_method)),
    "a longer list, fitted again": Case("stale data", Changed(asked.partial_of_a_list)),
    "a closure changed, asked again": Case("stale data", Changed(asked.closure, refit=False)),
    "an array changed in place, asked again": Case("stale data", Changed(asked.array_in_place, refit=False)),
    # training
    "a bent banana in 20 steps": HARDLY_TRAINED(
        energy(energies.banana(1.0, 4, 3.0), 4), {"num_steps": 20}, math.log(3.0) + 2 * PLANE
    ),
    "chain N = 16, m = 6, in 30 steps": HARDLY_TRAINED(lambda: boltzflow.DoubleWell(16, 6.0), {"num_steps": 30}),
    "two Heun steps": SOLVER(boltzflow.mixture_2, {**QUICK, "sample_solver": "heun", "sample_steps": 2}),
    "Adam with a learning rate of 10": RATE(
        boltzflow.mixture_2, {"num_steps": 150, "optimizer": "adam", "learning_rate": 10.0}
    ),
    "a base of width 10⁻³": BASE(UNIT, {**HARDLY, **NO_PILOT, "base": "gaussian", "base_std": 1e-3}),
    "a base of width 1000": BASE(UNIT, {**HARDLY, **NO_PILOT, "base": "gaussian", "base_std": 1e3}),
    "a base 85 away": BASE(hidden(mixture([1.0], [[60, 60]])), {**HARDLY, **NO_PILOT, **NARROW}, 0.0),
    # observables
    "an event that no sample saw": _observed(lambda x: (x[0] > 7).astype(float), 1.2798e-12),
    "a number that is constant by accident": _observed(
        lambda x: jnp.where(x[0] > 6, 1e9, 3.0), 3 + 0.5e9 * math.erfc(6 / math.sqrt(2))
    ),
    "a NaN among the leaves": _observed(lambda x: jnp.log(x[0]), 0.0),
    "an index beyond the dimension, observed": _observed(lambda x: x[9], 0.0, dim=6),
    "an average that the tail decides": _observed(lambda x: jnp.exp(6 * x[0]), math.exp(18)),
    # symmetries that are declared and not there
    "not even, by three of 10⁶": SYMMETRY(
        energy(_tilted, 2, sign_symmetric=True), log_z=quadrature(_tilted, (-9, 9), (-9, 9))
    ),
    "not even, by a small cube": SYMMETRY(
        energy(lambda x: jnp.sum(x**4) + 0.3 * jnp.sum(x**3), 4, sign_symmetric=True)
    ),
    "one site of a lattice differs": SYMMETRY(
        energy(lambda x: 1e7 + _plain(x) + x[3] ** 2, 8, lattice_shape=(8,)), log_z=4 * PLANE - 0.5 * math.log(3) - 1e7
    ),
    "an open lattice declared periodic": SYMMETRY(
        energy(lambda x: _plain(x) + jnp.sum((x[1:] - x[:-1]) ** 2), 8, lattice_shape=(8,))
    ),
    # folders
    "the report of another run": Case("folder", asked.Folder(asked.report_of_the_other)),
    "the checkpoint of another run": Case("folder", asked.Folder(asked.checkpoint_of_the_other)),
    "the settings of another run": Case("folder", asked.Folder(asked.configuration_of_the_other)),
    "a report cut short": Case("folder", asked.Folder(asked.report_cut_short)),
    "a verdict edited by hand": Case("folder", asked.Folder(asked.verdict_edited)),
    "another run saved over it": Case("folder", asked.Folder(asked.saved_over)),
    # needles
    "a needle at the center of a Gaussian in 4-D": NEEDLE(
        hidden(mixture([0.7, 0.3], np.zeros((2, 4)), np.array([1.0, 1e-4]))), log_z=0.0
    ),
    "a needle beside a Gaussian in 5-D": NEEDLE(
        hidden(mixture([0.6, 0.4], [[0.0] * 5, [3.0, 2.0, 0.0, 0.0, 0.0]], np.array([1.0, 4e-4]))), log_z=0.0
    ),
}
