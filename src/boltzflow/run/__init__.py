"""The public face: `fit`, `fit_seeds` and `load`, and the `Run` that they return."""

from boltzflow.report.samples import Samples
from boltzflow.run.fitting import fit, fit_seeds, run_of
from boltzflow.run.loading import load
from boltzflow.run.run import Run

__all__ = ["Run", "Samples", "fit", "fit_seeds", "load", "run_of"]
