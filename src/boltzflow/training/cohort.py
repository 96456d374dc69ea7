"""Seeds that train side by side: one dispatch takes the steps of all, mapped over what each has for itself.

What seeds share, the target, is there once; what each has of its own (base, networks, the pilot's points, random
numbers) is stacked along a leading axis, and one seed's numbers never enter another's. A seed that trains alone is not
mapped at all: its program is that of `train_chunk` as it stands.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.model.continuity import Transport, trainable
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.training.build import make_optimizer
from boltzflow.training.step import StepState, offending_point, quick_ess, train_chunk

_BLOCK = 8  # knots


@dataclass(frozen=True)
class Member:
    """What one seed comes with: how many steps it takes, its untrained transport, what its pilot found, its keys."""

    seed: int
    num_steps: int
    transport: Transport
    points: tuple[Float[Array, " num_knots"], Float[Array, "num_knots num_saved dim"]]
    train_key: PRNGKeyArray
    ess_key: PRNGKeyArray


class Cohort:
    """Members whose arrays have the same shapes (see `divide`), and where their training stands."""

    def __init__(self, members: Sequence[Member], config: Config, watch: Stopwatch):
        self._members, self._config, self._watch = members, config, watch
        self._before: Any = None  # the state before the last steps taken
        if len(members) == 1:
            [one] = members
            self._state, self._frozen = _start(one, config)
            self._points, self._ess_key, self._chunk, self._ess = one.points, one.ess_key, train_chunk, quick_ess
            return
        starts = [_start(member, config) for member in members]
        self._state, state_axes = _stack_states([state for state, _ in starts])
        self._frozen, frozen_axes = _stack([frozen for _, frozen in starts])
        self._points = _stack_points([member.points for member in members])
        self._ess_key = jnp.stack([member.ess_key for member in members])
        self._chunk = _mapped(train_chunk, (state_axes, frozen_axes, (0, 0)), (state_axes, 0))
        self._ess = _mapped(quick_ess, (0, frozen_axes, 0), 0)

    @property
    def state(self) -> StepState:
        """What the next step needs, of every seed; never changed in place."""
        return self._state

    @property
    def seeds(self) -> list[int]:
        """Of its members, in order."""
        return [member.seed for member in self._members]

    def go_on_from(self, state: StepState) -> None:
        """Takes the next steps from `state`, which was that of the same members."""
        self._state = state

    def take_steps(self, length: int) -> dict[int, float]:
        """`length` optimizer steps of every seed; the mean loss of each."""
        self._before = self._state
        self._state, losses = self._watch.run(
            self._chunk, self._state, self._frozen, self._points, config=self._config, length=length
        )
        return self._by_seed(losses)

    def quick_ess(self) -> dict[int, float]:
        """A look at the reverse ESS of every seed."""
        params = self._state.params
        return self._by_seed(self._watch.run(self._ess, params, self._frozen, self._ess_key, config=self._config))

    def offending_point(self, seed: int) -> tuple[float, np.ndarray, float] | None:
        """A time, a point and the target's energy there, at which the loss of a seed was not finite in the first of the
        last steps taken; None where there is no such point."""
        row = self.seeds.index(seed)
        state, points = self._before, self._points
        if len(self._members) > 1:
            step = state.step  # the one number that they share
            state = jax.tree.map(lambda leaf: leaf[row], eqx.tree_at(lambda s: s.step, state, step[None]))
            state = eqx.tree_at(lambda s: s.step, state, step)
            points = (points[0][row], points[1][row])
        frozen = _start(self._members[row], self._config)[1]
        t, x, energy, found = eqx.filter_jit(offending_point)(state, frozen, points, config=self._config)
        return (float(t), np.asarray(x), float(energy)) if found else None

    def num_skipped(self) -> dict[int, float]:
        """How many steps of each seed were skipped because the loss or gradient was not finite."""
        return self._by_seed(self._state.num_skipped)

    def transports(self) -> dict[int, Transport]:
        """What training has made of each seed's transport: that of the member with other parameters."""
        leaves = jax.tree.leaves(self._state.params)
        if len(self._members) > 1:
            leaves = list(map(np.asarray, leaves))
        transports = {}
        for row, member in enumerate(self._members):
            untrained, frozen = eqx.partition(member.transport, trainable(member.transport))
            own = leaves if len(self._members) == 1 else [jnp.asarray(leaf[row]) for leaf in leaves]
            params = jax.tree.unflatten(jax.tree.structure(untrained), own)
            transports[member.seed] = eqx.combine(params, frozen)
        return transports

    def _by_seed(self, values: Float[Array, "..."]) -> dict[int, float]:
        return dict(zip(self.seeds, np.atleast_1d(np.asarray(values)).tolist(), strict=True))


