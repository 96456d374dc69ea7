"""Cases that are more than one fit: data that change, several fits in one process, and folders of runs."""

import contextlib
import functools
import io
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import boltzflow
from benchmarks.trust_cases.case import HARDLY, Answer, Fit, judged
from boltzflow import cli
from boltzflow.errors import InputError

_PLANE = math.log(2 * math.pi)  # of a unit Gaussian in two dimensions
Changing = tuple[Callable, int, Callable[[], None], float]


# --- data that change -------------------------------------------------------------------------------------------------


def dictionary() -> Changing:
    data = {"k": 1.0}
    return (lambda x: 0.5 * data["k"] * jnp.sum(x**2)), 2, (lambda: data.update(k=1.05)), _PLANE - math.log(1.05)


def array_in_place() -> Changing:
    data = np.array([0.5, 1.0])

    def change() -> None:
        data[:] = [1.0, 2.0]

    return (lambda x: 0.5 * jnp.sum((x / jnp.asarray(data)) ** 2)), 2, change, _PLANE + math.log(2)


class _Model:
    def __init__(self) -> None:
        self.precision = 1.0

    def energy(self, x):
        return 0.5 * self.precision * jnp.sum(x**2)


def bound_method() -> Changing:
    model = _Model()
    return model.energy, 2, (lambda: setattr(model, "precision", 2.0)), _PLANE - math.log(2)


def closure() -> Changing:
    precision = 1.0

    def change() -> None:
        nonlocal precision
        precision = 1.2

    return (lambda x: 0.5 * precision * jnp.sum(x**2)), 2, change, _PLANE - math.log(1.2)


def partial_of_a_list() -> Changing:
    """More data of another length."""
    values = [0.3, -0.1]

    def nll(values, x):
        return sum(0.5 * (y - x[0]) ** 2 for y in values) + 0.5 * jnp.sum(x**2)

    more = [0.3, -0.1, 2.0]
    precision = 1 + len(more)
    log_z = _PLANE - 0.5 * math.log(precision) - 0.5 * (sum(y**2 for y in more) - sum(more) ** 2 / precision)
    return functools.partial(nll, values), 2, (lambda: values.append(2.0)), log_z


@dataclass(frozen=True)
class SeveralSeeds:
    """Fits one target with three seeds in one process: all trusted, and the one farthest off answers."""

    fit: Fit

    def __call__(self) -> Answer:
        runs = boltzflow.fit_seeds(self.fit.make(), seeds=range(3), config=dict(self.fit.settings))
        answers = [judged(run, self.fit.log_z) for run in runs]
        return min(answers, key=lambda answer: (answer.trusted, -abs(answer.estimate.value - (answer.exact or 0.0))))


# --- folders ----------------------------------------------------------------------------------------------------------


def _command(*words: object) -> tuple[int, str]:
    """Exit status and words of a command line."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
        status = cli.main([str(word) for word in words])
    return status, errors.getvalue().strip()


@functools.cache
def _two_runs() -> tuple[tempfile.TemporaryDirectory, Path, Path]:
    """A trusted run and a distrusted one of the same target; the first entry keeps their folder."""
    place = tempfile.TemporaryDirectory()
    good, bad = Path(place.name) / "good", Path(place.name) / "bad"
    few = ("--num-eval-samples", 20_000)
    _command("run", "mixture-2", "--log-z-error", 0.01, "--seed", 0, *few, "--out", good)
    _command("run", "mixture-2", "--num-steps", 5, "--route", "flow", "--seed", 1, *few, "--out", bad)
    return place, good, bad


@dataclass(frozen=True)
class Folder:
    """Changes the files in copies of a trusted and a distrusted run, then samples from the first: status 0 is trust."""

    change: Callable[[Path, Path], None]

    def __call__(self) -> Answer:
        _, good, bad = _two_runs()
        with tempfile.TemporaryDirectory() as place:
            first, second = Path(place) / "first", Path(place) / "second"
            shutil.copytree(good, first)
            shutil.copytree(bad, second)
            self.change(first, second)
            status, words = _command("sample", first, "--num-samples", 1000, "--out", Path(place) / "x.npz")
            words = words.replace(f"{place}/", "")  # rows name no place of this machine
            if status == 2:
                raise InputError(words.removeprefix("boltzflow: "))
            estimate = boltzflow.load(first).log_z()
        return Answer(status == 0, [words] if words else [], estimate, 0.0)


def as_it_is(first: Path, second: Path) -> None:
    """Nothing is changed."""


def report_removed(first: Path, second: Path) -> None:
    for name in ("report.json", "report.html"):
        (first / name).unlink()


def report_of_the_other(first: Path, second: Path) -> None:
    """The distrusted run in the first place, with the report of the trusted one."""
    for name in ("report.json", "report.html"):
        shutil.copy(first / name, second / name)
    first.rename(first.with_name("third"))
    second.rename(first)


def checkpoint_of_the_other(first: Path, second: Path) -> None:
    shutil.rmtree(first / "checkpoint")
    shutil.copytree(second / "checkpoint", first / "checkpoint")


def configuration_of_the_other(first: Path, second: Path) -> None:
    shutil.copy(second / "config.toml", first / "config.toml")


def report_cut_short(first: Path, second: Path) -> None:
    text = (first / "report.json").read_text("utf-8")
    (first / "report.json").write_text(text[: len(text) // 2], "utf-8")


def verdict_edited(first: Path, second: Path) -> None:
    """The distrusted run in the first place, its verdict changed by hand."""
    text = (second / "report.json").read_text("utf-8")
    (second / "report.json").write_text(text.replace('"trustworthy": false', '"trustworthy": true'), "utf-8")
    first.rename(first.with_name("third"))
    second.rename(first)


def saved_over(first: Path, second: Path) -> None:
    """`Run.save` of the distrusted run over the folder of the trusted one."""
    boltzflow.load(second).save(first)


def hardly_fitted() -> boltzflow.Run:
    """A run on a unit Gaussian in two dimensions."""
    return boltzflow.fit(boltzflow.GaussianMixture([1.0], [[0.0, 0.0]]), config=dict(HARDLY))
