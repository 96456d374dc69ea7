"""The command line: exit statuses, one line for every bad input, nothing written over. Training itself is replaced.

`main` runs in this process, with `fit` replaced by one that says what it was asked for; two tests start a process.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow
from boltzflow import run_folder, stored
from boltzflow.cli import main
from boltzflow.errors import InputError, TrainingError
from boltzflow.estimators import exact
from boltzflow.report import Report, Verdict
from boltzflow.run import Samples
from boltzflow.training import Progress

BANANA = str(Path(__file__).parent.parent / "examples" / "banana.py")


@dataclasses.dataclass
class FakeRun:
    """What the command line uses of a `Run`."""

    asked: dict
    trustworthy: bool = True

    name, options, seed, config = "fake", {}, 0, boltzflow.Config()
    history = ({"step": 1, "seconds": 0.1, "loss": 2.0},)

    def report(self):
        warnings = () if self.trustworthy else ("Something is missing.",)
        target = {"name": self.asked.get("name", "fake")}
        verdict, log_z = Verdict(self.trustworthy, warnings), exact(1.0)
        return Report(target, 0, "default", {}, {"log_z": log_z}, verdict, {}, {"log_z": log_z})

    def figures(self):
        return []

    def save(self, directory):
        (directory / "checkpoint").mkdir()
        (directory / "checkpoint" / "run.npz").touch()

    def sample(self, key, num_samples):
        x = jnp.zeros((num_samples, 2))
        return Samples(x, x[:, 0], x[:, 0], x[:, 0])


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What `fit` was asked for, most recent last; the working folder is an empty one."""
    calls = []

    def fit(target, *, on_progress, **given):
        calls.append({"target": target, **given})
        on_progress(Progress("pilot", 0, 2, 0.0, message="looking"))
        for step in (1, 2):
            on_progress(Progress("train", step, 2, 0.1 * step, loss=1.0, reverse_ess=0.5))
        return FakeRun(calls[-1])

    monkeypatch.setattr("boltzflow.run.fit", fit)
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.fixture
def refused(asked, capsys, tmp_path):
    """Asserts that arguments are refused with one line on standard error and that nothing was written."""

    def contents():
        files = (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path: path.read_bytes() for path in files}

    def check(*argv, says):
        before = contents()
        capsys.readouterr()
        status = main(list(argv))
        said = capsys.readouterr()
        assert (status, said.out) == (2, "")
        assert said.err.startswith("boltzflow: ") and said.err.count("\n") == 1
        for sentence in [says] if isinstance(says, str) else says:
            assert sentence in said.err
        assert contents() == before
        assert asked == []

    return check


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_writes_its_folder_and_prints_the_report(asked, capsys, tmp_path):
    assert main(["run", "double-well", "--num-sites", "4", "--mass=3", "--seed", "5", "--preset", "quick"]) == 0
    [call] = asked
    assert (call["target"].dim, call["target"].mass, call["seed"], call["preset"]) == (4, 3.0, 5, "quick")
    assert call["options"] == {"num_sites": 4, "mass": 3.0, "coupling": 1.0, "total_time": 4.0}
    folder = tmp_path / "runs" / "double-well-1"
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.toml", "metrics.jsonl", "checkpoint", "report.json", "report.html"}
    assert run_folder.read_metrics(folder) == [{"step": 1, "seconds": 0.1, "loss": 2.0}]
    assert run_folder.read_record(folder).command.startswith("boltzflow run double-well --num-sites 4")
    assert json.loads((folder / "report.json").read_text())["verdict"]["trustworthy"] is True
    out = capsys.readouterr().out
    assert "log Z" in out and "exact" in out and "runs/double-well-1/report.html" in out
    assert main(["run", "double-well"]) == 0
    assert (tmp_path / "runs" / "double-well-2").is_dir()


