"""The pieces of a training, for a loop of one's own: the pilot, the untrained transport, the points of a step.

`fit` puts the same pieces together. What a loop minimizes is its own business; the paper's choice is L(r) averaged over
points (t, x), with r of `continuity_residual` (Eq. 16). `boltzflow.run_of` makes a run of the transport that comes out.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, sample_batch
from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.precision import programs_of
from boltzflow.errors import InputError
from boltzflow.model.continuity import Transport
from boltzflow.numerics.validation import random_key
from boltzflow.sampling import exploring
from boltzflow.sampling.pilot import Pilot
from boltzflow.training.build import NO_PARTS, Parts, check_field, choose_base, untrained
from boltzflow.training.step import PilotPath
from boltzflow.training.step import draw_points as points_of_step

_NUM_CHECKED = 64
DEFAULT = Config()


def explore(target: AbstractDensity, key: PRNGKeyArray, *, config: Config = DEFAULT, parts: Parts = NO_PARTS) -> Pilot:
    """Explore the target before training: base, schedule of the path, points, minima, and a first log Z.

    They are in the coordinates that a flow moves. Of a target with a neck these are non-centered ones, as `coordinates`
    of the pilot says, and `noncentering.forward` maps a point of them to one of the target.

    Args:
        target: A density on R^dim.
        key: A JAX random key.
        config: The settings; `base`, `clock` and `precision` matter.
        parts: Parts of your own; `base` matters, and with a base, path, field or loss the coordinates are the target's.

    Raises:
        InputError: The energy cannot be used.
    """
    check_key, pilot_key = jax.random.split(random_key(key))
    base = choose_base(config, parts, target.dim)
    with programs_of(target, config.precision).answering():
        x, _ = sample_batch(base or Gaussian(np.zeros(target.dim), 1.0), check_key, _NUM_CHECKED)
        check_energy(target, x)
        adapt = not parts.depend_on_coordinates
        return exploring.explore(target, pilot_key, base=base, pace=config.clock, adapt=adapt)


def make_transport(
    target: AbstractDensity, pilot: Pilot, key: PRNGKeyArray, *, config: Config = DEFAULT, parts: Parts = NO_PARTS
) -> Transport:
    """The untrained velocity field, path of energies and rate, as one Equinox module.

    Args:
        target: The target density.
        pilot: Its pilot, from `explore`.
        key: The key of the networks.
        config: The settings; those of field, path and networks matter. The field "auto" is "time-mixture".
        parts: Parts of your own; `make_interpolation` and `make_field` matter.

    Raises:
        InputError: The field does not exist for this target, or the pilot is in coordinates that the parts are not for.
    """
    check_field(config, target)
    if parts.depend_on_coordinates and pilot.noncentering is not None:
        raise InputError(
            "the pilot is in non-centered coordinates: explore with the same parts, which keeps the target's"
        )
    return untrained(config, parts, target, pilot, random_key(key))


def draw_points(
    transport: Transport,
    pilot: Pilot,
    key: PRNGKeyArray,
    done: float | Float[Array, ""],
    *,
    config: Config = DEFAULT,
) -> tuple[Float[Array, " num"], Float[Array, "num dim"]]:
    """The times and points of one step: from the flow's own trajectories, without gradient, and from the pilot's path.

    It may be called inside `jax.jit`.

    Args:
        transport: The transport as it is now.
        pilot: The pilot, from `explore`.
        key: The key of the step.
        done: The share of the training that is done, from 0 to 1: at first all points are the pilot's.
        config: The settings; those of points and times matter, such as `points_per_step`.

    Returns:
        Times `(num,)` and points `(num, dim)`.
    """
    path = PilotPath(jnp.asarray(pilot.path_times, float), jnp.asarray(pilot.path_points, float))
    return points_of_step(transport, path, jnp.asarray(done, float), key, config)
