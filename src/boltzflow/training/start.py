"""A start from the run of a neighboring target: what a run takes over from it, and whether that is near enough.

The field, the active subspace and the trained parameters are taken over. In the coordinates of the whitened point they
mean the same for both targets. Pilot, base and every check of the verdict are the new target's own: a mode that the
neighbor lacks is searched for as in any run.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, coordinates_of, is_sign_symmetric, lattice_of, prior_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.model.continuity import LogZRate, Transport, trainable
from boltzflow.model.flow import flow_log_prob, sample_flow
from boltzflow.numerics.batching import map_points
from boltzflow.sampling.gaussian_fit import left_out
from boltzflow.sampling.pilot import Pilot
from boltzflow.sampling.resampling import spread
from boltzflow.training.build import Parts, make_flow
from boltzflow.training.trainer import CHUNK

_FAR = 1.0  # nats, of the two KL divergences together, from which on the flow is trained anew
_LEAST_SHARE = 1 / 8  # of the steps that the target seems to need
_MOST_LEFT_OUT = 0.02  # of the trace outside the active subspace: half of it bounds a KL divergence
_NUM_COMPARED = 4096
_OF_TRANSPORT = (
    "loss",
    "interpolation",
    "base",
    "base_std",
    "base_scale",
    "base_power",
    "field",
    "num_networks",
    "width",
    "depth",
)


@dataclass(frozen=True)
class Started:
    """How a run began from another one, for its record and its report.

    Args:
        run: The identity of the other run.
        name: Its target and seed, in words.
        distance: The distance of its flow from the new target before training: the two KL divergences together, in
            nats; None where no flow could be compared.
        anew: Why the flow was trained anew, with all of its steps; empty where it went on from the other run's.
    """

    run: str
    name: str
    distance: float | None
    anew: str

    def steps_of(self, num_steps: int) -> int:
        """How many of the steps that the target seems to need are taken: as large a share as the distance in nats."""
        if self.anew or self.distance is None:
            return num_steps
        share = float(np.clip(self.distance / _FAR, _LEAST_SHARE, 1.0))
        return math.ceil(share * num_steps / CHUNK) * CHUNK

    @property
    def sentence(self) -> str:
        """What was taken over, and why no more."""
        run = f"{self.name} ({self.run[:8]})"
        if self.anew:
            return f"Started from the run of {run}; the flow was trained anew, because {self.anew}."
        return (
            f"Started from the flow of the run of {run}, which was {self.distance:.2g} nats away (both KL "
            "divergences together)."
        )


@dataclass(frozen=True)
class Start:
    """A finished run that another one starts from.

    Args:
        target: Its target.
        config: Its settings, with the field that was trained.
        parts: The names of its parts that are the user's own.
        transport: What it trained.
        pilot: Its pilot.
        run: Its identity.
        name: Its target and seed, in words.
    """

    target: AbstractDensity
    config: Config
    parts: list[str]
    transport: Transport
    pilot: Pilot
    run: str
    name: str

    def check(self, target: AbstractDensity, config: Config, parts: Parts) -> None:
        """Raise `InputError` where this run is of no use to a run of `target` with these settings."""
        for what, of in _KINDS.items():
            ours, theirs = of(self.target), of(target)
            if ours != theirs:
                raise InputError(f"a run starts from one of the same {what}: it is {ours} of start, {theirs} here")
        if parts.names() != self.parts:
            raise InputError(
                f"a run starts from one with the same parts: start has {self.parts or 'none'}, this one "
                f"{parts.names() or 'none'}"
            )
        for name in _OF_TRANSPORT:
            before, now = getattr(self.config, name), getattr(config, name)
            if now != before and not (name == "field" and "auto" in (before, now)):
                raise InputError(f"a run starts from one of the same {name}: it is {before!r} of start, {now!r} here")

    def with_subspace(self, pilot: Pilot, target: AbstractDensity) -> Pilot:
        """The pilot of `target` with the active subspace of this run, where little of the target is outside of it."""
        subspace = self.pilot.active_subspace
        if subspace is None or pilot.active_subspace is None or not isinstance(pilot.base, Gaussian):
            return pilot
        if left_out(target, pilot.base, pilot.points, subspace) > _MOST_LEFT_OUT:
            return pilot
        return dataclasses.replace(pilot, active_subspace=subspace)

    def carried(
        self, transport: Transport, pilot: Pilot, target: AbstractDensity, key: PRNGKeyArray, config: Config
    ) -> tuple[Transport, Started]:
        """`transport` with the trained parameters of this run, or as it is where they do not fit or are too far."""
        moved, distance, anew = self._moved(transport, pilot, target, key, config)
        return transport if moved is None else moved, Started(self.run, self.name, distance, anew)

    def _moved(
        self, transport: Transport, pilot: Pilot, target: AbstractDensity, key: PRNGKeyArray, config: Config
    ) -> tuple[Transport | None, float | None, str]:
        """The transport with the parameters of this run, its distance from the target, and why it is None."""
        if self.pilot.enough:
            return None, None, "that run has no trained flow"
        if pilot.noncentering is not None or self.pilot.noncentering is not None:
            return None, None, "one of the two targets is sampled in non-centered coordinates"
        if not isinstance(pilot.base, type(self.pilot.base)):
            return None, None, "the base of training is of another kind"
        subspace = self.pilot.active_subspace
        if subspace is not None and not np.array_equal(subspace, np.asarray(pilot.active_subspace)):
            return None, None, "the target differs from its base outside the active subspace of that run"
        moved = _with_parameters(transport, self.transport)
        if moved is None:
            return None, None, "its networks have other shapes"
        moved = _with_shifted_rate(moved, _mean_rate(pilot) - _mean_rate(self.pilot))
        distance = _distance(moved, pilot, target, key, config)
        if not distance < _FAR:
            return None, distance, f"that flow is {distance:.3g} nats away (both KL divergences together)"
        return moved, distance, ""


_KINDS = {
    "dimension": lambda density: density.dim,
    "lattice shape": lattice_of,
    "sign symmetry": is_sign_symmetric,
    "number of coordinates": coordinates_of,
    "declaration of a prior": lambda density: prior_of(density) is not None,
}


def _with_parameters(transport: Transport, trained: Transport) -> Transport | None:
    """The transport with the parameters of a trained one; None where their names or shapes differ."""
    params, frozen = eqx.partition(transport, trainable(transport))
    known = _by_path(eqx.filter(trained, trainable(trained)))
    if {path: leaf.shape for path, leaf in known.items()} != {p: leaf.shape for p, leaf in _by_path(params).items()}:
        return None
    taken = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jax.numpy.asarray(known[jax.tree_util.keystr(path)], leaf.dtype), params
    )
    return eqx.combine(taken, frozen)


def _by_path(params: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _mean_rate(pilot: Pilot) -> float:
    return pilot.log_z - float(pilot.base.log_z)


def _with_shifted_rate(transport: Transport, shift: float) -> Transport:
    """The transport whose C_t is larger by `shift` at all times."""
    if not isinstance(transport.log_z_rate, LogZRate):
        return transport

    def constant(rate: Any) -> Any:
        return rate.mlp.biases[-1]

    shifted = constant(transport.log_z_rate) + np.asarray(shift, constant(transport.log_z_rate).dtype)
    return eqx.tree_at(lambda t: constant(t.log_z_rate), transport, shifted)


def _distance(transport: Transport, pilot: Pilot, target: AbstractDensity, key: PRNGKeyArray, config: Config) -> float:
    """KL(p, q) + KL(q, p) of the target p and the flow q, from points of both: neither needs log Z."""
    flow = make_flow(config, transport)
    x, log_prob = sample_flow(flow, key, _NUM_COMPARED)
    points = np.asarray(spread(pilot.points, _NUM_COMPARED))
    at_points = _log_weight(target, points, flow_log_prob(flow, points))
    difference = at_points.mean() - _log_weight(target, x, log_prob).mean()
    return float(difference) if np.isfinite(difference) else float("inf")


def _log_weight(target: AbstractDensity, x: Any, log_prob: Any) -> Float[np.ndarray, " num"]:
    return -np.asarray(map_points(target.energy, x), np.float64) - np.asarray(log_prob, np.float64)
