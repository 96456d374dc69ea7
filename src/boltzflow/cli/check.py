"""Checks of a target before any training: its contract, its tails, and the time of one energy."""

import time

import jax
import numpy as np

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, coordinates_of
from boltzflow.densities.energy_checks import check_energy, finite_advice
from boltzflow.densities.propriety import slow_axes
from boltzflow.errors import InputError
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.constants import rounds_its_point, single_constants
from boltzflow.testing.densities import check_density, check_distribution

_NUM_POINTS = 64
_NUM_TIMED = 1024
_RADII = (10.0, 100.0)  # of far points, in units of x
_MAX_ROUNDING = 1e-4  # of data in single precision, relative to their standard deviation


def check_target(target: AbstractDensity) -> list[str]:
    """The findings as sentences, an "advice:" where the energy should change; `InputError` for an unusable target."""
    key = jax.random.key(0)
    points = jax.random.normal(key, (_NUM_POINTS, target.dim))
    check_energy(target, points)
    try:
        if isinstance(target, AbstractDistribution):
            check_distribution(target, key)
        else:
            check_density(target, key)
    except AssertionError as error:
        raise InputError(str(error)) from error
    energy = np.asarray(jax.vmap(target.energy)(points))
    found = [
        f"dimension {coordinates_of(target)}; the energy traces, is one real number, and is finite at {_NUM_POINTS} "
        f"points from N(0, 1), from {energy.min():.4g} to {energy.max():.4g}",
        "the gradient is finite and agrees with central differences; compiled, batched and float64 values agree",
    ]
    if isinstance(target, AbstractDistribution):
        found.append(f"samples, log_prob and log Z ({float(target.log_z):.6g}) agree with each other")
    if improper := getattr(target, "improper_sites", ()):
        found.append(f"the prior of {', '.join(improper)} is improper: log Z is not a log evidence")
    return [*found, _energy_time(target, key), *_tails(target, points), *_precision(target, points)]


def _energy_time(target: AbstractDensity, key: jax.Array) -> str:
    points = jax.random.normal(key, (_NUM_TIMED, target.dim))
    evaluate = compiled(jax.vmap(jax.value_and_grad(target.energy)))
    jax.block_until_ready(evaluate(points))
    start = time.perf_counter()
    jax.block_until_ready(evaluate(points))
    microseconds = 1e6 * (time.perf_counter() - start) / _NUM_TIMED
    return f"one energy with its gradient takes about {microseconds:.2g} µs in a batch of {_NUM_TIMED}"


def _tails(target: AbstractDensity, points: jax.Array) -> list[str]:
    """Advice where the energy grows too slowly outward, or is not finite far out."""
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    near, far = (np.asarray(jax.vmap(target.energy)(radius * directions)) for radius in _RADII)
    if not (np.isfinite(near).all() and np.isfinite(far).all()):
        return [
            f"advice: the energy is not finite everywhere at |x| = {_RADII[0]:g} and {_RADII[1]:g}; if samples can "
            f"reach these points, {finite_advice(np.concatenate([near, far]))}"
        ]
    needed = target.dim * np.log(_RADII[1] / _RADII[0])  # growth of the volume, which exp(-energy) must outweigh
    flat = int(np.sum(far - near <= needed))
    if flat:
        return [
            f"advice: in {flat} of {len(points)} directions the energy grows too little from |x| = {_RADII[0]:g} to "
            f"{_RADII[1]:g} for a finite integral of exp(-energy), if the growth stays the same; add a confining term"
        ]
    if slow := slow_axes(target, points, _RADII):
        shown = ", ".join(f"x[{axis}]" for axis in slow[:4]) + (", ..." if len(slow) > 4 else "")
        return [
            f"advice: along {shown} the energy grows too little from {_RADII[0]:g} to {_RADII[1]:g} for a finite "
            "integral of exp(-energy), if the growth stays the same; add a prior or a confining term"
        ]
    return [
        f"the energy grows outward from |x| = {_RADII[0]:g} to {_RADII[1]:g} in all of {len(points)} directions and "
        f"along all of {target.dim} coordinates"
    ]


def _precision(target: AbstractDensity, points: jax.Array) -> list[str]:
    """Advice where the energy's own constants, or its point, are rounded to single precision with an effect."""
    if rounds_its_point(target.energy, points[0]):
        return ["advice: the energy converts values to single precision, which limits every answer; leave their type"]
    coarse = [c for c in single_constants(target.energy, points[0]) if _is_coarse(c)]
    if not coarse:
        return []
    worst = max(coarse, key=lambda c: float(np.max(np.abs(c))))
    largest = float(np.max(np.abs(worst)))
    step = float(np.spacing(np.float32(largest)))
    return [
        f"advice: the energy holds {worst.size} data in single precision, up to {largest:.7g}, where the next number "
        f"is {step:.2g} away; keep them as a NumPy array in double precision, or subtract an offset before they are "
        "converted"
    ]


def _is_coarse(constants: np.ndarray) -> bool:
    """Whether values that are no whole numbers vary by little more than their rounding."""
    values = np.asarray(constants, np.float64)
    values = values[np.isfinite(values)]
    if values.size < 2 or (values == np.round(values)).all():
        return False
    spacing = np.finfo(constants.dtype).eps * float(np.max(np.abs(values)))
    return bool(0 < np.std(values) < spacing / _MAX_ROUNDING)
