"""What a density says of its own symmetry, asked of its energy: shifts of a periodic lattice, and x to -x."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity, is_sign_symmetric, lattice_of

_ROUNDINGS = 64  # an energy is a sum whose terms may be that much larger than the sum itself


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
