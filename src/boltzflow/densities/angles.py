"""Angles: the map from planes to coordinates with a period, and the density of the radius in each plane.

A coordinate x of period P is the angle of a point (u, v) of the plane,

    x = P/2π (atan2(v, u) mod 2π)     in [0, P).

The radius r has the density r³ exp(-r²/2) / 2, whatever x is. So a density p(x) becomes

    p(x) P/4π r² exp(-r²/2)           in (u, v),

with the same integral. It has no cut, and it vanishes at the origin, where the angle jumps. Without the factor r² every
descent would end there.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from boltzflow.errors import InputError
from boltzflow.numerics.validation import frozen, shown

STD = math.sqrt(2.0)
"""The standard deviation of u and of v where x is uniform."""


class Angles(eqx.Module):
    """The coordinates of R^num_coordinates that have a period.

    A lifted point z is (y, v): y has one entry for each coordinate, which is u of an angle and another coordinate
    itself, and v has one for each angle.

    Args:
        periodic: True for the period 2π or a period, of all coordinates, or `num_coordinates` entries that are one of
            these, or False or None for none.
        num_coordinates: The number of coordinates.

    Raises:
        InputError: A period is not a positive number, or there are more or fewer entries.
    """

    num_coordinates: int = eqx.field(static=True)
    places: tuple[int, ...] = eqx.field(static=True)  # of the angles
    is_angle: Bool[np.ndarray, " num_coordinates"]
    period: Float[np.ndarray, " num_coordinates"]  # 2π where there is none

    def __init__(self, periodic: Any, num_coordinates: int):
        periods = [_period(j, one) for j, one in enumerate(_entries(periodic, num_coordinates))]
        self.num_coordinates = num_coordinates
        self.is_angle = np.array([period is not None for period in periods])
        self.places = tuple(int(j) for j in np.flatnonzero(self.is_angle))
        self.period = frozen([period or 2 * math.pi for period in periods])

    def coordinates(self, z: Float[Array, " dim"]) -> Float[Array, " num_coordinates"]:
        """x at one lifted point, where coordinates without a period stay as they are."""
        u, v, square = self._planes(z)
        is_origin = square < jnp.finfo(z.dtype).tiny  # where the angle has no derivative
        turn = jnp.arctan2(jnp.where(is_origin, 0.0, v), jnp.where(is_origin, 1.0, u)) / (2 * math.pi)
        period = jnp.asarray(self.period, z.dtype)
        x = period * jnp.where(turn < 0, turn + 1, turn)
        x = jnp.where(x >= period, x - period, x)  # rounded up
        return jnp.where(self.is_angle, x, u)

    def log_jacobian(self, z: Float[Array, " dim"]) -> Float[Array, ""]:
        """The energy of x minus that of z at one lifted point: Σ log(P/4π r² exp(-r²/2)) over angles."""
        *_, square = self._planes(z)
        log_square = jnp.log(jnp.maximum(square, jnp.finfo(z.dtype).tiny))
        terms = log_square - square / 2 + jnp.log(jnp.asarray(self.period / (4 * math.pi), z.dtype))
        return jnp.sum(jnp.where(self.is_angle, terms, 0.0))

    def _planes(self, z: Array) -> tuple[Array, Array, Array]:
        """u, v and r² for each coordinate; where there is no period, u is the coordinate, and v and r² are 0 and 1."""
        u, v = z[: self.num_coordinates], z[self.num_coordinates :]
        if len(self.places) < self.num_coordinates:
            v = jnp.zeros_like(u).at[np.array(self.places)].set(v)
        return u, v, jnp.where(self.is_angle, u * u + v * v, 1.0)


def _entries(periodic: Any, num_coordinates: int) -> list[Any]:
    """One entry for each coordinate."""
    if isinstance(periodic, (np.ndarray, np.generic, jax.Array)):
        periodic = np.asarray(periodic).tolist()
    if not isinstance(periodic, Sequence) or isinstance(periodic, (str, bytes)):
        return [periodic] * num_coordinates
    if len(periodic) != num_coordinates:
        raise InputError(
            f"periodic must be one period or one entry for each of {num_coordinates} coordinates, got {len(periodic)}"
        )
    return list(periodic)


def _period(j: int, entry: Any) -> float | None:
    """The period of x[j], or None."""
    if isinstance(entry, (np.ndarray, np.generic, jax.Array)):
        entry = np.asarray(entry).tolist()
    if entry is None or isinstance(entry, bool):
        return 2 * math.pi if entry else None
    if not isinstance(entry, (int, float)) or not 0 < entry < math.inf:
        raise InputError(f"periodic must be True or a positive number, got {shown(entry)} for x[{j}]")
    return float(entry)
