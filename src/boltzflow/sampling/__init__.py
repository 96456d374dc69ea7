"""Samples and searches that need no training: HMC, sequential Monte Carlo, minima, the pilot, corrections."""
