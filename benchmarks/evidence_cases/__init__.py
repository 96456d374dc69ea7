"""The posteriors of `benchmarks.evidence` by name, each with its known log Z."""

from benchmarks.evidence_cases.case import Case
from benchmarks.evidence_cases.data_sets import DATA_SETS
from benchmarks.evidence_cases.shapes import SHAPES

CASES: dict[str, Case] = {**SHAPES, **DATA_SETS}
