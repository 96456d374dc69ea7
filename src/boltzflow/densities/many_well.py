"""Many wells: independent pairs, each with two wells of unequal mass (Noé et al. 2019, Midgley et al. 2023)."""

import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractEnergyDistribution, choose
from boltzflow.numerics.validation import dimension, one_point

MAX_PAIRS_LISTED = 10  # 2^10 modes; a longer list has no use
# exp(-quartic) falls below 1e-30 of its maximum at ±3.7, and its narrower well has standard deviation 0.2, so that the
# trapezoid rule at this spacing is exact to double precision.
_SPACING = 0.1
_EDGE = 3.7


def _quartic(x: Any) -> Any:
    return x**4 - 6 * x**2 - x / 2


class AbstractManyWell(AbstractEnergyDistribution):
    """The many-well density on R^(2 num_pairs), independent over the pairs (x_1, x_2), (x_3, x_4), ...

    energy(x) = Σ_pairs a⁴ - 6 a² - a/2 + b²/2 for each pair (a, b)

    The positive well of each a carries 0.8443 of the mass; log Z is exact, by quadrature.
    """

    dim: int = eqx.field(static=True)
    num_pairs: int = eqx.field(static=True)
    log_z: float = eqx.field(static=True)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        pairs = one_point(x, self.dim).reshape(self.num_pairs, 2)
        return jnp.sum(_quartic(pairs[:, 0]) + 0.5 * pairs[:, 1] ** 2)

    def sample_and_log_prob(self, key: PRNGKeyArray) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """Each a is from a randomly shifted grid (`choose`)."""
        grid_key, normal_key = jax.random.split(key)
        offset, pick = jax.random.uniform(grid_key, (2, self.num_pairs))
        points = jnp.arange(-_EDGE, _EDGE, _SPACING) + _SPACING * offset[:, None]
        index = jax.vmap(choose)(-_quartic(points), pick)
        first = jnp.take_along_axis(points, index[:, None], axis=1)
        x = jnp.concatenate([first, jax.random.normal(normal_key, (self.num_pairs, 1))], axis=1).reshape(-1)
        return x, self.log_prob(x)


class ManyWell(AbstractManyWell):
    """The many-well density for so many pairs that its modes are not listed."""


class FewWell(AbstractManyWell):
    """The many-well density for at most 10 pairs, with all 2^num_pairs modes."""

    @property
    def modes(self) -> Float[Array, "num_modes dim"]:
        """The modes: every a at one of its two minima, every b at 0."""
        lower, _, upper = np.sort(np.roots([4.0, 0.0, -12.0, -0.5]).real)
        wells = np.array(list(itertools.product([lower, upper], repeat=self.num_pairs)))
        return jnp.asarray(np.stack([wells, np.zeros_like(wells)], axis=-1).reshape(len(wells), self.dim))


def many_well(num_pairs: int = 16) -> AbstractManyWell:
    """The many-well density (Noé et al. 2019, Midgley et al. 2023), with its modes listed if they are at most 2^10.

    Args:
        num_pairs: How many pairs of coordinates, at least 1; the dimension is twice that.
    """
    num_pairs = dimension("num_pairs", num_pairs)
    values = -_quartic(np.arange(-_EDGE, _EDGE, _SPACING / 2))
    log_z_quartic = values.max() + math.log(_SPACING / 2 * np.exp(values - values.max()).sum())
    log_z = num_pairs * (float(log_z_quartic) + 0.5 * math.log(2 * math.pi))
    kind = FewWell if num_pairs <= MAX_PAIRS_LISTED else ManyWell
    return kind(dim=2 * num_pairs, num_pairs=num_pairs, log_z=log_z)
