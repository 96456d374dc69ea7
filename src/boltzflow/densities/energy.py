"""A density from any function x -> energy."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.checks import check_value
from boltzflow.errors import InputError
from boltzflow.numerics.validation import one_point, whole_number


class Energy(AbstractDensity):
    """The density p ∝ exp(-fn(x)) on R^dim for any function that JAX can trace.

    The two declarations make training faster and better where they hold.

    Args:
        fn: Takes one point `(dim,)` and returns one real number, in units of kT.
        dim: The dimension, at least 1.
        lattice_shape: The shape of a periodic lattice if x is a field on its sites, in C order, and no shift of all
            sites changes the energy.
        sign_symmetric: Whether the energy of -x equals that of x.

    Raises:
        InputError: At construction, if an argument has the wrong type or the lattice another number of sites than
            `dim`. At the first evaluation, if `fn` does not return one real number. `check_energy` checks more.
    """

    fn: Callable[[Array], Array]
    dim: int = eqx.field(static=True)
    lattice_shape: tuple[int, ...] | None = eqx.field(static=True)
    sign_symmetric: bool = eqx.field(static=True)

    def __init__(
        self,
        fn: Callable[[Any], Any],
        dim: int,
        lattice_shape: Sequence[int] | None = None,
        sign_symmetric: bool = False,
    ):
        if not callable(fn):
            raise InputError(f"the energy must be a function of one point, got {type(fn).__name__}")
        self.fn = fn
        self.dim = whole_number("dim", dim, at_least=1)
        self.lattice_shape = None if lattice_shape is None else _checked_lattice(lattice_shape, self.dim)
        if not isinstance(sign_symmetric, bool):
            raise InputError(f"sign_symmetric must be True or False, got {sign_symmetric!r}")
        self.sign_symmetric = sign_symmetric

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """fn(x) at one point `(dim,)`, in the type of x."""
        x = one_point(x, self.dim)
        value = self.fn(x)
        check_value(value, self.dim)
        return jnp.asarray(value, x.dtype)


def _checked_lattice(shape: Any, dim: int) -> tuple[int, ...]:
    """The lattice shape as whole numbers, whose product is `dim`."""
    if not isinstance(shape, Sequence) or isinstance(shape, str) or not len(shape):
        raise InputError(f"lattice_shape must be the numbers of sites along each axis, as in (8, 8), got {shape!r}")
    sites = tuple(whole_number("each entry of lattice_shape", n, at_least=1) for n in shape)
    if math.prod(sites) != dim:
        raise InputError(f"lattice_shape must have as many sites as dim, {dim}, got {sites} with {math.prod(sites)}")
    return sites
