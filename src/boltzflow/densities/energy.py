"""A density from any function x -> energy, and the checks of an energy before time is spent on it."""

import math
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric, lattice_of
from boltzflow.densities.bounds import Bounds
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.propriety import improper
from boltzflow.errors import InputError, summary
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.constants import separate_precisions
from boltzflow.numerics.gradient_check import slopes
from boltzflow.numerics.indexing import out_of_range
from boltzflow.numerics.linalg import Circulant
from boltzflow.numerics.validation import dimension, is_numpyro_model, one_point, real_array, shown, whole_number

_NUM_SLOPES = 8
_ARRAY_ERRORS = (jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError)
_TERMS = 64  # the terms of an energy may change this many times more from point to point than their sum does
_ROUNDINGS = 8  # of the sum itself, an offset included


class Energy(AbstractDensity):
    """The density p ∝ exp(-fn(x)) on R^dim, or on a box of it, for any function that JAX can trace.

    With bounds, `energy` is that of z in R^dim, which `constrain` maps to x in the box: energy(z) = fn(x(z)) - log
    |∂x/∂z|. So log Z is the integral over the box. Samples and observables of a run are those of x.

    The two declarations of symmetry make training faster and better where they hold.

    Args:
        fn: Takes one point `(dim,)` and returns one real number, in units of kT.
        dim: The dimension, at least 1.
        lattice_shape: The shape of a periodic lattice if x is a field on its sites, in C order, and no shift of all
            sites changes the energy.
        sign_symmetric: Whether the energy of -x equals that of x.
        lower: The lower bounds of x, one number or `(dim,)`; None or -inf for none.
        upper: The upper bounds of x; None or inf for none.

    Raises:
        InputError: At construction, if an argument has the wrong type, the lattice has another number of sites than
            `dim`, bounds cross, or bounds break a declared symmetry. At the first evaluation, if `fn` does not return
            one real number. `check_energy` checks more.
    """

    fn: Callable[[Array], Array]
    dim: int = eqx.field(static=True)
    lattice_shape: tuple[int, ...] | None = eqx.field(static=True)
    sign_symmetric: bool = eqx.field(static=True)
    bounds: Bounds | None

    def __init__(
        self,
        fn: Callable[[Any], Any],
        dim: int,
        lattice_shape: Sequence[int] | None = None,
        sign_symmetric: bool = False,
        *,
        lower: Any = None,
        upper: Any = None,
    ):
        if not callable(fn):
            raise InputError(f"the energy must be a function of one point, got {type(fn).__name__}")
        self.fn = jax.tree.map(hashable, fn)
        self.dim = dimension("dim", dim)
        self.lattice_shape = None if lattice_shape is None else _checked_lattice(lattice_shape, self.dim)
        if not isinstance(sign_symmetric, bool):
            raise InputError(f"sign_symmetric must be True or False, got {sign_symmetric!r}")
        self.sign_symmetric = sign_symmetric
        bounds = Bounds(lower, upper, self.dim)
        if self.lattice_shape is not None and not bounds.same_at_every_site():
            raise InputError("bounds that differ between sites break the declared lattice_shape: leave one of them out")
        if self.sign_symmetric and not bounds.symmetric():
            raise InputError("bounds that are not -a and a break the declared sign_symmetric: leave one of them out")
        self.bounds = bounds if bounds.some_have_both or bounds.some_have_one else None

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """fn(x) at one point `(dim,)`, in the type of x; with bounds fn(x(z)) - log |∂x/∂z| at z."""
        z = one_point(x, self.dim)
        value = self.fn(self.constrain(z))
        check_value(value, self.dim)
        value = jnp.asarray(value, z.dtype)
        return value if self.bounds is None else value - self.bounds.log_jacobian(z)

    @property
    def prior_base(self) -> Gaussian | None:
        """N(0, I) where the box is finite: the density of z where that of x is uniform."""
        if self.bounds is None or not self.bounds.all_have_both():
            return None
        scale = Circulant(np.ones(self.lattice_shape)) if self.lattice_shape else np.eye(self.dim)
        return Gaussian(np.zeros(self.dim), scale_tril=scale)

    def constrain(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The point inside the bounds at one point `(dim,)`; without bounds it is the same."""
        z = one_point(x, self.dim)
        return z if self.bounds is None else self.bounds.constrain(z)


class _ByIdentity:
    """A callable object that has no hash, or compares by value, as a dataclass: JAX takes functions by their identity.

    Args:
        fn: The object.
    """

    def __init__(self, fn: Callable[[Any], Any]):
        self.fn = fn

    def __call__(self, x: Any) -> Any:
        return self.fn(x)

    def __repr__(self) -> str:
        return repr(self.fn)


def hashable(leaf: Any) -> Any:
    """`leaf` of a function, which is a tree with arrays or one object; one that is not its identity is wrapped."""
    by_value = type(leaf).__eq__ is not object.__eq__ and not isinstance(leaf, MethodType)
    return _ByIdentity(leaf) if callable(leaf) and (by_value or not _has_hash(leaf)) else leaf


def _has_hash(leaf: Any) -> bool:
    try:
        hash(leaf)
    except Exception:  # whatever a user's __hash__ raises
        return False
    return True


def _checked_lattice(shape: Any, dim: int) -> tuple[int, ...]:
    """The lattice shape as whole numbers, whose product is `dim`."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not len(shape):
        raise InputError(f"lattice_shape must be the numbers of sites along each axis, as in (8, 8), got {shape!r}")
    sites = tuple(whole_number("each entry of lattice_shape", n, at_least=1) for n in shape)
    if math.prod(sites) != dim:
        raise InputError(f"lattice_shape must have as many sites as dim, {dim}, got {sites} with {math.prod(sites)}")
    return sites


def instead_of_a_density(target: Any) -> str:
    """What was given as a target, and what to do with it."""
    if isinstance(target, type):
        kind = "density" if issubclass(target, AbstractDensity) else "class that is no density"
        return f"the class {target.__name__}, a {kind}: give an instance of a density, as in {target.__name__}(...)"
    what = getattr(target, "__name__", "") or type(target).__name__
    if is_numpyro_model(target):
        return f"the NumPyro model {what}: wrap it as boltzflow.interop.numpyro.Posterior({what})"
    if callable(target):
        return f"the function {what}: wrap it as boltzflow.Energy({what}, dim)"
    return f"{type(target).__name__}: wrap a function as boltzflow.Energy(function, dim)"


def check_energy(density: AbstractDensity, points: Float[Array | np.ndarray, "num dim"]) -> None:
    """Check that the energy of `density` is usable for training, at given points.

    Checked are: the optional attributes; tracing under JAX, alone and in a batch; one real floating number as result;
    finite values and gradients; indices beyond an array's end; the gradient against central differences at the first
    eight points; each declared symmetry; growth far out, where it is certain that the integral of exp(-energy) is
    infinite.
    """
    check_attributes(density)
    separate_precisions()
    points = jnp.asarray(points, float)
    if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] != density.dim:
        raise InputError(f"points must have shape (num, {density.dim}), got {points.shape}")
    check_value(_traced(density, points[0]), density.dim)
    batched = compiled(jax.vmap(density.energy))
    try:
        values = np.asarray(batched(points))
        gradients = np.asarray(compiled(jax.vmap(jax.grad(density.energy)))(points))
    except Exception as error:  # whatever a user's function raises under vmap or grad
        raise InputError(f"the energy fails in a batch or under jax.grad: {summary(error)}") from error
    places = np.asarray(points)
    if words := out_of_range(density.energy, points):
        raise InputError(
            f"the energy {words}, where JAX silently takes the nearest one; x has the dimension {density.dim}"
        )
    _check_finite("energy", values, places, finite_advice(values))
    advice = "a common cause is a square root, norm or logarithm at 0, also in the branch that jnp.where does not take"
    _check_finite("gradient of the energy", gradients, places, advice)
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
    if sentence := broken_symmetry(density, points) or improper(density, points):
        raise InputError(sentence)


