"""Seconds of an optimizer step and peak memory, over the sites of the chain and the kinds of velocity field.

The step is a full one of the default preset, with the flow's own trajectories; the first steps of a run use the pilot's
points alone and are cheaper. Each row has its own process, and therefore its own peak memory, which includes the
pilot's particles and the program itself, about 0.5 GB.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import resource
import statistics
import subprocess
import sys

import boltzflow
from benchmarks import common
from benchmarks.store import Row, Store

NAME = "step_time"
SITES = (4, 16, 64, 256, 1024)
MASS = 1.5
CHUNKS = 5


def main() -> None:
    options = common.arguments(
        __doc__,
        sites={"type": int, "nargs": "+", "default": SITES, "help": "numbers of sites"},
        fields={"nargs": "+", "default": common.FIELDS, "help": "kinds of field"},
        only={"nargs": 2, "metavar": ("SITES", "FIELD"), "help": "measure one row in this process and print it"},
    )
    if options.only:
        print(json.dumps(measure(int(options.only[0]), options.only[1])))
        return
    store = Store(NAME, options.results, options.fresh)
    for field in options.fields:
        for sites in options.sites:
            store.measured(functools.partial(in_own_process, sites, field), sites=sites, field=field)


def in_own_process(sites: int, field: str) -> Row:
    """The row, measured by another process."""
    command = [sys.executable, "-m", "benchmarks.step_time", "--only", str(sites), field]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(sites: int, field: str) -> Row:
    """The median over some chunks of steps after the first; then the run is stopped."""
    seen: list[boltzflow.Progress] = []

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "train":
            seen.append(progress)
        if len(seen) > CHUNKS:
            raise common.Enough

    # With this number of steps no chunk looks at the ESS or is part of the warm-up.
    config = dataclasses.replace(boltzflow.Config(), num_steps=100_000, warmup_fraction=0.0, field=field)
    with contextlib.suppress(common.Enough):
        boltzflow.fit(boltzflow.DoubleWell(sites, MASS), seed=0, config=config, on_progress=listen)
    times = [(b.seconds - a.seconds) / (b.step - a.step) for a, b in itertools.pairwise(seen)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"step_seconds": statistics.median(times), "peak_bytes": peak}


if __name__ == "__main__":
    main()
