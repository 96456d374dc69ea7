"""From a configuration to the objects of a run: base, path, field, rate, optimizer and sampler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric, lattice_of
from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.densities.gaussian_mixture import SubspaceMixture, whitening_gaussian
from boltzflow.errors import InputError
from boltzflow.model.continuity import LogZRate, Transport
from boltzflow.model.diffusion import Diffusion
from boltzflow.model.fields import AbstractVectorField, LatticeField, TimeMixture, ZeroField
from boltzflow.model.flow import Flow
from boltzflow.model.interpolations import AbstractInterpolation, Clock, Linear, Trainable, Trigonometric
from boltzflow.model.lattice.bands import Bands
from boltzflow.model.lattice.networks import LatticePotential
from boltzflow.model.losses import Penalty
from boltzflow.model.networks import Whitening
from boltzflow.sampling.pilot import Pilot, in_coordinates

Loss = Callable[[Transport, Float[Array, " num"], Float[Array, "num dim"], PRNGKeyArray], Float[Array, ""]]


@dataclass(frozen=True)
class Parts:
    """Parts of the user's own, each in place of the one that the configuration names. Nothing needs to be registered.

    Args:
        base: A normalized distribution, where the path of densities starts.
        make_interpolation: `(base, target, key)` to a path of energies; its arrays are trained.
        make_field: `(base, key)` to a velocity field; its arrays are trained.
        penalty: L of the continuity loss: takes residuals `(num,)`, and returns a number of at least 0 for each.
        loss: A loss in place of the continuity loss: `(transport, times, points, key)` to one number, with the times
            `(num,)` and points `(num, dim)` of a step.
        optimizer: An optax transformation. Its updates are taken as they are: its own learning rate and schedule hold,
            and `Config.learning_rate`, `optimizer` and `clip_norm` do not.
    """

    base: AbstractDistribution | None = None
    make_interpolation: (
        Callable[[AbstractDistribution, AbstractDensity, PRNGKeyArray], AbstractInterpolation] | None
    ) = None
    make_field: Callable[[AbstractDistribution, PRNGKeyArray], AbstractVectorField] | None = None
    penalty: Penalty | None = None
    loss: Loss | None = None
    optimizer: optax.GradientTransformation | None = None

    def names(self) -> list[str]:
        """The names of the parts that are given."""
        return [name for name, part in vars(self).items() if part is not None]

    @property
    def depend_on_coordinates(self) -> bool:
        """Whether a part is made for the points of the target: then these stay in its own coordinates."""
        return bool(self.of_transport) or self.loss is not None

    @property
    def of_transport(self) -> list[str]:
        """The names of those in `OF_TRANSPORT`."""
        return [name for name in self.names() if name in OF_TRANSPORT]

    @property
    def objective(self) -> "Objective":
        """What is minimized, and how."""
        return Objective(self.penalty, self.loss, self.optimizer)


class Objective(NamedTuple):
    """What a training minimizes, and how; where a part is None, the configuration names it."""

    penalty: Penalty | None = None
    loss: Loss | None = None
    optimizer: optax.GradientTransformation | None = None


NO_PARTS = Parts()
AS_CONFIGURED = Objective()
OF_TRANSPORT = ("base", "make_interpolation", "make_field")
"""The parts that a trained transport is made of: who loads one has to give them."""


def choose_base(config: Config, parts: Parts, dim: int) -> AbstractDistribution | None:
    """The base that the parts give or the configuration names; None where the pilot fits it."""
    if parts.base is not None:
        return parts.base
    if config.base == "gaussian":
        return Gaussian(jnp.zeros(dim), config.base_std**2)
    if config.base == "generalized-gaussian":
        return GeneralizedGaussian(dim, config.base_scale, config.base_power)
    return None


def check_parts(config: Config, parts: Parts) -> None:
    """Raise `InputError` where the settings leave no place for the parts."""
    if config.loss == "reverse-kl" and (parts.penalty or parts.loss):
        part = "loss" if parts.loss else "penalty"
        raise InputError(f"a {part} of your own takes the place of that of the continuity loss: leave out reverse-kl")
    if parts.penalty and parts.loss:
        raise InputError("give a penalty or a loss of your own, not both: a loss of your own uses no penalty")


def check_field(config: Config, target: AbstractDensity) -> None:
    """Raise `InputError` where the field that the configuration names does not exist for `target`."""
    if config.field == "lattice" and lattice_of(target) is None:
        raise InputError(
            'field "lattice" needs a target that declares its lattice_shape, as boltzflow.Energy(function, dim, '
            'lattice_shape=(8, 8)) does; the field "time-mixture" needs none'
        )


def untrained(config: Config, parts: Parts, target: AbstractDensity, pilot: Pilot, key: PRNGKeyArray) -> Transport:
    """The transport that training starts from: that of `make_transport` with the pilot's mean rate."""
    transport = make_transport(config, parts, target, pilot, key)
    return with_mean_rate(transport, pilot.log_z - float(pilot.base.log_z))