def test_a_recorded_run_is_repeated_by_its_config_alone(asked):
    assert main(["run", "double-well", "--num-sites", "4", "--seed", "5", "--num-steps", "77", "--out", "a"]) == 0
    assert main(["run", "--config", "a/config.toml", "--out", "b"]) == 0
    first, second = asked
    assert second["target"].dim == 4
    assert all(first[key] == second[key] for key in ("seed", "config", "name", "options", "preset"))
    assert main(["run", "--config", "a/config.toml", "--out", "c", "--seed", "6", "--num-steps", "78"]) == 0
    assert (asked[2]["seed"], asked[2]["config"].num_steps) == (6, 78)


def test_a_recorded_run_of_a_file_is_repeated_from_anywhere(asked, tmp_path, monkeypatch):
    assert main(["run", f"{BANANA}:energy", "--dim", "3", "--out", str(tmp_path / "a")]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["run", "--config", "../a/config.toml"]) == 0
    assert asked[1]["target"].dim == 3
    assert (tmp_path / "elsewhere" / "runs" / "banana-energy-1").is_dir()


def test_every_setting_is_an_option_and_beats_the_file(asked, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "quick"\nnum_steps = 5\nwidth = 8\nseed = 9\n')
    settings = {field.name: getattr(boltzflow.Config(), field.name) for field in dataclasses.fields(boltzflow.Config)}
    del settings["preset"]
    flags = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value).lower())]
    assert main(["run", "mixture-2", *flags, "--out", "a"]) == 0
    assert asked[0]["config"] == boltzflow.Config()
    assert main(["run", "mixture-2", "--config", str(path), "--width", "9", "--out", "b"]) == 0
    config = asked[1]["config"]
    assert (config.preset, config.num_steps, config.width, asked[1]["seed"]) == ("quick", 5, 9, 9)
    argv = ["--loss", "reverse-kl", "--base-std", "1", "--num-steps", "500", "--out", "c"]
    assert main(["run", "mixture-2", *argv]) == 0
    config = asked[2]["config"]
    assert (config.loss, config.base, config.base_std, config.num_steps) == ("reverse-kl", "gaussian", 1.0, 500)


def test_distrust_is_exit_status_3(asked, monkeypatch, capsys):
    monkeypatch.setattr(FakeRun, "trustworthy", False)
    monkeypatch.setattr("boltzflow.run.fit", lambda target, **given: FakeRun(given, trustworthy=False))
    assert main(["run", "mixture-2", "--out", "a"]) == 3
    assert "Do not rely on this result" in capsys.readouterr().out
    monkeypatch.setattr(stored, "load", lambda folder: FakeRun({}, trustworthy=False))
    assert main(["sample", "a", "--num-samples", "10", "--out", "s.npz"]) == 3
    assert "Something is missing." in capsys.readouterr().out
    assert main(["report", "a"]) == 3


def test_a_failure_is_one_line_and_exit_status_1(asked, monkeypatch, capsys):
    def fit(target, **given):
        raise TrainingError("The loss was not finite.")

    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main(["run", "mixture-2"]) == 1
    assert capsys.readouterr().err == "boltzflow: The loss was not finite.\n"


@pytest.mark.parametrize("steps", [0, 3])
def test_an_interruption_is_exit_status_130_with_a_sentence(asked, monkeypatch, capsys, tmp_path, steps):
    def fit(target, *, on_progress, **given):
        for step in range(1, steps + 1):
            on_progress(Progress("train", step, 10, 0.1, loss=1.0))
        raise KeyboardInterrupt

    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main(["run", "mixture-2", "--out", "a"]) == 130
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "interrupted" in said
    assert (tmp_path / "a").exists() == (steps > 0)
    if steps:
        assert "step 3 of" in said and len(run_folder.read_metrics(tmp_path / "a")) == 3
        assert "go on with: boltzflow resume a" in said
        monkeypatch.setattr("boltzflow.run.fit", lambda target, **given: asked.append(given) or FakeRun(given))
        assert main(["resume", "a"]) == 0
        assert asked[-1]["resume"] and asked[-1]["keep"] == Path("a/checkpoint") and asked[-1]["name"] == "mixture-2"