def check_value(value: Any, dim: int) -> None:
    """Raise `InputError` unless `value` (an array, a tracer, or a shape with a type) is one real floating number."""
    if not hasattr(value, "dtype"):
        try:
            value = np.asarray(value)
        except (TypeError, ValueError):
            value = np.empty((), object)
    if value.dtype == object:
        found = "something that is not numeric; is a return missing?"
        raise InputError(f"the energy must return one real number, got {found}")
    if value.shape != ():
        advice = "sum over the components (jnp.sum)" if value.shape == (dim,) else "return a scalar"
        raise InputError(f"the energy must return one number, got an array of shape {value.shape}; {advice}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        kind = "complex" if jnp.issubdtype(value.dtype, jnp.complexfloating) else f"of type {value.dtype}"
        raise InputError(f"the energy must return a real floating number, got one that is {kind}; convert it in JAX")


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
            f"the energy raised {kind} for a point of shape ({density.dim},): "
            f"{summary(error).removeprefix(f'{kind}: ')}{doubt}"
        ) from error


def check_attributes(density: AbstractDensity) -> None:
    """Raise `InputError` where `dim` or an optional attribute of `density` is not what its name means here.

    These are `modes`, `lattice_shape`, `sign_symmetric`, `prior_base` and, of a distribution, `log_z`.
    """
    name = type(density).__name__
    dim = dimension(f"dim of {name}", density.dim)
    for leaf in jax.tree.leaves(density):
        if not (isinstance(leaf, (jax.Array, np.ndarray)) or _has_hash(leaf)):
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
        _checked_lattice(found["lattice_shape"], dim)
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
