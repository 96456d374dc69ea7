"""Assertions that the contract checks share; each failure is one sentence."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def check_scalar_function(
    name: str, module: Any, fn: Callable[[Any, Array], Array], points: Float[Array, "n dim"], point: str = "x"
) -> None:
    """Check that `fn(module, x)` is a finite scalar of the type of x, the same under jit and vmap."""
    rows = [jnp.asarray(row) for row in np.asarray(points)]  # indexing in JAX compiles once for each index
    eager = fn(module, rows[0])
    shape, dtype = jnp.shape(eager), jnp.result_type(eager)
    expect(shape == (), f"{name} must return a scalar for {point} of shape {points.shape[1:]}, got shape {shape}")
    expect(dtype == points.dtype, f"{name} must keep the type of x, {points.dtype}, got {dtype}")
    batch = np.asarray(eqx.filter_jit(jax.vmap(fn, (None, 0)))(module, points))
    expect(np.all(np.isfinite(batch)), f"{name} is not finite near the origin: {batch}")
    expect_close(f"{name} with and without jax.vmap", batch[0], eager, eager)
    compiled = eqx.filter_jit(fn)
    values = np.stack([compiled(module, row) for row in rows])
    expect_close(f"{name} with and without jax.jit", values[0], eager, eager)
    expect_close(f"{name} with jax.vmap and with jax.jit", batch, values, values)


def check_double_precision(name: str, module: Any, fn: Callable[[Any, Array], Array], points: np.ndarray) -> None:
    """Check that `fn(module, x)` keeps float64 and agrees with its value in float32."""
    single = np.asarray([eqx.filter_jit(fn)(module, x) for x in jnp.asarray(points)])
    with jax.enable_x64(True):
        compiled = eqx.filter_jit(fn)
        double = np.asarray([compiled(module, x) for x in jnp.asarray(points, jnp.float64)])
    expect(double.dtype == np.float64, f"{name} must keep the type of x, float64, got {double.dtype}")
    expect_close(f"{name} in single and in double precision", single, double, single)


def expect(condition: Any, sentence: str) -> None:
    """Raise `AssertionError` with `sentence` unless `condition` holds."""
    if not bool(condition):
        raise AssertionError(sentence)


def expect_close(what: str, a: Any, b: Any, scale: Any) -> None:
    """Check that `a` and `b` agree to 2000 roundings, relative to 1 + |scale| + |b|."""
    eps = float(jnp.finfo(jnp.asarray(a).dtype).eps)
    size = 1 + np.abs(np.asarray(scale, np.float64)) + np.abs(np.asarray(b, np.float64))
    difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    worst = int(np.argmax(difference / size))
    expect(
        np.all(difference <= 2000 * eps * size),
        f"{what} must agree, got {np.ravel(a)[worst]} and {np.ravel(b)[worst]}",
    )


def expect_mean(what: str, values: Float[np.ndarray, "n k"], expected: float, num_sigma: float) -> None:
    """Check that the mean of each column of `values` is `expected` within `num_sigma` standard errors."""
    mean = values.mean(axis=0)
    error = np.maximum(np.std(values, axis=0) / np.sqrt(len(values)), 1e-6 * np.mean(np.abs(values), axis=0)) + 1e-12
    sigmas = (mean - expected) / error
    worst = int(np.argmax(np.abs(sigmas)))
    expect(
        abs(sigmas[worst]) <= num_sigma,
        f"{what} must be {expected:g}, got {mean[worst]:.5g} ± {error[worst]:.2g}: "
        "samples, log_prob and log_z do not belong together",
    )
