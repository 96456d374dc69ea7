"""Priors with a shape parameter: Gamma, Beta, StudentT and Dirichlet. Each docstring is the density.

Where the shape parameters are known numbers, each entry is the quantile function of one standard normal, from a table.
Where they depend on earlier variables, a gamma variable is found by Newton's method, and the others are made of gamma
variables: a beta variable G_a / (G_a + G_b) and a Student t variable N / √(G_{df/2} / (df/2)) of two normals each, a
Dirichlet variable of as many as it has entries.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.errors import InputError
from boltzflow.priors import maps
from boltzflow.priors.base import (
    AbstractPrior,
    Parameter,
    all_finite,
    common_shape,
    floating,
    is_known,
    parameter,
)
from boltzflow.priors.newton import log_gamma_quantile
from boltzflow.priors.tables import Table, tabulate, tabulated


class Gamma(AbstractPrior):
    """p(x) ∝ x^(concentration - 1) exp(-rate x) for x > 0.

    Args:
        concentration: The shape parameter, positive; a number or an array.
        rate: The rate, positive.
        shape: The shape of a value; by default that of the parameters.
    """

    concentration: Parameter
    rate: Parameter
    table: Table | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, concentration: Any, rate: Any = 1.0, shape: Any = ()):
        self.concentration = parameter("Gamma", "concentration", concentration, positive=True)
        self.rate = parameter("Gamma", "rate", rate, positive=True)
        self.shape = common_shape("Gamma", shape, self.concentration, self.rate)
        self.table = _table("gamma", self.shape, self.concentration)

    @property
    def normal_shape(self):
        return self.shape

    def from_normals(self, z):
        z = floating(z)
        log_x = _log_gamma(z, self.concentration) if self.table is None else tabulated("gamma", z, self.table)
        return maps.exp_finite(log_x - jnp.log(jnp.asarray(self.rate, z.dtype)))

    def contains(self, value):
        return all_finite(value) & jnp.all(value > 0)


class Beta(AbstractPrior):
    """p(x) ∝ x^(a - 1) (1 - x)^(b - 1) for 0 < x < 1.

    Args:
        a: The exponent at 0, positive; a number or an array.
        b: The exponent at 1, positive.
        shape: The shape of a value; by default that of the parameters.
    """

    a: Parameter
    b: Parameter
    table: Table | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, a: Any, b: Any, shape: Any = ()):
        self.a = parameter("Beta", "a", a, positive=True)
        self.b = parameter("Beta", "b", b, positive=True)
        self.shape = common_shape("Beta", shape, self.a, self.b)
        self.table = _table("beta", self.shape, self.a, self.b)

    @property
    def normal_shape(self):
        return self.shape if self.table is not None else (*self.shape, 2)

    def from_normals(self, z):
        z = floating(z)
        if self.table is not None:
            logit = tabulated("beta", z, self.table)
        else:
            exponents = jnp.stack(
                [jnp.broadcast_to(jnp.asarray(one, z.dtype), self.shape) for one in (self.a, self.b)], -1
            )
            log_x = _log_gamma(z, exponents)
            logit = log_x[..., 0] - log_x[..., 1]
        return maps.inside(jax.nn.sigmoid(logit), jnp.zeros_like(logit), jnp.ones_like(logit))

    def contains(self, value):
        return jnp.all((value > 0) & (value < 1))


class StudentT(AbstractPrior):
    """p(x) ∝ (1 + t²/df)^(-(df + 1)/2) with t = (x - loc) / scale.

    Args:
        df: The degrees of freedom, positive; a number or an array.
        loc: The median.
        scale: The scale, positive.
        shape: The shape of a value; by default that of the parameters.
    """

    df: Parameter
    loc: Parameter
    scale: Parameter
    table: Table | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, shape: Any = ()):
        self.df = parameter("StudentT", "df", df, positive=True)
        self.loc = parameter("StudentT", "loc", loc)
        self.scale = parameter("StudentT", "scale", scale, positive=True)
        self.shape = common_shape("StudentT", shape, self.df, self.loc, self.scale)
        self.table = _table("student-t", self.shape, self.df)

    @property
    def normal_shape(self):
        return self.shape if self.table is not None else (*self.shape, 2)

    def from_normals(self, z):
        z = floating(z)
        if self.table is not None:
            limit = maps.largest_log(z.dtype)
            t = jnp.sinh(jnp.clip(tabulated("student-t", z, self.table), -limit, limit))
        else:
            half = jnp.asarray(self.df, z.dtype) / 2
            t = z[..., 0] * maps.exp_finite((jnp.log(half) - _log_gamma(z[..., 1], half)) / 2)
        return jnp.asarray(self.loc, z.dtype) + jnp.asarray(self.scale, z.dtype) * t

    def contains(self, value):
        return all_finite(value)


class Dirichlet(AbstractPrior):
    """p(x) ∝ Π_k x_k^(concentration_k - 1) on the simplex: x_k > 0, Σ_k x_k = 1.

    The last axis is that of the simplex. Known concentrations take one normal less than entries: x_k is a beta variable
    (a_k, Σ_{j>k} a_j) times what the entries before it have left.

    Args:
        concentration: The exponents, positive, of shape `(..., K)` with K at least 2.
    """

    concentration: Parameter
    table: Table | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, concentration: Any):
        self.concentration = parameter("Dirichlet", "concentration", concentration, positive=True)
        self.shape = tuple(np.shape(self.concentration))
        if not self.shape or self.shape[-1] < 2:
            found = f"shape {self.shape}" if self.shape else "one number"
            raise InputError(
                f"concentration of Dirichlet must have an entry for each of at least 2 shares, got {found}"
            )
        self.table = None
        if is_known(self.concentration):
            a = np.asarray(self.concentration)
            rest = np.flip(np.cumsum(np.flip(a, -1), -1), -1)[..., 1:]
            self.table = tabulate("beta", self.normal_shape_of_sticks, a[..., :-1], rest)

    @property
    def normal_shape_of_sticks(self) -> tuple[int, ...]:
        """The shape of the beta variables of known concentrations."""
        return (*self.shape[:-1], self.shape[-1] - 1)

    @property
    def normal_shape(self):
        return self.shape if self.table is None else self.normal_shape_of_sticks

    def from_normals(self, z):
        z = floating(z)
        if self.table is None:
            log_x = jax.nn.log_softmax(_log_gamma(z, self.concentration), axis=-1)
        else:
            logit = tabulated("beta", z, self.table)
            start = jnp.zeros_like(logit[..., :1])
            left = jnp.concatenate([start, jnp.cumsum(-jax.nn.softplus(logit), axis=-1)], axis=-1)
            log_x = left + jnp.concatenate([-jax.nn.softplus(-logit), start], axis=-1)
        return jnp.exp(jnp.maximum(log_x, jnp.log(jnp.finfo(z.dtype).tiny)))

    def contains(self, value):
        return jnp.all(value > 0) & jnp.all(jnp.abs(jnp.sum(value, axis=-1) - 1) < 1e-4)


def _table(family: str, shape: tuple[int, ...], *parameters: Parameter) -> Table | None:
    """The table of known parameters; None where one may depend on an earlier variable."""
    return tabulate(family, shape, *map(np.asarray, parameters)) if is_known(*parameters) else None


def _log_gamma(z: Any, concentration: Any) -> Any:
    return log_gamma_quantile(z, jnp.broadcast_to(jnp.asarray(concentration, z.dtype), z.shape))
