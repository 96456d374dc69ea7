"""Default runs on targets that users bring: log Z, the route that answered, the reverse ESS, the time and the calls.

Nothing is set but the symmetries that a target declares. A run reaches its goal where it is trusted, its log Z is right
within four errors, and it comes as near, or its reverse ESS as high, as the case asks.
"""

import functools
import math
import time

import jax

import boltzflow
from benchmarks import common
from benchmarks.reach_cases import CASES, Case
from benchmarks.store import Row, Store
from boltzflow.numerics.compiling import use_compilation_cache

NAME = "reach"
MOST_SIGMA = 4.0


def main() -> None:
    use_compilation_cache()
    options = common.arguments(__doc__, CASES, seeds={**common.SEEDS, "default": 3})
    store = Store(NAME, options.results, options.fresh)
    for seed in range(options.seeds):
        for name in options.targets:
            store.measured(functools.partial(reached, CASES[name], seed), target=name, seed=seed)
            jax.clear_caches()


def reached(case: Case, seed: int) -> Row:
    """What a default run says of a case: its answer, the route, the time, and whether that is what was asked for."""
    start = time.perf_counter()
    run = boltzflow.fit(case.make(), seed=seed)
    report = run.report()
    seconds = time.perf_counter() - start
    log_z = run.log_z()
    ess = report.estimates["reverse_ess"].value
    row: Row = {
        "log_z": float(log_z.value),
        "error": float(log_z.stderr),
        "route": report.route,
        "trusted": report.verdict.trustworthy,
        "seconds": seconds,
        "device": str(jax.devices()[0].device_kind),
        "gradients": report.cost["gradient_evaluations"],
        "said": [*report.verdict.warnings, *report.verdict.notes],
    }
    if math.isfinite(ess):
        row["reverse_ess"] = float(ess)
    near = True
    if math.isfinite(case.log_z):
        error = math.hypot(float(log_z.stderr), case.log_z_error)
        row["z"] = (float(log_z.value) - case.log_z) / error
        near = abs(row["z"]) < MOST_SIGMA
    if case.of == "ess":
        good = row.get("reverse_ess", 0.0) >= case.goal
    else:
        good = abs(row["log_z"] - case.log_z) <= case.goal + 2 * case.log_z_error
    return row | {"reached": bool(row["trusted"] and near and good)}


if __name__ == "__main__":
    main()
