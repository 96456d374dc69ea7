"""The quantile function of a gamma variable whose shape parameter depends on earlier variables.

y = log x solves P(exp y; a) = Φ(z), by Newton's method on the logarithm of the smaller of the two probabilities, which
is concave in y: from the far side of the root the steps approach it from one side. The derivatives are

    ∂y/∂z = φ(z) / (x p(x)),    ∂y/∂a = -∂P/∂a / (x p(x)),

with the second from JAX, which has it for its random gamma variables. Beyond |z| = 37, or 11 in single precision, y is
continued linearly. For a above 10⁵ x/a is the cube of Wilson and Hilferty, which is right to 10⁻⁷ there; the series of
JAX take √a terms, and do not end where a + 1 rounds to a.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammainc, gammaincc, gammaln
from jaxtyping import Array, Float

from boltzflow.priors.maps import log_normal_density, log_phi

Elements = Float[Array, "..."]

_NEWTON_STEPS = 14
_SMALLEST = 1e-8  # of a: a variable of a smaller one is 0 in every floating type
_LARGEST = 1e5


@jax.custom_jvp
def log_gamma_quantile(z: Elements, a: Elements) -> Elements:
    """log x of the gamma variable of shape parameter `a` and scale 1 at Φ(z); `z` and `a` of one shape."""
    return _value_and_slope(z, a)[0]


@log_gamma_quantile.defjvp
def _(primals, tangents):
    z, a = primals
    a = jnp.clip(a, _SMALLEST, None)
    y, slope = _value_and_slope(z, a)
    at = jnp.clip(y, -12.0 if z.dtype == jnp.float64 else -7.0, 80.0)  # below, the leading term at 0
    moderate = jnp.clip(a, None, _LARGEST)
    by_shape = jax.lax.random_gamma_grad(moderate, jnp.exp(at)) / jnp.exp(at)
    by_shape = jnp.where(at > y, (digamma(moderate + 1) - y) / moderate, by_shape)
    by_shape = jnp.where(a > _LARGEST, 1 / a, by_shape)
    return y, slope * tangents[0] + by_shape * tangents[1]


def _value_and_slope(z: Elements, a: Elements) -> tuple[Elements, Elements]:
    double = z.dtype == jnp.float64
    reach = 37.0 if double else 11.0
    at = jnp.clip(z, -reach, reach)
    cube_root = 1 - 1 / (9 * a) + at / (3 * jnp.sqrt(a))  # of x/a, by Wilson and Hilferty
    by_cube = jnp.log(a) + 3 * jnp.log(jnp.maximum(cube_root, 0.5))
    slope_of_cube = 1 / (jnp.sqrt(a) * jnp.maximum(cube_root, 0.5))
    is_large = a > _LARGEST
    a = jnp.clip(a, _SMALLEST, _LARGEST)
    log_p, log_q = log_phi(at), log_phi(-at)
    leading = (log_p + gammaln(a + 1)) / a  # of P = xᵃ / Γ(a + 1), and never above the root
    is_leading = leading < (-36.0 if double else -16.0)
    above = jnp.log(a + jnp.sqrt(-2 * a * log_q) - log_q)  # by Chernoff's bound never below the root
    start = jnp.where(at < 0, jnp.maximum(leading, -40.0), above)
    y = jnp.where((cube_root > 0.5) & ~is_large, by_cube, start)
    lowest, highest = jnp.maximum(leading, -40.0) - 1e-3, above + 1e-3

    def step(y: Elements, _: None) -> tuple[Elements, None]:
        return jnp.clip(_newton(y, at, log_p, log_q, a), lowest, highest), None

    y, _ = jax.lax.scan(step, y, None, length=_NEWTON_STEPS)
    y = jnp.where(is_leading, leading, y)
    slope = jnp.exp(log_normal_density(at) - (a * y - jnp.exp(y) - gammaln(a)))
    slope = jnp.where(is_large, slope_of_cube, slope)
    y = jnp.where(is_large, by_cube, y)
    return y + slope * (z - at), slope


def _newton(y: Elements, z: Elements, log_p: Elements, log_q: Elements, a: Elements) -> Elements:
    """One step, on log P below the median and on log(1 - P) above. Lower bounds stand in where they underflow."""
    x = jnp.exp(y)
    first = a * y - x - gammaln(a + 1)
    log_lower = jnp.maximum(jnp.log(gammainc(a, x)), first)
    last = (a - 1) * y - x - gammaln(a) - jnp.log1p(jnp.maximum(1 - a, 0) / x)
    log_upper = jnp.maximum(jnp.log(gammaincc(a, x)), last)
    log_density = a * y - x - gammaln(a)
    down = (log_p - log_lower) * jnp.exp(log_lower - log_density)
    up = (log_upper - log_q) * jnp.exp(log_upper - log_density)
    return y + jnp.where(z < 0, down, up)
