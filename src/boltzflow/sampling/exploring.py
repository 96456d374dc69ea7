"""The pilot in coordinates that suit the target: non-centered ones where it has a neck.

A pilot of few points in a neck cannot know how much of the target lies there. So it is made again in coordinates that
are fitted to its points, and kept where the places in them are less uneven and nothing else is worse.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from boltzflow.densities.base import (
    AbstractDensity,
    AbstractDistribution,
    HasModes,
    is_sign_symmetric,
    lattice_of,
)
from boltzflow.densities.energy import Energy
from boltzflow.densities.noncentered import NonCentered
from boltzflow.numerics.batching import map_points
from boltzflow.sampling.coverage import energies_at
from boltzflow.sampling.noncentering import fit_noncentering, narrowest, narrowness
from boltzflow.sampling.pilot import Pilot, run_pilot
from boltzflow.sampling.resampling import spread

_NARROW = 5.0  # from which on other coordinates are tried
_LESS = 1.5  # times less uneven these must be
_TRIES = 5  # at most: the points of each try know the scales better
_DEEPER = 0.2  # of a log-scale, by which points must reach farther into a neck for another try
_STILL_DEEPER = (
    "The pilot reached farther into the neck of the target with each change of its coordinates: the part beyond is "
    "missing."
)
_FEWER = 3.0  # errors by which log Z may be lower than in the target's own coordinates


def explore(
    target: AbstractDensity,
    key: PRNGKeyArray,
    *,
    base: AbstractDistribution | None = None,
    pace: bool = True,
    adapt: bool = True,
) -> Pilot:
    """The pilot of `target`, as `run_pilot` makes it, in the coordinates in which its points are most even.

    `adapt` False, a base, a declared symmetry, angles, exact samples or known modes keep the target's own coordinates.
    """
    pilot = run_pilot(target, key, base=base, pace=pace)
    if not adapt or base is not None or not _may_change(target):
        return pilot
    first = narrowness(target, pilot.points)
    if not first >= _NARROW:  # NaN too
        return pilot
    most = first / _LESS
    own = pilot
    points = np.asarray(own.points, np.float64)
    for attempt in range(1, 1 + _TRIES):
        fitted = fit_noncentering(points)
        if fitted is None:
            return _doubted(pilot)
        there = NonCentered(target, fitted)
        again = run_pilot(there, jax.random.fold_in(key, attempt), pace=pace)
        now = narrowness(there, again.points)
        spent = pilot.num_gradients + again.num_gradients
        if not now <= most or _is_worse(again, pilot):
            return _doubted(dataclasses.replace(pilot, num_gradients=spent))
        sentence = (
            "The target is sampled in non-centered coordinates: one point in two hundred was in a place "
            f"{first:.0f} times narrower than most, as in the neck of a funnel; in these it is {now:.1f} times."
        )
        most = min(most, max(_NARROW, _LESS * now))
        found = _with_points_of(own, again, there)
        pilot = dataclasses.replace(found, num_gradients=spent, noncentering=fitted, coordinates=sentence)
        before = narrowest(fitted, points)
        points = np.asarray(map_points(there.constrain, pilot.points), np.float64)
        if narrowest(fitted, points) > before - _DEEPER:
            return pilot
    return _doubted(pilot)


def _doubted(pilot: Pilot) -> Pilot:
    """The pilot, with a complaint if its points reached farther into a neck at the last change of coordinates."""
    if pilot.noncentering is None:
        return pilot
    return dataclasses.replace(pilot, complaints=(*pilot.complaints, _STILL_DEEPER))


def _may_change(target: AbstractDensity) -> bool:
    """Whether nothing that the target declares is lost in other coordinates."""
    known = isinstance(target, (AbstractDistribution, HasModes, NonCentered))
    declares = known or lattice_of(target) is not None or is_sign_symmetric(target)
    return not declares and not (isinstance(target, Energy) and target.angles is not None)


def _with_points_of(own: Pilot, pilot: Pilot, there: NonCentered) -> Pilot:
    """The pilot with the points and minima of another, which are in the target's own coordinates.

    What that one has found and this one has not is seen by the checks of coverage.
    """
    num = min(len(own.points), len(own.wide_points))
    known = np.stack([map_points(there.whiten, spread(x, num)) for x in (own.points, own.wide_points)])
    minima = pilot.minima
    if len(own.minima):
        moved = np.asarray(map_points(there.whiten, own.minima))
        minima = np.concatenate([minima, moved[np.isfinite(energies_at(there, moved))]])
    return dataclasses.replace(pilot, known_points=known, minima=minima)


def _is_worse(again: Pilot, pilot: Pilot) -> bool:
    """Whether a pilot has found less of the target, or complains more: more of a neck raises log Z."""
    error = float(np.hypot(again.log_z_stderr, pilot.log_z_stderr))
    return len(again.complaints) > len(pilot.complaints) or not again.log_z >= pilot.log_z - _FEWER * error
