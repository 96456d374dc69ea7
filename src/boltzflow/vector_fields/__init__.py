"""Velocity fields."""

from .base import AbstractVectorField
from .lattice import Lattice
from .time_mixture import TimeMixture

__all__ = ["AbstractVectorField", "Lattice", "TimeMixture"]
