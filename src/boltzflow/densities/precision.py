"""The precision of a run's answers, and the error that the rounding of an energy leaves in log Z."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jaxtyping import Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.programs import computing, fingerprint
from boltzflow.numerics.tracing import open_jaxpr, sub_jaxprs

Precision = Literal["auto", "double", "single"]

_NUM_POINTS = 1000
_NUM_PERTURBATIONS = 8  # of the constants
_STEP = 1e-3  # of the fourth difference, in units of the spread of the points
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
_ROUNDING_OF_DATA = 12**-0.5  # the standard deviation of a rounding error in units of the last place
_TRAINABLE_NOISE = 0.01  # of an energy in single precision: more would drown the residual


@dataclass(frozen=True)
class Programs:
    """The compiled programs of one target as it was when this was made, and the precision of its answers.

    Args:
        fingerprint: That of the energy with all of its data.
        double: Whether answers are in double precision.
        shared: That of the energy without the values of the target's own arrays, which are arguments of every program:
            targets that differ in these alone share programs.
    """

    fingerprint: str
    double: bool
    shared: str

    def answering(self) -> contextlib.AbstractContextManager[None]:
        """Compute what a user reads."""
        return computing(self.shared, double=self.double)

    def of_observable(self, fn: Callable[[Any], Any], dim: int) -> contextlib.AbstractContextManager[None]:
        """Compute what a user reads, with programs of this observable as it is now."""
        with jax.enable_x64(self.double):
            of_fn = fingerprint(fn, jax.ShapeDtypeStruct((dim,), _float()))
        return computing(f"{self.shared} {of_fn}", double=self.double)

    def training(self, double: bool) -> contextlib.AbstractContextManager[None]:
        """Compute optimizer steps."""
        return computing(self.shared, double=double)


def programs_of(target: AbstractDensity, precision: Precision = "auto", extra: str = "") -> Programs:
    """The programs of `target` as it is now; `extra` tells them from others of the same target.

    "auto" is double precision on CPUs and single precision on accelerators, or where the energy cannot be evaluated in
    double precision.

    Raises:
        InputError: `precision` is "double" and the energy cannot be evaluated in it.
    """
    double = precision == "double" or (precision == "auto" and jax.default_backend() == "cpu")
    if double and (reason := _refusal(target)):
        if precision == "double":
            raise InputError(f"the energy cannot be evaluated in double precision: {reason}")
        double = False
    return Programs(energy_fingerprint(target, double) + extra, double, _shared_fingerprint(target, double) + extra)


def energy_fingerprint(target: AbstractDensity, double: bool) -> str:
    """The fingerprint of the energy of `target` and of its gradient."""
    with jax.enable_x64(double):
        point = jax.ShapeDtypeStruct((target.dim,), _float())
        return fingerprint(jax.value_and_grad(target.energy), point)


def _shared_fingerprint(target: AbstractDensity, double: bool) -> str:
    """The same with the target's arrays as arguments, so that their values are not part of it."""
    arrays, rest = eqx.partition(target, eqx.is_array)

    def value_and_gradient(arrays: Any, x: Any) -> Any:
        return jax.value_and_grad(eqx.combine(arrays, rest).energy)(x)

    with jax.enable_x64(double):
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), arrays)
        return fingerprint(value_and_gradient, shapes, jax.ShapeDtypeStruct((target.dim,), _float()))


def _float() -> np.dtype:
    """The floating type in force."""
    return jax.dtypes.canonicalize_dtype(float)


def _refusal(target: AbstractDensity) -> str:
    """Why the energy has no value or gradient in double precision where it has both in single; or ""."""
    try:
        with jax.enable_x64(True):
            jax.eval_shape(jax.value_and_grad(target.energy), jax.ShapeDtypeStruct((target.dim,), jnp.float64))
    except Exception as error:  # whatever a user's function raises
        try:
            with jax.enable_x64(False):
                jax.eval_shape(jax.value_and_grad(target.energy), jax.ShapeDtypeStruct((target.dim,), jnp.float32))
        except Exception:  # wrong in both: the checks of the energy say how
            return ""
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def trains_in_single(target: AbstractDensity, x: Float[np.ndarray, "num dim"]) -> bool:
    """Whether single precision gives the energies at points of the target to a hundredth, up to a constant offset.

    A constant is learned with C_t, but not the roundings beside it. `x` is in double precision, and so is the caller.
    """
    x = np.asarray(x, np.float64)[:_NUM_POINTS]
    exact = np.asarray(map_points(target.energy, x), np.float64)
    with jax.enable_x64(False):
        found = np.asarray(map_points(target.energy, x.astype(np.float32)), np.float64)
    known = np.isfinite(exact)
    difference = (found - exact)[known]
    return bool(np.isfinite(difference).all() and np.std(difference) <= _TRAINABLE_NOISE) if known.any() else True


