"""The cases of `benchmarks.trust` by name."""

from benchmarks.trust_cases.broken import BROKEN as BROKEN
from benchmarks.trust_cases.case import Answer as Answer
from benchmarks.trust_cases.case import Case as Case
from benchmarks.trust_cases.case import Fit as Fit
from benchmarks.trust_cases.healthy import HEALTHY as HEALTHY
