"""A cell of the paper: one target trained by one method. What that means in each preset, and one seed of it, measured.

The methods differ from the preset in what their name says. "continuity" and "continuity_trainable" are the preset as it
stands; the paper's baselines, the reverse KL, the linear and the diffusion path, also keep the base that the paper
gives all of its flows, and train on no point that the pilot found: both would hide what they lack. So does
"continuity_trainable_alone", which shows what is left to the trainable path by itself.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from boltzflow import run as runs
from boltzflow.config import Config, make_preset, paper_preset, with_changes
from boltzflow.densities.catalog import make_target
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.run import Run
from boltzflow.training.loop import Progress

MASSES = {"m1_5": 1.5, "m3_0": 3.0, "m4_5": 4.5, "m6_0": 6.0}
SIZES = {"n4": 4, "n8": 8, "m1_5": 16, "n32": 32, "n64": 64}
_MIXTURES = {"eq2": "mixture-4", "eq18": "mixture-2"}
TARGETS: Mapping[str, tuple[str, dict[str, Any]]] = {
    **{name: (shipped, {}) for name, shipped in _MIXTURES.items()},
    **{name: ("double-well", {"num_sites": 16, "mass": mass}) for name, mass in MASSES.items()},
    **{name: ("double-well", {"num_sites": num, "mass": 1.5}) for name, num in SIZES.items() if name not in MASSES},
}
"""The targets of the paper, by the names of its tables: a shipped target and its options."""

_BASELINES = ("reverse_kl_loss", "continuity_linear", "continuity_diffusion", "continuity_trainable_alone")
METHODS: Mapping[str, dict[str, Any]] = {
    "reverse_kl_loss": {"loss": "reverse-kl"},
    "continuity": {},
    "continuity_trainable": {},
    "continuity_trainable_alone": {},
    "continuity_linear": {"interpolation": "linear"},
    "continuity_diffusion": {"interpolation": "diffusion"},
    **{f"penalty_{name}": {"penalty": name} for name in ("abs", "square", "log1p")},
}
"""What a method changes in the preset."""

METRICS = ("hausdorff", "reverse_kl", "reverse_ess", "forward_kl", "forward_ess")
_BASELINE_STEPS = 2500  # the pilot would take more: from a base that is narrow it steps through many temperatures
_MIXTURE_INTERVALS = 16
"""Of the solver that the reverse KL trains through on the mixtures: with the 8 that do for the chain, three seeds of
five on Eq. (2) learn to exploit its error, and end with a training loss below the bound."""
_QUICK_REVERSE_KL_STEPS, _QUICK_SAMPLE_STEPS = 50, 16
_HISTOGRAM = np.linspace(-5.0, 5.0, 101)


@dataclasses.dataclass(frozen=True)
class Cell:
    """`target` and `method` by the names of `TARGETS` and `METHODS`; `table` names the file that keeps its rows, and
    `figure` the picture of the path of its first seed."""

    table: str
    target: str
    method: str
    figure: str = ""

    @property
    def name(self) -> str:
        """What it is asked for by, as "eq2/continuity_trainable"."""
        return f"{self.target}/{self.method}"

    @property
    def shipped(self) -> tuple[str, dict[str, Any]]:
        """The name and the options of the target."""
        return TARGETS[self.target]


def config_of(cell: Cell, preset: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The settings of a cell in a preset, with `changes` on top."""
    name, options = cell.shipped
    dim = make_target(name, **options).dim
    settings = dict(METHODS[cell.method])
    if preset != "paper" and cell.method in _BASELINES:
        paper = paper_preset(name, dim)
        settings["base"] = paper.base
        settings |= {"base_std": paper.base_std} if paper.base == "gaussian" else {"base_power": paper.base_power}
        settings |= {"pilot_fraction": 0.0, "warmup_fraction": 0.0}
        if cell.method != "reverse_kl_loss":
            settings["num_steps"] = _BASELINE_STEPS
        elif cell.target in _MIXTURES:
            settings["num_intervals"] = _MIXTURE_INTERVALS
    if preset == "quick":
        settings["sample_steps"] = _QUICK_SAMPLE_STEPS  # without looking for how many are enough
        settings.pop("num_steps", None)
        if cell.method == "reverse_kl_loss":
            settings["num_steps"] = _QUICK_REVERSE_KL_STEPS
    return with_changes(make_preset(preset, name, dim), {**settings, **(changes or {})})


def train(cell: Cell, config: Config, seed: int, on_progress: Callable[[Progress], None], keep: Path) -> Run:
    """One seed of a cell; goes on from what an interrupted training of it kept in the folder `keep`."""
    name, options = cell.shipped
    target = make_target(name, **options)
    return runs.fit(target, seed=seed, config=config, name=name, options=options, on_progress=on_progress, keep=keep)


def measure(run: Run) -> dict[str, Any]:
    """What is kept of one seed: the paper's metrics with their errors, what it cost, its verdict, the ESS on the way.

    `curve` has (step, seconds, loss, reverse ESS of 2048 samples) at each look; `sites`, for the chain, the density of
    all sites of the samples together in the bins of `site_edges`.
    """
    report = run.report()
    estimates = {name: report.estimates[name] for name in METRICS if name in report.estimates}
    result: dict[str, Any] = {
        "seed": run.seed,
        "metrics": {name: float(estimate.value) for name, estimate in estimates.items()},
        "errors": {name: float(estimate.stderr) for name, estimate in estimates.items()},
        "log_z": [float(report.estimates["log_z"].value), float(report.estimates["log_z"].stderr)],
        "trusted": report.verdict.trustworthy,
        "train_seconds": report.cost["train_seconds"],
        "compile_seconds": report.cost["compile_seconds"],
        "total_seconds": report.cost["total_seconds"],
        "steps": int(report.cost["steps"]),
        "curve": _curve(run.history),
    }
    if isinstance(run.target, DoubleWell):
        counts, _ = np.histogram(np.asarray(run.samples.x), _HISTOGRAM)
        result["sites"] = counts / (np.asarray(run.samples.x).size * (_HISTOGRAM[1] - _HISTOGRAM[0]))
    return result


def site_edges() -> np.ndarray:
    """The edges of the bins of a row's `sites`."""
    return _HISTOGRAM


def _curve(history: list[dict[str, float]]) -> list[list[float]]:
    """At each look at the ESS: the step, the seconds, the mean loss since the look before, the ESS."""
    curve, losses = [], []
    for row in history:
        losses.append(row["loss"])
        if "reverse_ess" in row:
            finite = [loss for loss in losses if np.isfinite(loss)]
            loss = float(np.mean(finite)) if finite else float("nan")
            curve.append([int(row["step"]), row["seconds"], loss, row["reverse_ess"]])
            losses = []
    return curve
