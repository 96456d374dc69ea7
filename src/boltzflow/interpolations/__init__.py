"""Paths of energies from the base's to the target's."""

from .base import AbstractInterpolation
from .clock import Clock, fit_clock
from .diffusion import Diffusion
from .linear import Linear
from .trainable import Trainable
from .trigonometric import Trigonometric

__all__ = ["AbstractInterpolation", "Clock", "Diffusion", "Linear", "Trainable", "Trigonometric", "fit_clock"]
