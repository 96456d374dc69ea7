"""Rotated skew normals in SciPy: an energy computed outside JAX, with a known log Z.

    boltzflow run examples/skew_normal.py:target --out runs/skew-normal

p(x) ∝ Π_i exp(-u_i²/2) Φ(α u_i) with u = R x. Every factor integrates to ½ √(2π), so log Z = d (½ log 2π - log 2).
"""

import numpy as np
from scipy.special import log_ndtr

from boltzflow.interop.callback import Callback

DIM = 4
SKEWNESS = 3.0
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
LOG_Z = DIM * (0.5 * np.log(2 * np.pi) - np.log(2))


def energy_and_gradient(x):
    """Energies `(num,)` and gradients `(num, DIM)` of points `(num, DIM)`."""
    u = x @ ROTATION.T
    log_tail = log_ndtr(SKEWNESS * u)
    ratio = np.exp(-0.5 * (SKEWNESS * u) ** 2 - 0.5 * np.log(2 * np.pi) - log_tail)  # φ(α u) / Φ(α u)
    return np.sum(0.5 * u**2 - log_tail, axis=1), (u - SKEWNESS * ratio) @ ROTATION


def target():
    """The density as a target; `Callback` checks the gradient against the energy."""
    return Callback(energy_and_gradient, DIM)
