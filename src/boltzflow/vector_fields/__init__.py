"""Velocity fields."""

from .base import AbstractVectorField
from .lattice import Lattice
from .still import Still
from .time_mixture import TimeMixture

__all__ = ["AbstractVectorField", "Lattice", "Still", "TimeMixture"]
