"""How fast a path is walked: a one-parameter change of time that keeps the speed of the densities even."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractFixed
from boltzflow.numerics.validation import real_array


class Clock(AbstractFixed):
    """β(t) = (e^{kt} - 1) / (e^k - 1): how far along the linear path one is at time t; k = `rate` = 0 is β = t.

    A multimodal target splits the mass of a wide base at very small β. With a positive rate the path takes its time
    there; the rate at which each unit of t costs as much as any other is fitted to the pilot's temperatures.
    """

    rate: Float[np.ndarray, ""]

    def __init__(self, rate: Any = 0.0):
        # An array and not a static number: another rate is then not another compilation.
        self.rate = real_array("rate", rate)

    def __call__(self, t: Float[Array, ""]) -> Float[Array, ""]:
        """β(t), exactly 0 at t = 0 and exactly 1 at t = 1."""
        given = jnp.asarray(self.rate, jnp.result_type(t))
        rate = jnp.where(given == 0, 1.0, given)
        beta = jnp.expm1(rate * t) / jnp.expm1(rate)
        # A compiler that evaluates the denominator beforehand rounds it otherwise than the numerator.
        beta = jnp.where(t == 1, 1 + (beta - jax.lax.stop_gradient(beta)), beta)
        return jnp.where(given == 0, t, beta)

    def inverse(self, beta: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The time at which β is reached."""
        beta = np.asarray(beta, float)
        return beta if self.rate == 0 else np.log1p(beta * np.expm1(self.rate)) / self.rate


def fit_clock(betas: Float[np.ndarray, " num_steps"]) -> Clock:
    """The clock on which temperatures `betas`, increasing to 1 in steps of equal cost, are evenly spaced."""
    betas = np.asarray(betas, float)
    # The last step is cut off at β = 1: on average half of it is missing.
    even = np.arange(1, len(betas)) / (len(betas) - 0.5)
    rates = np.round(np.linspace(0, 8, 81), 2)
    errors = [np.abs(Clock(rate).inverse(betas[:-1]) - even).max(initial=0.0) for rate in rates]
    return Clock(rates[int(np.argmin(errors))])
