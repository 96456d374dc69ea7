"""The commands on a finished run and on a target. Each takes what parser.py lists, and returns its exit status.

A command raises `InputError` before it writes anything.
"""

import importlib.util
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

import boltzflow
from boltzflow.cli.check import check_target
from boltzflow.cli.finish import DISTRUSTED, DONE, conclude, measure, output, say, standing
from boltzflow.cli.recorded import given_folder, load_run
from boltzflow.densities.catalog import SHIPPED
from boltzflow.densities.from_file import FILE_OPTIONS, load_function, load_target
from boltzflow.errors import InputError
from boltzflow.interop.arviz import mixing
from boltzflow.numerics.batching import Stream, stream_key
from boltzflow.numerics.validation import whole_number
from boltzflow.report.console import plain_table
from boltzflow.report.formatting import format_error, format_value
from boltzflow.report.progress import make_display
from boltzflow.run import Run
from boltzflow.sampling.corrections import CORRECTIONS
from boltzflow.statistics.estimates import Estimate, reverse_ess
from boltzflow.storage.files import check_writable, locked, write_arrays
from boltzflow.storage.run_folder import CHECKPOINT, check_seed, seed_folders
from boltzflow.training import checkpoint

_MIN_STATES = 100  # of all chains; R-hat of fewer is noise


def _folder_of_one_run(directory: str | None) -> Path:
    """The folder that a command was given, of one seed alone."""
    folder = given_folder(directory)
    if seeds := seed_folders(folder):
        raise InputError(f"{directory} holds several seeds; give the folder of one, as in {seeds[0]}")
    return folder


def report(directory: str | None, target: str | None) -> int:
    """Measure the finished run in a folder again and write its report."""
    folder = _folder_of_one_run(directory)
    run = load_run(folder, target, measure_again=True)
    check_writable(folder)
    with locked(folder), make_display(output()) as display:
        if target and not checkpoint.is_of(folder / CHECKPOINT, run.target, run.trained):
            run.save(folder)  # the folder is of the target that it was measured on
        measured = measure(run, folder, display)
    return conclude(measured, folder)


def sample(
    directory: str | None,
    num_samples: int | None,
    out: str | None,
    seed: int,
    correct: str | None,
    target: str | None,
    overwrite: bool,
) -> int:
    """Write samples of a finished run to a file of NumPy arrays: weighted ones, or with `correct` of equal weight."""
    if num_samples is None or out is None:
        raise InputError("sample needs --num-samples and --out, as in --num-samples 10000 --out samples.npz")
    seed = check_seed(seed)
    folder = _folder_of_one_run(directory)
    num_samples = whole_number("num-samples", num_samples, at_least=1)
    if correct is not None and correct not in CORRECTIONS:
        raise InputError(f"--correct must be one of {', '.join(CORRECTIONS)}, got {correct!r}")
    path = Path(out)
    if path.suffix != ".npz":
        raise InputError(f"--out must end in .npz, got {out!r}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give another file with --out, or --overwrite to replace it")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}")
    check_writable(path.parent)
    run = load_run(folder, target)
    # The command has a stream of its own: with the run's seed it must not share random numbers with the training.
    key = stream_key(seed, Stream.SAMPLE_COMMAND)
    arrays, sentence = _corrected(run, key, num_samples, correct) if correct else _weighted(run, key, num_samples)
    write_arrays(path, arrays | _named(run, arrays))
    say(f"{num_samples:,} samples: {path}")
    if sentence:
        say(sentence)
    return standing(folder, run)


def _weighted(run: Run, key: PRNGKeyArray, num_samples: int) -> tuple[dict[str, np.ndarray], str]:
    """Samples of the flow with their weights, and a sentence on their reverse ESS."""
    samples = run.sample(key, num_samples)
    arrays = {name: np.asarray(getattr(samples, name)) for name in ("x", "log_weight", "log_prob", "energy")}
    if num_samples == 1:
        return arrays, ""
    ess = reverse_ess(arrays["log_weight"])
    return arrays, f"reverse ESS {ess.value:.3f}" + ("" if ess.ok else f" ({ess.reason})")


