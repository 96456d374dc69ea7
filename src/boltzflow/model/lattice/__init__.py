"""Networks with the symmetry of a periodic lattice."""
