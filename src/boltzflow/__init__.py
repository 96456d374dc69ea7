"""Learn a flow from a simple base to a Boltzmann density, given only its energy, and know whether to trust it.

run = boltzflow.fit(boltzflow.Energy(energy, dim=8))
print(run.log_z())
"""

from boltzflow.assembly import Parts
from boltzflow.densities import AbstractDensity, AbstractDistribution
from boltzflow.errors import InputError, SeedsError, TrainingError
from boltzflow.estimators import Estimate
from boltzflow.flow import Flow
from boltzflow.presets import Config
from boltzflow.report import Report
from boltzflow.run import Run, Samples, fit, fit_seeds
from boltzflow.stored import load
from boltzflow.targets import DoubleWell, Energy, GaussianMixture, gmm_40, many_well, mixture_2, mixture_4
from boltzflow.training import Progress
from boltzflow.version import VERSION as __version__

__all__ = [
    "AbstractDensity",
    "AbstractDistribution",
    "Config",
    "DoubleWell",
    "Energy",
    "Estimate",
    "Flow",
    "GaussianMixture",
    "InputError",
    "Parts",
    "Progress",
    "Report",
    "Run",
    "Samples",
    "SeedsError",
    "TrainingError",
    "__version__",
    "fit",
    "fit_seeds",
    "gmm_40",
    "load",
    "many_well",
    "mixture_2",
    "mixture_4",
]
