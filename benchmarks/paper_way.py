"""The number of steps of the paper preset to a reverse ESS of 0.95, on its own schedule: an hour and a half.

The learning rate is annealed over all of the published steps. Training ends at the first of its twenty looks with that
ESS, or at a maximal step. An interrupted training resumes.
"""

import contextlib
import functools
import shutil
from pathlib import Path

import boltzflow
from benchmarks import common
from benchmarks.common import TASKS, Enough, Task
from benchmarks.store import Row, Store
from benchmarks.time_to_ess import PAPER_TASK, RATIO_ESS
from boltzflow.config import paper_preset
from boltzflow.storage import files

NAME = "paper_way"
SNAPSHOTS = Path("runs") / "paper-way"
"""The snapshots of training, in a folder for each source."""


def main() -> None:
    options = common.arguments(__doc__, until={"type": int, "default": 3000, "help": "the maximal step"})
    store = Store(NAME, options.results, options.fresh)
    task = TASKS[PAPER_TASK]
    snapshots = SNAPSHOTS / store.source
    if options.fresh:
        shutil.rmtree(snapshots, ignore_errors=True)
    measure = functools.partial(way, task, options.until, snapshots)
    store.measured(measure, target=task.name, method="way", seed=0, until=options.until)


def way(task: Task, until: int, snapshots: Path) -> Row:
    """The looks (step, ESS of 2048 samples) up to the first with the wanted ESS or at the step `until` or later."""
    target = task.make()
    config = paper_preset(task.paper_name, target.dim)

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "train" and progress.step % 100 == 0:
            print(f"step {progress.step} of {progress.num_steps}, {progress.seconds:.0f} s", flush=True)
        if progress.reverse_ess is not None and enough(progress.step, progress.reverse_ess):
            raise Enough

    def enough(step: float, ess: float) -> bool:
        return ess >= RATIO_ESS or step >= until

    looks = looks_of(snapshots)
    if not looks or not enough(*looks[-1]):
        with contextlib.suppress(Enough):
            boltzflow.fit(target, seed=0, config=config, name=task.paper_name, on_progress=listen, keep=snapshots)
        looks = looks_of(snapshots)
    return {"looks": looks, "published_steps": config.num_steps}


def looks_of(snapshots: Path) -> list[list[float]]:
    """The looks at the ESS of seed 0 in the newest snapshot of a folder."""
    records = [files.read(path)[1] for path in snapshots.glob("state-?.npz")]
    newest = max(records, key=lambda record: record["step"], default={"history": []})
    rows = newest["history"]
    return [[int(float(row["step"])), float(row["reverse_ess"])] for row in rows if "reverse_ess" in row]


if __name__ == "__main__":
    main()
