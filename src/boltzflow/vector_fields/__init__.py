"""Velocity fields."""

from .base import AbstractVectorField
from .time_mixture import TimeMixture

__all__ = ["AbstractVectorField", "TimeMixture"]
