"""The targets of `benchmarks.reach` by name: what users bring, with its log Z and what a default run must reach."""

from benchmarks.reach_cases.case import Case
from benchmarks.reach_cases.lattices import LATTICES
from benchmarks.reach_cases.others import OTHERS
from benchmarks.reach_cases.posteriors import POSTERIORS

CASES: dict[str, Case] = {**LATTICES, **OTHERS, **POSTERIORS}
