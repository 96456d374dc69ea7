"""The contracts of what is trained: interpolations, velocity fields, and the penalty of the residual."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from boltzflow.densities.base import AbstractFixed
from boltzflow.model.continuity import trainable
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import AbstractInterpolation
from boltzflow.numerics.batching import numpy_generator
from boltzflow.testing.asserts import check_scalar_function, expect, expect_close

_NUM_POINTS = 8
_RELATIVE_DIVERGENCE_ERROR = 1e-9  # in double precision


def randomize(tree: PyTree, key: PRNGKeyArray, scale: float = 0.3) -> PyTree:
    """`tree` with `scale` times standard normal noise added to every array that training may change.

    Networks that start at zero, as ours do, keep every contract trivially; these do not.
    """
    rng = numpy_generator(key)

    def move(leaf):
        return jnp.asarray(np.asarray(leaf) + scale * rng.standard_normal(leaf.shape), leaf.dtype)

    trained, fixed = eqx.partition(tree, trainable(tree))
    return eqx.combine(jax.tree.map(move, trained), fixed)


# --- interpolations --------------------------------------------------------------------------------------------------


def check_interpolation(interpolation: AbstractInterpolation, key: PRNGKeyArray) -> None:
    """Checks that `interpolation` keeps the contract of `AbstractInterpolation`, at 8 points drawn from its base.

    Its ends equal the energies of base and target exactly, with and without `jax.jit`; the energy is a scalar, finite
    and of the type of x from t = 0 to t = 1, the same under `jax.jit` and `jax.vmap`; `derivatives` agrees with
    differences in t and x, also at both ends; training moves neither base nor target. The trainable arrays are
    randomized first. Not seen: a path that is singular somewhere else. Raises `AssertionError`.
    """
    name = type(interpolation).__name__
    _check_frozen_ends(name, interpolation)
    interpolation, rng = randomize(interpolation, key), numpy_generator(key)
    sample = eqx.filter_jit(lambda base, keys: jax.vmap(base.sample_and_log_prob)(keys)[0])
    x = np.asarray(sample(interpolation.base, jax.random.split(key, _NUM_POINTS)))
    _check_ends(name, interpolation, x)
    points = np.concatenate([_times(rng)[:, None], x], axis=1, dtype=x.dtype)
    check_scalar_function(f"{name}.energy", interpolation, _at, jnp.asarray(points), point="(t, x)")
    direction = rng.standard_normal(points.shape).astype(x.dtype)
    direction[:, 0] = np.where(points[:, 0] < 0.5, 1, -1)  # the path is never asked for outside of [0, 1]
    _check_derivatives(name, interpolation, points, direction)


def _times(rng: np.random.Generator) -> np.ndarray:
    """Times in [0, 1], the first two of them its ends."""
    return np.concatenate([[0.0, 1.0], rng.uniform(size=_NUM_POINTS - 2)])


def _check_frozen_ends(name: str, interpolation: AbstractInterpolation) -> None:
    marked = trainable(interpolation)
    for end in ("base", "target"):
        expect(
            isinstance(getattr(interpolation, end), AbstractFixed) and not any(jax.tree.leaves(getattr(marked, end))),
            f"training would move arrays of {name}.{end}, which must be an AbstractDensity",
        )


def _check_ends(name: str, interpolation: AbstractInterpolation, x: Float[np.ndarray, "n dim"]) -> None:
    path, alone = (lambda module, t, point: module.energy(t, point)), (lambda module, point: module.energy(point))
    compiled_path, compiled_alone = eqx.filter_jit(path), eqx.filter_jit(alone)
    for time, end in ((0.0, "base"), (1.0, "target")):
        t, density = jnp.asarray(time, x.dtype), getattr(interpolation, end)
        for point in map(jnp.asarray, x[:3]):
            pairs = {
                "": (path(interpolation, t, point), alone(density, point)),
                " under jax.jit": (compiled_path(interpolation, t, point), compiled_alone(density, point)),
            }
            for how, (got, wanted) in pairs.items():
                expect(
                    np.array_equal(got, wanted),
                    f"{name}.energy at t = {time:g} must be that of the {end} to the last bit{how}, "
                    f"got {float(got):.9g} and {float(wanted):.9g}",
                )


def _check_derivatives(
    name: str,
    interpolation: AbstractInterpolation,
    points: Float[np.ndarray, "n dim+1"],
    direction: Float[np.ndarray, "n dim+1"],
) -> None:
    """`derivatives` along `direction` against one-sided differences of second order.

    The tolerance is loose on purpose, so that only gross errors fail: 2 % of the slope, the rounding error of the
    difference, and three times what halving the resolution changes. Of two steps the better counts: a path may be
    steep on the scale of the longer one.
    """
    eps = float(jnp.finfo(points.dtype).eps)
    slope, grid_slopes, size = _slopes(name, interpolation, points, direction)
    expect(np.all(np.isfinite(slope)), f"{name}.derivatives are not finite at t = {points[~np.isfinite(slope), 0]}")
    agrees = np.zeros(slope.shape, bool)
    for step, fine, coarse in grid_slopes:
        tolerance = 0.02 * np.abs(slope) + 16 * eps * size / step + 3 * np.abs(fine - coarse) + 10 * eps ** (2 / 3)
        agrees |= np.abs(slope - fine) <= tolerance
    wrong = np.flatnonzero(~agrees)
    expect(
        not np.any(wrong < 2) and len(wrong) <= _NUM_POINTS // 4,  # the first two are the ends; two may sit on a kink
        f"{name}.derivatives disagree with differences at {len(wrong)} of {_NUM_POINTS} points, "
        + "; ".join(f"t = {points[i, 0]:g}: {slope[i]:.5g}, not {grid_slopes[0][1][i]:.5g}" for i in wrong[:2]),
    )


def _slopes(
    name: str,
    interpolation: AbstractInterpolation,
    points: Float[np.ndarray, "n dim+1"],
    direction: Float[np.ndarray, "n dim+1"],
) -> tuple[np.ndarray, list[tuple[float, np.ndarray, np.ndarray]], np.ndarray]:
    """The slopes by `derivatives`; for two steps the slopes by differences, fine and coarse; the size of the energy."""

    @eqx.filter_jit
    @jax.vmap
    def along(point, toward):
        df_dt, grad = interpolation.derivatives(point[0], point[1:])
        expect(
            df_dt.shape == () and grad.shape == point[1:].shape,
            f"{name}.derivatives must return shapes () and {point[1:].shape}, got {df_dt.shape} and {grad.shape}",
        )
        at = jax.vmap(lambda length: _at(interpolation, point + length * toward))(lengths)
        return df_dt * toward[0] + jnp.sum(grad * toward[1:]), at

    eps = float(jnp.finfo(points.dtype).eps)
    steps = [eps ** (1 / 3), eps**0.5]
    lengths = jnp.asarray([0.0] + [k * step for step in steps for k in (1, 2, 4)], points.dtype)
    slope, at = (np.asarray(a, np.float64) for a in along(points, direction))
    found = []
    for i, step in enumerate(steps):
        here, one, two, four = at[:, 0], *at[:, 1 + 3 * i : 4 + 3 * i].T
        found.append((step, (-3 * here + 4 * one - two) / (2 * step), (-3 * here + 4 * two - four) / (4 * step)))
    return slope, found, np.max(np.abs(at), axis=1)


def _at(interpolation: AbstractInterpolation, point: Float[Array, " dim+1"]) -> Float[Array, ""]:
    return interpolation.energy(point[0], point[1:])


# --- velocity fields -------------------------------------------------------------------------------------------------


def check_vector_field(field: AbstractVectorField, key: PRNGKeyArray, *, scale: float = 1.0) -> None:
    """Checks that `field` keeps the contract of `AbstractVectorField`, at 8 points drawn from N(0, scale²).

    Both methods give the same velocity, finite, of the shape and type of x, the same under `jax.jit` and `jax.vmap`;
    the divergence is the trace of the Jacobian, in double precision to 1e-9. The trainable arrays are randomized
    first, because a field that is zero has the divergence of any other zero. Raises `AssertionError`.
    """
    name = type(field).__name__
    expect(isinstance(field.dim, int) and field.dim > 0, f"{name}.dim must be a positive int, got {field.dim!r}")
    field, rng = randomize(field, key), numpy_generator(key)
    t, x = _times(rng), scale * rng.standard_normal((_NUM_POINTS, field.dim))
    _check_outputs(name, field, jnp.asarray(t, float), jnp.asarray(x, float))
    with jax.enable_x64(True):
        trained, fixed = eqx.partition(field, trainable(field))
        double = eqx.combine(jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), trained), fixed)
        _check_divergence(name, double, jnp.asarray(t, jnp.float64), jnp.asarray(x, jnp.float64))


def _check_outputs(name: str, field: AbstractVectorField, t: Float[Array, " n"], x: Float[Array, "n dim"]) -> None:
    """Velocity and divergence have their shape and type, and the same value however they are called."""

    def fn(module, time, point):
        return module.velocity_and_divergence(time, point)

    pairs = [(jnp.asarray(time), jnp.asarray(point)) for time, point in zip(np.asarray(t), np.asarray(x), strict=True)]
    compiled, eager = eqx.filter_jit(fn), fn(field, *pairs[0])
    alone = [compiled(field, *pair) for pair in pairs]
    batched = eqx.filter_jit(jax.vmap(fn, (None, 0, 0)))(field, t, x)
    for part, (word, shape) in enumerate((("velocity", (field.dim,)), ("divergence", ()))):
        what, batch, first = f"the {word} of {name}", np.asarray(batched[part]), eager[part]
        expect(first.shape == shape, f"{what} must have shape {shape}, got {first.shape}")
        expect(first.dtype == x.dtype, f"{what} must keep the type of x, {x.dtype}, got {first.dtype}")
        expect(np.all(np.isfinite(batch)), f"{what} is not finite near the origin: {batch}")
        values, size = np.stack([pair[part] for pair in alone]), np.max(np.abs(batch))
        expect_close(f"{what} with and without jax.vmap", batch[0], first, size)
        expect_close(f"{what} with and without jax.jit", values[0], first, size)
        expect_close(f"{what} with jax.vmap and with jax.jit", batch, values, size)


def _check_divergence(name: str, field: AbstractVectorField, t: Float[Array, " n"], x: Float[Array, "n dim"]) -> None:
    @eqx.filter_jit
    @jax.vmap
    def both(time, point):
        velocity, divergence = field.velocity_and_divergence(time, point)
        jacobian = jax.jacfwd(lambda at: field.velocity(time, at))(point)
        return field.velocity(time, point), velocity, divergence, jnp.diagonal(jacobian)

    alone, velocity, divergence, diagonal = (np.asarray(a) for a in both(t, x))
    expect(divergence.dtype == np.float64, f"{name} must keep the type of x, float64, got {divergence.dtype}")
    off = np.abs(alone - velocity)
    expect(
        np.all(off <= _RELATIVE_DIVERGENCE_ERROR * (1e-3 + np.abs(velocity))),
        f"both methods of {name} must give the same velocity, they differ by {off.max():.3g}",
    )
    trace = diagonal.sum(axis=1)
    error = np.abs(divergence - trace)
    worst = int(np.argmax(error))
    expect(
        np.all(error <= _RELATIVE_DIVERGENCE_ERROR * (1e-3 + np.abs(diagonal).sum(axis=1))),
        f"the divergence of {name} must be the trace of its Jacobian, got {divergence[worst]:.12g} and "
        f"{trace[worst]:.12g}",
    )


# --- penalties -------------------------------------------------------------------------------------------------------


def check_penalty(penalty: Callable[[Any], Any]) -> None:
    """Checks that `penalty` may take the place of L(r) in the continuity loss (16).

    It is elementwise, finite with a finite gradient from r = 0 to 10⁶, even in r, smallest at 0, never decreases with
    |r|, and is not constant. Raises `AssertionError`.
    """
    r = np.append(0.0, np.logspace(-6, 6, 97))
    both = jnp.asarray(np.append(r, -r), float)
    values = np.asarray(penalty(both))
    expect(values.shape == both.shape, f"a penalty must be elementwise: shape {both.shape} gave {values.shape}")
    expect(np.all(np.isfinite(values)), f"a penalty must be finite, got {values[~np.isfinite(values)]}")
    values, mirrored = np.split(values, 2)
    expect(np.array_equal(values, mirrored), "a penalty must be even in r")
    expect(np.all(np.diff(values) >= 0), "a penalty must not decrease with |r|")
    expect(values[-1] > values[0], "a penalty must be larger far from r = 0 than there")
    finite = np.isfinite(jax.jit(jax.vmap(jax.grad(lambda one: penalty(one))))(both))
    expect(np.all(finite), f"the gradient of a penalty must be finite, not so at {both[~finite]}")
