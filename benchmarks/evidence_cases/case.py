"""One posterior of `benchmarks.evidence`."""

from collections.abc import Callable
from dataclasses import dataclass

import boltzflow


@dataclass(frozen=True)
class Case:
    """A posterior, its known log Z, and what is asked of a default run.

    Args:
        make: Makes the posterior.
        log_z: The known log Z.
        log_z_error: Its error. Defaults to 0: exact.
        largest_error: The largest stated error that reaches the goal.
        may_distrust: Whether a distrusted run reaches the goal, because the case is hard; a trusted one must then be
            within .02. Defaults to False.
    """

    make: Callable[[], boltzflow.Posterior]
    log_z: float
    log_z_error: float = 0.0
    largest_error: float = 0.005
    may_distrust: bool = False

    def off(self, log_z: float, error: float) -> float:
        """The distance of an answer from the known log Z, in units of both errors together."""
        return (log_z - self.log_z) / max((error**2 + self.log_z_error**2) ** 0.5, 1e-12)

    def is_reached(self, log_z: float, error: float, trusted: bool) -> bool:
        """Whether a run of ours is what was asked for."""
        if self.may_distrust:
            return not trusted or abs(log_z - self.log_z) <= 0.02
        return trusted and abs(self.off(log_z, error)) < 4 and error <= self.largest_error
