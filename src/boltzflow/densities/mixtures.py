"""The two mixtures of Gaussians of the paper: `mixture_4` (2) and `mixture_2` (18)."""

import numpy as np

from boltzflow.densities.gaussian_mixture import GaussianMixture


def mixture_4() -> GaussianMixture:
    """The paper's target (2): four equal Gaussians of unit covariance at (±8, ±8)."""
    return GaussianMixture(np.full(4, 0.25), [[-8.0, -8.0], [-8.0, 8.0], [8.0, -8.0], [8.0, 8.0]], 1.0)


def mixture_2() -> GaussianMixture:
    """The paper's target (18): a third of the mass at (4, 4), two thirds at (-8, -8), unit covariances."""
    return GaussianMixture([1 / 3, 2 / 3], [[4.0, 4.0], [-8.0, -8.0]], 1.0)
