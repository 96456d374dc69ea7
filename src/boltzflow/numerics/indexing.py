"""Constant indices beyond an array's end. JAX moves such an index to the nearest entry without a word.

A traced function is evaluated a second time with all entries that are not there replaced by other numbers. An answer
that changes depends on them. An index that depends on the point, and an entry that `jnp.where` leaves out, are allowed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Array, Bool, Float, Int

from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.tracing import (
    called,
    eqn_dependence,
    loop_dependence,
    open_jaxpr,
    scan_sizes,
    sub_jaxprs,
    while_dependence,
)

_FILLS = (1e4, -1e4)  # instead of entries that are not there
_ROUNDINGS = 64  # by which two evaluations may differ
_NUM_POINTS = 8
_SCATTERS = ("scatter", "scatter-add", "scatter_add", "scatter_mul", "scatter-mul", "scatter_min", "scatter_max")
_READERS = ("gather", "dynamic_slice", "dynamic_update_slice", *_SCATTERS)
_Found = Int[Array, " 2"]  # an index and the length of its axis; (0, 0) where there is none


def out_of_range(fn: Callable[[Any], Any], points: Float[Array | np.ndarray, "num dim"]) -> str:
    """A clause on the first constant index beyond an array's end on which `fn(x)` depends, or "".

    Args:
        fn: A function of one point `(dim,)` that JAX can trace; it returns a pytree of arrays.
        points: Points at which `fn` is evaluated, of which the first eight are taken.
    """
    points = jnp.asarray(points)[:_NUM_POINTS]
    closed = jax.make_jaxpr(lambda x: [jnp.asarray(leaf) for leaf in jax.tree.leaves(fn(x))])(points[0])
    if not _reads(closed):
        return ""

    def evaluate(fill: float | None, asked_too: bool) -> tuple[list[np.ndarray], np.ndarray]:
        reader = _Reader(fill, asked_too)

        def one(x: Array) -> tuple[list[Any], _Found]:
            return reader.run(closed, [x], [True])

        values, each = compiled(jax.vmap(one))(points)
        found = np.asarray(each)
        return [np.asarray(v) for v in values], found[np.argmax(found[:, 1])]

    values, found = evaluate(None, True)
    if not found[1]:
        return ""
    lost = any(not np.isfinite(v).all() for v in values if np.issubdtype(v.dtype, np.floating))
    _, found = evaluate(None, lost)  # NaN from `jnp.take` needs its cause; a fill that leaves numbers is meant
    if not found[1]:
        return ""
    for fill in _FILLS:
        others, _ = evaluate(fill, lost)
        if lost or any(_differ(a, b) for a, b in zip(values, others, strict=True)):
            index, length = map(int, found)
            return f"uses index {index} of an axis with {length} {'entry' if length == 1 else 'entries'}"
    return ""


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.issubdtype(a.dtype, np.floating):
        return not np.array_equal(a, b)
    eps = float(jnp.finfo(a.dtype).eps)
    with np.errstate(invalid="ignore"):
        close = np.abs(a - b) <= _ROUNDINGS * eps * np.maximum(1, np.abs(a))
    return not np.all(close | (a == b) | (np.isnan(a) & np.isnan(b)))


def _reads(jaxpr: Any) -> bool:
    """Whether any equation reads or writes at an index that is not part of the program's shapes."""
    return any(eqn.primitive.name in _READERS or any(map(_reads, sub_jaxprs(eqn))) for eqn in open_jaxpr(jaxpr).eqns)


