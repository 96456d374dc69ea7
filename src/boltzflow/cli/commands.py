"""What each command besides `run` does, with arguments that have their types by now. Each returns its exit status.

Problems are raised: `InputError` before anything was written, `KeyboardInterrupt` with a sentence on what there is.
"""

import importlib.util
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from boltzflow import __version__
from boltzflow import run as runs
from boltzflow.cli.check import check_target
from boltzflow.cli.finish import DONE, conclude, measure, output, standing
from boltzflow.cli.progress import make_display
from boltzflow.densities.catalog import SHIPPED
from boltzflow.densities.from_file import load_target
from boltzflow.errors import InputError
from boltzflow.interop.arviz import mixing
from boltzflow.numerics.batching import Stream, stream_key
from boltzflow.numerics.validation import whole_number
from boltzflow.run import Run
from boltzflow.sampling.corrections import CORRECTIONS, Corrected
from boltzflow.statistics import estimates as estimators
from boltzflow.storage import run_folder
from boltzflow.storage.run_folder import RunRecord

_MIN_STATES = 100  # of all chains: R-hat of fewer says nothing

# --- what is done with a run ------------------------------------------------------------------------------------------


def report(directory: str) -> int:
    """Measures a finished run again and writes its report."""
    folder = Path(directory)
    finished = runs.load(folder)
    run_folder.check_writable(folder)
    console = output()
    with run_folder.locked(folder), make_display(console) as display:
        report = measure(finished, folder, _record_of(finished, folder), display)
    return conclude(report, folder, console)


def _record_of(finished: Run, folder: Path) -> RunRecord:
    """The record of a run; one that was saved from Python has no `config.toml`."""
    if (folder / run_folder.CONFIG).exists():
        return run_folder.read_record(folder)
    return RunRecord(finished.name, finished.options, finished.seed, finished.config, version=__version__)


def sample(
    directory: str, num_samples: int, out: str, seed: int = 0, overwrite: bool = False, correct: str = ""
) -> int:
    """Writes `num_samples` samples with their weights, or corrected ones of equal weight, to a file of NumPy arrays."""
    num_samples = whole_number("num-samples", num_samples, at_least=1)
    if correct and correct not in CORRECTIONS:
        raise InputError(f"--correct must be one of {', '.join(CORRECTIONS)}, got {correct!r}")
    path = Path(out)
    if path.suffix != ".npz":
        raise InputError(f"--out must end in .npz, got {out!r}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; give another file with --out, or --overwrite to replace it")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}")
    run_folder.check_writable(path.parent)
    finished = runs.load(Path(directory))
    # Without a stream of its own the samples of a run's own seed would share random numbers with its training.
    key = stream_key(seed, Stream.SAMPLE_COMMAND)
    arrays, said = (_corrected if correct else _weighted)(finished, key, num_samples, correct)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(part, path)
    console = output()
    console.print(Text(f"{num_samples:,} samples: {path}"), soft_wrap=True)
    if said:
        console.print(Text(said), soft_wrap=True)
    return standing(Path(directory), console)


def _weighted(finished: Run, key, num_samples: int, _: str) -> tuple[dict[str, np.ndarray], str]:
    """The flow's own samples and what to say of them."""
    samples = finished.sample(key, num_samples)
    arrays = {name: np.asarray(getattr(samples, name)) for name in ("x", "log_weight", "log_prob", "energy")}
    if num_samples == 1:
        return arrays, ""
    ess = estimators.reverse_ess(arrays["log_weight"])
    return arrays, f"reverse ESS {ess.value:.3f}" + ("" if ess.ok else f" ({ess.reason})")


def _corrected(finished: Run, key, num_samples: int, method: str) -> tuple[dict[str, np.ndarray], str]:
    """Samples of equal weight and what to say of them."""
    samples = finished.correct(key, num_samples, method)
    arrays = {"x": np.asarray(samples.x), "energy": np.asarray(samples.energy), "log_weight": np.zeros(num_samples)}
    mixed = ""
    if samples.chain is not None:
        arrays["chain"] = samples.chain
        mixed = _mixing(samples)
    accepted = "" if np.isnan(samples.acceptance) else f", acceptance {samples.acceptance:.0%}"
    return arrays, f"corrected by {method}: {samples.num_distinct:,} different points{accepted}{mixed}"


def _mixing(samples: Corrected) -> str:
    """How the chains mix, where there are enough states, and ArviZ, to say."""
    if len(samples.x) < _MIN_STATES or importlib.util.find_spec("arviz_stats") is None:
        return ""
    found = mixing(samples)
    return f", R-hat {found['r_hat'].max():.4f} and ESS {found['ess'].min():,.0f} of the worst coordinate"


# --- targets ----------------------------------------------------------------------------------------------------------


def check(name: str, options: Mapping[str, int | float]) -> int:
    """Checks a target as far as it can be before training, and says what was found."""
    if not name:
        raise InputError("say which target to check, as in path/to/file.py:name")
    loaded = load_target(name, options)
    console = output()
    for sentence in check_target(loaded.target):
        console.print(Text(f"- {sentence}"), soft_wrap=True)
    dim = f" --dim {options['dim']}" if "dim" in options else ""
    console.print(Text(f"{name} can be run: boltzflow run {name}{dim}"), soft_wrap=True)
    return DONE


def targets() -> int:
    """A table of the targets that ship."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in ("target", "dim", "options", "what it is", "known exactly"):
        table.add_column(header)
    for record in SHIPPED.values():
        options = "\n".join(f"--{o.name.replace('_', '-')} {o.default}" for o in record.options)
        exact = ", ".join(record.exact)
        table.add_row(record.name, str(record.factory().dim), options, record.description, exact)
    console = output()
    console.print(table)
    console.print(Text("Your own: boltzflow run path/to/file.py:name --dim 8"))
    return DONE


def version() -> int:
    """The versions that matter in a report of a defect."""
    print(f"boltzflow {__version__}, jax {jax.__version__}, Python {platform.python_version()}")
    return DONE
