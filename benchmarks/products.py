"""The matrix products of a program: their arithmetic, and those that a GPU would round to TF32.

XLA's `cost_analysis` counts the body of a loop once, however often the loop runs. A jaxpr has the lengths of its loops.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax


class Product(NamedTuple):
    """One matrix product: its multiplications and additions, over all turns of the loops around it."""

    flops: float
    is_precise: bool  # whether it asks for the precision of its arguments


def products(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Product]:
    """The matrix products of a function at these arguments.

    A loop of unknown length counts once, and of the branches of a condition the one with the most arithmetic.
    """
    return list(_of_jaxpr(eqx.filter_make_jaxpr(function)(*args, **kwargs)[0].jaxpr, 1))


def flops(found: list[Product]) -> float:
    """The arithmetic of these products."""
    return sum(product.flops for product in found)


def num_loose(found: list[Product]) -> int:
    """How many of these products leave their precision to the device."""
    return sum(not product.is_precise for product in found)


def _of_jaxpr(jaxpr: Any, times: int) -> Iterator[Product]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            yield _product(equation, times)
        elif name == "cond":
            branches = [list(_of_jaxpr(branch.jaxpr, times)) for branch in equation.params["branches"]]
            yield from max(branches, key=flops)
        else:
            inner = times * equation.params["length"] if name == "scan" else times
            for value in equation.params.values():
                for part in value if isinstance(value, tuple | list) else [value]:
                    part = getattr(part, "jaxpr", part)  # of a closed one
                    if hasattr(part, "eqns"):
                        yield from _of_jaxpr(part, inner)


def _product(equation: Any, times: int) -> Product:
    (contracted, _), _ = equation.params["dimension_numbers"]
    summed = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    precision = equation.params["precision"]
    given = precision if isinstance(precision, tuple) else (precision,)
    is_precise = all(part == jax.lax.Precision.HIGHEST for part in given)
    return Product(2.0 * times * summed * math.prod(equation.outvars[0].aval.shape), is_precise)
