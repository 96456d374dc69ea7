"""Paths of energies f_t from the base to the target: abstract class, Eqs. (17) and (20), and the time change β(t)."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, AbstractFixed
from boltzflow.model.networks import Point, Scalar, TimeMixtureMLP, Whitening
from boltzflow.numerics.validation import real_array


class AbstractInterpolation(eqx.Module):
    """A path of energies f_t, 0 <= t <= 1, that equals the base's energy at t = 0 and the target's at t = 1, exactly.

    To write one: subclass, keep `base` and `target`, define `energy(t, x)` for one point. Other arrays of the path are
    trained with the field; base and target are not.
    """

    base: eqx.AbstractVar[AbstractDistribution]
    target: eqx.AbstractVar[AbstractDensity]

    @abc.abstractmethod
    def energy(self, t: Scalar, x: Point) -> Scalar:
        """f_t(x), with f_0 = base.energy and f_1 = target.energy."""

    def derivatives(self, t: Scalar, x: Point) -> tuple[Scalar, Point]:
        """∂_t f_t(x) and ∇f_t(x)."""
        return jax.grad(self.energy, argnums=(0, 1))(t, x)


class Clock(AbstractFixed):
    """The time change β(t) = (e^{kt} - 1) / (e^k - 1) of the linear path; k = `rate` = 0 is the paper's β = t."""

    rate: Float[np.ndarray, ""]

    def __init__(self, rate: Any = 0.0):
        # An array and not a static number: another rate then needs no other compilation.
        self.rate = real_array("rate", rate)

    def __call__(self, t: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """β(t) at any number of times, exactly 0 at t = 0 and exactly 1 at t = 1."""
        given = jnp.asarray(self.rate, jnp.result_type(t))
        rate = jnp.where(given == 0, 1.0, given)
        beta = jnp.expm1(rate * t) / jnp.expm1(rate)
        # A compiler that evaluates the denominator in advance rounds it differently from the numerator.
        beta = jnp.where(t == 1, 1 + (beta - jax.lax.stop_gradient(beta)), beta)
        return jnp.where(given == 0, t, beta)

    def inverse(self, beta: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """The time at which the path reaches β."""
        beta = np.asarray(beta, float)
        return beta if self.rate == 0 else np.log1p(beta * np.expm1(self.rate)) / self.rate


def fit_clock(betas: Float[np.ndarray, " num_steps"]) -> Clock:
    """The time change that spaces `betas` evenly: inverse temperatures that increase to 1 in steps of equal cost."""
    betas = np.asarray(betas, float)
    # The last step ends at β = 1 and is shorter: half of it is missing on average.
    even = np.arange(1, len(betas)) / (len(betas) - 0.5)
    rates = np.round(np.linspace(0, 8, 81), 2)
    errors = [np.abs(Clock(rate).inverse(betas[:-1]) - even).max(initial=0.0) for rate in rates]
    return Clock(rates[int(np.argmin(errors))])


class Linear(AbstractInterpolation):
    """f_t(x) = (1 - β) f_0(x) + β f_1(x), β = β(t) (Eq. 17), along which the weights of modes change (Fig. 6)."""

    base: AbstractDistribution
    target: AbstractDensity
    clock: Clock = Clock()

    def energy(self, t, x):
        beta = self.clock(t)
        return (1 - beta) * self.base.energy(x) + beta * self.target.energy(x)


class Trigonometric(AbstractInterpolation):
    """f_t(x) = cos²(πt/2) f_0(x) + sin²(πt/2) f_1(x): ∂_t f vanishes at t = 0 and t = 1."""

    base: AbstractDistribution
    target: AbstractDensity

    def energy(self, t, x):
        # sin(π/2) rounds to exactly 1 where cos(π/2) does not round to 0: one minus keeps the end points exact.
        s = jnp.sin(jnp.pi / 2 * t) ** 2
        return (1 - s) * self.base.energy(x) + s * self.target.energy(x)


class Trainable(AbstractInterpolation):
    """f_t(x) = (1 - β) f_0(x) + β f_1(x) + t (1 - t) f_θ(t, x) with β = β(t) (Eq. 20), before training the linear path.

    f_θ is a mixture of MLPs, or `network`: any module of t and the whitened x with a value `(1,)`.
    """

    base: AbstractDistribution
    target: AbstractDensity
    mlp: Any
    whitening: Whitening
    clock: Clock

    def __init__(
        self,
        base: AbstractDistribution,
        target: AbstractDensity,
        *,
        whitening: Whitening | None = None,
        clock: Clock | None = None,
        network: Any = None,
        key: PRNGKeyArray,
        **sizes: int,
    ):
        self.base = base
        self.target = target
        self.clock = clock or Clock()
        self.whitening = whitening or Whitening.identity(base.dim)
        self.mlp = TimeMixtureMLP(self.whitening.size, 1, key=key, **sizes) if network is None else network

    def energy(self, t, x):
        f_theta = self.mlp(t, self.whitening.whiten(x))[0]
        beta = self.clock(t)
        return (1 - beta) * self.base.energy(x) + beta * self.target.energy(x) + t * (1 - t) * f_theta
