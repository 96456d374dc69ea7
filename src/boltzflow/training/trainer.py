"""The optimizer steps of one transport, seen from the host."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.model.continuity import Transport, trainable
from boltzflow.sampling.pilot import Pilot
from boltzflow.training.build import AS_CONFIGURED, Objective
from boltzflow.training.step import (
    PilotPath,
    first_nonfinite_point,
    initial_state,
    padded_path,
    quick_look,
    train_chunk,
)

CHUNK = 10
"""Optimizer steps in one dispatch: enough to hide its cost, few enough to show progress."""


class Trainer:
    """The optimizer steps of one run: compiled programs on the host's side of a `StepState`."""

    def __init__(
        self,
        transport: Transport,
        pilot: Pilot,
        config: Config,
        num_steps: int,
        train_key: PRNGKeyArray,
        ess_key: PRNGKeyArray,
        objective: Objective = AS_CONFIGURED,
        first_step: int = 0,
    ):
        """The trainer of `num_steps` steps, the last ones of a schedule that has `first_step` more before them."""
        params, self._frozen = eqx.partition(transport, trainable(transport))
        self.state = initial_state(params, config, first_step + num_steps, train_key, objective, first_step)
        self._objective = objective
        self.config = config
        self.num_steps = num_steps
        self._path: PilotPath = padded_path(jnp.asarray(pilot.path_times, float), jnp.asarray(pilot.path_points, float))
        self._ess_key = ess_key
        self._before = self.state

    @property
    def transport(self) -> Transport:
        """The transport with the parameters as they are now."""
        return eqx.combine(self.state.params, self._frozen)

    @property
    def num_skipped(self) -> int:
        """How many steps were skipped because the loss or its gradient was not finite."""
        return int(self.state.num_skipped)

    def take_steps(self, length: int) -> float:
        """Take `length` optimizer steps and return their mean loss."""
        self._before = self.state
        self.state, loss = train_chunk(
            self.state, self._frozen, self._path, config=self.config, length=length, objective=self._objective
        )
        return float(loss)

    def quick_look(self) -> tuple[float, float]:
        """The reverse ESS and the mean log-weight of 2048 samples."""
        ess, mean = quick_look(self.state.params, self._frozen, self._ess_key, config=self.config)
        return float(ess), float(mean)

    def nonfinite_point(self) -> tuple[float, Float[np.ndarray, " dim"], float] | None:
        """A time, a point and the target's energy there, at which the first of the last steps was not finite.

        None where there is no such point.
        """
        t, x, energy, found = first_nonfinite_point(self._before, self._frozen, self._path, config=self.config)
        return (float(t), np.asarray(x), float(energy)) if found else None
