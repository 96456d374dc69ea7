"""Energies from outside JAX: any Python function that returns energies and gradients, in batches.

Training needs values and first derivatives of an energy and nothing else, so an energy of NumPy, SciPy, a simulator or
another process serves as well as one that JAX can see. Calls are not counted twice: value and gradient come together.
"""

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
from boltzflow.numerics.validation import one_point, positive_number, whole_number

_NUM_CHECKED = 8
_MAX_SLOPE_ERROR = 1e-3
_TAUGHT_BYTES = 31 * 2**20  # just below the 32 MiB from which glibc learns nothing
Function = Callable[[np.ndarray], tuple[Any, Any]]


class Callback(AbstractDensity):
    """The density p ∝ exp(-energy) of a function from points to energies and gradients, in units of kT.

    `fn` takes a NumPy array of shape `(num, dim)`, in double precision, and returns energies `(num,)` and their
    gradients `(num, dim)`. `time_limit` in seconds is how long one call may take before the run is stopped. At
    construction the gradient is compared with finite differences of the energy at `check_at`, points `(num, dim)` (by
    default some of a Gaussian of width `check_scale`), and a wrong one is refused with the numbers. Raises `InputError`
    there, and where what `fn` returns has another shape.
    """

    dim: int = eqx.field(static=True)
    call: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = eqx.field(static=True)

    def __init__(
        self, fn: Function, dim: int, *, time_limit: float = 600.0, check_at: Any = None, check_scale: float = 1.0
    ):
        self.dim = whole_number("dim", dim, at_least=1)
        self.call = _Caller(fn, self.dim, positive_number("time_limit", time_limit))
        if check_at is None:
            check_at = positive_number("check_scale", check_scale) * np.random.default_rng(0).normal(size=(4, self.dim))
        check_gradient(self.call, np.asarray(check_at, np.float64).reshape(-1, self.dim))

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The energy of one point; many points under `jax.vmap` are one call."""
        return _energy(self.call, one_point(x, self.dim))


def check_gradient(call: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], points: Float[np.ndarray, "num dim"]):
    """Raises `InputError` where the gradient is not the slope of the energy, along random directions at each point."""
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(_NUM_CHECKED, *points.shape))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    step = 1e-4 * np.maximum(1.0, np.abs(points).max())
    energies, gradients = call(points)
    ahead, behind = (
        call((points + sign * step * direction).reshape(-1, points.shape[1]))[0].reshape(_NUM_CHECKED, -1)
        for sign in (1, -1)
    )
    slope, claimed = (ahead - behind) / (2 * step), np.sum(gradients * direction, axis=-1)
    scale = np.maximum(np.linalg.norm(gradients, axis=-1), 1.0) + 1e-6 * np.abs(energies) / step
    usable = np.isfinite(slope) & np.isfinite(claimed)
    if not usable.any():
        raise InputError("the energy is not finite at any point where its gradient was to be checked: give check_at")
    error = np.where(usable, np.abs(slope - claimed) / scale, 0.0)
    if error.max() > _MAX_SLOPE_ERROR:
        k, i = np.unravel_index(np.argmax(error), error.shape)
        where = np.array2string(points[i], precision=4, threshold=6)
        raise InputError(
            f"the gradient is not that of the energy: at x = {where} the energy changes by {slope[k, i]:.6g} per unit "
            f"along a direction in which the gradient says {claimed[k, i]:.6g}"
        )


class _Caller:
    """Calls the function in a thread of its own, checks the shapes of what it returns, and waits for so long."""

    def __init__(self, fn: Function, dim: int, time_limit: float):
        self._fn, self._dim, self._time_limit = fn, dim, time_limit
        self._worker: _Worker | None = None

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        worker = self._worker or _Worker(self._fn)
        self._worker = None  # until it has answered: one that hangs is never asked again
        try:
            outcome = worker.ask(x, self._time_limit)
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


class _Worker:
    """A thread that lives on between calls: a new one for every call has its memory to fetch anew each time."""

    def __init__(self, fn: Function):
        self._questions: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        _keep_memory()
        work = functools.partial(_work, fn, self._questions, self._answers)
        threading.Thread(target=work, daemon=True).start()  # one that hangs does not keep the process alive

    def ask(self, x: np.ndarray, time_limit: float) -> Any:
        """What the function returns, or the exception that it raises; raises `queue.Empty` after `time_limit` s."""
        self._questions.put(x)
        return self._answers.get(timeout=time_limit)


def _keep_memory() -> None:
    """Lets freed memory stay with the process, for the next call to use.

    NumPy's temporary arrays come from `malloc`. That of glibc fetches those of 128 KiB and more from the kernel, page
    by page, and gives them back, at every call, until a larger block has been freed: then blocks of up to its size are
    kept, and of unused memory twice as much. So one is freed, which was never touched. Elsewhere nothing happens.
    """
    np.empty(_TAUGHT_BYTES, np.uint8)


def _work(fn: Function, questions: "queue.SimpleQueue[np.ndarray]", answers: "queue.SimpleQueue[Any]") -> None:
    while True:
        x = questions.get()
        try:
            answers.put(fn(x))
        except BaseException as error:  # whatever a user's function raises, SystemExit among it
            answers.put(error)


def _host(call, x):
    energy, gradient = call(np.array(x, np.float64).reshape(-1, x.shape[-1]))  # its own: the function may keep it
    return energy.reshape(x.shape[:-1]), gradient.reshape(x.shape)


@np.errstate(over="ignore")  # what is beyond single precision is infinite, and counted as such
def _in_place(call, _context, results, x):
    for place, values in zip(results, _host(call, np.asarray(x)), strict=True):
        np.asarray(place)[...] = values


@np.errstate(over="ignore")
def _copied(call, x):
    return tuple(values.astype(x.dtype) for values in _host(call, x))


def _both(call, x):
    """Energy and gradient, on a CPU written straight into XLA's memory.

    `jax.pure_callback` first makes a `jax.Array` of what it is given, which took a third of a millisecond where the
    energy had swept the caches, half of all that the callback cost.
    """
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
