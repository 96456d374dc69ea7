"""The contract of a prior, and the check of its parameters."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from boltzflow.errors import InputError
from boltzflow.numerics.validation import dimension, real_array

Parameter = Float[Array, "..."] | Float[np.ndarray, "..."]
"""A number that was given is a NumPy array. One that may depend on an earlier variable is an array of JAX."""


class AbstractPrior(eqx.Module):
    """A distribution of one named variable, as a map from independent standard normals.

    `from_normals(z)` has the distribution if z is N(0, 1) in each entry of `normal_shape`. A prior may be made of
    earlier variables, inside a program of JAX.
    """

    shape: eqx.AbstractVar[tuple[int, ...]]
    """Of a value."""

    @property
    @abc.abstractmethod
    def normal_shape(self) -> tuple[int, ...]:
        """The shape of z."""

    @abc.abstractmethod
    def from_normals(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value of shape `shape` at z of shape `normal_shape`."""

    @abc.abstractmethod
    def contains(self, value: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether a value of shape `shape` lies in the support."""


class AbstractElementwise(AbstractPrior):
    """A prior of independent entries, each of one standard normal: x = F⁻¹(Φ(z))."""

    @property
    def normal_shape(self) -> tuple[int, ...]:
        return self.shape

    def from_normals(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.quantile(floating(z))

    @abc.abstractmethod
    def quantile(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """F⁻¹(Φ(z)), elementwise."""


def floating(z: Any) -> Float[Array, "..."]:
    """`z` as an array of the floating type in force, or of its own."""
    array = jnp.asarray(z)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def parameter(owner: str, name: str, value: Any, positive: bool = False) -> Parameter:
    """The parameter `name` of the prior `owner`.

    Raises:
        InputError: It is not real, not finite, or not positive where it must be. A number inside a program of JAX,
            which is not known yet, is not checked.
    """
    if isinstance(value, jax.core.Tracer):
        return value.astype(float) if not jnp.issubdtype(value.dtype, jnp.floating) else value
    checked = real_array(f"{name} of {owner}", value)
    if positive and not np.all(checked > 0):
        worst = float(np.min(checked))
        raise InputError(f"{name} of {owner} must be positive, got {worst:g}" + (" among them" if checked.ndim else ""))
    return floating(value) if isinstance(value, jax.Array) else checked


def common_shape(owner: str, shape: Any, *parameters: Parameter) -> tuple[int, ...]:
    """The shape of a value: that of the parameters, broadcast to `shape` where it is given.

    Raises:
        InputError: `shape` is no shape, or the parameters do not fit each other or it.
    """
    if isinstance(shape, (int, np.integer)) and not isinstance(shape, bool):
        shape = (shape,)
    if not isinstance(shape, (tuple, list)):
        raise InputError(f"shape of {owner} must be whole numbers, as in (3,), got {shape!r}")
    wanted = tuple(dimension(f"each entry of shape of {owner}", size) for size in shape)
    of_parameters = [np.shape(value) for value in parameters]
    try:
        found = np.broadcast_shapes(wanted, *of_parameters)
    except ValueError:
        found = None
    if found is None or (wanted and found != wanted):
        shapes = ", ".join(str(one) for one in of_parameters)
        raise InputError(f"the parameters of {owner}, of shape {shapes}, do not broadcast to one shape {wanted or ''}")
    return tuple(found)


def is_known(*parameters: Parameter) -> bool:
    """Whether no parameter may depend on an earlier variable."""
    return all(isinstance(value, np.ndarray) for value in parameters)


def size_of(shape: tuple[int, ...]) -> int:
    """The number of entries of an array."""
    return math.prod(shape)


def all_finite(value: Array) -> Bool[Array, ""]:
    """Whether all entries are finite."""
    return jnp.all(jnp.isfinite(value))
