"""What can be typed, through tyro, and what is made of it.

Every option is read as text and converted here, so that a flag, a TOML file and Python are told the same about a value
that cannot be used.
"""

import contextlib
import dataclasses
import functools
import io
import shlex
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from boltzflow.cli import commands
from boltzflow.cli.compare import compare
from boltzflow.cli.expect import expect
from boltzflow.cli.reproduce import FOLDER, PAGE, reproduce
from boltzflow.cli.resume import resume
from boltzflow.cli.seeds import check_num_seeds
from boltzflow.cli.train import RunRequest, run
from boltzflow.config import FIELD_TYPES, FIELDS, PRESETS, Config
from boltzflow.densities.catalog import SHIPPED, TargetOption
from boltzflow.errors import InputError
from boltzflow.numerics.validation import did_you_mean
from boltzflow.sampling.corrections import CORRECTIONS
from boltzflow.storage.run_folder import check_seed, seed_folders
from boltzflow.studies.paper.reproduce import names

# --- what can be typed ------------------------------------------------------------------------------------------------


def _text(description: str, metavar: str, hint: str = "") -> Any:
    """The type of an option: text, or None where it is not given."""
    return Annotated[str | None, tyro.conf.arg(help=description, metavar=metavar, help_behavior_hint=hint)]


def _positional(description: str, metavar: str, hint: str = "(required)") -> Any:
    """The type of an argument without a name: text, or None where it is not given."""
    return tyro.conf.Positional[_text(description, metavar, hint)]  # type: ignore[misc]


def _flag(description: str) -> Any:
    return Annotated[bool, tyro.conf.arg(help=description, help_behavior_hint="")]


def _arguments(summary: str, types: dict[str, Any]) -> Any:
    """The class of a command's arguments, all of which may be left out as far as tyro is concerned."""
    fields: list[Any] = []
    for name, kind in types.items():
        is_group = dataclasses.is_dataclass(kind)
        default = dataclasses.field(default_factory=kind) if is_group else False if kind.__origin__ is bool else None
        fields.append((name, Annotated[kind, tyro.conf.arg(name="")] if is_group else kind, default))
    return dataclasses.make_dataclass("Arguments", fields, namespace={"__doc__": summary})


_METAVARS = {int: "INT", float: "FLOAT", bool: "{true,false}"}
_DIM = TargetOption("dim", int, 0, "dimension of a function in a file")
_OPTION_KINDS = {option.name: option.kind for record in SHIPPED.values() for option in (*record.options, _DIM)}
_SETTING_KINDS = {name: kind for name, kind in FIELD_TYPES.items() if name != "preset"}
_TARGET = f"One of {', '.join(SHIPPED)}; or path/to/file.py:name, a function x -> energy or a density."
_DIRECTORY = _positional("The folder of a run.", "DIR")


def _settings() -> Any:
    """All of `Config` as options, besides the preset, which has one of its own."""
    defaults = dataclasses.asdict(Config())
    types = {
        name: _text(
            FIELDS[name].metadata["help"],
            _METAVARS.get(kind) or "{" + ",".join(typing.get_args(kind)) + "}",
            f"(preset default: {str(defaults[name]).lower()})",
        )
        for name, kind in _SETTING_KINDS.items()
    }
    return _arguments("", types)


def _target_options() -> Any:
    types = {"dim": _text(_DIM.help, "INT", "(path/to/file.py:name)")}
    for record in SHIPPED.values():
        for option in record.options:
            hint = f"({record.name}, default: {option.default})"
            types[option.name] = _text(option.help, _METAVARS[option.kind], hint)
    return _arguments("", types)


