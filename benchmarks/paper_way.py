"""How many steps the paper's procedure takes to a reverse ESS of 0.95 on its own schedule: an hour and a half.

Its networks, base, optimizer and solver, its learning rate annealed over all of its published steps, in this package;
ended at the first of training's twenty looks at which the ESS is there, or at the step to give up at. What was
interrupted goes on where it stood.
"""

import contextlib
import functools
import shutil
from pathlib import Path

import boltzflow
from benchmarks import common
from benchmarks.common import Enough
from benchmarks.store import Row, Store, flow_source
from benchmarks.targets import TASKS, Task
from benchmarks.time_to_ess import PAPER_TASK, RATIO_ESS
from boltzflow.config import paper_preset
from boltzflow.storage import files as storage

NAME = "paper_way"
STANDING = Path("runs") / "paper-way"
"""Keeps where training stands, in a folder for each source."""


def main() -> None:
    options = common.arguments(
        __doc__ or "", [],
        until={"type": int, "default": 3000, "help": "the step to give up at"},
    )  # fmt: skip
    store, task = Store(NAME, folder=options.results, fresh=options.fresh), TASKS[PAPER_TASK]
    source = flow_source(NAME)
    standing = STANDING / source  # what another source has trained is not this one's way
    if options.fresh:
        shutil.rmtree(standing, ignore_errors=True)
    measure = functools.partial(way, task, options.until, standing)
    common.measured(store, source, measure, target=task.name, method="way", seed=0, until=options.until)


def way(task: Task, until: int, standing: Path) -> Row:
    """Training's looks (step, ESS of 2048 samples) up to the first at which it is there, or the first not before the
    step `until`, or to the end."""
    target = task.make()
    config = paper_preset(task.paper_name, target.dim)

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "train" and progress.step % 100 == 0:
            print(f"step {progress.step} of {progress.num_steps}, {progress.seconds:.0f} s", flush=True)
        if progress.reverse_ess is not None and enough(progress.step, progress.reverse_ess):
            raise Enough

    def enough(step: float, ess: float) -> bool:
        return ess >= RATIO_ESS or step >= until

    looks = looks_of(standing)
    if not looks or not enough(*looks[-1]):
        with contextlib.suppress(Enough):
            boltzflow.fit(target, seed=0, config=config, name=task.paper_name, on_progress=listen, keep=standing)
        looks = looks_of(standing)
    return {"looks": looks, "published_steps": config.num_steps}


def looks_of(standing: Path) -> list[list[float]]:
    """What the newest snapshot in a folder remembers of the looks at the ESS of seed 0."""
    records = [storage.read(path)[1] for path in standing.glob("state-?.npz")]
    newest = max(records, key=lambda record: record["step"], default={"histories": {"0": []}})
    rows = newest["histories"]["0"]
    return [[int(float(row["step"])), float(row["reverse_ess"])] for row in rows if "reverse_ess" in row]


if __name__ == "__main__":
    main()
