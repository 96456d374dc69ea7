"""The command line: exit statuses, messages, and the files that commands write.

`main` runs in this process, with a stand-in for `fit` that records its arguments; some tests start a process.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow
from boltzflow.cli import main, studies
from boltzflow.cli.parser import COMMANDS, parse
from boltzflow.errors import TrainingError
from boltzflow.interop.callback import Callback
from boltzflow.priors import LogNormal, Uniform
from boltzflow.storage import run_folder
from boltzflow.training.loop import Progress
from fake_run import FakeRun

BANANA = str(Path(__file__).parent.parent / "examples" / "banana.py")


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
    monkeypatch.setattr("boltzflow.run.load", lambda folder: FakeRun({}, trustworthy=False))
    assert main(["sample", "a", "--num-samples", "10", "--out", "s.npz"]) == 3
    assert "Something is missing." in capsys.readouterr().out
    assert main(["report", "a"]) == 3


def test_a_failure_is_one_line_and_exit_status_1(asked, monkeypatch, capsys):
    def fit(target, **given):
        raise TrainingError("The loss was not finite.")

    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main(["run", "mixture-2"]) == 1
    assert capsys.readouterr().err == "boltzflow: The loss was not finite.\n"


@pytest.mark.parametrize("command", ["run mixture-2", "run mixture-2 --seeds 2"])
@pytest.mark.parametrize("ran_before", [False, True])  # JAX raises errors of two types
def test_an_energy_that_fails_in_training_gives_the_next_command(asked, monkeypatch, capsys, command, ran_before):
    def energy(x):
        if moods[-1] == "fails":
            raise RuntimeError("the simulator\nis gone")
        return np.sum(x**2, axis=1) / 2, x

    def fit(target, *, on_progress, **given):
        on_progress(Progress("train", 3, 10, 0.1, loss=1.0))
        for mood in ["ok"] * ran_before + ["fails"]:
            moods.append(mood)
            jax.block_until_ready(program(jnp.ones((4, 2))))

    moods = ["ok"]
    program = jax.jit(jax.vmap(Callback(energy, 2).energy))
    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main([*command.split(), "--out", "a"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the energy fails: RuntimeError: the simulator is gone (at step 3 of 10" in said
    assert "go on with: boltzflow resume a" in said


def test_a_given_loss_sets_its_own_defaults(asked, tmp_path):
    (tmp_path / "few.toml").write_text("learning_rate = 0.003\nnum_steps = 200\n")
    assert main(["run", "mixture-2", "--config", "few.toml", "--loss", "reverse-kl", "--out", "a"]) == 0
    assert main(["run", "--config", "a/config.toml", "--loss", "continuity", "--out", "b"]) == 0
    assert main(["run", "--config", "b/config.toml", "--loss", "reverse-kl", "--width", "8", "--out", "c"]) == 0
    one, two, three = (call["config"] for call in asked)
    assert (one.loss, one.learning_rate, one.num_steps, one.train_solver) == ("reverse-kl", 0.003, 200, "rk4")
    assert two == dataclasses.replace(boltzflow.Config(), learning_rate=0.003, num_steps=200)
    assert three == dataclasses.replace(one, width=8)


def test_a_defect_of_boltzflow_is_not_reported_as_a_failure_of_the_energy(asked, monkeypatch):
    def fit(target, **given):
        raise ValueError("a defect")

    monkeypatch.setattr("boltzflow.run.fit", fit)
    with pytest.raises(ValueError, match="a defect"):
        main(["run", "mixture-2"])


@pytest.mark.parametrize("steps", [0, 3])
def test_an_interruption_is_exit_status_130_and_one_line(asked, monkeypatch, capsys, tmp_path, steps):
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
    def interrupted(self, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeRun, "report", interrupted)
    assert main(["run", "mixture-2", "--out", "a"]) == 130
    assert "interrupted while measuring; go on with: boltzflow resume a" in capsys.readouterr().err
    assert (tmp_path / "a" / "checkpoint").is_dir()


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


def test_check_prints_its_findings(asked, capsys):
    assert main(["check", f"{BANANA}:energy", "--dim", "5"]) == 0
    out = capsys.readouterr().out
    assert "dimension 5" in out and "--dim 5" in out and "advice" not in out


def test_check_advises_on_an_energy_that_does_not_grow_outward(asked, tmp_path, capsys):
    (tmp_path / "flat.py").write_text(
        "import jax.numpy as jnp\ndef energy(x):\n    return jnp.minimum(x[0] ** 2, 50.0)\n"
    )
    assert main(["check", "flat.py:energy", "--dim", "1"]) == 0
    assert "grows too little" in capsys.readouterr().out


def test_targets_are_listed(asked, capsys):
    assert main(["targets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("mixture-4", "mixture-2", "double-well", "--num-sites 16", "--total-time 4"))


def test_samples_are_written_to_a_file_and_replace_one_only_with_overwrite(asked, capsys, tmp_path, monkeypatch):
    assert main(["run", "mixture-2", "--out", "a"]) == 0
    monkeypatch.setattr("boltzflow.run.load", lambda folder: FakeRun({}))
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


def test_samples_of_a_posterior_have_its_variables_by_name(asked, tmp_path, monkeypatch):
    class OfPosterior(FakeRun):
        target = boltzflow.Posterior(lambda x, scale: -x, {"x": Uniform(0.0, 4.0), "scale": LogNormal(1.0, 0.5)})
        draws = SimpleNamespace(programs=SimpleNamespace(answering=contextlib.nullcontext))

    assert main(["run", "mixture-2", "--out", "a"]) == 0
    monkeypatch.setattr("boltzflow.run.load", lambda folder: OfPosterior({}))
    assert main(["sample", "a", "--num-samples", "7", "--out", "s.npz"]) == 0
    with np.load(tmp_path / "s.npz") as file:
        assert set(file.files) == {"x", "log_weight", "log_prob", "energy", "x_", "scale"}
        np.testing.assert_allclose(file["x"], np.zeros((7, 2)))
        np.testing.assert_allclose(file["x_"], np.full(7, 2.0), rtol=1e-6)
        np.testing.assert_allclose(file["scale"], np.full(7, np.e), rtol=1e-6)


def test_samples_share_no_random_numbers_with_the_training_of_their_seed(asked, monkeypatch):
    class Listening(FakeRun):
        def sample(self, key, num_samples):
            keys.append(key)
            return super().sample(key, num_samples)

    keys = []
    monkeypatch.setattr("boltzflow.run.load", lambda folder: Listening({}))
    main(["run", "mixture-2", "--out", "a"])
    for seed in ("0", "1"):
        main(["sample", "a", "--num-samples", "7", "--out", f"{seed}.npz", "--seed", seed])
    drawn, trained = (
        {tuple(jax.random.key_data(key).tolist()) for root in roots for key in (root, *jax.random.split(root, 8))}
        for roots in (keys, [jax.random.key(0), jax.random.key(1)])
    )
    assert len(drawn) == 18 and not drawn & trained


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(asked, capsys, command):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: boltzflow {command} ") and COMMANDS[command].summary in out
    for argument in COMMANDS[command].arguments:
        assert (argument.metavar if argument.positional else f"--{argument.name.replace('_', '-')} ") in out


def test_help_and_version(asked, capsys):
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(flag in out for flag in ("--num-sites", "--learning-rate", "--overwrite", "--base-std"))
    assert "double-well: sites" in out and "{continuity,reverse-kl}" in out and "(default: 0.02)" in out
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command.summary in out for command in COMMANDS.values())
    assert main(["--version"]) == 0
    assert boltzflow.__version__ in capsys.readouterr().out


def test_help_of_reproduce_names_all_that_can_be_reproduced(asked, capsys):
    assert main(["reproduce", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    figures = [name for name in studies.paper.names() if name.startswith("fig")]
    assert f"{figures[0]} to {figures[-1]}" in out and len(figures) == 10
    others = set(studies.paper.names()) - set(figures)
    assert all(name in out for name in [*others, studies.FOLDER, studies.QUICK_FOLDER, studies.PAGE])


def test_negative_numbers_are_values():
    for given, value in (("-1", -1.0), ("-.5", -0.5), ("-1e-3", -1e-3), ("-inf", -np.inf)):
        for words in (["--mass", given], [f"--mass={given}"]):
            assert parse(["check", "double-well", *words]).keywords["options"] == {"mass": value}


def test_words_and_options_come_in_any_order():
    orders = ("a o.py:f --num-samples 3", "--num-samples 3 a o.py:f", "a --num-samples 3 o.py:f")
    calls = [parse(["expect", *order.split()]).keywords for order in orders]
    assert calls == [{"directory": "a", "observable": "o.py:f", "num_samples": 3, "target": None}] * 3


# --- the processes ----------------------------------------------------------------------------------------------------


def test_the_command_line_loads_no_studies():
    program = "import sys, boltzflow.cli.dispatch; print('boltzflow.studies' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [("run mixture-5", "mixture-4"), ("run broken.py:energy --dim 2", "ZeroDivisionError")],
)
def test_a_process_ends_without_a_traceback(files, argv, says):
    done = subprocess.run([sys.executable, "-m", "boltzflow", *argv.split()], cwd=files, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr and "Traceback" not in done.stderr and done.stderr.count("\n") == 1


# --- a disk that fills ------------------------------------------------------------------------------------------------


def test_metrics_that_cannot_be_kept_do_not_end_a_training(asked, monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "append_text", fail)
    assert main(["run", "mixture-2", "--out", "a"]) == 0
    assert "the metrics cannot be kept: No space left on device" in capsys.readouterr().out
    assert run_folder.read_metrics(tmp_path / "a") == [{"step": 1, "seconds": 0.1, "loss": 2.0}]  # after it, whole


@pytest.mark.parametrize("place", ["write_metrics", "read_record"])
def test_a_full_disk_at_the_end_gives_the_next_command(asked, monkeypatch, capsys, place):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, place, fail)
        assert main(["run", "mixture-2", "--out", "a"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left on device (" in said and "go on with: boltzflow resume a" in said


def test_too_little_memory_is_one_line(asked, monkeypatch, capsys):
    def fit(target, **given):
        raise MemoryError

    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main(["run", "mixture-2"]) == 1
    assert capsys.readouterr().err.startswith("boltzflow: out of memory: lower --batch-size")


@pytest.mark.parametrize("steps", [0, 3])
def test_an_interruption_in_a_callback_is_an_interruption(asked, monkeypatch, capsys, steps):
    """JAX reports it as a failure of the compiled program."""

    def fit(target, *, on_progress, **given):
        if steps:
            on_progress(Progress("train", steps, 10, 0.1, loss=1.0))
        raise jax.errors.JaxRuntimeError("INTERNAL: CpuCallback error: KeyboardInterrupt: \n\nAt: a.py(3): energy")

    monkeypatch.setattr("boltzflow.run.fit", fit)
    assert main(["run", "mixture-2", "--out", "a"]) == 130
    said = capsys.readouterr().err
    assert said.startswith("boltzflow: interrupted ") and said.count("\n") == 1 and ("resume a" in said) == (steps > 0)


@pytest.mark.parametrize("out", ["runs/😀", 'a "b"\\c', "two\nlines", "\x7f", "odd\udcff", "[red]a", "é"])
def test_a_folder_of_any_name(asked, monkeypatch, capsys, tmp_path, out):
    assert main(["run", "double-well", "--num-sites", "4", "--out", out]) == 0
    assert run_folder.read_record(tmp_path / out).options["num_sites"] == 4
    monkeypatch.setattr("boltzflow.run.load", lambda folder: FakeRun({}))
    assert main(["report", out]) == 0
    assert main(["sample", out, "--num-samples", "7", "--out", f"{out}/s.npz"]) == 0
    assert main(["run", "--config", f"{out}/config.toml", "--out", "b"]) == 0
    assert main(["resume", out]) == 0
    assert capsys.readouterr().err == ""
