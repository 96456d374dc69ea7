"""Bad input: one line on standard error, exit status 2, nothing written. The inputs stand in bad_input.py."""

import os
from pathlib import Path

import pytest

import bad_input
from bad_input import ARGUMENTS, ENERGIES, IN_FILES, TOML
from boltzflow.cli import main
from boltzflow.errors import InputError
from boltzflow.training.loop import Progress

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"


@pytest.mark.parametrize(("argv", "says"), ARGUMENTS)
def test_bad_arguments(refused, files, argv, says):
    refused(*argv.split(), says=says)


@pytest.mark.parametrize(("text", "says"), TOML)
def test_odd_values_in_the_toml(refused, tmp_path, text, says):
    path = tmp_path / "odd.toml"
    path.write_text(text)
    refused("run", "mixture-2", "--config", str(path), says=("odd.toml", says))


_DIGITS = "9" * 5000
_DEEP = 3000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"num_steps = {_DIGITS}", "not valid TOML"),
        (f"num_steps = 0x{_DIGITS}", "num_steps must be finite, got a number of 20000 bits"),
        (f"learning_rate = 0x{_DIGITS}", "learning_rate must be finite"),
        (f"learning_rate = {'9' * 400}", "learning_rate must be finite"),
        (f"loss = 0x{_DIGITS}", "loss must be one of"),
        (f"jitter = 0x{_DIGITS}", "jitter must be true or false"),
        (f"seed = 0x{_DIGITS}", "seed must be a whole number from 0 to 4294967295, got a number of 20000 bits"),
        (f"preset = 0x{_DIGITS}", "preset must be one of"),
        (f"num_steps = {'[' * _DEEP}{']' * _DEEP}", "nested too deep"),
        (f"num_steps = {'{a=' * _DEEP}1{'}' * _DEEP}", "nested too deep"),
        (f"num_steps = {'[' * 300}{']' * 300}", "num_steps must be a whole number, got [["),
        (f"num_steps.{'a.' * _DEEP}a = 1", "num_steps must be a whole number, got "),
        (f"{'a' * 5000} = 1", "there is no setting 'aaaa"),
        (f"width = '{'a' * 5000}'", "width must be a whole number, got 'aaaa"),
        ("num_steps = 1e400", "num_steps must be a whole number, got inf"),
    ],
    ids=lambda text: text[:24],
)
def test_values_of_any_size_in_the_toml(refused, tmp_path, text, says):
    (tmp_path / "odd.toml").write_text(text)
    refused("run", "mixture-2", "--config", "odd.toml", says=("odd.toml" if "TOML" in says else "", says))


@pytest.mark.parametrize(
    ("target", "text", "says"),
    [
        ("double-well", f"mass = 0x{_DIGITS}", "mass must be real numbers, got a number of 20000 bits"),
        ("double-well", f"num_sites = 0x{_DIGITS}", "num_sites must be a whole number from 2 to 1000000, got a n"),
        ("many-well", "num_pairs = 1000000000000000000000000000000", "num_pairs must be a whole number from 1 to"),
    ],
)
def test_options_of_any_size_in_the_toml(refused, tmp_path, target, text, says):
    (tmp_path / "odd.toml").write_text(f"[target]\nname = '{target}'\n[target.options]\n{text}\n")
    refused("run", "--config", "odd.toml", says=says)


@pytest.mark.parametrize(
    "flag", ["--seed", "--num-steps", "--seeds", "--num-sites", "--mass", "--width", "--learning-rate"]
)
def test_numbers_of_thousands_of_digits_on_the_command_line(refused, flag):
    refused("run", "double-well", flag, _DIGITS, says=("", flag[2:].replace("-", "_").split("_")[0]))
    refused("sample", "a", "--out", "s.npz", "--num-samples", _DIGITS, says="--num-samples is too large")


def test_a_target_whose_path_is_no_unicode_cannot_be_recorded(refused, tmp_path):
    folder = tmp_path / os.fsdecode(b"odd\xff")
    folder.mkdir()
    (folder / "fine.py").write_text("def energy(x):\n    return (x**2).sum()\n")
    refused("run", f"{folder}/fine.py:energy", "--dim", "2", says="not valid Unicode: rename it")


def test_two_presets_in_the_toml_and_on_the_command_line(refused, tmp_path):
    (tmp_path / "mine.toml").write_text("preset = 'paper'")
    refused("run", "mixture-2", "--config", "mine.toml", "--preset", "quick", says="give one")


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


@pytest.mark.parametrize(("argv", "says"), IN_FILES)
def test_bad_files(refused, files, argv, says):
    refused("run", *argv.split(), says=says)
    refused("check", *argv.split(), says=says)


@pytest.mark.parametrize(("name", "says"), ENERGIES)
def test_unusable_energies(refused, files, monkeypatch, name, says):
    refused("check", f"{name}.py:energy", "--dim", "2", says=says)
    monkeypatch.undo()  # the real fit, which refuses before it trains
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    monkeypatch.chdir(files)
    assert main(["run", f"{name}.py:energy", "--dim", "2", "--out", "a"]) == 2
    assert not (files / "a").exists()


def test_the_page_of_errors_has_the_messages_of_the_command_line(asked, tmp_path):
    """`python tests/bad_input.py > docs/errors.md` writes the page."""
    assert PAGE.read_text(encoding="utf-8") == bad_input.page(tmp_path)
    assert PAGE.read_text(encoding="utf-8").count("| `") >= 50
