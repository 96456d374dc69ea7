"""The checks of an energy before time is spent on it: tracing, finite values, gradient, symmetries, periods, growth."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import (
    AbstractDensity,
    AbstractDistribution,
    coordinates_of,
    is_sign_symmetric,
    lattice_of,
)
from boltzflow.densities.energy import Energy, check_value, checked_lattice, has_hash
from boltzflow.densities.propriety import improper
from boltzflow.errors import InputError, summary
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.constants import separate_precisions
from boltzflow.numerics.gradient_check import slopes
from boltzflow.numerics.indexing import out_of_range
from boltzflow.numerics.validation import dimension, real_array, shown

_NUM_SLOPES = 8
_ARRAY_ERRORS = (jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)
_TERMS = 64  # the terms of an energy may change this many times more from point to point than their sum does
_ROUNDINGS = 8  # of the sum itself, an offset included


def check_energy(density: AbstractDensity, points: Float[Array | np.ndarray, "num dim"]) -> None:
    """Check that the energy of `density` is usable for training, at given points.

    Checked are: the optional attributes; tracing under JAX, alone and in a batch; one real floating number as result;
    finite values and gradients; indices beyond an array's end; the gradient against central differences at the first
    eight points; each declared symmetry and period; growth far out, where it is certain that the integral of
    exp(-energy) is infinite.
    """
    check_attributes(density)
    separate_precisions()
    points = jnp.asarray(points, float)
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] != density.dim:
        raise InputError(f"points must have shape (num, {density.dim}), got {points.shape}")
    check_value(_traced(density, points[0]), coordinates_of(density))
    batched = compiled(jax.vmap(density.energy))
    try:
        values = np.asarray(batched(points))
        gradients = np.asarray(compiled(jax.vmap(jax.grad(density.energy)))(points))
    except Exception as error:  # whatever a user's function raises under vmap or grad
        raise InputError(f"the energy fails in a batch or under jax.grad: {summary(error)}") from error
    places = np.asarray(points)
    told = np.asarray(jax.vmap(density.constrain)(points)) if isinstance(density, Energy) else places  # as the user's x
    if words := out_of_range(density.energy, points):
        raise InputError(
            f"the energy {words}, where JAX silently takes the nearest one; x has the dimension "
            f"{coordinates_of(density)}"
        )
    _check_finite("energy", values, told, finite_advice(values))
    advice = "a common cause is a square root, norm or logarithm at 0, also in the branch that jnp.where does not take"
    _check_finite("gradient of the energy", gradients, told, advice)
    directions = jax.random.normal(jax.random.key(0), points[:_NUM_SLOPES].shape, points.dtype)
    found = slopes(batched, gradients[:_NUM_SLOPES], places[:_NUM_SLOPES], np.asarray(directions))
    wrong = found.wrong()
    if wrong.sum() > len(wrong) // 4:  # two in eight may sit on a kink
        worst = np.argmax(np.where(wrong, np.abs(found.claimed - found.difference), 0))
        raise InputError(
            f"the gradient of the energy disagrees with central differences at {wrong.sum()} of {len(wrong)} points: "
            f"{found.claimed[worst]:.6g} by JAX against {found.difference[worst]:.6g} along a random direction; "
            "check stop_gradient, custom derivatives, rounding and jumps in the energy"
        )
    if sentence := broken_symmetry(density, points) or broken_period(density, points) or improper(density, points):
        raise InputError(sentence)


def _traced(density: AbstractDensity, point: Array) -> Any:
    """The shape and type of the energy at one point. Raises `InputError` where it cannot be traced."""
    try:
        return jax.eval_shape(density.energy, point)
    except InputError:
        raise
    except (*_ARRAY_ERRORS, jax.errors.ConcretizationTypeError) as error:
        raise InputError(
            "the energy does not trace under JAX, which calls it with abstract arrays: it uses NumPy, a Python `if` or "
            f"float() on its argument ({summary(error)}); write it with jax.numpy and jnp.where, or give it "
            "with its gradient to boltzflow.interop.callback.Callback"
        ) from error
    except Exception as error:  # whatever a user's function raises
        kind = type(error).__name__
        doubt = "; is this the right dimension?" if isinstance(error, (TypeError, ValueError, IndexError)) else ""
        raise InputError(
            f"the energy raised {kind} for a point of shape ({coordinates_of(density)},): "
            f"{summary(error).removeprefix(f'{kind}: ')}{doubt}"
        ) from error


def check_attributes(density: AbstractDensity) -> None:
    """Raise `InputError` where `dim` or an optional attribute of `density` is not what its name means here.

    These are `modes`, `lattice_shape`, `sign_symmetric`, `prior_base` and, of a distribution, `log_z`.
    """
    name = type(density).__name__
    dim = dimension(f"dim of {name}", density.dim)
    for leaf in jax.tree.leaves(density):
        if not (isinstance(leaf, (jax.Array, np.ndarray)) or has_hash(leaf)):
            raise InputError(
                f"{name} holds a {type(leaf).__name__}, which has no hash, so that JAX cannot compile with it: declare "
                "a dataclass with eq=False"
            )
    found: dict[str, Any] = {}
    for attribute in ("modes", "lattice_shape", "sign_symmetric", "prior_base", "log_z"):
        try:
            found[attribute] = getattr(density, attribute)
        except AttributeError:
            continue
        except Exception as error:  # whatever a user's property raises
            raise InputError(f"the attribute {attribute} of {name} fails: {summary(error)}") from error
    if "modes" in found:
        modes = real_array(f"modes of {name}", found["modes"])
        if modes.ndim != 2 or modes.shape[1] != dim or not len(modes):
            raise InputError(
                f"modes of {name} must be the known modes of the target, of shape (num_modes, {dim}), got "
                f"{shown(found['modes'])}; give an attribute that means something else another name"
            )
    if found.get("lattice_shape") is not None:
        checked_lattice(found["lattice_shape"], dim)
    if not isinstance(found.get("sign_symmetric", False), (bool, np.bool_)):
        raise InputError(f"sign_symmetric of {name} must be True or False, got {shown(found['sign_symmetric'])}")
    prior = found.get("prior_base")
    if prior is not None and not (isinstance(prior, AbstractDistribution) and prior.dim == dim):
        raise InputError(
            f"prior_base of {name} must be its prior, an AbstractDistribution of dimension {dim}, got {shown(prior)}"
        )
    if isinstance(density, AbstractDistribution):
        log_z = real_array(f"log_z of {name}", found.get("log_z"))
        if log_z.shape != ():
            raise InputError(f"log_z of {name} must be one number, got {shown(found['log_z'])}")


def finite_advice(values: np.ndarray) -> str:
    """What to do about energies that are not finite."""
    if not np.isposinf(values).any():
        return "keep the energy finite wherever samples can go"
    return (
        "where the domain of x ends, give its bounds, boltzflow.Energy(fn, dim, lower=..., upper=...) or --lower and "
        "--upper; a wall, high or infinite, spoils training"
    )


def _check_finite(name: str, values: np.ndarray, points: np.ndarray, advice: str) -> None:
    """Refuse values `(num, ...)` that are not finite at some point."""
    bad = ~np.isfinite(values).reshape(len(points), -1).all(axis=1)
    if bad.any():
        first = np.argmax(bad)
        where = np.array2string(points[first], precision=4, threshold=6, edgeitems=2)
        value = values[first][~np.isfinite(values[first])].flat[0]
        raise InputError(
            f"the {name} is not finite at {bad.sum()} of {len(points)} points: {value} at x = {where}; {advice}"
        )


def broken_symmetry(density: AbstractDensity, points: Float[Array, "num dim"]) -> str:
    """A sentence on the first declared symmetry that the energy lacks at `points` beyond rounding, or ""."""
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
    if not images:
        return ""
    energy = compiled(jax.vmap(density.energy))
    here = np.asarray(energy(points), np.float64)
    root = math.sqrt(density.dim)
    rounding = rounding_of(density) * (_TERMS * root * spread(here) + max(_ROUNDINGS, root) * np.abs(here))
    for words, image in images.items():
        there = np.asarray(energy(image), np.float64)
        change = np.abs(there - here)
        broken = ~(change <= rounding)
        if broken.any():
            worst = int(np.argmax(np.where(broken, np.nan_to_num(change, nan=np.inf), -1.0)))
            return (
                f"{words} changes the energy at {broken.sum()} of {len(change)} points, at one from "
                f"{here[worst]:.9g} to {there[worst]:.9g}, where rounding explains {rounding[worst]:.2g}; "
                "leave the declaration out or mend the energy"
            )
    return ""


def broken_period(density: AbstractDensity, points: Float[Array, "num dim"]) -> str:
    """A sentence on the first period that an `Energy` lacks at `points` beyond rounding, or ""."""
    if not isinstance(density, Energy) or density.angles is None:
        return ""
    fn, angles = density.fn, density.angles
    x = jax.vmap(density.constrain)(points[:_NUM_SLOPES])
    energy = compiled(jax.vmap(lambda one, step: jnp.asarray(fn(one + step), one.dtype), (0, None)))
    slope = compiled(jax.vmap(jax.grad(lambda one: jnp.asarray(fn(one), one.dtype))))
    here = np.asarray(energy(x, jnp.zeros_like(x[0])), np.float64)
    moved = np.abs(np.asarray(slope(x), np.float64)) * (np.asarray(x) + angles.period)  # by rounding of x + P, over ε
    size = _TERMS * math.sqrt(density.dim) * spread(here) + max(_ROUNDINGS, math.sqrt(density.dim)) * np.abs(here)
    for j in angles.places:
        step = np.where(np.arange(angles.num_coordinates) == j, angles.period, 0.0)
        there = np.asarray(energy(x, jnp.asarray(step, x.dtype)), np.float64)
        change = np.abs(there - here)
        broken = ~(change <= rounding_of(density) * (size + _ROUNDINGS * moved[:, j]))
        if broken.any():
            worst = int(np.argmax(np.where(broken, np.nan_to_num(change, nan=np.inf), -1.0)))
            return (
                f"x[{j}] has the declared period {angles.period[j]:.6g}, but a shift by it changes the energy at "
                f"{broken.sum()} of {len(change)} points, at one by {there[worst] - here[worst]:.4g} from "
                f"{here[worst]:.6g}; mend the period or the energy"
            )
    return ""


def spread(values: Float[np.ndarray, " num"]) -> Float[np.ndarray, " num"]:
    """For each energy the size of differences from others: its distance from their median, plus the median distance.

    An offset of all energies does not change it, and one energy that is large only that one's.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros_like(values)
    with np.errstate(invalid="ignore"):
        distance = np.abs(values - np.median(finite))
    return distance + np.median(np.abs(finite - np.median(finite)))


def rounding_of(density: AbstractDensity) -> float:
    """ε of the coarsest floating type in which the energy computes at a point of the type in force.

    The type of its result does not tell: single precision inside an energy may be cast to double.
    """
    point = jnp.zeros(density.dim)
    types = {point.dtype, *(value.dtype for value in _computed(jax.make_jaxpr(density.energy)(point).jaxpr))}
    return max(float(jnp.finfo(kind).eps) for kind in types if jnp.issubdtype(kind, jnp.floating))


def _computed(jaxpr: Any) -> Iterator[Any]:
    """The abstract values of all that a program computes, in the programs inside it too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars if hasattr(variable.aval, "dtype"))
        values = list(equation.params.values())
        for value in jax.tree.leaves(values, is_leaf=lambda value: _program(value) is not None):
            if (inside := _program(value)) is not None:
                yield from _computed(inside)


def _program(value: Any) -> Any:
    """The program in a parameter of an equation, or None."""
    program = getattr(value, "jaxpr", value)
    return program if hasattr(program, "eqns") else None