@functools.cache
def _commands() -> dict[str, tuple[Any, Callable[[Any, str], int]]]:
    """Each command's arguments, and what does it."""
    run_types = {
        "target": _positional(_TARGET, "TARGET", "(may come from --config)"),
        "seed": _text("Seed of everything random.", "INT", "(default: 0)"),
        "seeds": _text("How many seeds, from --seed on, to train at once, each in DIR/seed-N.", "INT", "(default: 1)"),
        "out": _text("Folder of the run.", "DIR", "(default: runs/TARGET-1, or the next number that is free)"),
        "preset": _text("What the settings start from.", "{" + ",".join(PRESETS) + "}", "(default: default)"),
        "config": _text("TOML file of settings, or the config.toml of another run.", "FILE.toml"),
        "overwrite": _flag("Replace the run that the folder holds."),
        "options": _target_options(),
        "settings": _settings(),
    }
    sample_types = {
        "directory": _DIRECTORY,
        "num_samples": _text("How many samples.", "INT", "(required)"),
        "out": _text(
            "Where to: arrays x, log_weight, log_prob, energy; corrected, x, energy, chain.", "FILE.npz", "(required)"
        ),
        "seed": _text("Seed of the samples.", "INT", "(default: 0)"),
        "correct": _text(
            "Equally weighted samples instead of weights.", "{" + ",".join(CORRECTIONS) + "}", "(default: weights)"
        ),
        "overwrite": _flag("Replace the file if there is one."),
    }
    expect_types = {
        "directory": _DIRECTORY,
        "observable": _positional("A function of one point that returns numbers.", "path/to/file.py:name"),
        "num_samples": _text("How many new samples, instead of those of the report.", "INT", "(default: the report's)"),
    }
    check_types = {"target": _positional(_TARGET, "TARGET"), "options": _target_options()}
    compare_types = {
        "target": _positional(_TARGET, "TARGET"),
        "seed": _text("Seed of everything random.", "INT", "(default: 0)"),
        "preset": _text("How the flow is trained.", "{" + ",".join(PRESETS) + "}", "(default: default)"),
        "start_std": _text(
            "Standard deviation of the Gaussian that the others start from; best 1.5 times as far as the target goes.",
            "FLOAT",
            "(default: 10)",
        ),
        "options": _target_options(),
    }
    reproduce_types = {
        "name": _positional(f"One of {', '.join(names())}.", "NAME"),
        "preset": _text("How to train.", "{" + ",".join(PRESETS) + "}", "(default: default)"),
        "seeds": _text("How many seeds, from 0 on.", "INT", "(default: as many as the paper; 1 if quick)"),
        "cells": _text("Only these of its cells, as in eq2/continuity_trainable.", "CELL,...", "(default: all)"),
        "jobs": _text("How many trainings at a time, each a process.", "INT", "(default: 1; 2 if quick)"),
        "out": _text("Folder of rows and pictures.", "DIR", f"(default: {FOLDER}; runs/paper-quick if quick)"),
        "page": _text("The page that is written from them.", "FILE.md", f"(default: {PAGE}; in --out, if given)"),
    }
    directory = {"directory": _DIRECTORY}
    return {
        "run": (_arguments("Train a flow to a target, and report.", run_types), _run),
        "sample": (_arguments("Draw independent samples, with weights, from a finished run.", sample_types), _sample),
        "expect": (_arguments("Average an observable over the target, with its error.", expect_types), _expect),
        "report": (_arguments("Measure a finished run again; write its report.", directory), _report),
        "resume": (_arguments("Go on with an interrupted run.", directory), _resume),
        "check": (_arguments("Check a target of your own, with advice.", check_types), _check),
        "reproduce": (
            _arguments("Reproduce a table or figure of the paper; what is there is not done again.", reproduce_types),
            _reproduce,
        ),
        "compare": (
            _arguments(
                "Train a flow to set it beside NUTS, tempered SMC and parallel tempering, at equal cost.", compare_types
            ),
            _compare,
        ),
        "targets": (_arguments("List the targets that ship.", {}), _targets),
    }


# --- what is typed ----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str]) -> Callable[[], int]:
    """What `argv` asks for, ready to be done. Raises `InputError`; `SystemExit` after printing help."""
    if list(argv) == ["--version"]:
        return commands.version
    table = _commands()
    if argv and not argv[0].startswith("-") and argv[0] not in table:
        near = did_you_mean(argv[0], table)
        raise InputError(f"there is no command {argv[0]!r}{near}; there are {', '.join(table)}")
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in table.items()]
    wanted = tyro.conf.OmitSubcommandPrefixes[tyro.conf.OmitArgPrefixes[typing.Union[*kinds]]]  # type: ignore[misc]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            given, unknown = tyro.cli(
                wanted, prog="boltzflow", description=_DESCRIPTION, args=list(argv), return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )  # fmt: skip
    except SystemExit as end:
        if end.code:
            raise InputError(_first_sentence(complaint.getvalue())) from None
        raise
    if unknown:
        raise InputError(_what_is_unknown(unknown, _names(given), argv[0]))
    action = next(action for kind, action in table.values() if isinstance(given, kind))
    return functools.partial(action, given, shlex.join(["boltzflow", *argv]))


