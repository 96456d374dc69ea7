"""The table of commands, and the way from the words of a command line to a call of one of them.

The parser checks the type of a value. Its range is checked where the value is used, so that a flag, a TOML file and
Python refuse the same value in the same words.
"""

import argparse
import dataclasses
import functools
import re
import shlex
import textwrap
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from boltzflow.cli import commands, train
from boltzflow.config import FIELD_TYPES, FIELDS, PRESETS
from boltzflow.densities.catalog import SHIPPED
from boltzflow.errors import InputError
from boltzflow.numerics.validation import did_you_mean, shown
from boltzflow.sampling.corrections import CORRECTIONS


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a command."""

    name: str
    help: str  # a sentence, to which a `default` is added
    kind: Any = str  # or int, float, bool ("true" or "false"), a `Literal` of strings
    metavar: str = ""
    default: Any = None  # False makes a flag, which has no value
    positional: bool = False  # a word at its place instead of an option `--name`


@dataclasses.dataclass(frozen=True)
class Command:
    """A command."""

    function: Callable[..., int]  # takes each argument by name, and returns the exit status
    summary: str
    arguments: Sequence[Argument] = ()
    has_target_options: bool = False  # takes the given options of a target as a dictionary `options`
    has_settings: bool = False  # takes the given settings as `settings`, and the command line as `command`


# --- the arguments ----------------------------------------------------------------------------------------------------

_KINDS = {int: ("INT", "a whole number"), float: ("FLOAT", "a number"), bool: ("{true,false}", "true or false")}


def _choices(values: Iterable[str]) -> str:
    return "{" + ",".join(values) + "}"


def _target_options() -> dict[str, Argument]:
    """The options of every target by name. An option that two targets share is described for both."""
    of_file = "path/to/file.py:name: {} of a function in a file"
    found = {
        "dim": Argument("dim", of_file.format("dimension"), int),
        "lower": Argument("lower", of_file.format("lower bound of every coordinate"), float),
        "upper": Argument("upper", of_file.format("upper bound of every coordinate"), float),
        "periodic": Argument("periodic", of_file.format("period of every coordinate, as 6.283185307179586"), float),
    }
    for record in SHIPPED.values():
        for option in record.options:
            text = f"{record.name}: {option.help} (default: {option.default})"
            shared = f"{found[option.name].help}; {text}" if option.name in found else text
            found[option.name] = Argument(option.name, shared, option.kind)
    return found


TARGET_OPTIONS = _target_options()
SETTINGS = {
    name: Argument(name, f"{field.metadata['help']} (default: {str(field.default).lower()})", FIELD_TYPES[name])
    for name, field in FIELDS.items()
    if name != "preset"
}
_SHIPPED_OR_FILE = f"One of {', '.join(SHIPPED)}; or path/to/file.py:name, a function x -> energy or a density."
_TARGET = Argument("target", _SHIPPED_OR_FILE, metavar="TARGET", positional=True)
_DIRECTORY = Argument("directory", "The folder of a run.", metavar="DIR", positional=True)
_OF_RUN = Argument("target", "The run's target. (default: the one in its record)", metavar="FILE.py:NAME")
_SEED = Argument("seed", "Seed of everything random.", int, default=0)
_PRESET = Argument("preset", "Preset of the flow.", metavar=_choices(PRESETS), default="default")

_RUN = (
    Argument("target", f"{_SHIPPED_OR_FILE} It may come from --config.", metavar="TARGET", positional=True),
    Argument("seed", "Seed of everything random. (default: 0)", int),
    Argument("seeds", "Number of seeds, from --seed on, trained one after another in DIR/seed-N.", int, default=1),
    Argument("out", "Folder of the run. (default: runs/TARGET-1, or the next free number)", metavar="DIR"),
    Argument("preset", "The preset from which the settings start. (default: default)", metavar=_choices(PRESETS)),
    Argument("config", "TOML file of settings, or the config.toml of another run.", metavar="FILE.toml"),
    Argument("overwrite", "Replace the run that the folder holds.", default=False),
)
_ARRAYS = "File for the arrays x, log_weight, log_prob, energy; of corrected samples x, energy, chain. (required)"
_SAMPLE = (
    _DIRECTORY,
    Argument("num_samples", "Number of samples. (required)", int),
    Argument("out", _ARRAYS, metavar="FILE.npz"),
    Argument("seed", "Seed of the samples.", int, default=0),
    Argument("correct", "Make samples of equal weight. (default: weighted samples)", metavar=_choices(CORRECTIONS)),
    _OF_RUN,
    Argument("overwrite", "Replace the file if it exists.", default=False),
)
_EXPECT = (
    _DIRECTORY,
    Argument("observable", "A function of one point that returns numbers.", metavar="FILE.py:NAME", positional=True),
    Argument("num_samples", "Number of new samples; 0 takes the samples of the report.", int, default=0),
    _OF_RUN,
)
_START = "Standard deviation of the Gaussian where the other methods start; best 1.5 times the extent of the target."
_COMPARE = (_TARGET, _SEED, _PRESET, Argument("start_std", _START, float, default=10.0))
_RESULTS = "table1, table2, fig2 to fig11, paths, penalties; or all of them."
_REPRODUCE = (
    Argument("name", _RESULTS, metavar="NAME", positional=True),
    _PRESET,
    Argument("seeds", "Number of seeds, from 0 on. (default: as in the paper; 1 if quick)", int),
    Argument("cells", "Only these cells, as in eq2/continuity_trainable. (default: all)", metavar="CELL,..."),
    Argument("jobs", "Number of processes that train at a time. (default: 1; 2 if quick)", int),
    Argument("out", "Folder of results. (default: results/paper; runs/paper-quick if quick)", metavar="DIR"),
    Argument("page", "The page written from them. (default: docs/paper.md; in --out, if given)", metavar="FILE.md"),
)

# --- the commands -----------------------------------------------------------------------------------------------------


def _compare(**arguments: Any) -> int:
    from boltzflow.cli.studies import compare  # slow to import, with Matplotlib and Pillow

    return compare(**arguments)


def _reproduce(**arguments: Any) -> int:
    from boltzflow.cli.studies import reproduce

    return reproduce(**arguments)


COMMANDS: dict[str, Command] = {
    "run": Command(train.run, "Train a flow to a target, and report.", _RUN, True, True),
    "sample": Command(commands.sample, "Draw independent samples, with weights, from a finished run.", _SAMPLE),
    "expect": Command(commands.expect, "Average an observable over the target, with its error.", _EXPECT),
    "report": Command(commands.report, "Measure a finished run again; write its report.", (_DIRECTORY, _OF_RUN)),
    "resume": Command(train.resume, "Go on with an interrupted run, or with several seeds.", (_DIRECTORY, _OF_RUN)),
    "check": Command(commands.check, "Check a target of your own, with advice.", (_TARGET,), True),
    "reproduce": Command(_reproduce, "Reproduce a table or figure of the paper.", _REPRODUCE),
    "compare": Command(_compare, "Compare a flow with NUTS, SMC and parallel tempering.", _COMPARE, True),
    "targets": Command(commands.targets, "List the targets that ship."),
}

# --- from words to a call ---------------------------------------------------------------------------------------------

_NEGATIVE_NUMBER = re.compile(r"-(\d|\.\d|inf$)")


class _HelpFormatter(argparse.HelpFormatter):
    """Breaks no line at a hyphen: `time-mixture` stays one word."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def parse(argv: Sequence[str]) -> Callable[[], int]:
    """The call that a command line stands for; `InputError` for an unknown word or a value of the wrong type.

    It raises `SystemExit` after printing the help of a command.
    """
    first = argv[0] if argv else ""
    if first not in COMMANDS:
        return _without_command(first)
    command = COMMANDS[first]
    try:
        namespace, unknown = _parser(first).parse_known_intermixed_args(_with_negative_numbers(argv[1:]))
    except argparse.ArgumentError as error:
        if error.argument_name is None:  # from `_value`
            raise InputError(error.message) from None
        raise InputError(f"{error.argument_name}: {error.message}; see boltzflow {first} --help") from None
    given = vars(namespace)
    positional = {argument.name for argument in command.arguments if argument.positional}
    if unknown:
        raise InputError(_unknown(first, unknown, [_flag(name) for name in given if name not in positional]))
    arguments = {argument.name: given[argument.name] for argument in command.arguments}
    if command.has_target_options:
        arguments["options"] = {name: given[name] for name in TARGET_OPTIONS if given[name] is not None}
    if command.has_settings:
        arguments["settings"] = {name: given[name] for name in SETTINGS if given[name] is not None}
        arguments["command"] = shlex.join(["boltzflow", *argv])
    return functools.partial(command.function, **arguments)


