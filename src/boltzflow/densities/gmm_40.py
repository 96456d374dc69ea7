"""The forty-component mixture that papers on neural samplers report (Midgley et al. 2023, `FAB`)."""

import math

import numpy as np

from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.numerics.validation import frozen

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
    """Forty equal Gaussians in two dimensions, means in [-40, 40]², standard deviation softplus(1) = 1.3133.

    The means and the width are those of the FAB and iDEM papers, so numbers can be set beside theirs.
    """
    return GaussianMixture(np.full(40, 1 / 40), _MEANS, math.log1p(math.e) ** 2)
