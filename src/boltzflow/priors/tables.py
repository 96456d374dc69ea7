"""Quantile functions of the families with a shape parameter, tabulated for parameters that are known numbers.

The table is of y(z), a coordinate on all of R: log x of a gamma variable, the logit of a beta variable, arsinh x of a
Student t variable. With M(y) the log-density of y,

    y' = exp(log φ(z) - M(y)),    y'' = y' (-z - M'(y) y').

Between the nodes y is the quintic polynomial with these values, slopes and curvatures, whose error is of the order of
rounding in double precision. The derivative is the formula above. Beyond |z| = 37, where less than 10⁻²⁹⁸ of the
probability lies, y is continued linearly.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import special

from boltzflow.priors.maps import log_normal_density

_PER_UNIT = 32  # nodes
_REACH = 37
_TINY = -40.0  # log x below which the leading term of the distribution function at 0 is exact in double precision
_LOG_2 = float(np.log(2.0))


class Table(NamedTuple):
    """Tables of one family: `nodes` `(num_tables, num_nodes, 3)` has y, y' and y'' at each node."""

    nodes: Float[Array | np.ndarray, "num_tables num_nodes 3"]
    constants: Float[Array | np.ndarray, "num_constants num_tables"]  # of the log-density, the norm last
    which: Int[Array | np.ndarray, "..."]  # the table of each entry


def log_density(family: str, y: Any, constants: tuple[Any, ...], xp: Any = jnp) -> Any:
    """M(y), the log-density of y of the family "gamma", "beta" or "student-t", with NumPy or JAX."""
    if family == "gamma":
        a, norm = constants
        return a * y - xp.exp(y) - norm
    if family == "beta":
        a, b, norm = constants
        return -a * xp.logaddexp(0.0, -y) - b * xp.logaddexp(0.0, y) - norm
    df, norm = constants
    size = xp.abs(y)
    log_square = 2 * (size + xp.log1p(-xp.exp(-2 * xp.maximum(size, 1e-30))) - _LOG_2)  # of sinh y
    log_cosh = size + xp.log1p(xp.exp(-2 * size)) - _LOG_2
    return -0.5 * (df + 1) * (xp.logaddexp(xp.log(df), log_square) - xp.log(df)) + log_cosh - norm


def _slope_of_log_density(family: str, y: np.ndarray, constants: tuple[float, ...]) -> np.ndarray:
    """M'(y)."""
    if family == "gamma":
        return constants[0] - np.exp(y)
    if family == "beta":
        return constants[0] * special.expit(-y) - constants[1] * special.expit(y)
    df = constants[0]
    size = np.minimum(np.abs(y), 300.0)
    ratio = np.sinh(size) * np.cosh(size) / (df + np.sinh(size) ** 2)
    return np.sign(y) * (np.tanh(size) - (df + 1) * ratio)


@functools.lru_cache(maxsize=512)
def _nodes(family: str, parameters: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, ...]]:
    """The nodes of one distribution, and the constants of its log-density."""
    z = np.arange(-_REACH * _PER_UNIT, _REACH * _PER_UNIT + 1) / _PER_UNIT
    with np.errstate(all="ignore"):
        if family == "gamma":
            [a] = parameters
            y, norm = _log_gamma_quantile(z, a), float(special.gammaln(a))
        elif family == "beta":
            a, b = parameters
            y = _logit_of_beta(special.log_ndtr(z), special.log_ndtr(-z), a, b)
            norm = float(special.betaln(a, b))
        else:
            [df] = parameters
            y, norm = _arsinh_of_t(z, df), float(special.betaln(0.5, df / 2) + 0.5 * np.log(df))
        constants = (*parameters, norm)
        log_phi = -0.5 * z * z - 0.5 * np.log(2 * np.pi)
        slope = np.exp(log_phi - log_density(family, y, constants, np))
        curvature = slope * (-z - _slope_of_log_density(family, y, constants) * slope)
    return np.stack([y, slope, curvature], axis=-1), constants


def _log_gamma_quantile(z: np.ndarray, a: float) -> np.ndarray:
    """log x with P(a, x) = Φ(z). Near 0 P(a, x) = xᵃ / Γ(a + 1)."""
    leading = (special.log_ndtr(z) + special.gammaln(a + 1)) / a
    below = special.gammaincinv(a, np.exp(special.log_ndtr(np.minimum(z, 0))))
    above = special.gammainccinv(a, np.exp(special.log_ndtr(-np.maximum(z, 0))))
    return np.where(leading < _TINY, leading, np.log(np.where(z < 0, below, above)))


