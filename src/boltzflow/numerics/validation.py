"""Validation of arguments: a checked, read-only float64 array or a number, or `InputError` with one sentence.

Densities keep their numbers as NumPy float64 and cast them to the type of `x` at each use. So a density made while JAX
is in single precision is exact in double precision too, and its result has the type of its argument in both.
"""

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.errors import InputError

MOST = 2**31 - 1
"""The largest whole number that is accepted where nothing else bounds it: JAX keeps 32 bits in single precision."""
_MOST_DIM = 10**6
_LONGEST = 200  # characters of a value in a sentence


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
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be real numbers, got {shown(value)} ({error})") from None
    if not np.all(np.isfinite(array)):
        bad = array[~np.isfinite(array)]
        raise InputError(f"{name} must be finite, got {bad[0]}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else ""))
    return array


def positive_number(name: str, value: Any) -> float:
    """`value` as a float. Raises `InputError` unless it is one positive finite number."""
    array = real_array(name, value)
    if array.shape != () or not array > 0:
        raise InputError(f"{name} must be one positive number, got {shown(value)}")
    return float(array)


def whole_number(name: str, value: Any, at_least: int, at_most: int | None = None) -> int:
    """`value` as an int. Raises `InputError` unless it is a whole number in the range, by default up to 2³¹ - 1."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    highest = MOST if at_most is None else at_most
    if not is_whole or not at_least <= value <= highest:
        is_large = is_whole and value > highest
        wanted = f"of at least {at_least}" if at_most is None and not is_large else f"from {at_least} to {highest}"
        raise InputError(f"{name} must be a whole number {wanted}, got {shown(value)}")
    return int(value)


def dimension(name: str, value: Any, at_least: int = 1) -> int:
    """`value` as a dimension, or as a number that a dimension grows with: a whole number up to a million."""
    is_large = isinstance(value, (int, np.integer)) and value > _MOST_DIM
    return whole_number(name, value, at_least, _MOST_DIM if is_large else None)


def random_key(key: Any) -> PRNGKeyArray:
    """`key` if it is one key of JAX's random numbers; raises `InputError` for anything else."""
    is_array = isinstance(key, jax.Array)
    if not is_array or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        try:
            key = jax.random.wrap_key_data(key) if is_array else None  # an old key, of two numbers
        except (TypeError, ValueError):
            key = None
    if key is None or key.shape != ():
        raise InputError("the key must be one of JAX's random keys, as jax.random.key(0)")
    return key


def shown(value: Any) -> str:
    """`value` as Python writes it, cut where that is long, for an error's sentence."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of thousands of digits, or lists nested too deep
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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
