"""The verdict on broken and healthy cases, as confusion tables.

A broken case has a wrong answer, one that is right by accident, or none: a collapsed flow, a missed mode, a wrong
gradient, data that changed. It counts as caught where the report distrusts the run, where the package refuses with a
reason, or where the answer is right within four of its errors. A healthy case counts as passed where the report trusts
the run. The cases are in `benchmarks.trust_cases`, each with its exact log Z where there is one in closed form or by
quadrature.
"""

import functools
import math
import random

import jax

from benchmarks import common
from benchmarks.store import Row, Store
from benchmarks.trust_cases import BROKEN, HEALTHY, Case
from boltzflow.errors import InputError, TrainingError
from boltzflow.numerics.compiling import use_compilation_cache

NAME = "trust"
CASES = {**BROKEN, **HEALTHY}
KINDS = sorted({case.kind for case in CASES.values()})
MOST_SIGMA = 4.0
_WRONG_SIGMA = 1e6  # the most that a row states


def main() -> None:
    use_compilation_cache()
    options = common.arguments(
        __doc__,
        CASES,
        kinds={"nargs": "+", "choices": KINDS, "default": KINDS, "metavar": "KIND", "help": ", ".join(KINDS)},
        limit={"type": int, "default": 0, "help": "measure that many cases at most, drawn at random; 0: all"},
    )
    store = Store(NAME, options.results, options.fresh)
    names = [name for name in options.targets if CASES[name].kind in options.kinds]
    if options.limit:
        names = random.Random(0).sample(names, min(options.limit, len(names)))
    for name in names:
        expected = "broken" if name in BROKEN else "healthy"
        measure = functools.partial(verdict_on, CASES[name])
        store.measured(measure, target=name, expected=expected, kind=CASES[name].kind)
        jax.clear_caches()  # no case uses the programs of another


def verdict_on(case: Case) -> Row:
    """What was said of a case: `trusted`, `ok` where a trusted answer is right, log Z with its error, and `z`.

    An answer that is not finite is left out, and so is `z` where nothing exact is known. `z` is 10⁶ at most.
    """
    try:
        answer = case.ask()
    except (InputError, TrainingError) as error:
        return {"trusted": False, "refused": True, "said": [f"refused: {error}"], "ok": False}
    value, error = float(answer.estimate.value), float(answer.estimate.stderr)
    row: Row = {"trusted": bool(answer.trusted), "refused": False, "said": answer.said, "notes": answer.notes}
    row["unchecked"] = answer.unchecked
    row |= {name: x for name, x in {"log_z": value, "error": error}.items() if math.isfinite(x)}
    right = False
    if answer.exact is not None:
        row["exact"] = answer.exact
        if math.isfinite(value) and not math.isnan(error):
            sigma = (value - answer.exact) / error if error else math.copysign(math.inf, value - answer.exact)
            row["z"] = 0.0 if value == answer.exact else max(-_WRONG_SIGMA, min(_WRONG_SIGMA, sigma))
        right = abs(row.get("z", _WRONG_SIGMA)) < MOST_SIGMA
    return row | {"ok": right and bool(answer.trusted), "seconds": answer.seconds}


if __name__ == "__main__":
    main()