def test_an_interruption_while_measuring_leaves_the_flow(asked, monkeypatch, capsys, tmp_path):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeRun, "report", interrupted)
    assert main(["run", "mixture-2", "--out", "a"]) == 130
    assert "boltzflow report a" in capsys.readouterr().err and (tmp_path / "a" / "checkpoint").is_dir()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("run mixture-5", "did you mean 'mixture-"),
        ("run nothing-like-it", "the shipped ones are mixture-4"),
        ("run", "say which target"),
        ("ru mixture-2", "did you mean 'run'?"),
        ("", "run"),
        ("run mixture-2 --sed 1", "did you mean '--seed'?"),
        ("run mixture-2 --frobnicate", "no option --frobnicate"),
        ("run mixture-2 --seed", "--seed"),
        ("run mixture-2 extra", "'extra'"),
        ("run mixture-2 --mass 2", "mixture-2 has no option 'mass'; its options are none"),
        ("run double-well --dim 3", "double-well has no option 'dim'; its options are num_sites, mass"),
        ("run double-well --mass -1", "mass must be one positive number"),
        ("run double-well --mass 0", "mass must be one positive number"),
        ("run double-well --mass nan", "mass must be finite"),
        ("run double-well --mass heavy", "--mass must be a number, got 'heavy'"),
        ("run double-well --coupling -1", "coupling must be one positive number"),
        ("run double-well --total-time 0", "total_time must be one positive number"),
        ("run double-well --num-sites 1", "num_sites must be a whole number of at least 2"),
        ("run double-well --num-sites 4.5", "--num-sites must be a whole number, got '4.5'"),
        ("run many-well --num-pairs 0", "num_pairs must be a whole number of at least 1"),
        ("run mixture-2 --base-std -1", "base_std must be above 0"),
        ("run mixture-2 --base-scale 0", "base_scale must be above 0"),
        ("run mixture-2 --preset quik", "did you mean 'quick'?"),
        ("run mixture-2 --seed -1", "seed must be a whole number from 0"),
        ("run mixture-2 --seed 1.5", "--seed must be a whole number, got '1.5'"),
        ("run mixture-2 --num-steps=-1", "num_steps must be a whole number of at least 0"),
        ("run mixture-2 --learning-rate -0.1", "learning_rate must be above 0"),
        ("run mixture-2 --pilot-fraction 2", "pilot_fraction must be from 0 to 1"),
        ("run mixture-2 --loss kl", "loss must be one of continuity, reverse-kl, got 'kl'"),
        ("run mixture-2 --jitter maybe", "--jitter must be true or false"),
        ("run mixture-2 --config none.toml", "none.toml cannot be read"),
        ("sample", "--num-samples and --out"),
        ("sample --num-samples 3 --out s.npz", "give the folder of a run"),
        ("sample none --num-samples 0 --out s.npz", "num-samples must be a whole number of at least 1"),
        ("sample none --num-samples 3 --out s.csv", "must end in .npz"),
        ("sample none --num-samples 3 --out none/s.npz", "no folder none"),
        ("sample none --num-samples 3 --out s.npz", "none holds no finished run"),
        ("report none", "none holds no finished run"),
        ("report", "give the folder of a run"),
        ("resume none", "none holds no run"),
        ("check", "say which target"),
        ("targets --all", "no option --all"),
    ],
)
def test_bad_arguments(refused, argv, says):
    refused(*argv.split(), says=says)


def test_odd_values_in_the_toml(refused, tmp_path):
    path = tmp_path / "odd.toml"
    for text, says in (
        ("num_step = 3", "did you mean 'num_steps'?"),
        ("num_steps = -3", "num_steps must be"),
        ("learning_rate = 'fast'", "learning_rate must be a number"),
        ("preset = 'best'", "preset must be one of"),
        ("seed = -1", "seed must be"),
        ("= 3", "not valid TOML"),
    ):
        path.write_text(text)
        refused("run", "mixture-2", "--config", str(path), says=("odd.toml", says))
    path.write_text("preset = 'paper'")
    refused("run", "mixture-2", "--config", str(path), "--preset", "quick", says="give one")


