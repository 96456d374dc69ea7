"""One target of `benchmarks.reach`."""

from collections.abc import Callable
from dataclasses import dataclass

import boltzflow


@dataclass(frozen=True)
class Case:
    """A target, what is known of it, and what is asked of a default run.

    Args:
        make: Makes the target.
        log_z: The best known log Z, NaN where there is none.
        log_z_error: Its error; 0 where it is exact.
        goal: What the run must reach: a reverse ESS where it is of "ess", else the distance of log Z from `log_z`.
        of: "ess" or "log_z".
        minutes: The time that it may take on two idle cores.
        source: Where `log_z` is from.
        peers: What others report, in words.
    """

    make: Callable[[], boltzflow.AbstractDensity]
    log_z: float
    log_z_error: float
    goal: float
    of: str
    minutes: float
    source: str
    peers: str = ""
