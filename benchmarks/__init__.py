"""Measurements of speed, each a program: `python -m benchmarks.NAME --help`, or all of them: `make bench`."""
