"""Contract checks of interpolations, velocity fields and penalties of the residual."""

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
from boltzflow.numerics.gradient_check import FORWARD, slopes
from boltzflow.testing.asserts import check_function, expect

_NUM_POINTS = 8
_RELATIVE_ERROR = 1e-9  # of velocity and divergence in double precision


def randomize(tree: PyTree, key: PRNGKeyArray, scale: float = 0.3) -> PyTree:
    """Add noise to every array of `tree` that training may change: a network of zeros keeps every contract trivially.

    Args:
        tree: A pytree, such as an interpolation or a vector field.
        key: The key of the noise.
        scale: The standard deviation of the noise.
    """
    rng = numpy_generator(key)

    def move(leaf):
        return jnp.asarray(np.asarray(leaf) + scale * rng.standard_normal(leaf.shape), leaf.dtype)

    trained, fixed = eqx.partition(tree, trainable(tree))
    return eqx.combine(jax.tree.map(move, trained), fixed)


def check_interpolation(interpolation: AbstractInterpolation, key: PRNGKeyArray) -> None:
    """Check that `interpolation` keeps the contract of `AbstractInterpolation`, at 8 points drawn from its base.

    At t = 0 and t = 1 the energy equals that of base and target exactly. The energy is a finite scalar of the type of x
    for t from 0 to 1, also under `jax.jit` and `jax.vmap`. `derivatives` agrees with differences in t and x. Training
    moves neither base nor target. The trainable arrays are randomized first. A path that is singular at another t is
    not seen.

    Args:
        interpolation: The interpolation to check.
        key: The key of the points, the directions and the noise.

    Raises:
        AssertionError: The first part of the contract that is broken, in one sentence.
    """
    name = type(interpolation).__name__
    marked = trainable(interpolation)
    for end in ("base", "target"):
        is_fixed = isinstance(getattr(interpolation, end), AbstractFixed)
        expect(
            is_fixed and not any(jax.tree.leaves(getattr(marked, end))),
            f"training would move arrays of {name}.{end}, which must be an AbstractDensity",
        )
    interpolation = randomize(interpolation, key)
    rng = numpy_generator(key)
    sample = eqx.filter_jit(lambda base, keys: jax.vmap(base.sample_and_log_prob)(keys)[0])
    x = np.asarray(sample(interpolation.base, jax.random.split(key, _NUM_POINTS)))
    _check_ends(name, interpolation, x)
    points = np.concatenate([_times(rng)[:, None], x], axis=1, dtype=x.dtype)
    outputs = {f"{name}.energy": ((), f"return a scalar for (t, x) of shape {points.shape[1:]}")}
    check_function(interpolation, lambda path, at: (path.energy(at[0], at[1:]),), jnp.asarray(points), outputs)
    direction = rng.standard_normal(points.shape).astype(x.dtype)
    direction[:, 0] = np.where(points[:, 0] < 0.5, 1, -1)  # the path is defined on [0, 1] only
    _check_derivatives(name, interpolation, points, direction)


def _times(rng: np.random.Generator) -> np.ndarray:
    """Times in [0, 1]; the first two are 0 and 1."""
    return np.concatenate([[0.0, 1.0], rng.uniform(size=_NUM_POINTS - 2)])


def _check_ends(name: str, interpolation: AbstractInterpolation, x: Float[np.ndarray, "n dim"]) -> None:
    """Compare the energies at t = 0 and 1 with those of base and target, to the last bit."""

    def energy(module, *at):
        return module.energy(*at)

    for time, end in ((0.0, "base"), (1.0, "target")):
        t = jnp.asarray(time, x.dtype)
        for how, fn in (("", energy), (" under jax.jit", eqx.filter_jit(energy))):
            for point in map(jnp.asarray, x[:3]):
                got = fn(interpolation, t, point)
                wanted = fn(getattr(interpolation, end), point)
                what = f"{name}.energy at t = {time:g} must be that of the {end} to the last bit{how}"
                expect(np.array_equal(got, wanted), f"{what}, got {float(got):.9g} and {float(wanted):.9g}")


