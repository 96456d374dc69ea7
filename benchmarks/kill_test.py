"""Kills a training run with SIGKILL at random moments, resumes it, and compares its end with an undisturbed one.

Each life of a run is a process that is killed after a random time, short ones included, so that kills fall into
imports, pilot, compiling, training, writing and measuring. A run that ends must have the metrics and estimates of the
undisturbed one to the last bit, and no life may begin before the last snapshot of the one before.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.store import Row, Store, flow_source
from boltzflow.errors import InputError
from boltzflow.storage import files as storage

NAME = "kill_test"
SETTINGS = ["mixture-2", "--num-steps", "1500", "--width", "16", "--num-networks", "2", "--num-eval-samples", "20000"]


def main() -> None:
    options = common.arguments(
        __doc__ or "", (),
        kills={"type": int, "default": 100, "help": "how many kills in all"},
        longest={"type": float, "default": 20.0, "help": "seconds that a life lasts at most"},
    )  # fmt: skip
    store, source = Store(NAME, folder=options.results, fresh=options.fresh), flow_source(NAME)
    row = common.measured(store, source, lambda: kill(options.kills, options.longest), kills=options.kills)
    if row.get("failure") or row["different"] or row["lost"]:
        sys.exit(1)


def kill(num_kills: int, longest: float) -> Row:
    """Runs that are killed and resumed until so many kills are done; what became of them."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {**os.environ, "BOLTZFLOW_CACHE": str(home / "cache")}
        assert run(["run", *SETTINGS, "--out", "whole"], home, environment) in (0, 3)
        expected = outcome(home / "whole")
        kills, different, lost, ended, where = 0, 0, 0, 0, dict[str, int]()
        while kills < num_kills:
            name, before = f"run-{ended}", 0
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
                stage = stage_of(home / name)
                where[stage] = where.get(stage, 0) + 1
                if (home / name / "config.toml").exists():
                    command = ["resume", name]
            assert status in (0, 3), f"ended with status {status}"
            different += outcome(home / name) != expected
            ended += 1
        return {"killed": kills, "ended": ended, "different": different, "lost": lost, "where": where}


def run(command: list[str], home: Path, environment: dict[str, str], patience: float | None = None) -> int:
    """The exit status of the command, killed when patience ends."""
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
    """The step of the newest snapshot that can be read; beyond all where the run is trained, 0 where there is none."""
    checkpoint = folder / "checkpoint"
    if (checkpoint / "run.npz").exists():
        return 10**9
    steps = [0]
    for path in checkpoint.glob("state-?.npz"):
        try:
            steps.append(storage.read(path)[1]["step"])
        except InputError:
            continue
    return max(steps)


def stage_of(folder: Path) -> str:
    """In which part of its life a run was killed."""
    if not (folder / "config.toml").exists():
        return "before its folder"
    step = snapshot_step(folder)
    return "measuring" if step == 10**9 else "training" if step else "pilot and compiling"


def outcome(folder: Path) -> Any:
    """All numbers of a finished run besides its times."""
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return rows, report["estimates"], report["verdict"]


if __name__ == "__main__":
    main()
