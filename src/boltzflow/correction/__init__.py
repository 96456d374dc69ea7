"""What mends a flow, or does without one: annealed sampling, corrections of a flow's samples."""

from .corrected import CORRECTIONS, Corrected, correct

__all__ = ["CORRECTIONS", "Corrected", "correct"]
