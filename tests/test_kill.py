"""A killed process is resumed by the command line and ends with the numbers of an undisturbed run."""

import json
import os
import signal
import subprocess
import time

import jax

from boltzflow.cli import main
from small_pilot import COMMAND

SETTINGS = ["--num-steps", "200", "--width", "16", "--num-networks", "2", "--num-eval-samples", "2048"]
SETTINGS += ["--route", "flow"]  # the report measures the flow alone


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_killed_process_is_resumed_to_the_same_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = [*COMMAND, "run", "mixture-2", *SETTINGS, "--out"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"]}
    process = subprocess.Popen([*whole, "killed"], env=environment, stdout=subprocess.DEVNULL)
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 8):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "checkpoint" / "run.npz").exists()
    status = main(["resume", "killed"])
    assert status in (0, 3)
    assert main(["run", "mixture-2", *SETTINGS, "--out", "whole"]) in (0, 3)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    one, other = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("killed", "whole"))
    assert one["estimates"] == other["estimates"] and one["verdict"] == other["verdict"]
    assert not list((tmp_path / "killed" / "checkpoint").glob("state*"))
    capsys.readouterr()
    assert main(["resume", "killed"]) == status
    assert "nothing to resume" in capsys.readouterr().out
    (tmp_path / "killed" / "report.json").unlink()
    assert main(["resume", "killed"]) in (0, 3)
    assert (tmp_path / "killed" / "report.json").exists()