def test_a_folder_that_holds_another_run_or_cannot_be_written(refused, asked, tmp_path):
    assert main(["run", "mixture-2", "--out", "a"]) == 0
    asked.clear()
    (tmp_path / "file").write_text("")
    for out, says in {"a": "holds another run", "file": "is a file", "file/below": "cannot be written"}.items():
        refused("run", "mixture-2", "--out", out, says=says)
    assert main(["run", "mixture-2", "--out", "a", "--overwrite"]) == 0


def test_bad_input_leaves_the_run_that_it_would_overwrite(asked, monkeypatch, capsys, tmp_path):
    assert main(["run", "mixture-2", "--out", "a"]) == 0
    before = (tmp_path / "a" / "report.json").read_bytes()

    def fit(target, *, on_progress, **given):
        on_progress(Progress("pilot", 0, 2, 0.0))
        raise InputError("the energy is not finite")

    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main(["run", "mixture-2", "--out", "a", "--overwrite"]) == 2
    assert (tmp_path / "a" / "report.json").read_bytes() == before


FILES = {
    "fine.py": "def energy(x):\n    return (x**2).sum()\n",
    "vector.py": "def energy(x):\n    return x**2\n",
    "complex.py": "def energy(x):\n    return (x**2).sum() * 1j\n",
    "nan.py": "import jax.numpy as jnp\ndef energy(x):\n    return jnp.log(x[0])\n",
    "inf.py": "import jax.numpy as jnp\ndef energy(x):\n    return jnp.where(x[0] > 0, jnp.inf, x @ x)\n",
    "branch.py": "def energy(x):\n    return x[0] if x[0] > 0 else -x[0]\n",
    "nothing.py": "def energy(x):\n    x.sum()\n",
    "numpy_only.py": "import numpy as np\ndef energy(x):\n    return np.linalg.norm(np.asarray(x))\n",
    "raises.py": "def energy(x):\n    raise KeyError('lost')\n",
    "broken.py": "import jax\n\nvalue = 1 / 0\n",
    "syntax.py": "def energy(x)\n    return 0\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "needs.py": "import not_a_module\n",
    "odd.py": (
        "import boltzflow\nnumber = 3.0\nclass Other:\n    pass\ndef two(x, y):\n    return x\n"
        "def failing():\n    raise ValueError('no data')\ndef wrong():\n    return 3\n"
        "def made():\n    return boltzflow.DoubleWell(4)\nready = boltzflow.mixture_2()\n"
        "from functools import partial\n_hidden = 1\n"
    ),
}


