"""Assertions that the contract checks share; each failure is one sentence."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.numerics.constants import separate_precisions


def check_function(
    module: Any,
    fn: Callable[[Any, Array], tuple[Any, ...]],
    points: Float[Array, "n dim"],
    outputs: Mapping[str, tuple[tuple[int, ...], str]],  # by name: the shape, and the words of that demand
    *,
    to_largest: bool = False,  # relative to the largest value at all points
) -> None:
    """Check that each output of `fn(module, x)` is finite, of the type of x, and the same under jit and vmap."""
    rows = [jnp.asarray(row) for row in np.asarray(points)]  # indexing in JAX compiles once for each index
    eager = fn(module, rows[0])
    compiled = eqx.filter_jit(fn)
    alone = [compiled(module, row) for row in rows]
    batched = eqx.filter_jit(jax.vmap(fn, (None, 0)))(module, points)
    for i, (name, (shape, demand)) in enumerate(outputs.items()):
        first = eager[i]
        got = jnp.shape(first)
        dtype = jnp.result_type(first)
        expect(got == shape, f"{name} must {demand}, got shape {got}")
        expect(dtype == points.dtype, f"{name} must keep the type of x, {points.dtype}, got {dtype}")
        batch = np.asarray(batched[i])
        expect(np.all(np.isfinite(batch)), f"{name} is not finite near the origin: {batch}")
        values = np.stack([results[i] for results in alone])
        size = np.full_like(batch, np.max(np.abs(batch))) if to_largest else np.abs(batch)
        expect_close(f"{name} with and without jax.vmap", batch[0], first, size[0])
        expect_close(f"{name} with and without jax.jit", values[0], first, size[0])
        expect_close(f"{name} with jax.vmap and with jax.jit", batch, values, size)


def check_double_precision(name: str, module: Any, fn: Callable[[Any, Array], Array], points: np.ndarray) -> None:
    """Check that `fn(module, x)` keeps float64 and agrees with its value in float32."""
    separate_precisions()
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
    sentence = f"{what} must agree, got {np.ravel(a)[worst]} and {np.ravel(b)[worst]}"
    expect(np.all(difference <= 2000 * eps * size), sentence)


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
