"""Observables: a function of one point that returns any tree of numbers, averaged batch by batch."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.errors import InputError
from boltzflow.numerics.batching import map_points
from boltzflow.statistics.expectations import StreamedExpectation

Batch = tuple[Float[Array, "num dim"], Float[Array, " num"] | Float[np.ndarray, " num"]]


def expect(fn: Callable[[Float[Array, " dim"]], Any], dim: int, batches: Iterable[Batch]) -> Any:
    """The tree of `fn`, with an `Estimate` in place of each number or array: E_p of it over batches of (x, log_weight).

    Raises `InputError` where `fn` cannot be applied to a point of shape `(dim,)`, returns what is no number, or returns
    NaN or infinity at a sample of some weight.
    """
    leaves, tree = jax.tree.flatten(_result_of(fn, dim))
    if not leaves:
        raise InputError("the observable returns nothing: return a number, an array, or a tree of them")
    for leaf in leaves:
        if not (leaf.dtype == bool or jnp.isdtype(leaf.dtype, ("real floating", "integral"))):
            raise InputError(f"the observable returns {leaf.dtype}: return real numbers")

    def flat(x):
        return [jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(fn(x))]

    sums = [StreamedExpectation() for _ in leaves]
    for x, log_weight in batches:
        for one, values in zip(sums, map_points(flat, x), strict=True):
            one.add(np.asarray(values), np.asarray(log_weight))
    estimates = [one.estimate(leaf.shape) for one, leaf in zip(sums, leaves, strict=True)]
    return jax.tree.unflatten(tree, estimates)


def _result_of(fn: Callable[[Any], Any], dim: int) -> Any:
    try:
        return jax.eval_shape(lambda x: jax.tree.map(jnp.asarray, fn(x)), jax.ShapeDtypeStruct((dim,), jnp.float32))
    except Exception as error:  # whatever a user's function raises
        what = " ".join(str(error).split())[:300]
        raise InputError(
            f"the observable fails on a point of shape ({dim},): {type(error).__name__}: {what}"
        ) from error
