"""Samples per second with log-density, energy and weight: `run.sample` of the default preset.

The speed does not depend on the training, which is short here. The first call, which compiles, does not count.
"""

import dataclasses
import functools
import time

import jax

import boltzflow
from benchmarks import common
from benchmarks.store import Row, Store

NAME = "sampling"
SITES = (4, 16, 64, 256, 1024)
MASS = 1.5
NUM_STEPS = 10


def main() -> None:
    options = common.arguments(
        __doc__,
        sites={"type": int, "nargs": "+", "default": SITES, "help": "numbers of sites"},
        fields={"nargs": "+", "default": common.FIELDS, "help": "kinds of field"},
        samples={"type": int, "default": 100_000, "help": "samples to draw (a tenth of them above 64 sites)"},
    )
    store = Store(NAME, options.results, options.fresh)
    for field in options.fields:
        for sites in options.sites:
            num = options.samples if sites <= 64 else options.samples // 10
            store.measured(functools.partial(measure, sites, field, num), sites=sites, field=field, samples=num)


def measure(sites: int, field: str, num_samples: int) -> Row:
    """The time of one call for `num_samples`."""
    config = dataclasses.replace(boltzflow.Config(), num_steps=NUM_STEPS, field=field)
    run = boltzflow.fit(boltzflow.DoubleWell(sites, MASS), seed=0, config=config)
    run.sample(jax.random.key(0), num_samples)
    start = time.perf_counter()
    samples = run.sample(jax.random.key(1), num_samples)
    jax.block_until_ready(samples.log_weight)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "samples_per_second": num_samples / seconds}


if __name__ == "__main__":
    main()