def rounding_error(target: AbstractDensity, x: Float[np.ndarray, "num dim"]) -> float:
    """The error of log Z from the rounding of the energy, measured at points `x` of the target.

    It adds, in quadrature: the noise of the energy, from its fourth differences, which vanish for a smooth function;
    the mean change of the energy where its constants in single precision change by their rounding; and, where answers
    are in single precision, the mean change of the energy between single and double precision.
    """
    x = np.asarray(x, np.float64)
    x = x[:: max(1, len(x) // _NUM_POINTS)][:_NUM_POINTS]
    parts = [_noise(target, x), _error_of_constants(target, x)]
    if _float() == np.float32:
        parts.append(shift_of_single(target, x))
    return float(np.linalg.norm(np.array(parts)))


def _noise(target: AbstractDensity, x: Float[np.ndarray, "num dim"]) -> float:
    """The scatter of the energy about a smooth function: the median |Δ⁴ f| along random directions, as an RMS.

    Where the energy is rounded more coarsely than it changes in a step, most differences vanish. Then the smallest gap
    between two of its values is the unit of its rounding.
    """
    directions = np.random.default_rng(0).normal(size=x.shape) / np.sqrt(x.shape[1])
    step = _STEP * np.linalg.norm(x - x.mean(axis=0), axis=1, keepdims=True) * directions
    values = np.stack([np.asarray(map_points(target.energy, x + k * step), np.float64) for k in range(-2, 3)])
    fourth = np.abs(_FOURTH @ values)
    fourth = fourth[np.isfinite(fourth)]
    if not len(fourth):
        return 0.0
    if median := float(np.median(fourth)):
        return median / 0.6745 / float(np.linalg.norm(_FOURTH))
    gaps = np.diff(np.unique(values[np.isfinite(values)]))
    return _ROUNDING_OF_DATA * float(gaps.min()) if len(gaps) else 0.0


def _error_of_constants(target: AbstractDensity, x: Float[np.ndarray, "num dim"]) -> float:
    """The RMS, over perturbations, of the mean change of the energy when its float32 constants change by a rounding."""
    point = jax.ShapeDtypeStruct((x.shape[1],), _float())
    program = jax.make_jaxpr(lambda x: target.energy(x))(point)
    constants: list[Any] = []

    def kept(constant: Any) -> Any:
        constants.append(constant)
        return constant

    _with_constants(program, kept)
    if not any(map(_is_rounded, constants)):
        return 0.0
    rng = np.random.default_rng(0)
    before = np.asarray(map_points(target.energy, x), np.float64)
    shifts = []
    for _ in range(_NUM_PERTURBATIONS):
        perturbed = _with_constants(program, lambda constant: _perturbed(constant, rng))
        [after] = compiled(jax.vmap(jaxpr_as_fun(perturbed)))(jnp.asarray(x, float))
        change = np.asarray(after, np.float64) - before
        shifts.append(float(np.mean(change[np.isfinite(change)])) if np.isfinite(change).any() else 0.0)
    return float(_ROUNDING_OF_DATA * np.sqrt(np.mean(np.array(shifts) ** 2)))


def _is_rounded(constant: Any) -> bool:
    """Whether a constant is in single precision and not of whole numbers."""
    return getattr(constant, "dtype", None) == np.float32 and bool(np.any(constant != np.round(constant)))


def _perturbed(constant: Any, rng: np.random.Generator) -> Any:
    """The constant, each entry moved by a unit in its last place at random, if it is in single precision."""
    if not _is_rounded(constant):
        return constant
    array = np.asarray(constant)
    return np.nextafter(array, rng.choice([-np.inf, np.inf], array.shape).astype(np.float32))


def _with_constants(program: Any, change: Callable[[Any], Any]) -> Any:
    """A program with changed constants, those of programs inside it too, as of the user's own `jax.jit`."""
    if isinstance(program, (tuple, list)):
        return type(program)(_with_constants(item, change) for item in program)
    if not isinstance(program, (ClosedJaxpr, Jaxpr)):
        return program
    inner = open_jaxpr(program)
    equations = [
        eqn.replace(params={name: _with_constants(value, change) for name, value in eqn.params.items()})
        if any(sub_jaxprs(eqn))
        else eqn
        for eqn in inner.eqns
    ]
    if not isinstance(program, ClosedJaxpr):
        return inner.replace(eqns=equations)
    return ClosedJaxpr(inner.replace(eqns=equations), [change(constant) for constant in program.consts])


def shift_of_single(target: AbstractDensity, x: Float[np.ndarray, "num dim"]) -> float:
    """|log of the mean of exp(f_single - f_double)|: what log Z loses by single precision; 0 where not measurable."""
    x = np.asarray(x, np.float64)[:_NUM_POINTS]
    if _refusal(target):
        return 0.0
    with jax.enable_x64(False):
        single = np.asarray(map_points(target.energy, x.astype(np.float32)), np.float64)
    with jax.enable_x64(True):
        double = np.asarray(map_points(target.energy, x.astype(np.float32).astype(np.float64)), np.float64)
    change = (single - double)[np.isfinite(single - double)]
    return float(abs(np.logaddexp.reduce(change) - np.log(len(change)))) if len(change) else 0.0
