"""Base densities: normalized, sampled exactly, and where every path of densities starts (f_0 of the paper)."""

from boltzflow.bases.gaussian import Gaussian
from boltzflow.bases.generalized_gaussian import GeneralizedGaussian
from boltzflow.bases.mixture import Mixture, frame_of

__all__ = ["Gaussian", "GeneralizedGaussian", "Mixture", "frame_of"]
