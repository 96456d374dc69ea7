"""The command line as a process: interruptions, closed and full outputs, and encodings that lack characters."""

import os
import signal
import subprocess
import sys
import time

import pytest

from boltzflow.cli import process
from small_pilot import COMMAND

CACHED = {"JAX_COMPILATION_CACHE_DIR": os.environ["BOLTZFLOW_TEST_CACHE"]}
BOLTZFLOW = [sys.executable, "-m", "boltzflow"]


def environment(**changes):
    """This process's, without the settings of its encoding."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    return kept | {"BOLTZFLOW_CACHE": "off"} | changes


def ended(program, argv=("boltzflow", "report", "a"), **changes):
    """The end of a process that runs `program` and then `main`, as if `argv` were typed."""
    lines = f"import sys\nsys.argv = {list(argv)!a}\n{program}\nfrom boltzflow.cli import main\nsys.exit(main())"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, env=environment(**changes))


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.15, 0.6, 1.2, 2.0, 3.5])
def test_an_interruption_in_the_first_seconds_is_one_line(tmp_path, seconds):
    """While Python imports, while the energy is checked, while JAX compiles."""
    argv = [*BOLTZFLOW, "run", "double-well", "--num-sites", "4", "--out", "a"]
    running = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    time.sleep(seconds)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate()
    assert running.returncode == 130
    assert said.startswith(b"boltzflow: interrupted") and said.count(b"\n") == 1


@pytest.mark.parametrize(
    ("argv", "typed", "is_command"),
    [
        (["/bin/boltzflow", "run"], ["python", "/bin/boltzflow", "run"], True),
        (["boltzflow.exe"], ["boltzflow.exe"], True),
        (["-m"], ["python", "-X", "dev", "-m", "boltzflow", "run"], True),
        (["-m"], ["python", "-mboltzflow"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["/bin/boltzflow", "reproduce"], ["python", "-c", "from multiprocessing.spawn import spawn_main"], False),
        (["notebook.py"], ["python", "notebook.py"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_the_command_answers_interruptions_for_the_process(argv, typed, is_command):
    assert process._is_command(argv, typed) == is_command


def test_an_import_leaves_interruptions_alone():
    program = "import signal, boltzflow; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).stdout.strip() == b"True"


def test_an_interruption_in_a_destructor_is_not_lost():
    program = """
import boltzflow.cli.commands, signal, time
class Odd:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
def load(folder, target, measure_again):
    Odd()
    for _ in range(100):
        time.sleep(0.05)
boltzflow.cli.commands.load_run = load
"""
    done = ended(program)
    assert (done.returncode, done.stderr) == (130, b"boltzflow: interrupted\n")


def test_an_interruption_inside_exec_ends_with_the_status():
    """Python ends itself by the signal where an interruption has passed through `exec`."""
    load = "lambda folder, target, measure_again: exec('raise KeyboardInterrupt')"
    done = ended(f"import boltzflow.cli.commands\nboltzflow.cli.commands.load_run = {load}")
    assert (done.returncode, done.stderr) == (130, b"boltzflow: interrupted\n")


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", ["targets", "--help", "run --help", "--version"])
def test_a_closed_pipe_is_no_traceback(argv):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*BOLTZFLOW, *argv.split()], stdout=write, stderr=subprocess.PIPE, env=environment())
    os.close(write)
    assert done.returncode == 141 or (argv == "run --help" and done.returncode == 0)  # argparse passes over it
    assert done.stderr == b""


def test_a_pipe_that_closes_ends_a_run_with_its_next_command(tmp_path):
    """The state of training is written first."""
    argv = [*COMMAND, "run", "double-well", "--num-sites", "2", "--num-steps", "20", "--out", "a b"]
    running = subprocess.Popen(
        argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(**CACHED)
    )
    assert b"looking for modes" in running.stdout.readline()
    assert b"choosing the field" in running.stdout.readline()
    running.stdout.close()
    said = running.stderr.read().decode()
    assert running.wait() == 141
    assert said.startswith("boltzflow: standard output was closed ") and said.count("\n") == 1
    assert "go on with: boltzflow resume" in said
    assert {"pilot.npz"} <= {path.name for path in (tmp_path / "a b" / "checkpoint").iterdir()}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("argv", ["targets", "--version"])
def test_a_full_output_is_one_line(argv):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*BOLTZFLOW, *argv.split()], stdout=full, stderr=subprocess.PIPE, env=environment())
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"No space left" in done.stderr
        silent = subprocess.run([*BOLTZFLOW, "run", "nothing"], stderr=full, env=environment())
        assert silent.returncode == 2


def test_closed_streams_are_no_traceback():
    close = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *BOLTZFLOW]
    assert subprocess.run([*close, "targets"], env=environment()).returncode == 0
    assert subprocess.run([*close, "run", "nothing"], env=environment()).returncode == 2


# --- encodings --------------------------------------------------------------------------------------------------------

_ODD = "\\u03c3 k\\u0302 \\U0001f600 [m/s] \\udcff"
_FAKE = f"""
import boltzflow.cli.commands, boltzflow.report.stored
from boltzflow.report.report import Report, Verdict
from boltzflow.statistics.estimates import Estimate
odd = "{_ODD}"
estimates = {{"log_z": Estimate(1.0, 0.1, 9, odd, False, odd)}}
report = Report({{"name": odd}}, 0, "quick", {{}}, estimates, Verdict(False, (odd,)), {{}})
class Run:
    def report(self, **how): return report
    def figures(self): return []
    name, options, seed, config = odd, {{}}, 0, boltzflow.Config()
boltzflow.cli.commands.load_run = lambda folder, target, measure_again: Run()
boltzflow.report.stored.state_identity = lambda folder: "a run"
"""


@pytest.mark.parametrize(
    "encoding",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "utf-8:strict"},
    ],
)
def test_what_cannot_be_encoded_is_replaced(tmp_path, encoding):
    program = f"import os\nos.chdir({str(tmp_path)!r})\nos.mkdir('a')\n{_FAKE}"
    done = ended(program, **encoding)
    assert (done.returncode, done.stderr) == (3, b"")
    assert b"log Z" in done.stdout and b"[m/s]" in done.stdout and b"Do not rely" in done.stdout
    failed = ended("", ["boltzflow", "run", "σ😀\udcff"], **encoding)
    assert failed.returncode == 2 and failed.stderr.startswith(b"boltzflow: there is no target '")
    assert failed.stderr.count(b"\n") == 1
