"""What training minimizes: the continuity loss (16) and, as the baseline, the reverse KL divergence (1)."""

from .continuity import PENALTIES, continuity_loss, stratified_times, trajectory
from .reverse_kl import reverse_kl_loss

__all__ = ["PENALTIES", "continuity_loss", "reverse_kl_loss", "stratified_times", "trajectory"]
