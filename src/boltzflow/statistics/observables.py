"""A user's function of one point whose expectation is wanted: its leaves, and the checks before it is used."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.errors import InputError
from boltzflow.numerics.indexing import out_of_range
from boltzflow.numerics.tracing import depends_on_input

Points = Float[Array | np.ndarray, "num dim"]
LogWeights = Float[Array | np.ndarray, " num"]
Batch = tuple[Points, LogWeights] | tuple[Points, LogWeights, LogWeights]


class Observed(NamedTuple):
    """What a user's function of one point returns: a tree of numbers and arrays, each a leaf with a name."""

    fn: Callable[[Float[Array, " dim"]], Any]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    varies: tuple[bool, ...]  # whether a leaf depends on the point
    tree: Any
    flat: Callable[[Float[Array, " dim"]], list[Float[Array, " size"]]]  # the leaves at a point, as lists of numbers

    @classmethod
    def of(cls, fn: Callable[[Float[Array, " dim"]], Any], dim: int) -> "Observed":
        """The leaves of `fn`. Raises `InputError` where it fails on a point or returns anything but real numbers."""
        point = jax.ShapeDtypeStruct((dim,), jax.dtypes.canonicalize_dtype(float))
        try:
            found = jax.eval_shape(lambda x: jax.tree.map(jnp.asarray, fn(x)), point)
            paths, tree = jax.tree_util.tree_flatten_with_path(found)
            varies = depends_on_input(fn, point)
        except InputError:
            raise
        except Exception as error:  # whatever a user's function raises
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise InputError(f"the observable fails on a point of shape ({dim},): {what}") from error
        if not paths:
            raise InputError("the observable returns nothing: return a number, an array, or a tree of them")
        names = []
        for path, leaf in paths:
            names.append(f"the observable's leaf {jax.tree_util.keystr(path)}" if path else "the observable")
            if not (leaf.dtype == bool or jnp.isdtype(leaf.dtype, ("real floating", "integral"))):
                raise InputError(f"{names[-1]} returns {leaf.dtype}: return real numbers")

        def flat(x):
            return [jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(fn(x))]

        return cls(fn, tuple(names), tuple(leaf.shape for _, leaf in paths), tuple(varies), tree, flat)

    def checked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, after the function was found at the first points to use no index beyond an array's end."""
        batches = iter(batches)
        for batch in itertools.islice(batches, 1):
            x = batch[0]
            if words := out_of_range(self.fn, x):
                raise InputError(
                    f"the observable {words}, where JAX silently takes the nearest one; x has the dimension "
                    f"{x.shape[1]}"
                )
            yield batch
        yield from batches