def divide(members: Sequence[Member]) -> list[list[Member]]:
    """The members in groups that can be stacked: all in one, unless parts of one's own differ between seeds."""
    groups: list[list[Member]] = []
    for member in members:
        group = next((group for group in groups if _alike(group[0], member)), None)
        if group is None:
            groups.append([member])
        else:
            group.append(member)
    return groups


def _alike(a: Member, b: Member) -> bool:
    trees = [(member.transport, member.points[1][0]) for member in (a, b)]
    (one, one_structure), (other, other_structure) = map(jax.tree.flatten, trees)
    return one_structure == other_structure and all(map(_same_kind, one, other))  # type: ignore[operator]


def _same_kind(a: Any, b: Any) -> bool:
    if eqx.is_array(a) and eqx.is_array(b):
        return a.shape == b.shape and a.dtype == b.dtype
    return a is b or (not eqx.is_array(a) and not eqx.is_array(b) and bool(a == b))


def _start(member: Member, config: Config) -> tuple[StepState, Transport]:
    """The state before the first step, and the part of the transport that is data."""
    params, frozen = eqx.partition(member.transport, trainable(member.transport))
    opt_state = make_optimizer(config).init(params)
    num_steps, zero = jnp.asarray(member.num_steps, int), jnp.zeros((), int)
    start = (params, opt_state)
    return StepState(*start, member.train_key, num_steps, zero, zero, start, jnp.ones(())), frozen


def _mapped(function: Callable, in_axes: Any, out_axes: Any) -> Callable:
    """`function` mapped over its arguments along these axes, None where they are shared; keywords are static."""

    @functools.wraps(function)
    def mapped(*args: Any, **static: Any) -> Any:
        return eqx.filter_vmap(functools.partial(function, **static), in_axes=in_axes, out_axes=out_axes)(*args)

    return mapped


def _stack_states(states: Sequence[StepState]) -> tuple[StepState, Any]:
    """All states in one, and the axes of its parts. The step's number is shared."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return eqx.tree_at(lambda s: s.step, stacked, states[0].step), StepState(0, 0, 0, 0, None, 0, 0, 0)  # type: ignore[arg-type]


def _stack(trees: Sequence[Any]) -> tuple[Any, Any]:
    """All trees in one, and the axis of each leaf: 0 for arrays of their own, None for what they hold in common."""
    leaves, structure = zip(*(jax.tree.flatten(tree) for tree in trees), strict=True)
    columns = list(zip(*leaves, strict=True))
    own = [eqx.is_array(column[0]) and any(leaf is not column[0] for leaf in column) for column in columns]
    stacked = [jnp.stack(column) if is_own else column[0] for column, is_own in zip(columns, own, strict=True)]
    axes = [0 if is_own else None for is_own in own]
    return jax.tree.unflatten(structure[0], stacked), jax.tree.unflatten(structure[0], axes)


def with_full_block(times: Array, points: Array) -> tuple[Array, Array]:
    """A pilot's times and points with knots added up to a multiple of 8, so that few lengths are ever compiled.

    Knots are added after the last and hold its points again. Times are drawn from [0, 1]: up to the last knot they see
    none of the added ones, and beyond it, where a pilot stopped early, the last knot's points as before. So every draw
    is what it is without them.
    """
    return _with_knots(times, points, -(-len(times) // _BLOCK) * _BLOCK)


def _stack_points(points: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Every pilot's times and points, with as many knots as the longest path has."""
    num_knots = max(len(times) for times, _ in points)
    return tuple(map(jnp.stack, zip(*(_with_knots(*each, num_knots) for each in points), strict=True)))  # type: ignore[return-value]


def _with_knots(times: Array, points: Array, num_knots: int) -> tuple[Array, Array]:
    num_added = num_knots - len(times)
    later = times[-1] + jnp.arange(1, num_added + 1, dtype=times.dtype)
    again = jnp.broadcast_to(points[-1:], (num_added, *points.shape[1:]))
    return jnp.concatenate([times, later]), jnp.concatenate([points, again])
