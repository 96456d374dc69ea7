"""Observables for `boltzflow expect`: functions of one point that return a number, an array or a pytree of them.

boltzflow expect runs/banana examples/observables.py:moments --num-samples 1000000
"""

import jax.numpy as jnp


def moments(x):
    """Mean and second moment of every coordinate."""
    return {"mean": x, "second moment": x**2}


def right_half(x):
    """The probability that the first coordinate is positive."""
    return jnp.where(x[0] > 0, 1.0, 0.0)
