"""Distributions of named variables, each a map from independent standard normals: the priors of `boltzflow.Posterior`.

>>> import jax.numpy as jnp
>>> from boltzflow import priors
>>> float(priors.Uniform(0.0, 4.0).from_normals(jnp.zeros(())))  # the median
2.0
"""

from boltzflow.priors.base import AbstractPrior
from boltzflow.priors.families import Cauchy, Exponential, HalfCauchy, HalfNormal, LogNormal, Normal, Uniform
from boltzflow.priors.shaped import Beta, Dirichlet, Gamma, StudentT

__all__ = [
    "AbstractPrior",
    "Beta",
    "Cauchy",
    "Dirichlet",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "LogNormal",
    "Normal",
    "StudentT",
    "Uniform",
]