def make_transport(config: Config, parts: Parts, target: AbstractDensity, pilot: Pilot, key: PRNGKeyArray) -> Transport:
    """The untrained transport for `target` after its `pilot`; where no flow is needed, one that moves nothing."""
    target = in_coordinates(target, pilot)
    if not pilot.enough:
        return build_transport(config, parts, pilot.base, target, pilot.clock, key, pilot.active_subspace)
    rate = LogZRate(width=config.width, depth=config.depth, key=key)
    return Transport(ZeroField(target.dim), Linear(pilot.base, target), rate)


def build_transport(
    config: Config,
    parts: Parts,
    base: AbstractDistribution,
    target: AbstractDensity,
    clock: Clock,
    key: PRNGKeyArray,
    subspace: Float[np.ndarray, "dim size"] | None = None,
) -> Transport:
    """Field, path and rate, untrained; the field "auto" is the default one.

    The Gaussian of a base that the pilot fitted also whitens the input of the networks, which act in the `subspace`
    alone where one is given.
    """
    path_key, field_key, rate_key = jax.random.split(key, 3)
    shape = lattice_of(target) if config.field == "lattice" else None
    whitening: Whitening | None = None
    if config.base == "pilot" and parts.base is None and isinstance(base, (Gaussian, SubspaceMixture)):
        gaussian = whitening_gaussian(base)
        whitening = Whitening(gaussian.mean, gaussian.scale, subspace if shape is None else None)
    sizes: dict[str, Any] = {"num_networks": config.num_networks, "width": config.width, "depth": config.depth}
    lattice_sizes = {**sizes, "sign_symmetric": is_sign_symmetric(target), "width": max(config.width // 4, 1)}

    path: AbstractInterpolation
    if parts.make_interpolation is not None:
        path = parts.make_interpolation(base, target, path_key)
    elif config.interpolation == "linear":
        path = Linear(base, target, clock)
    elif config.interpolation == "trigonometric":
        path = Trigonometric(base, target)
    elif config.interpolation == "diffusion":
        path = Diffusion(base, target)
    elif shape is not None:
        potential = LatticePotential(Bands(shape, whitening), key=path_key, **lattice_sizes)
        path = Trainable(base, target, clock=clock, network=potential, key=path_key)
    else:
        path = Trainable(base, target, clock=clock, whitening=whitening, key=path_key, **sizes)

    velocity_field: AbstractVectorField
    if parts.make_field is not None:
        velocity_field = parts.make_field(base, field_key)
    elif shape is not None:
        velocity_field = LatticeField(shape, whitening=whitening, key=field_key, **lattice_sizes)
    else:
        velocity_field = TimeMixture(target.dim, whitening=whitening, key=field_key, **sizes)
    rate = LogZRate(width=config.width, depth=config.depth, key=rate_key)
    return Transport(velocity_field, path, rate)


def with_mean_rate(transport: Transport, mean_rate: float) -> Transport:
    """The transport with C_t starting from a constant: the pilot's log Z_1 - log Z_0, which may be in the thousands."""

    def constant(rate):
        return rate.mlp.biases[-1]

    # Of the same type: a weak one, which no step returns, would compile the steps again.
    full = jnp.full_like(constant(transport.log_z_rate), mean_rate)
    return eqx.tree_at(lambda t: constant(t.log_z_rate), transport, full)


def make_optimizer(config: Config, objective: Objective = AS_CONFIGURED) -> optax.GradientTransformation:
    """The user's optimizer; else Muon or Adam with learning rate 1, which the step's own rate multiplies.

    The gradient is clipped before them where that is asked for.
    """
    if objective.optimizer is not None:
        return objective.optimizer
    optimizer = optax.contrib.muon(1.0) if config.optimizer == "muon" else optax.adam(1.0)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer) if config.clip_norm else optimizer


def make_flow(config: Config, transport: Transport) -> Flow:
    """The sampler of a transport, in 8 steps where the configuration leaves their number open."""
    base = transport.interpolation.base
    return Flow(base, transport.field, solver=config.sample_solver, num_steps=config.sample_steps or 8)
