"""What a traced function does: sub-programs of an equation, outputs that depend on an input, how much is computed."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal


def open_jaxpr(jaxpr: Any) -> Jaxpr:
    """The jaxpr without its constants."""
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def sub_jaxprs(eqn: JaxprEqn) -> Iterator[Any]:
    """The jaxprs, closed or open, among the parameters of an equation."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (ClosedJaxpr, Jaxpr)):
                yield item


def called(eqn: JaxprEqn) -> Any:
    """The jaxpr that an equation calls once with its own inputs (jit, remat, custom derivatives), or None."""
    inner = list(sub_jaxprs(eqn))
    is_call = len(inner) == 1 and eqn.primitive.name not in ("scan", "while", "cond")
    fits = is_call and len(open_jaxpr(inner[0]).invars) == len(eqn.invars)
    return inner[0] if fits and len(open_jaxpr(inner[0]).outvars) == len(eqn.outvars) else None


def dependence(jaxpr: Any, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs of a jaxpr depend on the inputs marked True. Shapes do not count, conditions do."""
    jaxpr = open_jaxpr(jaxpr)
    marked = {var for var, mark in zip(jaxpr.invars, inputs, strict=True) if mark}

    def is_marked(var: Any) -> bool:
        return not isinstance(var, Literal) and var in marked

    for eqn in jaxpr.eqns:
        outputs = eqn_dependence(eqn, [is_marked(var) for var in eqn.invars])
        marked.update(var for var, mark in zip(eqn.outvars, outputs, strict=True) if mark)
    return [is_marked(var) for var in jaxpr.outvars]


def eqn_dependence(eqn: JaxprEqn, inputs: Sequence[bool]) -> list[bool]:
    """The same for one equation."""
    name = eqn.primitive.name
    if not any(inputs):
        return [False] * len(eqn.outvars)
    if name == "scan":
        body = eqn.params["jaxpr"]
        num_consts, num_carry = scan_sizes(eqn)
        consts, rows = inputs[:num_consts], inputs[num_consts + num_carry :]
        state = loop_dependence(body, consts, inputs[num_consts:][:num_carry], rows)
        return [*state, *dependence(body, [*consts, *state, *rows])[num_carry:]]
    if name == "while":
        return while_dependence(eqn, inputs)
    if name == "cond" and not inputs[0]:
        branches = [dependence(branch, inputs[1:]) for branch in eqn.params["branches"]]
        return [any(marks) for marks in zip(*branches, strict=True)]
    inner = called(eqn)
    return [True] * len(eqn.outvars) if inner is None else dependence(inner, inputs)


def scan_sizes(eqn: JaxprEqn) -> tuple[int, int]:
    """How many inputs of a scan are constants, and how many its state; the rest are rows.

    The parameters that say so differ between versions of JAX. The shapes do not: rows alone lose an axis in the body.
    """
    body = open_jaxpr(eqn.params["jaxpr"])

    def num_rows(outer: Sequence[Any], inner: Sequence[Any]) -> int:
        return sum(len(_shape(a)) > len(_shape(b)) for a, b in zip(outer, inner, strict=True))

    num_carry = len(eqn.outvars) - num_rows(eqn.outvars, body.outvars)
    return len(eqn.invars) - num_rows(eqn.invars, body.invars) - num_carry, num_carry


def while_dependence(eqn: JaxprEqn, inputs: Sequence[bool]) -> list[bool]:
    """The state of a while loop; where its length depends on an input, all of it does."""
    num_cond = eqn.params["cond_nconsts"]
    num_body = eqn.params["body_nconsts"]
    state = loop_dependence(eqn.params["body_jaxpr"], inputs[num_cond:][:num_body], inputs[num_cond + num_body :], [])
    [stop] = dependence(eqn.params["cond_jaxpr"], [*inputs[:num_cond], *state])
    return [True] * len(state) if stop else state


def loop_dependence(body: Any, consts: Sequence[bool], state: Sequence[bool], rows: Sequence[bool]) -> list[bool]:
    """The state of a loop after any number of rounds of `body(consts, state, rows)`."""
    state = list(state)
    while True:
        after = dependence(body, [*consts, *state, *rows])[: len(state)]
        grown = [a or b for a, b in zip(state, after, strict=True)]
        if grown == state:
            return state
        state = grown


def depends_on_input(fn: Callable[[Any], Any], point: Any) -> list[bool]:
    """Which leaves of the pytree `fn(point)` depend on the point at all."""
    closed = jax.make_jaxpr(lambda x: [jnp.asarray(leaf) for leaf in jax.tree.leaves(fn(x))])(point)
    return dependence(closed, [True] * len(closed.jaxpr.invars))


def num_operations(fn: Callable[[Any], Any], point: Any) -> float:
    """About how many numbers `fn(point)` computes; infinite where a loop of unknown length or a callback is in it."""
    return _num_operations(jax.make_jaxpr(fn)(point))


def _num_operations(jaxpr: Any) -> float:
    total = 0.0
    for eqn in open_jaxpr(jaxpr).eqns:
        if eqn.primitive.name == "while" or "callback" in eqn.primitive.name:
            return float("inf")
        size = sum(_size(var) for var in eqn.outvars)
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            size *= math.prod(_shape(eqn.invars[0])[axis] for axis in contracted)
        inner = [_num_operations(each) for each in sub_jaxprs(eqn)]
        total += eqn.params["length"] * sum(inner) if eqn.primitive.name == "scan" else sum(inner, float(size))
    return total


def _shape(var: Any) -> tuple[int, ...]:
    return tuple(var.aval.shape)


def _size(var: Any) -> int:
    return math.prod(_shape(var))
