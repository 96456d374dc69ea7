"""Constants of a traced function: NumPy arrays in the precision of the trace, and what is stored in single precision.

JAX keeps the typed form of a NumPy array that it met in a trace, by the identity of the array alone. As long as a
compiled program in single precision lives, a trace in double precision gets the array's single-precision form: an MLIR
error in some operations, and single precision without a word in others. The same form is used after the array was
changed in place.
"""

import functools
import importlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from boltzflow.numerics.tracing import open_jaxpr, sub_jaxprs


@functools.cache
def separate_precisions() -> bool:
    """Make every trace convert NumPy arrays anew, in its own precision and from their present content.

    JAX has no public setting for this. Where its internals have changed, nothing is done.

    Returns:
        Whether traces in single and in double precision now keep apart, by a test.
    """
    try:
        register = importlib.import_module("jax._src.dtypes").register_canonicalize_value_handler
        typed_array = importlib.import_module("jax._src.literals").TypedNdArray
        known: weakref.WeakValueDictionary[tuple[int, Any], np.ndarray] = weakref.WeakValueDictionary()

        def typed(array: np.ndarray) -> np.ndarray:
            converted = np.array(array, jax.dtypes.canonicalize_dtype(array.dtype))
            before = known.get((id(array), converted.dtype))
            if before is not None and before.shape == converted.shape and before.tobytes() == converted.tobytes():
                return before  # one constant for all uses in a trace
            result = typed_array(converted)
            known[id(array), converted.dtype] = result
            return result

        register(np.ndarray, typed)
    except (ImportError, AttributeError, TypeError):
        pass
    return _are_separate()


def _are_separate() -> bool:
    """Whether an array traced in single precision, and alive, is traced in double precision and with new content."""
    data = np.array([0.1, 0.2])
    with jax.enable_x64(False):
        single = jax.make_jaxpr(lambda x: x * data)(jnp.float32(1))
    data[0] = 0.3
    with jax.enable_x64(True):
        double = jax.make_jaxpr(lambda x: x * data)(jnp.float64(1))
    return (
        [c.dtype for c in single.consts] == [np.float32]
        and [c.dtype for c in double.consts] == [np.float64]
        and bool(double.consts[0][0] == 0.3)
    )


def single_constants(fn: Callable[[Any], Any], point: Any) -> list[np.ndarray]:
    """The floating constants below double precision in the double-precision trace of `fn`: data that were rounded.

    Constants inside loops, conditions and inner compiled functions count, and constants that `fn` itself converts.

    Args:
        fn: A function of one point `(dim,)` that JAX can trace.
        point: The point.
    """
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(fn)(jnp.asarray(np.asarray(point), jnp.float64))
        return [np.asarray(value) for value in _narrow_constants(closed, {})]


def rounds_its_point(fn: Callable[[Any], Any], point: Any) -> bool:
    """Whether the double-precision trace of `fn` converts a value that is not a constant to less than double."""

    def is_cast(jaxpr: Any) -> bool:
        constants = set(open_jaxpr(jaxpr).constvars)
        return any(
            (
                eqn.primitive.name == "convert_element_type"
                and _is_double(eqn.invars[0].aval)
                and _is_narrow(eqn.outvars[0].aval)
                and not isinstance(eqn.invars[0], Literal)
                and eqn.invars[0] not in constants
            )
            or any(map(is_cast, sub_jaxprs(eqn)))
            for eqn in open_jaxpr(jaxpr).eqns
        )

    with jax.enable_x64(True):
        return is_cast(jax.make_jaxpr(fn)(jnp.asarray(np.asarray(point), jnp.float64)))


def _narrow_constants(jaxpr: Any, known: dict[Any, Any]) -> Iterator[Any]:
    """Constants, literals, and conversions of constants, whose type is floating and below double precision."""
    inner = open_jaxpr(jaxpr)
    if isinstance(jaxpr, ClosedJaxpr):
        known = {**known, **dict(zip(inner.constvars, jaxpr.consts, strict=True))}
        yield from (c for var, c in zip(inner.constvars, jaxpr.consts, strict=True) if _is_narrow(var.aval))
    equations: list[Any] = inner.eqns
    for eqn in equations:
        literals: list[Any] = [var for var in eqn.invars if isinstance(var, Literal)]
        yield from (np.asarray(var.val) for var in literals if _is_narrow(var.aval))
        first: Any = eqn.invars[0] if eqn.invars else None
        is_constant = first is not None and (isinstance(first, Literal) or first in known)
        if eqn.primitive.name == "convert_element_type" and is_constant and _is_narrow(eqn.outvars[0].aval):
            value = first.val if isinstance(first, Literal) else known[first]
            if not _is_narrow(first.aval) and jnp.issubdtype(first.aval.dtype, jnp.floating):
                yield np.asarray(value, eqn.outvars[0].aval.dtype)
        for sub in sub_jaxprs(eqn):
            names = open_jaxpr(sub).invars
            same = len(names) == len(eqn.invars)
            passed = zip(names, eqn.invars, strict=True) if same else ()
            inside = {name: known[var] for name, var in passed if not isinstance(var, Literal) and var in known}
            yield from _narrow_constants(sub, inside)


def _is_narrow(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating) and not _is_double(aval)


def _is_double(aval: Any) -> bool:
    return getattr(aval, "dtype", None) == np.float64
