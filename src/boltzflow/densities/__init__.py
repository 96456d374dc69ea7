"""Densities p ∝ exp(-f), whether base or target: their contracts, those that ship, those from a file."""
