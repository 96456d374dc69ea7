"""Contract checks for classes of your own: call them in a test, they raise `AssertionError` with a sentence.

>>> import boltzflow, jax
>>> from boltzflow.testing import check_density
>>> check_density(boltzflow.mixture_2(), jax.random.key(0))

What a check cannot see is said with it.
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
