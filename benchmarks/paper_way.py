"""How many steps the paper's procedure takes to a reverse ESS of 0.95 on its own schedule: about an hour.

Its networks, base, optimizer and solver, its learning rate annealed over all of its published steps, in this package;
ended at the first of training's twenty looks at which the ESS is there. What was interrupted goes on where it stood.
"""

from pathlib import Path

import boltzflow
from benchmarks import common
from benchmarks.common import Enough
from benchmarks.store import Row, Store, flow_source
from benchmarks.targets import TASKS, Task
from benchmarks.time_to_ess import PAPER_TASK, RATIO_ESS
from boltzflow import presets, storage

NAME = "paper_way"
STANDING = Path("runs") / "paper-way"


def main() -> None:
    options = common.arguments(
        __doc__ or "", [],
        standing={"type": Path, "default": STANDING, "help": "the folder that keeps where training stands"},
    )  # fmt: skip
    store, task = Store(NAME, folder=options.results, fresh=options.fresh), TASKS[PAPER_TASK]
    source = flow_source(NAME)
    common.measured(store, source, lambda: way(task, options.standing), target=task.name, method="paper", seed=0)


def way(task: Task, standing: Path, goal: float = RATIO_ESS) -> Row:
    """Training's looks (step, ESS of 2048 samples) up to the first at which it is at the goal, or to the end."""
    target = task.make()
    config = presets.paper(task.paper_name, target.dim)

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "train" and progress.step % 100 == 0:
            print(f"step {progress.step} of {progress.num_steps}, {progress.seconds:.0f} s", flush=True)
        if progress.reverse_ess is not None and progress.reverse_ess >= goal:
            raise Enough

    looks = looks_of(standing)
    if not looks or looks[-1][1] < goal:
        try:
            boltzflow.fit(target, seed=0, config=config, name=task.paper_name, on_progress=listen, keep=standing)
        except Enough:
            pass
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