class _Reader:
    """Evaluates a jaxpr, with entries beyond an array's end replaced by `fill`, and finds their indices.

    With `asked_too` also the entries count for which the program itself has a fill value, as `jnp.take` has NaN.
    """

    def __init__(self, fill: float | None, asked_too: bool):
        self._fill = fill
        self._asked_too = asked_too

    def run(self, jaxpr: Any, inputs: Sequence[Any], marks: Sequence[bool]) -> tuple[list[Any], _Found]:
        """The outputs and the first index found. `marks` says which inputs depend on the point."""
        inner = open_jaxpr(jaxpr)
        values = dict(zip(inner.constvars, getattr(jaxpr, "consts", ()), strict=True))
        values.update(zip(inner.invars, inputs, strict=True))
        marked = {var for var, mark in zip(inner.invars, marks, strict=True) if mark}
        found = jnp.zeros(2, jnp.int32)

        def value_of(var: Any) -> Any:
            return var.val if isinstance(var, Literal) else values[var]

        for eqn in inner.eqns:
            ins = [value_of(var) for var in eqn.invars]
            mark = [not isinstance(var, Literal) and var in marked for var in eqn.invars]
            outs, here = self._equation(eqn, ins, mark)
            found = _first(found, here)
            values.update(zip(eqn.outvars, outs, strict=True))
            out_marks = eqn_dependence(eqn, mark)
            marked.update(var for var, m in zip(eqn.outvars, out_marks, strict=True) if m)
        return [value_of(var) for var in inner.outvars], found

    def _equation(self, eqn: Any, ins: list[Any], marks: list[bool]) -> tuple[list[Any], _Found | None]:
        if any(map(_reads, sub_jaxprs(eqn))):
            if eqn.primitive.name == "scan":
                return self._scan(eqn, ins, marks)
            if eqn.primitive.name == "while":
                return self._while(eqn, ins, marks)
            if eqn.primitive.name == "cond":
                return self._cond(eqn, ins, marks)
            if (inner := called(eqn)) is not None:
                return self.run(inner, ins, marks)
        bound = eqn.primitive.get_bind_params(eqn.params)  # in older JAX a pair of functions and parameters
        functions, params = bound if isinstance(bound, tuple) else ((), bound)
        outs = eqn.primitive.bind(*functions, *ins, **params)
        outs = list(outs) if eqn.primitive.multiple_results else [outs]
        outside = self._outside(eqn, ins, marks)
        if outside is None:
            return outs, None
        bad, found = outside
        return [self._filled(out, bad) for out in outs], found

    def _filled(self, out: Array, bad: Bool[Array, "..."]) -> Array:
        if self._fill is None:
            return out
        if jnp.issubdtype(out.dtype, jnp.floating):
            return jnp.where(bad, jnp.asarray(self._fill, out.dtype), out)
        if jnp.issubdtype(out.dtype, jnp.integer) or out.dtype == bool:
            return jnp.where(bad, jnp.asarray(self._fill > 0, out.dtype), out)
        return out

    def _outside(self, eqn: Any, ins: list[Any], marks: list[bool]) -> tuple[Bool[Array, "..."], _Found] | None:
        """Which outputs of a reading or writing equation have a constant index outside, and the first such index."""
        name = eqn.primitive.name
        if name == "gather" and not marks[1]:
            numbers = eqn.params["dimension_numbers"]
            asked = eqn.params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP
            # `mode="clip"` drops the axis; the reading of one entry under vmap, which clips too, keeps it.
            asked |= eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP and bool(numbers.collapsed_slice_dims)
            if asked and not (self._asked_too and eqn.params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP):
                return None
            sizes = eqn.params["slice_sizes"]
            columns = [(ins[1][..., k], axis, sizes[axis]) for k, axis in enumerate(numbers.start_index_map)]
            bad, found = _beyond(columns, ins[0].shape)
            return jnp.expand_dims(bad, numbers.offset_dims), found
        if name == "dynamic_slice":
            starts = enumerate(zip(ins[1:], marks[1:], eqn.params["slice_sizes"], strict=True))
            return _beyond([(start, axis, size) for axis, (start, mark, size) in starts if not mark], ins[0].shape)
        if name == "dynamic_update_slice":
            starts = enumerate(zip(ins[2:], marks[2:], ins[1].shape, strict=True))
            return _beyond([(start, axis, size) for axis, (start, mark, size) in starts if not mark], ins[0].shape)
        if name in _SCATTERS and not marks[1] and np.prod(ins[1].shape[:-1]) == 1:
            numbers = eqn.params["dimension_numbers"]
            axes = enumerate(numbers.scatter_dims_to_operand_dims)
            single = [(k, axis) for k, axis in axes if axis in numbers.inserted_window_dims]
            bad, found = _beyond([(ins[1][..., k], axis, 1) for k, axis in single], ins[0].shape)
            return jnp.any(bad), found
        return None

    def _scan(self, eqn: Any, ins: list[Any], marks: list[bool]) -> tuple[list[Any], _Found]:
        params = eqn.params
        first, num_carry = scan_sizes(eqn)
        last = first + num_carry
        state = loop_dependence(params["jaxpr"], marks[:first], marks[first:last], marks[last:])

        def body(carry: list[Any], rows: list[Any]) -> tuple[list[Any], tuple[list[Any], _Found]]:
            outs, found = self.run(
                params["jaxpr"], [*ins[:first], *carry, *rows], [*marks[:first], *state, *marks[last:]]
            )
            return outs[:num_carry], (outs[num_carry:], found)

        options = {name: params[name] for name in ("length", "reverse", "unroll")}
        carry, (rows, found) = jax.lax.scan(body, ins[first:last], ins[last:], **options)
        here = found[jnp.argmax(found[:, 1] > 0)] if params["length"] else jnp.zeros(2, jnp.int32)
        return [*carry, *rows], here

    def _while(self, eqn: Any, ins: list[Any], marks: list[bool]) -> tuple[list[Any], _Found]:
        params = eqn.params
        first = params["cond_nconsts"]
        last = first + params["body_nconsts"]
        state = while_dependence(eqn, marks)

        def body(carried: tuple[list[Any], _Found]) -> tuple[list[Any], _Found]:
            outs, found = self.run(params["body_jaxpr"], [*ins[first:last], *carried[0]], [*marks[first:last], *state])
            return outs, _first(carried[1], found)

        def goes_on(carried: tuple[list[Any], _Found]) -> Array:
            return self.run(params["cond_jaxpr"], [*ins[:first], *carried[0]], [*marks[:first], *state])[0][0]

        return jax.lax.while_loop(goes_on, body, (ins[last:], jnp.zeros(2, jnp.int32)))

    def _cond(self, eqn: Any, ins: list[Any], marks: list[bool]) -> tuple[list[Any], _Found]:
        def branch_of(jaxpr: Any) -> Callable[..., Any]:
            return lambda *operands: self.run(jaxpr, operands, marks[1:])

        return jax.lax.switch(jnp.asarray(ins[0], jnp.int32), [*map(branch_of, eqn.params["branches"])], *ins[1:])


def _first(found: _Found, here: _Found | None) -> _Found:
    return found if here is None else jnp.where(found[1] > 0, found, here)


def _beyond(columns: Sequence[tuple[Any, int, int]], shape: tuple[int, ...]) -> tuple[Bool[Array, "..."], _Found]:
    """Which of the slices (start, axis, size) leave an array of that shape, and the first index that does.

    JAX has added the length to a negative index of the user's; where it is still negative, the length is taken off.
    """
    bad = jnp.asarray(False)
    found = jnp.zeros(2, jnp.int32)
    for start, axis, size in columns:
        start = jnp.asarray(start, jnp.int32)
        length = shape[axis]
        outside = (start < 0) | (start > length - size)
        worst = jnp.ravel(start)[jnp.argmax(jnp.ravel(outside))] if start.size else jnp.int32(0)
        index = jnp.where(worst < 0, worst - length, worst + size - 1)
        found = _first(found, jnp.where(jnp.any(outside), jnp.stack([index, jnp.int32(length)]), 0))
        bad = bad | outside
    return bad, found