_DESCRIPTION = (
    "Learn a flow to a Boltzmann density from its energy alone, and know whether to trust it. boltzflow --version says "
    "which version this is."
)


def _first_sentence(box: str) -> str:
    """What tyro says in its box up to the first rule, without the frame."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    until = next((n for n, line in enumerate(lines) if line.startswith("─")), len(lines))
    return " ".join(lines[:until]).rstrip(".") + "; see boltzflow --help"


def _names(given: Any) -> Iterable[str]:
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        yield from _names(value) if dataclasses.is_dataclass(value) else [field.name]


def _what_is_unknown(unknown: Sequence[str], names: Iterable[str], command: str) -> str:
    first = unknown[0]
    if not first.startswith("-"):
        return f"{command} takes no further argument {first!r}"
    flags = ["--" + name.replace("_", "-") for name in names]
    return f"{command} has no option {first}{did_you_mean(first.split('=')[0], flags)}; see boltzflow {command} --help"


def _convert(name: str, kind: Any, text: str) -> Any:
    """The value of an option; whether it is in range is asked where it is used."""
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"--{name.replace('_', '-')} must be true or false, got {text!r}")
        return text.lower() == "true"
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"--{name.replace('_', '-')} must be {what}, got {text!r}") from None


def _converted(group: Any, kinds: dict[str, Any]) -> dict[str, Any]:
    return {name: _convert(name, kinds[name], text) for name, text in vars(group).items() if text is not None}


# --- the commands: from what was given to what is asked of them -------------------------------------------------------


def _run(given: Any, command: str) -> int:
    seed = None if given.seed is None else _seed(given.seed)
    num_seeds = check_num_seeds(_convert("seeds", int, "1" if given.seeds is None else given.seeds))
    request = RunRequest(
        given.target or "", _converted(given.options, _OPTION_KINDS), seed, num_seeds, given.out, given.preset,
        given.config, _converted(given.settings, _SETTING_KINDS), given.overwrite, command,
    )  # fmt: skip
    return run(request)


def _sample(given: Any, command: str) -> int:
    if given.num_samples is None or given.out is None:
        raise InputError("sample needs --num-samples and --out, as in --num-samples 10000 --out samples.npz")
    number = _convert("num_samples", int, given.num_samples)
    seed = _seed(given.seed or "0")
    return commands.sample(_directory(given), number, given.out, seed, given.overwrite, given.correct or "")


def _expect(given: Any, command: str) -> int:
    number = _convert("num_samples", int, given.num_samples or "0")
    return expect(_directory(given), given.observable or "", number)


def _report(given: Any, command: str) -> int:
    return commands.report(_directory(given))


def _resume(given: Any, command: str) -> int:
    if not given.directory:
        raise InputError("give the folder of a run, as in runs/double-well-1")
    return resume(given.directory)


def _check(given: Any, command: str) -> int:
    return commands.check(given.target or "", _converted(given.options, _OPTION_KINDS))


def _reproduce(given: Any, command: str) -> int:
    if not given.name:
        raise InputError(f"say what to reproduce: {', '.join(names())}")
    num_seeds = None if given.seeds is None else _convert("seeds", int, given.seeds)
    only = [] if given.cells is None else [cell.strip() for cell in given.cells.split(",")]
    jobs = None if given.jobs is None else _convert("jobs", int, given.jobs)
    return reproduce(given.name, given.preset or "default", num_seeds, only, given.out, given.page, jobs)


def _compare(given: Any, command: str) -> int:
    std = _convert("start_std", float, given.start_std or "10")
    options, seed = _converted(given.options, _OPTION_KINDS), _seed(given.seed or "0")
    return compare(given.target or "", options, seed, given.preset or "default", std)


def _targets(given: Any, command: str) -> int:
    return commands.targets()


def _directory(given: Any) -> str:
    if not given.directory:
        raise InputError("give the folder of a run, as in runs/double-well-1")
    if seeds := seed_folders(Path(given.directory)):
        raise InputError(f"{given.directory} holds several seeds; give the folder of one, as in {seeds[0]}")
    return str(given.directory)


def _seed(text: str) -> int:
    return check_seed(_convert("seed", int, text))