@pytest.fixture
def files(tmp_path):
    """A folder of energies, most of them unusable."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("gone.py:energy --dim 2", "there is no file gone.py"),
        ("fine.py", "say which name"),
        ("fine.py:", "fine.py has no name ''"),
        ("fine.py:energi --dim 2", "did you mean 'energy'?"),
        ("fine.py:zzz --dim 2", "it has energy"),
        ("fine.py:energy", "give it with --dim"),
        ("fine.py:energy --dim 0", "dim must be a whole number of at least 1, got 0"),
        ("fine.py:energy --dim -2", "dim must be a whole number of at least 1, got -2"),
        ("fine.py:energy --dim two", "--dim must be a whole number"),
        ("fine.py:energy --dim 2 --mass 1", "takes dim alone"),
        ("broken.py:energy --dim 2", ("broken.py, line 3,", "ZeroDivisionError")),
        ("syntax.py:energy --dim 2", ("syntax.py, line 1,", "SyntaxError")),
        ("exits.py:energy --dim 2", ("exits.py, line 2,", "SystemExit")),
        ("needs.py:energy --dim 2", ("needs.py, line 1,", "not_a_module")),
        ("odd.py:number --dim 2", "must be a function x -> energy or an AbstractDensity, got float"),
        ("odd.py:Other --dim 2", "is a class that is not an AbstractDensity"),
        ("odd.py:two --dim 2", "needs 2 arguments"),
        ("odd.py:failing", "no data"),
        ("odd.py:wrong", "got int"),
        ("odd.py:made --dim 3", "has dimension 4, not 3"),
        ("odd.py:ready --dim 3", "has dimension 2, not 3"),
    ],
)
def test_bad_files(refused, files, argv, says):
    refused("run", *argv.split(), says=says)
    refused("check", *argv.split(), says=says)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vector", "must return one number, got an array of shape (2,)"),
        ("complex", "complex"),
        ("nan", "the energy is not finite"),
        ("inf", "the energy is not finite"),
        ("branch", "does not trace under JAX"),
        ("nothing", "is a return missing?"),
        ("numpy_only", "does not trace under JAX"),
        ("raises", "KeyError"),
    ],
)
def test_unusable_energies(refused, files, monkeypatch, name, says):
    refused("check", f"{name}.py:energy", "--dim", "2", says=says)
    monkeypatch.undo()  # the real fit, which refuses before it trains
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    monkeypatch.chdir(files)
    assert main(["run", f"{name}.py:energy", "--dim", "2", "--out", "a"]) == 2
    assert not (files / "a").exists()


# --- what works -------------------------------------------------------------------------------------------------------


def test_targets_in_files(asked, files):
    for given, dim in (
        ("fine.py:energy --dim 3", 3),
        ("odd.py:made", 4),
        ("odd.py:ready", 2),
        ("odd.py:ready --dim 2", 2),
    ):
        assert main(["run", *given.split()]) == 0
        assert asked[-1]["target"].dim == asked[-1]["options"]["dim"] == dim


def test_check_says_what_it_found(asked, capsys):
    assert main(["check", f"{BANANA}:energy", "--dim", "5"]) == 0
    out = capsys.readouterr().out
    assert "dimension 5" in out and "--dim 5" in out and "advice" not in out


def test_check_advises_on_an_energy_without_walls(asked, tmp_path, capsys):
    (tmp_path / "flat.py").write_text("import jax.numpy as jnp\ndef energy(x):\n    return jnp.cos(x[0])\n")
    assert main(["check", "flat.py:energy", "--dim", "1"]) == 0
    assert "grows too little" in capsys.readouterr().out


def test_targets_are_listed(asked, capsys):
    assert main(["targets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("mixture-4", "mixture-2", "double-well", "--num-sites 16", "--total-time 4"))


def test_samples_are_written_whole_and_not_over_others(asked, capsys, tmp_path, monkeypatch):
    assert main(["run", "mixture-2", "--out", "a"]) == 0
    monkeypatch.setattr(stored, "load", lambda folder: FakeRun({}))
    argv = ["sample", "a", "--num-samples", "7", "--out", "s.npz"]
    assert main(argv) == 0
    with np.load(tmp_path / "s.npz") as file:
        assert {name: file[name].shape for name in file.files} == {
            "x": (7, 2), "log_weight": (7,), "log_prob": (7,), "energy": (7,)
        }  # fmt: skip
    capsys.readouterr()
    assert main(argv) == 2
    assert "s.npz exists" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0
    assert main(["resume", "a"]) == 0


def test_help_and_version(asked, capsys):
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--num-sites", "--learning-rate", "--overwrite", "--base-std"))
    assert main(["--version"]) == 0
    assert boltzflow.__version__ in capsys.readouterr().out


# --- the processes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [("run mixture-5", "mixture-4"), ("run broken.py:energy --dim 2", "ZeroDivisionError")],
)
def test_a_process_ends_without_a_traceback(files, argv, says):
    done = subprocess.run([sys.executable, "-m", "boltzflow", *argv.split()], cwd=files, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
