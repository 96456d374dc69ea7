"""Whether exp(-energy) can have a finite integral, judged far out along lines.

If the integral over R^dim is finite, then so is it over almost every line of a given direction, ∫ exp(-f(x + r v)) dr,
and along almost every ray from the origin, ∫ r^(dim - 1) exp(-f(r v)) dr. So f grows by more than log r along the lines
and by more than dim·log r along the rays. Rays in random directions and lines along the coordinate axes are tried, and
lines along which the gradient vanishes.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.tracing import open_jaxpr, sub_jaxprs

_RADII = (1e4, 1e8, 1e12)  # of far points, in units of x
_NUM_LINES = 3  # in each direction
_SHIFTS = ((1.0, 1e3, 1e6),)  # along a direction without gradient
_PERIODS = (  # shifts by multiples of 2π and of the whole numbers up to 10, of 24 and of 360
    (2520 * 2 * math.pi, 3 * 2520 * 2 * math.pi),
    (5040.0, 15120.0),
)
_MAX_DIM = 256  # for the search for such directions, which needs more gradients than dimensions
_NO_SLOPE = 1e-10  # relative
_MAX_NULL = 8  # of such directions that are tried
_ROUNDINGS = 64  # by which energies of one value may differ
_MARGIN = 0.1  # nats
_CHUNK = 1024
_REMEDY = "so that exp(-energy) has no finite integral"
Floats = np.ndarray


def improper(density: AbstractDensity, points: Float[Array, "num dim"]) -> str:
    """A sentence on why exp(-energy) has no finite integral, or "" where that is not certain.

    Refused are an energy that falls outward, that stays the same or repeats itself along a direction, or that grows too
    slowly from a value at |x| = 10⁴ at most dim·log 10⁴ above its values at `points`. Nothing is evaluated for a
    distribution, whose integral is known, or for an energy with a callback or an open loop, which may fail or not end
    at far points.
    Energies are in double precision where they can be.
    """
    if isinstance(density, AbstractDistribution) or _is_fragile(jax.make_jaxpr(density.energy)(points[0])):
        return ""
    at = np.asarray(points)
    with jax.enable_x64(True):
        try:
            jax.eval_shape(jax.grad(density.energy), at[0].astype(np.float64))
            return _improper(density, at.astype(np.float64))
        except TypeError:  # of mixed precisions in the user's loops
            pass
    return _improper(density, at)


def _improper(density: AbstractDensity, points: Floats) -> str:
    energy = _in_chunks(compiled(jax.vmap(density.energy)))
    near = energy(points)
    if sentence := _along_rays(density.dim, energy, points, near) or _along_axes(density.dim, energy, points, near):
        return sentence
    if points.dtype != np.float64 or density.dim > _MAX_DIM:
        return ""
    gradient = _in_chunks(compiled(jax.vmap(jax.grad(density.energy))))
    for axis, direction in enumerate(np.eye(density.dim)):
        if _is_constant(energy, gradient, points[:_NUM_LINES], direction, _PERIODS):
            return (
                f"the energy repeats itself along x[{axis}], as that of an angle or phase without a prior, {_REMEDY}; "
                "add a prior or a confining term, or declare its period (periodic=)"
            )
    return _along_null(density.dim, energy, gradient, points)


def slow_axes(density: AbstractDensity, points: Float[Array, "num dim"], radii: tuple[float, float]) -> list[int]:
    """The coordinates along which the energy grows by no more than the log of the radius between two radii."""
    energy = _in_chunks(compiled(jax.vmap(density.energy)))
    lines = _axes(np.asarray(points), radii)
    values = energy(lines.reshape(-1, density.dim)).reshape(lines.shape[:-1])  # (radius, axis, side, line)
    with np.errstate(invalid="ignore"):
        slow = values[1] - values[0] <= math.log(radii[1] / radii[0])
    return [int(axis) for axis in np.flatnonzero(slow.all(axis=2).any(axis=1))]


def _along_rays(dim: int, energy: Callable[[Floats], Floats], points: Floats, near: Floats) -> str:
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    far = np.stack([energy((radius * directions).astype(points.dtype)) for radius in _RADII])
    falls, level = _stays_low(far, near.min(), dim)
    num = len(directions)
    few = min(2, num)
    if falls.sum() >= few:
        cause = "; is it the log-density? Then change its sign" if falls.all() else ""
        value = far[-1][np.argmax(falls)]
        share = f"{'all' if falls.all() else falls.sum()} of {num} directions"
        end = f"{value:.4g} at |x| = {_RADII[-1]:.0e}"
        return f"the energy falls outward in {share} (to {end}), {_REMEDY}{cause}"
    if level.sum() >= few:
        value = far[-1][np.argmax(level)] + 0.0
        return (
            f"in {level.sum()} of {num} directions the energy grows by less than dim·log|x| (to {value:.4g} at |x| = "
            f"{_RADII[-1]:.0e}), {_REMEDY}; add a prior or a confining term, or declare the periods of angles "
            "(periodic=)"
        )
    return ""


def _along_axes(dim: int, energy: Callable[[Floats], Floats], points: Floats, near: Floats) -> str:
    lines = _axes(points, _RADII)
    far = energy(lines.reshape(-1, dim)).reshape(lines.shape[:-1])
    falls, level = _stays_low(far, near[:_NUM_LINES], 1)
    for axis, side in np.argwhere((falls | level).all(axis=2)):  # on all lines
        end = f"x[{axis}] = {'-' if side else ''}{_RADII[-1]:.0e}"
        value = far[-1, axis, side, 0] + 0.0
        return (
            f"the energy does not grow towards {end} (it is {value:.4g} there), {_REMEDY}; leave this coordinate out, "
            "add a prior or a confining term, or declare the period of an angle (periodic=)"
        )
    return ""


def _axes(points: Floats, radii: tuple[float, ...]) -> Float[np.ndarray, "radius dim side line dim"]:
    """Points at each radius on both sides along each coordinate axis, on lines through the first `points`."""
    dim = points.shape[1]
    steps = np.eye(dim)[:, None, None] * np.array([1.0, -1.0])[:, None, None]  # (axis, side, 1, dim)
    far = np.array(radii)[:, None, None, None, None] * steps + points[:_NUM_LINES] * (steps == 0)
    return far.astype(points.dtype)


def _stays_low(far: Floats, near: float | Floats, dim: int) -> tuple[Floats, Floats]:
    """Where the energy at the radii falls, and where it grows too slowly for a finite integral."""
    needed = np.log(np.array(_RADII[1:]) / np.array(_RADII[:-1])).reshape(-1, *[1] * (far.ndim - 1))
    with np.errstate(invalid="ignore"):
        steps = np.diff(far, axis=0)
        sizes = np.where(np.isfinite(far), np.abs(far), 0)
        rounding = _MARGIN + _ROUNDINGS * np.finfo(np.float32).eps * np.maximum(sizes[1:], sizes[:-1])
        falls = (far[0] < near) & ((steps < -needed) | np.isneginf(far[1:])).all(axis=0)
        slow = (steps <= dim * needed - rounding).all(axis=0)
        return falls, slow & (far[0] - near <= dim * math.log(_RADII[0]))


def _along_null(
    dim: int, energy: Callable[[Floats], Floats], gradient: Callable[[Floats], Floats], points: Floats
) -> str:
    """A sentence on a direction without gradient, along which the energy stays the same."""
    rng = np.random.default_rng(0)
    spread = points.std(axis=0) + 1e-3
    drawn = points.mean(axis=0) + spread * rng.normal(size=(max(64, 2 * dim), dim))
    gradients = np.asarray(gradient(drawn.astype(points.dtype)), np.float64)
    gradients = gradients[np.isfinite(gradients).all(axis=1)]
    if len(gradients) < 2 * dim:
        return ""
    gradients /= np.maximum(np.linalg.norm(gradients, axis=1, keepdims=True), 1e-300)
    _, sizes, directions = np.linalg.svd(gradients, full_matrices=False)
    for direction in directions[sizes <= _NO_SLOPE * sizes[0]][:_MAX_NULL]:
        if _is_constant(energy, gradient, points[:_NUM_LINES], direction, _SHIFTS):
            direction = direction * np.sign(direction[np.argmax(np.abs(direction))])
            shown = ", ".join(f"{value:.2f}" for value in direction[:4]) + (", ..." if dim > 4 else "")
            return (
                f"the energy does not change along the direction ({shown}), {_REMEDY}; fix this direction, or add a "
                "prior or a confining term"
            )
    return ""


def _is_constant(
    energy: Callable[[Floats], Floats],
    gradient: Callable[[Floats], Floats],
    points: Floats,
    direction: Floats,
    shifts: tuple[tuple[float, ...], ...],
) -> bool:
    """Whether the energy is the same after every shift of one of the tuples, on either side."""
    eps = float(np.finfo(points.dtype).eps)
    lengths = np.array([[side * shift for shift in group for side in (1, -1)] for group in shifts])
    moved = points + lengths[..., None, None] * direction  # (group, shift, line, dim)
    here = energy(points)
    there = energy(moved.reshape(-1, points.shape[1])).reshape(moved.shape[:-1])
    steepest = np.linalg.norm(gradient(points), axis=1)
    with np.errstate(invalid="ignore"):
        rounding = _ROUNDINGS * eps * (np.abs(here) + np.abs(lengths[..., None]) * steepest)
        return bool((np.abs(there - here) <= rounding).all(axis=(1, 2)).any())


def _in_chunks(function: Callable[[Any], Any]) -> Callable[[Floats], Floats]:
    """The function of a batch, evaluated on chunks of one size and returned in double precision."""

    def evaluate(x: Floats) -> Floats:
        if len(x) <= _CHUNK:
            return np.asarray(function(x), np.float64)
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % _CHUNK, axis=0)])
        parts = [np.asarray(function(part), np.float64) for part in _split(padded)]
        return np.concatenate(parts)[: len(x)]

    return evaluate


def _split(x: Floats) -> Iterator[Floats]:
    return (x[i : i + _CHUNK] for i in range(0, len(x), _CHUNK))


def _is_fragile(jaxpr: Any) -> bool:
    """Whether a program calls out of JAX or has a loop whose end depends on values."""
    return any(
        "callback" in eqn.primitive.name
        or eqn.primitive.name in ("while", "ffi_call")
        or any(map(_is_fragile, sub_jaxprs(eqn)))
        for eqn in open_jaxpr(jaxpr).eqns
    )
