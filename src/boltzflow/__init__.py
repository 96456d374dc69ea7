"""Learn a flow from a simple base to a Boltzmann density, given only its energy, and know whether to trust it.

>>> import boltzflow
>>> run = boltzflow.fit(boltzflow.mixture_2(), seed=0)
>>> abs(run.log_z().value) < 0.1
True
"""

from boltzflow.cli import process as _process  # noqa: F401  Ctrl-C during the imports below is one line

# isort: split
from boltzflow import interop as interop  # its modules are imported when they are used
from boltzflow import priors as priors
from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.densities.catalog import gmm_40, mixture_2, mixture_4
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import Energy
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.densities.many_well import many_well
from boltzflow.densities.posterior import Posterior
from boltzflow.errors import InputError, SeedsError, TrainingError
from boltzflow.model.continuity import Transport, continuity_residual, trainable
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.flow import Flow
from boltzflow.model.interpolations import AbstractInterpolation
from boltzflow.model.losses import PENALTIES as penalties
from boltzflow.report.report import Report, Verdict
from boltzflow.run import Run, Samples, fit, fit_seeds, load, run_of
from boltzflow.sampling.pilot import Pilot
from boltzflow.statistics.estimates import Estimate
from boltzflow.storage.versions import own_version
from boltzflow.training.build import Parts
from boltzflow.training.loop import Progress
from boltzflow.training.pieces import draw_points, explore, make_transport

__version__ = own_version()

__all__ = [
    "AbstractDensity",
    "AbstractDistribution",
    "AbstractInterpolation",
    "AbstractVectorField",
    "Config",
    "DoubleWell",
    "Energy",
    "Estimate",
    "Flow",
    "Gaussian",
    "GaussianMixture",
    "InputError",
    "Parts",
    "Pilot",
    "Posterior",
    "Progress",
    "Report",
    "Run",
    "Samples",
    "SeedsError",
    "TrainingError",
    "Transport",
    "Verdict",
    "__version__",
    "continuity_residual",
    "draw_points",
    "explore",
    "fit",
    "fit_seeds",
    "gmm_40",
    "load",
    "make_transport",
    "many_well",
    "mixture_2",
    "mixture_4",
    "penalties",
    "priors",
    "run_of",
    "trainable",
]


def __dir__() -> list[str]:
    return __all__
