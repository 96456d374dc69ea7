"""Contract checks for your own classes, to be called in a test. A broken contract raises `AssertionError`.

>>> import boltzflow, jax
>>> from boltzflow.testing import check_density
>>> check_density(boltzflow.mixture_2(), jax.random.key(0))

Each docstring names the errors that its check cannot see.
"""

from boltzflow.testing.densities import check_density, check_distribution
from boltzflow.testing.model import check_interpolation, check_penalty, check_vector_field, randomize

__all__ = [
    "check_density",
    "check_distribution",
    "check_interpolation",
    "check_penalty",
    "check_vector_field",
    "randomize",
]