def _without_command(first: str) -> Callable[[], int]:
    """The call for a command line that does not begin with a command."""
    if first == "--version":
        return commands.version
    if first in ("-h", "--help"):
        return functools.partial(commands.overview, {name: command.summary for name, command in COMMANDS.items()})
    if not first:
        raise InputError(f"give a command: {', '.join(COMMANDS)}; see boltzflow --help")
    if first.startswith("-"):
        near = did_you_mean(first, ["--help", "--version"])
        raise InputError(f"boltzflow has no option {first}{near}; see boltzflow --help")
    raise InputError(f"there is no command {first!r}{did_you_mean(first, COMMANDS)}; there are {', '.join(COMMANDS)}")


def _parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command, with its arguments in groups."""
    command = COMMANDS[name]
    words = [argument.metavar for argument in command.arguments if argument.positional]
    parser = argparse.ArgumentParser(
        usage=" ".join(["boltzflow", name, *words, "[options]"]),
        description=command.summary,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        exit_on_error=False,
    )
    _add(parser, command.arguments)
    if command.has_target_options:
        _add(parser.add_argument_group("options of the target"), TARGET_OPTIONS.values())
    if command.has_settings:
        text = "The defaults are those of the preset default; another preset, or --config, sets others."
        _add(parser.add_argument_group("settings", text), SETTINGS.values())
    return parser


def _add(group: argparse._ActionsContainer, arguments: Iterable[Argument]) -> None:
    for argument in arguments:
        flag, default, kind = _flag(argument.name), argument.default, argument.kind
        text = argument.help if default is None or default is False else f"{argument.help} (default: {default})"
        text = text.replace("%", "%%")
        if argument.positional:
            group.add_argument(argument.name, nargs="?", metavar=argument.metavar, help=text)
        elif default is False:
            group.add_argument(flag, action="store_true", help=text)
        else:
            convert = functools.partial(_value, flag, kind) if kind in _KINDS else str
            metavar = argument.metavar or (_KINDS[kind][0] if kind in _KINDS else _choices(typing.get_args(kind)))
            group.add_argument(flag, type=convert, default=default, metavar=metavar, help=text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _value(flag: str, kind: type, text: str) -> int | float | bool:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        if kind is int and text.lstrip("+-").isdecimal():
            raise argparse.ArgumentError(None, f"{flag} is too large, a number of {len(text)} digits") from None
        raise argparse.ArgumentError(None, f"{flag} must be {_KINDS[kind][1]}, got {shown(text)}") from None


def _with_negative_numbers(words: Sequence[str]) -> list[str]:
    """The words, with a negative number joined to the option before it: argparse takes -1e-3 for an option."""
    joined: list[str] = []
    for word in words:
        if joined and _NEGATIVE_NUMBER.match(word) and re.fullmatch("--[^=]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _unknown(name: str, unknown: Sequence[str], flags: Sequence[str]) -> str:
    """The sentence for words that are no arguments of a command; an option among them comes first."""
    options = [word.split("=")[0] for word in unknown if word.startswith("-")]
    if not options:
        return f"{name} takes no further argument {unknown[0]!r}"
    return f"{name} has no option {options[0]}{did_you_mean(options[0], flags)}; see boltzflow {name} --help"
