"""Validation of arguments: a checked, read-only float64 array or a number, or `InputError` with one sentence.

Densities keep their numbers as NumPy float64 and cast them to the type of `x` at each use. So a density made while JAX
is in single precision is exact in double precision too, and its result has the type of its argument in both.
"""

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.errors import InputError


def one_point(x: Any, dim: int) -> Float[Array, " dim"]:
    """`x` as a floating array `(dim,)`. Raises `InputError` for a batch, over which sums would be wrong."""
    point = jnp.asarray(x)
    if point.shape != (dim,):
        raise InputError(f"expected one point of shape ({dim},), got shape {point.shape}; use jax.vmap for a batch")
    return point if jnp.issubdtype(point.dtype, jnp.floating) else point.astype(float)


def frozen(value: Any) -> np.ndarray:
    """A read-only float64 copy of `value`."""
    array = np.array(value, dtype=np.float64)
    array.setflags(write=False)
    return array


def real_array(name: str, value: Any) -> np.ndarray:
    """`value` as a read-only float64 array. Raises `InputError` unless it is real, numeric and finite."""
    try:
        given = np.asarray(value)
        if np.iscomplexobj(given):
            raise TypeError("it is complex")
        array = frozen(given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be real numbers, got {value!r} ({error})") from None
    if not np.all(np.isfinite(array)):
        bad = array[~np.isfinite(array)]
        raise InputError(f"{name} must be finite, got {bad[0]}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else ""))
    return array


def positive_number(name: str, value: Any) -> float:
    """`value` as a float. Raises `InputError` unless it is one positive finite number."""
    array = real_array(name, value)
    if array.shape != () or not array > 0:
        raise InputError(f"{name} must be one positive number, got {value!r}")
    return float(array)


def whole_number(name: str, value: Any, at_least: int, at_most: int | None = None) -> int:
    """`value` as an int. Raises `InputError` unless it is a whole number in the range."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < at_least or (at_most is not None and value > at_most):
        wanted = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise InputError(f"{name} must be a whole number {wanted}, got {value!r}")
    return int(value)


def did_you_mean(word: Any, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the choice nearest to `word`, for an error's sentence, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6) if isinstance(word, str) else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def is_numpyro_model(function: Any) -> bool:
    """Whether the code of a function names a primitive of NumPyro, such as `numpyro.sample`. Nothing is called."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    known = getattr(getattr(function, "__func__", function), "__globals__", {})
    names = set()
    codes = [code] if code else []
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(inner for inner in code.co_consts if inspect.iscode(inner))
    values = [known[name] for name in names if name in known]
    is_module = any(getattr(value, "__name__", "") in ("numpyro", "numpyro.primitives") for value in values)
    primitives = {"sample", "plate", "factor", "deterministic", "param"}
    return (is_module and bool(names & primitives)) or any(
        getattr(value, "__module__", "") == "numpyro.primitives" for value in values
    )
