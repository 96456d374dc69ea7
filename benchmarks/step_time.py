"""Seconds of an optimizer step and peak memory, over the sites of the chain and the kinds of velocity field.

The step is a full one of the default preset, with the flow's own trajectories (the first steps of a run train on the
pilot's points alone and are cheaper). Each row is measured in a process of its own, so that its peak memory is its own;
it includes the pilot's particles and the program itself, some 0.5 GB.
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
from benchmarks.store import Row, Store, flow_source

NAME = "step_time"
SITES = (4, 16, 64, 256, 1024)
MASS = 1.5
CHUNKS = 5


def main() -> None:
    options = common.arguments(
        __doc__ or "", [],
        sites={"type": int, "nargs": "+", "default": SITES, "help": "numbers of sites"},
        fields={"nargs": "+", "default": common.FIELDS, "help": "kinds of field"},
        only={"nargs": 2, "metavar": ("SITES", "FIELD"), "help": "measure one row in this process and print it"},
    )  # fmt: skip
    if options.only:
        print(json.dumps(measure(int(options.only[0]), options.only[1])))
        return
    store, source = Store(NAME, folder=options.results, fresh=options.fresh), flow_source(NAME)
    for field in options.fields:
        for sites in options.sites:
            common.measured(store, source, functools.partial(in_own_process, sites, field), sites=sites, field=field)


def in_own_process(sites: int, field: str) -> Row:
    """The row as measured by another process."""
    command = [sys.executable, "-m", "benchmarks.step_time", "--only", str(sites), field]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(sites: int, field: str) -> Row:
    """Median over some chunks of steps, after the first, which is where a run is stopped again."""
    seen: list[boltzflow.Progress] = []

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "train":
            seen.append(progress)
        if len(seen) > CHUNKS:
            raise common.Enough

    # So many steps that none of these chunks looks at the ESS, nor is part of the warm-up.
    config = dataclasses.replace(boltzflow.Config(), num_steps=100_000, warmup_fraction=0.0, field=field)
    with contextlib.suppress(common.Enough):
        boltzflow.fit(boltzflow.DoubleWell(sites, MASS), seed=0, config=config, on_progress=listen)
    times = [(b.seconds - a.seconds) / (b.step - a.step) for a, b in itertools.pairwise(seen)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"step_seconds": statistics.median(times), "peak_bytes": peak}


if __name__ == "__main__":
    main()