def _corrected(run: Run, key: PRNGKeyArray, num_samples: int, method: str) -> tuple[dict[str, np.ndarray], str]:
    """Samples of equal weight, and a sentence on acceptance and mixing."""
    samples = run.correct(key, num_samples, method)
    arrays = {"x": np.asarray(samples.x), "energy": np.asarray(samples.energy), "log_weight": np.zeros(num_samples)}
    sentence = f"corrected by {method}: {samples.num_distinct:,} different points"
    if not np.isnan(samples.acceptance):
        sentence += f", acceptance {samples.acceptance:.0%}"
    if samples.chain is not None:
        arrays["chain"] = samples.chain
        if num_samples >= _MIN_STATES and importlib.util.find_spec("arviz_stats"):
            found = mixing(samples)
            sentence += f", R-hat {found['r_hat'].max():.4f} and ESS {found['ess'].min():,.0f} of the worst coordinate"
    return arrays, sentence


def _named(run: Run, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables of a posterior by name, at the samples x. One named like another array gets an underscore."""
    values = getattr(run.target, "values", None)
    if values is None:
        return {}
    with run.draws.programs.answering():
        return {
            f"{name}_" if name in arrays else name: np.asarray(value) for name, value in values(arrays["x"]).items()
        }


def expect(directory: str | None, observable: str | None, num_samples: int, target: str | None) -> int:
    """Print the expectation of each number that a function in a file returns, with its standard error."""
    folder = _folder_of_one_run(directory)
    if not observable:
        raise InputError("say what to average, as in observables.py:magnetization, a function of one point")
    num_samples = whole_number("num-samples", num_samples, at_least=0)
    fn = load_function(observable)
    run = load_run(folder, target)
    estimates = run.expectation(fn, num_samples)
    table = plain_table()
    table.add_column("observable")
    table.add_column("value", justify="right")
    table.add_column("error", justify="right")
    doubts = {}
    for label, value, stderr, doubt in _numbers(observable.rpartition(":")[2], estimates):
        table.add_row(label, format_value(value, stderr), format_error(stderr))
        doubts[doubt] = True
    doubts.pop("", None)
    output().print(table)
    for doubt in doubts:
        say(f"Not to be relied on: {doubt}", "red")
    return standing(folder, run) or (DISTRUSTED if doubts else DONE)


def _numbers(name: str, estimates: Any) -> Iterator[tuple[str, float, float, str]]:
    """Label, value, standard error and doubt (empty where there is none) of every number in a tree of estimates."""
    leaves = jax.tree_util.tree_leaves_with_path(estimates, is_leaf=lambda node: isinstance(node, Estimate))
    for path, estimate in leaves:
        values = np.asarray(estimate.value)
        stderrs = np.broadcast_to(estimate.stderr, values.shape)
        doubt = "" if estimate.ok else estimate.reason
        for index in np.ndindex(values.shape):
            place = f"[{', '.join(map(str, index))}]" if index else ""
            label = f"{name}{jax.tree_util.keystr(path)}{place}"
            yield label, float(values[index]), float(stderrs[index]), doubt


def check(target: str | None, options: Mapping[str, int | float]) -> int:
    """Check a target before any training, and print what was found."""
    if not target:
        raise InputError("say which target to check, as in path/to/file.py:name")
    loaded = load_target(target, options)
    for sentence in check_target(loaded.target):
        say(f"- {sentence}")
    given = "".join(f" --{name} {options[name]}" for name in FILE_OPTIONS if name in options)
    say(f"{target} can be run: boltzflow run {target}{given}")
    return DONE


def targets() -> int:
    """Print a table of the targets that ship."""
    table = plain_table()
    for header in ("target", "dim", "options", "what it is", "known exactly"):
        table.add_column(header)
    for record in SHIPPED.values():
        options = "\n".join(f"--{option.name.replace('_', '-')} {option.default}" for option in record.options)
        table.add_row(record.name, str(record.factory().dim), options, record.description, ", ".join(record.exact))
    output().print(table)
    say("Your own: boltzflow run path/to/file.py:name --dim 8")
    return DONE


def version() -> int:
    """Print the versions that belong in the report of a defect."""
    print(f"boltzflow {boltzflow.__version__}, jax {jax.__version__}, Python {platform.python_version()}")
    return DONE


_OVERVIEW = """usage: boltzflow COMMAND [arguments]

Learn a flow to a Boltzmann density from its energy alone, and know
whether to trust it.

commands:
{}

boltzflow COMMAND --help lists the arguments of a command.
boltzflow --version prints the version."""


def overview(summaries: Mapping[str, str]) -> int:
    """Print the commands, each with its summary."""
    listed = "\n".join(f"  {name:<11}{summary}" for name, summary in summaries.items())
    print(_OVERVIEW.format(listed))
    return DONE
