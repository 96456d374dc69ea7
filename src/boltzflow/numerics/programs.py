"""Which compiled programs a computation may use, and the precision that it has.

JAX keys a compiled program by the identity of the traced function, not by the data behind it: a function that reads a
changed dictionary, attribute or array answers from the old program. `fingerprint` traces a function anew and hashes
what it found. Programs traced under one fingerprint, those inside the user's own `jax.jit` and `lax.scan` included, are
not used under another.
"""

import contextlib
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from boltzflow.numerics.constants import separate_precisions
from boltzflow.numerics.tracing import open_jaxpr

_programs = jax.make_user_context(None)  # JAX adds its value to the keys of all of its caches
_traces = itertools.count()
_ADDRESS = re.compile(r"0x[0-9a-f]+")


@contextlib.contextmanager
def computing(fingerprint: str, *, double: bool) -> Iterator[None]:
    """Use the programs of this fingerprint alone; compute in double precision, or in single.

    Nested calls replace the fingerprint, and so take the outer one into their own.
    """
    separate_precisions()
    with jax.enable_x64(double), _programs(fingerprint):
        yield


def fingerprint(function: Callable[..., Any], *shapes: Any) -> str:
    """A hash of the program of `function`: its operations, its constants to the last bit, its nested programs.

    The function is traced anew, at trees of shapes, past every cache of JAX. A program that cannot be traced has a
    fingerprint of its own. What a callback to Python reads is read at each call and is no part of the program.
    """
    separate_precisions()
    trace = f"trace {next(_traces)}"
    with _programs(trace):
        try:
            program = jax.make_jaxpr(lambda *args: function(*args))(*shapes)
        except Exception:  # whatever a user's function raises; its checks say what is wrong
            return trace
    digest = hashlib.sha256()
    _feed(digest, program)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    """Add a program, or anything that stands in one, to the digest."""
    if isinstance(value, (ClosedJaxpr, Jaxpr)):  # one class from JAX 0.11 on
        _feed(digest, list(getattr(value, "consts", ())))
        _feed_equations(digest, open_jaxpr(value))
    elif isinstance(value, dict):
        _feed(digest, [item for key in sorted(value, key=str) for item in (str(key), value[key])])
    elif isinstance(value, (list, tuple)):
        digest.update(b"[%d" % len(value))
        for item in value:
            _feed(digest, item)
    elif isinstance(value, (np.ndarray, np.generic, jax.Array, float, complex)) and not _is_key(value):
        array = np.ascontiguousarray(value)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    elif _is_key(value):
        _feed(digest, jax.random.key_data(value))
    elif callable(value):
        digest.update(getattr(value, "__qualname__", type(value).__qualname__).encode())
    else:
        digest.update(_ADDRESS.sub("", str(value)).encode())


def _feed_equations(digest: Any, program: Jaxpr) -> None:
    """Add the equations, with variables by the order of their appearance."""
    numbers: dict[Any, int] = {}

    def feed(variable: Any) -> None:
        if isinstance(variable, Literal):
            _feed(digest, np.asarray(variable.val) if np.ndim(variable.val) else variable.val)
        else:
            digest.update(f"v{numbers.setdefault(variable, len(numbers))}".encode())
        digest.update(str(variable.aval).encode())

    for given in (*program.constvars, *program.invars):
        feed(given)
    for equation in program.eqns:
        digest.update(equation.primitive.name.encode())
        for used in (*equation.invars, *equation.outvars):
            feed(used)
        _feed(digest, equation.params)
    for result in program.outvars:
        feed(result)


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
