"""Posteriors with a known evidence: default runs beside nested samplers at their own defaults.

A run of ours reaches its goal where it is trusted, log Z is right within four errors, and the stated error is at most
.005; on the two hard cases it may also be distrusted. Rivals get the same prior, as a map from the unit cube.
"""

import functools
import math
import time

import jax

import boltzflow
from benchmarks import common
from benchmarks.evidence_cases import CASES
from benchmarks.evidence_cases.case import Case
from benchmarks.evidence_rivals import RIVALS, answer
from benchmarks.store import Row, Store, baseline_source
from boltzflow.numerics.compiling import use_compilation_cache

NAME = "evidence"
OURS = "boltzflow"


def main() -> None:
    use_compilation_cache()
    methods = [OURS, *RIVALS]
    options = common.arguments(
        __doc__,
        CASES,
        seeds={**common.SEEDS, "default": 1},
        methods={"nargs": "+", "choices": methods, "default": methods, "help": "those to run"},
        limit={"type": float, "default": 10.0, "help": "minutes after which a rival is stopped"},
    )
    store = Store(NAME, options.results, options.fresh)
    of_rivals = baseline_source(NAME)  # before any change of a file that this process has loaded
    for seed in range(options.seeds):
        for name in options.targets:
            for method in options.methods:
                key = {"target": name, "method": method, "seed": seed}
                if method == OURS:
                    store.measured(functools.partial(ours, CASES[name], seed), **key)
                else:
                    run = functools.partial(rival, method, CASES[name], seed, 60 * options.limit)
                    store.measured(run, of_rivals, **key)
                jax.clear_caches()


def ours(case: Case, seed: int) -> Row:
    """What a default run says of a case, and whether that is what was asked for."""
    start = time.perf_counter()
    run = boltzflow.fit(case.make(), seed=seed)
    report = run.report()
    seconds = time.perf_counter() - start
    log_z = run.log_z()
    row: Row = {
        **_answer(case, float(log_z.value), float(log_z.stderr)),
        "trusted": report.verdict.trustworthy,
        "route": report.route,
        "gradients": report.cost["gradient_evaluations"],
        "calls": report.cost["gradient_evaluations"] + report.cost.get("energy_evaluations", 0),
        "seconds": seconds,
        "device": str(jax.devices()[0].device_kind),
        "said": [*report.verdict.warnings, *report.verdict.notes],
    }
    ess = report.estimates["reverse_ess"].value
    if math.isfinite(ess):
        row["reverse_ess"] = float(ess)
    return row | {"reached": case.is_reached(row["log_z"], row["error"], row["trusted"])}


def rival(name: str, case: Case, seed: int, limit: float) -> Row:
    """What a nested sampler says of a case."""
    start = time.perf_counter()
    found = answer(name, case.make(), seed, limit)
    seconds = time.perf_counter() - start
    return {**_answer(case, found.log_z, found.error), "calls": found.calls, "seconds": seconds}


def _answer(case: Case, log_z: float, error: float) -> Row:
    return {"log_z": log_z, "error": error, "off": log_z - case.log_z, "z": case.off(log_z, error)}


if __name__ == "__main__":
    main()
