"""Densities p ∝ exp(-f), base or target: contracts, checks, shipped densities, and densities from a file."""
