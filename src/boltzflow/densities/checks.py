"""What is asked of an energy before time is spent on it: its type, values, gradient and declared symmetries."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity, is_sign_symmetric, lattice_of
from boltzflow.errors import InputError
from boltzflow.numerics.gradient_check import slopes

_NUM_SLOPES = 8
_CONCRETE_ERRORS = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)
_ROUNDINGS = 64  # an energy is a sum whose terms may be that much larger than the sum itself


def check_energy(density: AbstractDensity, points: Float[Array, "num dim"]) -> None:
    """Raises `InputError`, with one sentence that says what is wrong, where the energy of `density` is not usable.

    Checked at `points` of shape `(num, dim)`: that it traces under JAX, alone and in a batch, that it returns one real
    floating number, that values and gradients are finite, that the gradient is that of the values, by central
    differences along random directions at the first few points (only gross disagreement is an error), and that a
    symmetry which the density declares is one of its energy, up to rounding.
    """
    points = jnp.asarray(points, float)
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] != density.dim:
        raise InputError(f"points must have shape (num, {density.dim}), got {points.shape}")
    shape = _traced(density, points[0])
    check_value(shape, density.dim)
    try:
        values = np.asarray(jax.jit(jax.vmap(density.energy))(points))
        gradients = np.asarray(jax.jit(jax.vmap(jax.grad(density.energy)))(points))
    except Exception as error:  # whatever a user's function raises under vmap or grad
        raise InputError(f"the energy fails in a batch or under jax.grad: {_first_line(error)}") from error
    _check_finite("energy", values, np.asarray(points), "keep the energy finite wherever samples can go")
    _check_finite(
        "gradient of the energy",
        gradients,
        np.asarray(points),
        "a common cause is a square root, norm or logarithm at 0, also in the branch that jnp.where does not take",
    )
    _check_slopes(density, points[:_NUM_SLOPES])
    if sentence := broken_symmetry(density, points):
        raise InputError(sentence)


def check_value(value: Any, dim: int) -> None:
    """`value` is one real floating number; it may be an array, a tracer or a shape with a type."""
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            value = np.empty((), object)
    if value.dtype == object:
        raise InputError(
            "the energy must return one real number, got something that is not numeric; is a return missing?"
        )
    if value.shape != ():
        advice = "sum over the components (jnp.sum)" if value.shape == (dim,) else "return a scalar"
        raise InputError(f"the energy must return one number, got an array of shape {value.shape}; {advice}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        kind = "complex" if jnp.issubdtype(value.dtype, jnp.complexfloating) else f"of type {value.dtype}"
        raise InputError(f"the energy must return a real floating number, got one that is {kind}; convert it in JAX")


def _traced(density: AbstractDensity, point: Array) -> Any:
    """The shape and type of the energy at one point, or a sentence on why it cannot be traced."""
    try:
        return jax.eval_shape(density.energy, point)
    except InputError:
        raise
    except _CONCRETE_ERRORS as error:
        raise InputError(
            "the energy does not trace under JAX, which calls it with abstract arrays: it uses NumPy, a Python `if` or "
            f"float() on its argument ({_first_line(error)}); write it with jax.numpy and jnp.where, or give it "
            "with its gradient to boltzflow.interop.callback.Callback"
        ) from error
    except Exception as error:  # whatever a user's function raises
        raise InputError(
            f"the energy raised {type(error).__name__} for a point of shape ({density.dim},): {_first_line(error)}; "
            "is this the right dimension?"
        ) from error


def _check_finite(name: str, values: np.ndarray, points: np.ndarray, advice: str) -> None:
    bad = ~np.isfinite(values).reshape(len(points), -1).all(axis=1)
    if bad.any():
        first = np.flatnonzero(bad)[0]
        where = np.array2string(points[first], precision=4, threshold=6, edgeitems=2)
        worst = values[first].ravel()
        worst = worst[~np.isfinite(worst)][0]
        raise InputError(
            f"the {name} is not finite at {bad.sum()} of {len(points)} points: {worst} at x = {where}; {advice}"
        )


def _check_slopes(density: AbstractDensity, points: Array) -> None:
    directions = jax.random.normal(jax.random.key(0), points.shape, points.dtype)
    found = slopes(density.energy, points, directions)
    wrong = [slope for slope in found if not slope.agrees]
    if len(wrong) > len(found) // 4:  # two in eight may sit on a kink
        worst = max(wrong, key=lambda slope: abs(slope.automatic - slope.difference))
        raise InputError(
            f"the gradient of the energy disagrees with central differences at {len(wrong)} of {len(found)} points: "
            f"{worst.automatic:.6g} by JAX against {worst.difference:.6g} along a random direction; "
            "check stop_gradient, custom derivatives, rounding and jumps in the energy"
        )


def _first_line(error: Exception) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 160 else line[:157] + "..."


# --- symmetries -------------------------------------------------------------------------------------------------------


def broken_symmetry(density: AbstractDensity, points: Float[Array, "num dim"]) -> str:
    """A sentence on the first symmetry that `density` declares and its energy lacks at `points`, or nothing.

    Equality is asked up to rounding, relative to the largest energy at the points: of sums over `dim` terms it grows as
    √dim.
    """
    lattice = lattice_of(density) or ()
    if lattice and math.prod(lattice) != density.dim:
        return f"the declared lattice_shape {lattice} does not have as many sites as the dimension, {density.dim}"
    images = {}
    for axis, num_sites in enumerate(lattice):
        if num_sites > 1:
            shifted = jnp.roll(points.reshape(-1, *lattice), 1, axis + 1).reshape(points.shape)
            images[f"lattice_shape {lattice} is declared, but a shift by one site along axis {axis}"] = shifted
    if is_sign_symmetric(density):
        images["sign_symmetric is declared, but the change of x to -x"] = -points
    energy = jax.jit(jax.vmap(density.energy))
    here = energy(points)
    rounding = _ROUNDINGS * math.sqrt(density.dim) * float(jnp.finfo(here.dtype).eps) * float(jnp.abs(here).max())
    for words, image in images.items():
        there = energy(image)
        change = np.abs(np.asarray(there - here, np.float64))
        if not change.max() <= rounding:
            worst = int(np.argmax(np.where(np.isnan(change), np.inf, change)))
            return (
                f"{words} changes the energy at {np.sum(~(change <= rounding))} of {len(change)} points, at one from "
                f"{float(here[worst]):.6g} to {float(there[worst]):.6g}, where rounding explains {rounding:.2g}; "
                "leave the declaration out or mend the energy"
            )
    return ""
