"""A density from any function x -> energy."""

import math
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.angles import STD, Angles
from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.bounds import Bounds
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.numerics.linalg import Circulant
from boltzflow.numerics.validation import dimension, is_numpyro_model, one_point, whole_number


class Energy(AbstractDensity):
    """The density p ∝ exp(-fn(x)) on R^dim, a box or a torus of it, for any function that JAX can trace.

    With bounds, `energy` is that of z in R^dim, which `constrain` maps to x in the box: energy(z) = fn(x(z)) - log
    |∂x/∂z|. So log Z is the integral over the box. Samples and observables of a run are those of x.

    A coordinate with a period P is the angle of a point (u, v) in a plane, and lies in [0, P). Then z has one more
    entry for each angle: the attribute `dim` is the dimension of z, and `num_coordinates` that of x. The energy of z
    has r²/2 - 2 log r + log(4π/P) for each angle, with r² = u² + v², so that log Z is the integral over one period.

    The two declarations of symmetry make training faster and better where they hold.

    Args:
        fn: Takes one point `(dim,)` and returns one real number, in units of kT.
        dim: The number of coordinates of x, at least 1.
        lattice_shape: The shape of a periodic lattice if x is a field on its sites, in C order, and no shift of all
            sites changes the energy.
        sign_symmetric: Whether the energy of -x equals that of x.
        lower: The lower bounds of x, one number or `(dim,)`; None or -inf for none.
        upper: The upper bounds of x; None or inf for none.
        periodic: The periods of x: True for 2π or a positive number, of all coordinates, or `dim` entries that are one
            of these, or None or False for none. It goes with no declared symmetry.

    Raises:
        InputError: At construction, if an argument has the wrong type, the lattice has another number of sites than
            `dim`, bounds cross, bounds or periods break a declared symmetry, a period is not positive, or a coordinate
            has bounds and a period. At the first evaluation, if `fn` does not return one real number. `check_energy`
            checks more.
    """

    fn: Callable[[Array], Array]
    dim: int = eqx.field(static=True)
    lattice_shape: tuple[int, ...] | None = eqx.field(static=True)
    sign_symmetric: bool = eqx.field(static=True)
    num_coordinates: int = eqx.field(static=True)
    bounds: Bounds | None
    angles: Angles | None

    def __init__(
        self,
        fn: Callable[[Any], Any],
        dim: int,
        lattice_shape: Sequence[int] | None = None,
        sign_symmetric: bool = False,
        *,
        lower: Any = None,
        upper: Any = None,
        periodic: Any = None,
    ):
        if not callable(fn):
            raise InputError(f"the energy must be a function of one point, got {type(fn).__name__}")
        self.fn = jax.tree.map(hashable, fn)
        self.num_coordinates = dimension("dim", dim)
        self.lattice_shape = None if lattice_shape is None else checked_lattice(lattice_shape, self.num_coordinates)
        if not isinstance(sign_symmetric, bool):
            raise InputError(f"sign_symmetric must be True or False, got {sign_symmetric!r}")
        self.sign_symmetric = sign_symmetric
        bounds = Bounds(lower, upper, self.num_coordinates)
        angles = Angles(periodic, self.num_coordinates)
        if self.lattice_shape is not None and not bounds.same_at_every_site():
            raise InputError("bounds that differ between sites break the declared lattice_shape: leave one of them out")
        if self.sign_symmetric and not bounds.symmetric():
            raise InputError("bounds that are not -a and a break the declared sign_symmetric: leave one of them out")
        if (both := angles.is_angle & (bounds.has_low | bounds.has_high)).any():
            raise InputError(f"x[{np.argmax(both)}] has both a period and bounds: leave one of them out")
        if angles.places and (self.sign_symmetric or self.lattice_shape is not None):
            name = "sign_symmetric" if self.sign_symmetric else "lattice_shape"
            raise InputError(f"{name} cannot be declared where x has periods: leave the declaration out")
        self.bounds = bounds if bounds.some_have_both or bounds.some_have_one else None
        self.angles = angles if angles.places else None
        self.dim = self.num_coordinates + len(angles.places)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """fn(x) at one point `(dim,)`, in the type of x; with bounds or periods fn(x(z)) - `log_jacobian`(z) at z."""
        z = one_point(x, self.dim)
        value = self.fn(self.constrain(z))
        check_value(value, self.num_coordinates)
        value = jnp.asarray(value, z.dtype)
        return value - self.log_jacobian(z) if self.is_mapped else value

    @property
    def prior_base(self) -> Gaussian | None:
        """The Gaussian that is uniform in x where the box is finite: N(0, 1), and N(0, 2) in the plane of an angle."""
        bounded = np.zeros(self.num_coordinates, bool) if self.bounds is None else self.bounds.have_both()
        is_angle = np.zeros_like(bounded) if self.angles is None else self.angles.is_angle
        if not (bounded | is_angle).all():
            return None
        std = np.concatenate([np.where(is_angle, STD, 1.0), np.full(self.dim - self.num_coordinates, STD)])
        scale = Circulant(np.ones(self.lattice_shape)) if self.lattice_shape else np.diag(std)
        return Gaussian(np.zeros(self.dim), scale_tril=scale)

    def constrain(self, x: Float[Array, " dim"]) -> Float[Array, " num_coordinates"]:
        """The point inside the bounds and periods at one point `(dim,)`; without any it is the same."""
        z = one_point(x, self.dim)
        y = z if self.angles is None else self.angles.coordinates(z)
        return y if self.bounds is None else self.bounds.constrain(y)

    def log_jacobian(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The energy of x minus that of z at one point `(dim,)`.

        It is log |∂x/∂z| of the bounds, plus log(P/4π) + 2 log r - r²/2 for each angle.
        """
        z = one_point(x, self.dim)
        total = jnp.zeros((), z.dtype)
        if self.bounds is not None:
            total += self.bounds.log_jacobian(z[: self.num_coordinates])
        if self.angles is not None:
            total += self.angles.log_jacobian(z)
        return total

    @property
    def is_mapped(self) -> bool:
        """Whether x has bounds or periods, so that it is not the point that a flow moves."""
        return self.bounds is not None or self.angles is not None


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
    return _ByIdentity(leaf) if callable(leaf) and (by_value or not has_hash(leaf)) else leaf


def has_hash(leaf: Any) -> bool:
    try:
        hash(leaf)
    except Exception:  # whatever a user's __hash__ raises
        return False
    return True


def checked_lattice(shape: Any, dim: int) -> tuple[int, ...]:
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
