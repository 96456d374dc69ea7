"""A target of two wells far apart, of which tempered SMC misses the narrow one."""

import jax.numpy as jnp
import numpy as np

import boltzflow as bf
from boltzflow.densities.gaussian import Gaussian

NEAR = -6 * np.ones(5)
FAR = 6 * np.ones(5)


def wells(share: float, width: float = 0.5) -> bf.Energy:
    """A wide well of weight 1 - share around -6 and a narrow one of weight `share` around 6; log Z = 0."""
    near = Gaussian(NEAR, 2.25 * np.ones(5))
    far = Gaussian(FAR, width**2 * np.ones(5))

    def energy(x):
        return -jnp.logaddexp(jnp.log(1 - share) + near.log_prob(x), jnp.log(share) + far.log_prob(x))

    return bf.Energy(energy, 5)
