"""Estimates with errors from arrays of samples and weights: NumPy in, `Estimate` out."""
