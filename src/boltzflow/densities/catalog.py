"""Target densities, and the record of those that ship under a name (`boltzflow targets`, `boltzflow run NAME`)."""

import dataclasses
from collections.abc import Callable
from typing import Any

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import Energy, check_energy
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.densities.gmm_40 import gmm_40
from boltzflow.densities.many_well import FewWell, ManyWell, many_well
from boltzflow.densities.mixtures import mixture_2, mixture_4
from boltzflow.errors import InputError

__all__ = [
    "SHIPPED",
    "DoubleWell",
    "Energy",
    "FewWell",
    "GaussianMixture",
    "ManyWell",
    "TargetOption",
    "TargetRecord",
    "check_energy",
    "gmm_40",
    "make_target",
    "many_well",
    "mixture_2",
    "mixture_4",
]


@dataclasses.dataclass(frozen=True)
class TargetOption:
    """A factory's keyword: its `name` in Python, `kind` (int or float), `default`, one line of `help`."""

    name: str
    kind: type
    default: int | float
    help: str


@dataclasses.dataclass(frozen=True)
class TargetRecord:
    """A target that ships under a `name`: how it is made, what it is in one line, and what is known of it exactly."""

    name: str
    factory: Callable[..., AbstractDensity]
    description: str
    exact: tuple[str, ...]
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
    """The shipped target of that name, with its options as keywords.

    Raises `InputError` where there is no such target, it has no such option, or it refuses an option's value.
    """
    if name not in SHIPPED:
        raise InputError(f"there is no target {name!r}; the shipped ones are {', '.join(SHIPPED)}")
    record = SHIPPED[name]
    known = [option.name for option in record.options]
    unknown = sorted(set(options) - set(known))
    if unknown:
        others = f"its options are {', '.join(known)}" if known else "it takes none"
        raise InputError(f"{name} has no option {unknown[0]!r}; {others}")
    return record.factory(**options)
