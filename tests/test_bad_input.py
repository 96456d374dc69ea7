"""Bad input: one line on standard error, exit status 2, nothing written. The inputs stand in bad_input.py."""

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
