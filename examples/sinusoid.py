"""A sinusoid of known frequency in noisy data: amplitude, phase and offset with uniform priors, and the evidence.

    boltzflow run examples/sinusoid.py:target --out runs/sinusoid

`bounded` is the same posterior as an energy with bounds, whose log Z is larger by the log of the volume of the box. In
three dimensions a grid gives exact results.
"""

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from boltzflow.priors import Uniform

TIME = np.linspace(0.0, 4.0, 20)
DATA = np.array(
    [0.9, 1.6, 1.7, 1.3, 0.2, -0.5, -0.8, -0.4, 0.5, 1.4, 1.9, 1.4, 0.7, -0.2, -0.9, -0.6, 0.1, 1.1, 1.8, 1.6]
)
FREQUENCY, NOISE = 0.55, 0.5
LOWER, UPPER = np.array([0.0, -np.pi, -2.0]), np.array([3.0, np.pi, 2.0])


# --8<-- [start:model]
def log_likelihood(amplitude, phase, offset):
    """Independent normal noise around offset + amplitude · sin(2π · frequency · time + phase)."""
    signal = offset + amplitude * jnp.sin(2 * np.pi * FREQUENCY * TIME + phase)
    return jnp.sum(jax.scipy.stats.norm.logpdf(DATA, signal, NOISE))


target = boltzflow.Posterior(
    log_likelihood,
    {name: Uniform(*ends) for name, *ends in zip(("amplitude", "phase", "offset"), LOWER, UPPER, strict=True)},
)
bounded = boltzflow.Energy(lambda x: -log_likelihood(*x), 3, lower=LOWER, upper=UPPER)
# --8<-- [end:model]


def exact(num=161):
    """The log evidence and the mean amplitude, by the midpoint rule."""
    axes = [low + (high - low) * (np.arange(num) + 0.5) / num for low, high in zip(LOWER, UPPER, strict=True)]
    amplitude, phase, offset = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    wave = np.sin(2 * np.pi * FREQUENCY * TIME[:, None] + phase)
    squares = sum((y - offset - amplitude * one) ** 2 for y, one in zip(DATA, wave, strict=True))
    log_density = -squares / (2 * NOISE**2) - len(DATA) * np.log(NOISE * np.sqrt(2 * np.pi))
    weight = np.exp(log_density - log_density.max())
    return log_density.max() + np.log(weight.mean()), (weight * amplitude).sum() / weight.sum()
