"""Arrays, compilation and argument checks; no densities."""
