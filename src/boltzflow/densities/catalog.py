"""The shipped targets, by name: the paper's, and two from papers on neural samplers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.densities.many_well import many_well
from boltzflow.errors import InputError
from boltzflow.numerics.validation import frozen


def mixture_4() -> GaussianMixture:
    """The paper's target (2): four equal Gaussians of unit covariance at (±8, ±8)."""
    return GaussianMixture(np.full(4, 0.25), [[-8.0, -8.0], [-8.0, 8.0], [8.0, -8.0], [8.0, 8.0]], 1.0)


def mixture_2() -> GaussianMixture:
    """The paper's target (18): a third of the mass at (4, 4), two thirds at (-8, -8), unit covariances."""
    return GaussianMixture([1 / 3, 2 / 3], [[4.0, 4.0], [-8.0, -8.0]], 1.0)


# fmt: off
_MEANS = frozen(
    [
        (-0.299473, 21.457744), (-32.921805, -29.437561), (-15.406175, 10.726295), (-0.792527, 31.715579),
        (-3.549762, 10.584502), (-12.088523, -7.862616), (-38.21394, -26.491284), (-16.488924, 1.481743),
        (15.813408, 24.000912), (-27.117643, -17.418513), (14.528685, 33.215518), (-8.232007, 29.93247),
        (-6.447334, 4.232564), (36.219049, -37.106814), (-25.181518, -10.12661), (-15.591998, 34.560032),
        (-25.927186, -18.413315), (-27.945619, -37.46244), (-23.349619, 34.383922), (17.848735, 19.386902),
        (2.103662, -20.50734), (6.767387, -37.347789), (-28.90265, -20.6212), (25.237517, 23.452849),
        (-17.739801, -1.443295), (25.582428, 39.765325), (15.875287, 5.403714), (26.819453, -23.552094),
        (7.453761, -31.01222), (-27.723446, -20.663342), (18.098922, 16.086416), (-23.6941, 12.084284),
        (21.95888, -5.048695), (1.527262, 9.268188), (24.815063, 38.407764), (-30.824943, -14.65879),
        (15.720396, 33.141975), (34.808292, 35.294271), (7.960582, -34.783306), (3.6797, -25.024214),
    ]
)
# fmt: on


def gmm_40() -> GaussianMixture:
    """Forty equal Gaussians in 2-D of standard deviation softplus(1) = 1.3133, as in the FAB and iDEM papers."""
    return GaussianMixture(np.full(40, 1 / 40), _MEANS, math.log1p(math.e) ** 2)


@dataclasses.dataclass(frozen=True)
class TargetOption:
    """An option of a target."""

    name: str  # the keyword of its factory
    kind: type
    default: int | float
    help: str


@dataclasses.dataclass(frozen=True)
class TargetRecord:
    """A shipped target."""

    name: str
    factory: Callable[..., AbstractDensity]
    description: str
    exact: tuple[str, ...]  # the properties that are known exactly
    options: tuple[TargetOption, ...] = ()


_MIXTURE_EXACT = ("log_z", "log_prob", "samples", "modes")

SHIPPED: dict[str, TargetRecord] = {
    record.name: record
    for record in (
        TargetRecord("mixture-4", mixture_4, "four equal Gaussians in 2-D at (±8, ±8) (paper, Eq. 2)", _MIXTURE_EXACT),
        TargetRecord(
            "mixture-2", mixture_2, "two unequal Gaussians in 2-D, 1/3 and 2/3 (paper, Eq. 18)", _MIXTURE_EXACT
        ),
        TargetRecord(
            "double-well",
            DoubleWell,
            "a quantum particle in a double well, as a periodic chain (paper, Eq. 27)",
            (*_MIXTURE_EXACT, "site_density", "correlator", "mean_abs"),
            (
                TargetOption("num_sites", int, 16, "sites of the chain, which is the dimension"),
                TargetOption("mass", float, 1.5, "mass m; from about 4 on the two wells are separate modes"),
                TargetOption("coupling", float, 1.0, "coupling λ of the quartic term"),
                TargetOption("total_time", float, 4.0, "total time T; the time step is T/N"),
            ),
        ),
        TargetRecord("gmm-40", gmm_40, "forty Gaussians in 2-D, as in the FAB and iDEM papers", _MIXTURE_EXACT),
        TargetRecord(
            "many-well",
            many_well,
            "independent pairs with two wells of mass 0.16 and 0.84 each",
            ("log_z", "log_prob", "samples", "modes up to 10 pairs"),
            (TargetOption("num_pairs", int, 16, "pairs of coordinates; the dimension is twice that"),),
        ),
    )
}


def make_target(name: str, **options: Any) -> AbstractDensity:
    """The shipped target of that name, with its options. Raises `InputError` for a wrong name, option or value."""
    if name not in SHIPPED:
        raise InputError(f"there is no target {name!r}; the shipped ones are {', '.join(SHIPPED)}")
    record = SHIPPED[name]
    known = [option.name for option in record.options]
    if unknown := sorted(set(options) - set(known)):
        others = f"its options are {', '.join(known)}" if known else "it takes none"
        raise InputError(f"{name} has no option {unknown[0]!r}; {others}")
    return record.factory(**options)
