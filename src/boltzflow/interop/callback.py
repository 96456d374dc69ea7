"""Energies computed outside JAX, by any Python function that returns energies and gradients of a batch of points."""

import functools
import queue
import threading
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError
from boltzflow.numerics.gradient_check import slopes
from boltzflow.numerics.validation import dimension, one_point, positive_number

_NUM_DIRECTIONS = 8  # at each point of the gradient check
_MAX_SLOPE_ERROR = 1e-3  # relative to the length of the gradient
_ENERGY_NOISE = 1e-9  # relative
_FREED_BYTES = 31 * 2**20  # glibc ignores freed blocks of 32 MiB and more
Function = Callable[[np.ndarray], tuple[Any, Any]]


class Callback(AbstractDensity):
    """The density p ∝ exp(-energy) of a function from points to energies and gradients, in units of kT.

    At construction the gradient is compared with finite differences of the energy.

    Args:
        fn: Takes a NumPy array `(num, dim)` in double precision; returns energies `(num,)` and gradients `(num, dim)`.
        dim: The dimension, at least 1.
        time_limit: How long one call may take, in s, before the run is stopped.
        check_at: Points `(num, dim)` at which the gradient is checked; by default four of a Gaussian.
        check_scale: The standard deviation of that Gaussian, in the units of x.

    Raises:
        InputError: The gradient is wrong, or `fn` fails, takes too long or returns arrays of other shapes.
    """

    dim: int = eqx.field(static=True)
    call: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = eqx.field(static=True)

    def __init__(
        self, fn: Function, dim: int, *, time_limit: float = 600.0, check_at: Any = None, check_scale: float = 1.0
    ):
        self.dim = dimension("dim", dim)
        self.call = _Caller(fn, positive_number("time_limit", time_limit))
        if check_at is None:
            check_at = positive_number("check_scale", check_scale) * np.random.default_rng(0).normal(size=(4, self.dim))
        check_gradient(self.call, np.asarray(check_at, np.float64).reshape(-1, self.dim))

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return _energy(self.call, one_point(x, self.dim))


def check_gradient(
    call: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], points: Float[np.ndarray, "num dim"]
) -> None:
    """Compare the gradient with central differences of the energy, along eight random directions at each point.

    Args:
        call: Takes points `(num, dim)`; returns energies `(num,)` and gradients `(num, dim)`.
        points: Where to compare, `(num, dim)`.

    Raises:
        InputError: The gradient is not that of the energy, or no energy is finite.
    """
    directions = np.random.default_rng(1).normal(size=(_NUM_DIRECTIONS * len(points), points.shape[1]))
    gradients = np.tile(call(points)[1], (_NUM_DIRECTIONS, 1))
    points = np.tile(points, (_NUM_DIRECTIONS, 1))
    found = slopes(lambda x: call(x)[0], gradients, points, directions, step=1e-4, noise=_ENERGY_NOISE)
    usable = np.isfinite(found.difference) & np.isfinite(found.claimed)
    if not usable.any():
        raise InputError("the energy is not finite at any point where its gradient was to be checked: give check_at")
    length = np.maximum(np.linalg.norm(gradients, axis=1), 1.0)
    wrong = usable & found.wrong(_MAX_SLOPE_ERROR * length)
    if wrong.any():
        worst = np.argmax(np.where(wrong, np.abs(found.difference - found.claimed) / length, 0))
        where = np.array2string(points[worst], precision=4, threshold=6)
        raise InputError(
            f"the gradient is not that of the energy: at x = {where} the energy changes by "
            f"{found.difference[worst]:.6g} per unit along a direction in which the gradient gives "
            f"{found.claimed[worst]:.6g}"
        )


class _Caller:
    """Calls the function in a separate thread with a time limit, and checks the shapes of its results."""

    def __init__(self, fn: Function, time_limit: float):
        self._fn = fn
        self._time_limit = time_limit
        self._worker: tuple[queue.SimpleQueue, queue.SimpleQueue] | None = None

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        worker = self._worker or _start_worker(self._fn)
        self._worker = None  # a worker that does not answer in time is not used again
        worker[0].put(x)
        try:
            outcome = worker[1].get(timeout=self._time_limit)
        except queue.Empty:
            raise InputError(f"the energy took more than {self._time_limit:g} s for {len(x)} points") from None
        self._worker = worker
        if isinstance(outcome, BaseException):
            what = " ".join(str(outcome).split())[:300]
            raise InputError(f"the energy fails: {type(outcome).__name__}: {what}") from outcome
        try:
            energy, gradient = (np.asarray(part, np.float64) for part in outcome)
        except (TypeError, ValueError) as error:
            raise InputError(f"the energy must return energies and gradients: {error}") from None
        if energy.shape != (len(x),) or gradient.shape != x.shape:
            raise InputError(
                f"expected energies of shape {(len(x),)} and gradients of shape {x.shape}, got {energy.shape} and "
                f"{gradient.shape}"
            )
        return energy, gradient


def _start_worker(fn: Function) -> tuple[queue.SimpleQueue, queue.SimpleQueue]:
    """The points and outcomes of a thread that serves many calls: a new one for each would map its memory anew."""
    points: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        while True:
            x = points.get()
            try:
                outcomes.put(fn(x))
            except BaseException as error:  # whatever a user's function raises, SystemExit among it
                outcomes.put(error)

    # glibc's `malloc` maps arrays of 128 KiB and more from the kernel at every call, until a larger block has been
    # freed; then it keeps freed blocks up to that size. Other allocators ignore this.
    np.empty(_FREED_BYTES, np.uint8)
    threading.Thread(target=work, daemon=True).start()  # a thread that hangs does not keep the process alive
    return points, outcomes


def _host(call, x):
    energy, gradient = call(np.array(x, np.float64).reshape(-1, x.shape[-1]))  # a copy that the function may keep
    return energy.reshape(x.shape[:-1]), gradient.reshape(x.shape)


@np.errstate(over="ignore")  # a value beyond single precision becomes infinite
def _in_place(call, _context, results, x):
    for place, values in zip(results, _host(call, np.asarray(x)), strict=True):
        np.asarray(place)[...] = values


@np.errstate(over="ignore")
def _copied(call, x):
    return tuple(values.astype(x.dtype) for values in _host(call, x))


def _both(call, x):
    """Energy and gradient of a point or a batch, on a CPU without the copies of `pure_callback` (docs/decisions.md)."""
    result = jax.ShapeDtypeStruct((), x.dtype), jax.ShapeDtypeStruct(x.shape, x.dtype)
    batched = {"vmap_method": "broadcast_all"}
    return jax.lax.platform_dependent(
        x,
        cpu=buffer_callback(functools.partial(_in_place, call), result, **batched),
        default=functools.partial(jax.pure_callback, functools.partial(_copied, call), result, **batched),
    )


def _energy(call, x):
    @jax.custom_jvp
    def energy(x):
        return _both(call, x)[0]

    @energy.defjvp
    def _(primals, tangents):
        value, gradient = _both(call, primals[0])
        return value, jnp.dot(gradient, tangents[0])

    return energy(x)