def _logit_of_beta(log_p: np.ndarray, log_q: np.ndarray, a: float, b: float) -> np.ndarray:
    """log(x / (1 - x)) with I_x(a, b) = p = 1 - q. Near 0 I_x = xᵃ / (a B(a, b)), and near 1 likewise."""
    log_beta = special.betaln(a, b)
    at_0 = (log_p + np.log(a) + log_beta) / a
    at_1 = (log_q + np.log(b) + log_beta) / b
    p, q = np.exp(np.minimum(log_p, -_LOG_2)), np.exp(np.minimum(log_q, -_LOG_2))
    lower = log_p < log_q
    x = np.where(lower, special.betaincinv(a, b, p), special.betainccinv(a, b, q))
    rest = np.where(lower, special.betainccinv(b, a, p), special.betaincinv(b, a, q))
    y = np.log(x) - np.log(rest)
    return np.where(at_0 < _TINY, at_0, np.where(at_1 < _TINY, -at_1, y))


def _arsinh_of_t(z: np.ndarray, df: float) -> np.ndarray:
    """arsinh x of a Student t variable x: df / (df + x²) is a beta variable."""
    size = np.abs(z)
    log_p = special.log_ndtr(-size) + _LOG_2
    log_q = np.log(special.erf(size / np.sqrt(2)))
    log_x = 0.5 * (np.log(df) - _logit_of_beta(log_p, log_q, df / 2, 0.5))
    y = np.where(log_x > 300, log_x + _LOG_2, np.arcsinh(np.exp(np.minimum(log_x, 300))))
    return np.where(z == 0, 0.0, np.sign(z) * y)


def tabulate(family: str, shape: tuple[int, ...], *parameters: np.ndarray) -> Table:
    """The tables of arrays of parameters, broadcast to `shape`; equal parameters share one."""
    full = [np.broadcast_to(value, shape).ravel() for value in parameters]
    different, which = np.unique(np.stack(full), axis=1, return_inverse=True)
    parts = [_nodes(family, tuple(column)) for column in different.T.tolist()]
    constants = np.array([found for _, found in parts]).T
    return Table(np.stack([nodes for nodes, _ in parts]), constants, which.reshape(shape))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def tabulated(family: str, z: Float[Array, "..."], table: Table) -> Float[Array, "..."]:
    """y(z) elementwise, `z` of the shape of `table.which`; its derivative is with respect to z alone."""
    return _value_and_slope(family, z, table)[0]


@tabulated.defjvp
def _(family, primals, tangents):
    z, table = primals
    y, slope = _value_and_slope(family, z, table)
    return y, slope * tangents[0]


def _value_and_slope(family: str, z: Array, table: Table) -> tuple[Array, Array]:
    nodes = jnp.asarray(table.nodes, z.dtype)
    which = jnp.asarray(table.which)
    place = _PER_UNIT * jnp.clip(z, -_REACH, _REACH)  # no offset is added to z: it would round
    index = jnp.clip(jnp.floor(place), -_REACH * _PER_UNIT, _REACH * _PER_UNIT - 1)
    t = place - index
    number = index.astype(int) + _REACH * _PER_UNIT
    y = _quintic(t, nodes[which, number], nodes[which, number + 1])
    constants = tuple(jnp.asarray(one, z.dtype)[which] for one in table.constants)
    at = jnp.clip(z, -_REACH, _REACH)
    slope = jnp.exp(log_normal_density(at) - log_density(family, y, constants))
    return y + slope * (z - at), slope


def _quintic(t: Array, left: Array, right: Array) -> Array:
    """The polynomial on [0, 1] with the values, slopes and curvatures of two nodes."""
    h = 1 / _PER_UNIT
    rest = 1 - t
    y0, s0, c0 = left[..., 0], h * left[..., 1], h * h * left[..., 2]
    y1, s1, c1 = right[..., 0], h * right[..., 1], h * h * right[..., 2]
    blend = t**3 * (10 + t * (6 * t - 15))
    slopes = t * rest**3 * (1 + 3 * t) * s0 - rest * t**3 * (1 + 3 * rest) * s1
    return y0 + blend * (y1 - y0) + slopes + 0.5 * t**2 * rest**2 * (rest * c0 + t * c1)
