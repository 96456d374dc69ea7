"""A pilot as arrays and numbers, for a snapshot or a checkpoint, and back; and a check that a target is the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.densities.energy_checks import rounding_of, spread
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture, SubspaceMixture
from boltzflow.densities.noncentered import ARRAYS, NonCentering
from boltzflow.densities.student_t import StudentTMixture
from boltzflow.errors import InputError
from boltzflow.model.interpolations import Clock
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling import resampling
from boltzflow.sampling.pilot import Pilot, in_coordinates

EIGENVALUES = "base.scale.eigenvalues"  # in place of base.scale, where it is a `Circulant`
_MIXTURE = ("weights", "means", "scales")
_NONCENTERING = "pilot.noncentering"
_NUM_ENERGIES = 64
_DIFFERENCE = 1e-4  # of the spread of energies, by which they may change before a flow is of another target
_EQUAL = 1e-9  # the same for numbers that were measured on a target
_ROUNDINGS = 16  # of an energy on another machine
_NUMBERS = ("log_z", "log_z_stderr", "acceptance", "num_gradients", "num_particles", "nonfinite_share")


def energies(target: AbstractDensity, pilot: Pilot) -> Float[np.ndarray, " num"]:
    """The energies at some of the pilot's points, by which a target is recognized."""
    return np.asarray(map_points(in_coordinates(target, pilot).energy, pilot.points[:_NUM_ENERGIES]))


def check_target(path: Path, target: AbstractDensity, pilot: Pilot, kept: Float[np.ndarray, " num"]) -> None:
    """Raises `InputError` unless the target's energies are near those that were `kept` in the file.

    What they may differ by grows with differences of energies, and with the energies themselves only as their rounding
    does.
    """
    if not _agree(target, pilot, kept, _DIFFERENCE):
        raise InputError(f"{path} is of another target: its energies are not those of this one")


def is_measured_target(target: AbstractDensity, pilot: Pilot, kept: Float[np.ndarray, " num"]) -> bool:
    """Whether the target's energies are those that were `kept` up to rounding, so that what was measured holds."""
    return _agree(target, pilot, kept, _EQUAL)


def _agree(target: AbstractDensity, pilot: Pilot, kept: Float[np.ndarray, " num"], difference: float) -> bool:
    """Whether energies differ by less than `difference` of their spread, in the precision of those that were kept."""
    if pilot.points.shape[1] != target.dim:
        return False
    with jax.enable_x64(kept.dtype == np.float64):
        here = np.asarray(energies(target, pilot), np.float64)
        eps = rounding_of(target)
    before = np.asarray(kept, np.float64)
    rounding = max(_ROUNDINGS, target.dim**0.5) * eps * np.abs(before)
    with np.errstate(invalid="ignore"):
        near = np.isfinite(before) & (np.abs(here - before) <= difference * (1 + spread(before)) + rounding)
    return bool(np.all(near | (here == before) | (np.isnan(here) & np.isnan(before))))


def pilot_contents(pilot: Pilot, num_points: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pilot as arrays and numbers; `num_points` limits the number of its points and leaves out those of the path."""
    arrays: dict[str, Any] = {"pilot.points": pilot.points, "pilot.wide_points": pilot.wide_points}
    if num_points is not None:
        arrays = {name: resampling.spread(points, num_points) for name, points in arrays.items()}
    else:
        arrays |= {"pilot.path_times": pilot.path_times, "pilot.path_points": pilot.path_points}
    arrays["pilot.minima"] = pilot.minima
    if isinstance(pilot.base, (Gaussian, SubspaceMixture)):
        arrays |= _base_arrays(pilot.base)
    if pilot.active_subspace is not None:
        arrays["pilot.directions"] = pilot.active_subspace
    if pilot.noncentering is not None:
        arrays |= {f"{_NONCENTERING}.{name}": np.asarray(getattr(pilot.noncentering, name)) for name in ARRAYS}
    if pilot.known_points is not None:
        arrays["pilot.known_points"] = pilot.known_points
    numbers = {"clock_rate": float(pilot.clock.rate), "complaints": list(pilot.complaints), "enough": pilot.enough}
    if pilot.coordinates:
        numbers["coordinates"] = pilot.coordinates
    return arrays, numbers | {name: getattr(pilot, name) for name in _NUMBERS}


def pilot_from(
    arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any], base: AbstractDistribution | None
) -> Pilot:
    """The pilot of these contents; `base` is the base of training where the pilot did not fit one."""
    points = arrays["pilot.points"]
    return Pilot(
        base=base or _base(arrays),
        clock=Clock(numbers["clock_rate"]),
        active_subspace=arrays.get("pilot.directions"),
        points=points,
        wide_points=arrays["pilot.wide_points"],
        minima=arrays["pilot.minima"],
        path_times=arrays.get("pilot.path_times", np.ones(1)),
        path_points=arrays.get("pilot.path_points", points[None]),
        complaints=tuple(numbers["complaints"]),
        enough=numbers["enough"],
        noncentering=_noncentering(arrays),
        coordinates=numbers.get("coordinates", ""),
        known_points=arrays.get("pilot.known_points"),
        **{name: numbers[name] for name in _NUMBERS},
    )


def _noncentering(arrays: Mapping[str, np.ndarray]) -> NonCentering | None:
    kept = [f"{_NONCENTERING}.{name}" for name in ARRAYS]
    return NonCentering(*(arrays[name] for name in kept)) if kept[0] in arrays else None


def _base_arrays(base: Gaussian | SubspaceMixture) -> dict[str, Any]:
    if isinstance(base, SubspaceMixture):
        inner = {f"base.{name}": getattr(base.inner, name) for name in _MIXTURE}
        if isinstance(base.inner, StudentTMixture):
            inner["base.degrees"] = base.inner.degrees
        return _base_arrays(base.gaussian) | inner | {"base.directions": base.subspace}
    if isinstance(base.scale, Circulant):
        return {"base.mean": base.mean, EIGENVALUES: base.scale.eigenvalues}
    return {"base.mean": base.mean, "base.scale": base.scale}


def _base(arrays: Mapping[str, np.ndarray]) -> AbstractDistribution:
    scale = Circulant(arrays[EIGENVALUES]) if EIGENVALUES in arrays else arrays["base.scale"]
    gaussian = Gaussian(arrays["base.mean"], scale_tril=scale)
    if "base.directions" not in arrays:
        return gaussian
    weights, means, scales = (arrays[f"base.{name}"] for name in _MIXTURE)
    inner: GaussianMixture | StudentTMixture = GaussianMixture(weights, means, scales=scales)
    if "base.degrees" in arrays:
        inner = StudentTMixture(weights, means, float(arrays["base.degrees"]), scales=scales)
    return SubspaceMixture(gaussian, inner, arrays["base.directions"])
