"""Stages of a long computation, told to whoever follows it.

`following` names a listener. Inside it `stage` says what begins, and which share of the whole it takes; `advance` says
how much of that stage is done. Where nobody listens both do nothing, so that a sampler says where it is without an
argument for it.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

Listener = Callable[[str, float | None], None]
"""Takes the name of a stage, and the share of the whole that is done, from 0 to 1; None where it is not known."""


@dataclass
class _Followed:
    """The listener and the stage that is under way, from `start` to `end` of the whole."""

    listener: Listener
    name: str = ""
    start: float | None = None
    end: float | None = None


_followed: ContextVar[_Followed | None] = ContextVar("followed", default=None)


@contextlib.contextmanager
def following(listener: Listener) -> Iterator[None]:
    """Call `listener` at each stage of what runs inside. An inner listener replaces the outer one.

    Args:
        listener: Called with the name of a stage and the share of the whole that is done, or None.
    """
    token = _followed.set(_Followed(listener))
    try:
        yield
    finally:
        _followed.reset(token)


def stage(name: str, start: float | None = None, end: float | None = None) -> None:
    """Begin a stage.

    Args:
        name: A few words on what is done.
        start: The share of the whole that is done when the stage begins; None where it is not known.
        end: The same when the stage ends.
    """
    followed = _followed.get()
    if followed:
        followed.name, followed.start, followed.end = name, start, end
        followed.listener(name, start)


def advance(share: float) -> None:
    """Say that the stage under way is done to this `share`, from 0 to 1."""
    followed = _followed.get()
    if followed is None:
        return
    whole = None
    if followed.start is not None and followed.end is not None:
        whole = followed.start + min(max(share, 0.0), 1.0) * (followed.end - followed.start)
    followed.listener(followed.name, whole)
