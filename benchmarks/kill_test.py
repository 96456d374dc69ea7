"""Kills a training run with SIGKILL at random moments, resumes it, and compares its end with an undisturbed run.

Every process is killed after a random time, short times included, so that kills hit imports, pilot, compiling,
training, writing and measuring. A completed run must have the metrics and estimates of the undisturbed run to the last
bit, and no process may start before the last snapshot of the previous one.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.store import Row, Store
from boltzflow.errors import InputError
from boltzflow.storage import files

NAME = "kill_test"
SETTINGS = ["mixture-2", "--num-steps", "1500", "--width", "16", "--num-networks", "2", "--num-eval-samples", "20000"]


def main() -> None:
    options = common.arguments(
        __doc__,
        kills={"type": int, "default": 100, "help": "how many kills in all"},
        longest={"type": float, "default": 20.0, "help": "seconds after which a process is killed at the latest"},
    )
    store = Store(NAME, options.results, options.fresh)
    row = store.measured(lambda: kill(options.kills, options.longest), kills=options.kills)
    if row.get("failure") or row["different"] or row["lost"]:
        sys.exit(1)


def kill(num_kills: int, longest: float) -> Row:
    """Kills and resumes runs `num_kills` times: the completed runs, the different ones, the losses, the stages."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {**os.environ, "BOLTZFLOW_CACHE": str(home / "cache")}
        assert run(["run", *SETTINGS, "--out", "whole"], home, environment) in (0, 3)
        expected = outcome(home / "whole")
        kills = different = lost = ended = 0
        where: Counter[str] = Counter()
        while kills < num_kills:
            name = f"run-{ended}"
            before = 0
            command = ["run", *SETTINGS, "--out", name]
            while True:
                patience = rng.uniform(0.2, longest) if kills < num_kills else None
                status = run(command, home, environment, patience)
                if status != -signal.SIGKILL:
                    break
                kills += 1
                step = snapshot_step(home / name)
                lost += step < before
                before = step
                where[stage_of(home / name)] += 1
                if (home / name / "config.toml").exists():
                    command = ["resume", name]
            assert status in (0, 3), f"ended with status {status}"
            different += outcome(home / name) != expected
            ended += 1
        return {"killed": kills, "ended": ended, "different": different, "lost": lost, "where": where}


def run(command: list[str], home: Path, environment: dict[str, str], patience: float | None = None) -> int:
    """The exit status of the command, killed after `patience` seconds."""
    start = time.perf_counter()
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "boltzflow", *command], cwd=home, env=environment, stdout=log, stderr=log
        )
        while process.poll() is None:
            if patience is not None and time.perf_counter() - start > patience:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
    return process.returncode


def snapshot_step(folder: Path) -> int:
    """The step of the newest readable snapshot: 10⁹ for a trained run, 0 without a snapshot."""
    checkpoint = folder / "checkpoint"
    if (checkpoint / "run.npz").exists():
        return 10**9
    steps = [0]
    for path in checkpoint.glob("state-?.npz"):
        try:
            steps.append(files.read(path)[1]["step"])
        except InputError:
            continue
    return max(steps)


def stage_of(folder: Path) -> str:
    """The stage in which a run was killed."""
    if not (folder / "config.toml").exists():
        return "before its folder"
    step = snapshot_step(folder)
    return "measuring" if step == 10**9 else "training" if step else "pilot and compiling"


def outcome(folder: Path) -> Any:
    """All numbers of a finished run except its times."""
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return rows, report["estimates"], report["verdict"]


if __name__ == "__main__":
    main()