def _check_derivatives(
    name: str,
    interpolation: AbstractInterpolation,
    points: Float[np.ndarray, "n time_and_dim"],
    direction: Float[np.ndarray, "n time_and_dim"],
) -> None:
    """Compare `derivatives` with forward differences at two steps: a path may be steep on the scale of the longer."""

    @eqx.filter_jit
    @jax.vmap
    def derivatives(point):
        df_dt, grad = interpolation.derivatives(point[0], point[1:])
        wanted = f"{name}.derivatives must return shapes () and {point[1:].shape}"
        fits = df_dt.shape == () and grad.shape == point[1:].shape
        expect(fits, f"{wanted}, got {df_dt.shape} and {grad.shape}")
        return jnp.append(df_dt, grad)

    energy = eqx.filter_jit(jax.vmap(lambda point: interpolation.energy(point[0], point[1:])))
    gradients = np.asarray(derivatives(points), np.float64)
    finite = np.all(np.isfinite(gradients), axis=1)
    expect(np.all(finite), f"{name}.derivatives are not finite at t = {points[~finite, 0]}")
    eps = float(np.finfo(points.dtype).eps)
    both = [slopes(energy, gradients, points, direction, stencil=FORWARD, step=eps**p) for p in (1 / 3, 1 / 2)]
    wrong = np.flatnonzero(both[0].wrong() & both[1].wrong())
    first = (f"t = {points[i, 0]:g}: {both[0].claimed[i]:.5g}, not {both[0].difference[i]:.5g}" for i in wrong[:2])
    expect(
        not np.any(wrong < 2) and len(wrong) <= _NUM_POINTS // 4,  # the first two are the ends; two may sit on a kink
        f"{name}.derivatives disagree with differences at {len(wrong)} of {_NUM_POINTS} points, {'; '.join(first)}",
    )


def check_vector_field(field: AbstractVectorField, key: PRNGKeyArray, *, scale: float = 1.0) -> None:
    """Check that `field` keeps the contract of `AbstractVectorField`, at 8 points drawn from N(0, scale²).

    Both methods give the same velocity, finite, of the shape and type of x, also under `jax.jit` and `jax.vmap`. The
    divergence is the trace of the Jacobian, in double precision to 1e-9. The trainable arrays are randomized first.

    Args:
        field: The vector field to check.
        key: The key of the points and the noise.
        scale: The standard deviation of the points, in the units of x.

    Raises:
        AssertionError: The first part of the contract that is broken, in one sentence.
    """
    name = type(field).__name__
    expect(isinstance(field.dim, int) and field.dim > 0, f"{name}.dim must be a positive int, got {field.dim!r}")
    field = randomize(field, key)
    rng = numpy_generator(key)
    t = _times(rng)
    x = scale * rng.standard_normal((_NUM_POINTS, field.dim))
    shapes = {f"the velocity of {name}": (field.dim,), f"the divergence of {name}": ()}
    outputs = {what: (shape, f"have shape {shape}") for what, shape in shapes.items()}
    points = jnp.asarray(np.concatenate([t[:, None], x], axis=1), float)
    check_function(field, lambda f, at: f.velocity_and_divergence(at[0], at[1:]), points, outputs, to_largest=True)
    with jax.enable_x64(True):
        trained, fixed = eqx.partition(field, trainable(field))
        double = eqx.combine(jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), trained), fixed)
        _check_divergence(name, double, jnp.asarray(t, jnp.float64), jnp.asarray(x, jnp.float64))


def _check_divergence(name: str, field: AbstractVectorField, t: Float[Array, " n"], x: Float[Array, "n dim"]) -> None:
    """Compare both velocities, and the divergence with the trace of the Jacobian, in double precision."""

    @eqx.filter_jit
    @jax.vmap
    def both(time, point):
        velocity, divergence = field.velocity_and_divergence(time, point)
        jacobian = jax.jacfwd(lambda at: field.velocity(time, at))(point)
        return field.velocity(time, point), velocity, divergence, jnp.diagonal(jacobian)

    alone, velocity, divergence, diagonal = (np.asarray(a) for a in both(t, x))
    expect(divergence.dtype == np.float64, f"{name} must keep the type of x, float64, got {divergence.dtype}")
    off = np.abs(alone - velocity)
    same = np.all(off <= _RELATIVE_ERROR * (1e-3 + np.abs(velocity)))
    expect(same, f"both methods of {name} must give the same velocity, they differ by {off.max():.3g}")
    trace = diagonal.sum(axis=1)
    error = np.abs(divergence - trace)
    both_at_worst = f"{divergence[error.argmax()]:.12g} and {trace[error.argmax()]:.12g}"
    right = np.all(error <= _RELATIVE_ERROR * (1e-3 + np.abs(diagonal).sum(axis=1)))
    expect(right, f"the divergence of {name} must be the trace of its Jacobian, got {both_at_worst}")


def check_penalty(penalty: Callable[[Any], Any]) -> None:
    """Check that `penalty` can serve as L(r) in the continuity loss (16).

    L is elementwise, finite with a finite gradient up to r = 10⁶, even in r, never falls with |r|, and is not constant.

    Args:
        penalty: Maps residuals of any shape to penalties of the same shape.

    Raises:
        AssertionError: The first property that is missing, in one sentence.
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
    finite = np.isfinite(jax.jit(jax.vmap(jax.grad(penalty)))(both))
    expect(np.all(finite), f"the gradient of a penalty must be finite, not so at {both[~finite]}")
