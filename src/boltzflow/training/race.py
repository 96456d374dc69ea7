"""The choice of the field by measurement: candidates train briefly on the same points, and the better one is taken.

No rule that looks at the target alone knows which field suits it. On a two-dimensional lattice the networks that act
alike at every site reach a reverse ESS of 0.99 where those of the whitened point stay at 10⁻⁴; on a chain the latter
reach as much in half the time.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Key

from boltzflow.config import Config, make_preset
from boltzflow.densities.base import AbstractDensity, lattice_of
from boltzflow.sampling.pilot import Pilot
from boltzflow.training.build import Parts, untrained
from boltzflow.training.trainer import CHUNK, Trainer

_CLOSE = 0.9  # nats from the bound to the pilot's log Z: the first candidate that comes so close is taken
_SHARE = 20  # of the steps of a run, one is a step of each candidate
_MOST_STEPS = 100
_FEWER = 4  # times fewer points on a lattice
_FEWER_POINTS = " Every site of a point teaches it, so that it takes a quarter of the preset's points and samples."
_OF_POINTS = ("points_per_step", "batch_size", "num_eval_samples")
_LEAST_STEPS = 1000


@dataclass(frozen=True)
class Race:
    """The field that a run trains, and what the candidates reached that were tried.

    Args:
        field: The name of the field that is trained.
        num_steps: The optimizer steps of each candidate that was tried; 0 where the field is that of another run.
        reverse_ess: The reverse ESS of these after so many steps, by name.
        log_z_lower: The mean log-weight of their samples, a lower bound of log Z, by name.
    """

    field: str
    num_steps: int
    reverse_ess: Mapping[str, float]
    log_z_lower: Mapping[str, float]

    @property
    def sentence(self) -> str:
        """The choice and its reason."""
        if not self.log_z_lower:
            return f"The field is {self.field}, as in the run that this one started from.{self._of_fewer_points}"
        words = {
            name: f"{bound:.4g} (reverse ESS {self.reverse_ess[name]:.2g})" for name, bound in self.log_z_lower.items()
        }
        others = " and ".join(f"{words[name]} of {name}" for name in words if name != self.field)
        against = f"against {others}" if others else "so close to the pilot's log Z that no other field was tried"
        return (
            f"The field is {self.field}: after {self.num_steps} steps its lower bound of log Z was "
            f"{words[self.field]}, {against}.{self._of_fewer_points}"
        )

    @property
    def _of_fewer_points(self) -> str:
        return _FEWER_POINTS if self.field == "lattice" else ""

    @property
    def num_steps_in_all(self) -> int:
        """The optimizer steps of all candidates."""
        return self.num_steps * len(self.reverse_ess)

    def record(self) -> dict[str, Any]:
        """The race as JSON."""
        return dataclasses.asdict(self)


def candidates(config: Config, parts: Parts, target: AbstractDensity) -> list[str]:
    """The fields among which a run chooses; one alone where the settings or the parts name it."""
    if config.field != "auto":
        return [config.field]
    if parts.make_field is not None or lattice_of(target) is None:
        return ["time-mixture"]
    return ["time-mixture", "lattice"]


def with_field(config: Config, race: Race | None) -> Config:
    """The settings with the field that a race has chosen; without a race as they are."""
    return config if race is None else _for_field(config, race.field)


def _for_field(config: Config, field: str) -> Config:
    """The settings with this field in place of "auto"; on a lattice with a quarter of the preset's points and samples.

    Networks that act alike at every site learn from each site of a point, and they cost as much for each of them. A
    setting that is not the preset's stays.
    """
    if field != "lattice":
        return dataclasses.replace(config, field=field)  # type: ignore[arg-type]
    preset = make_preset(config.preset)
    fewer = {
        name: getattr(preset, name) // _FEWER for name in _OF_POINTS if getattr(config, name) == getattr(preset, name)
    }
    return dataclasses.replace(config, field="lattice", **fewer)


def steps_of(race: Race | None, num_steps: int) -> int:
    """The steps of the field that a race has chosen: half as many on a lattice, where each teaches more."""
    return max(_LEAST_STEPS, num_steps // 2) if race and race.field == "lattice" else num_steps


def run_race(
    fields: Sequence[str],
    target: AbstractDensity,
    config: Config,
    parts: Parts,
    pilot: Pilot,
    num_steps: int,
    keys: Key[Array, "3"],
    say: Callable[[str], None],
) -> Race:
    """Train the candidates one after another for a short time, up to the first that comes close to the target.

    The larger lower bound of log Z decides: its distance to log Z is the reverse KL divergence. The reverse ESS is
    noisier, and next to nothing for all candidates where the target is hard.

    Args:
        fields: The names of the candidates, the cheapest first.
        target: The target density.
        config: The settings, but for the field.
        parts: The user's own parts.
        pilot: The findings of the pilot.
        num_steps: The optimizer steps of the run.
        keys: The keys of the networks, of the steps and of the samples: those of the training that follows.
        say: Called with a sentence before every ten steps.
    """
    short = max(CHUNK, min(num_steps // _SHARE, _MOST_STEPS) // CHUNK * CHUNK)
    reverse_ess: dict[str, float] = {}
    log_z_lower: dict[str, float] = {}
    for name in fields:
        one = _for_field(config, name)
        transport = untrained(one, parts, target, pilot, keys[0])
        trainer = Trainer(transport, pilot, one, short, keys[1], keys[2], parts.objective)
        for step in range(0, short, CHUNK):
            say(f"field {name}: step {step} of {short}")
            trainer.take_steps(CHUNK)
        ess, mean = trainer.quick_look()
        reverse_ess[name] = ess if math.isfinite(ess) else 0.0
        log_z_lower[name] = mean if math.isfinite(mean) else -sys.float_info.max
        if pilot.log_z - log_z_lower[name] <= _CLOSE:
            break
    return Race(choice(log_z_lower), short, reverse_ess, log_z_lower)


def choice(log_z_lower: Mapping[str, float]) -> str:
    """The candidate of the largest bound; of equals the first."""
    return max(log_z_lower, key=lambda name: log_z_lower[name])
