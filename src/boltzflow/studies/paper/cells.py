"""A cell of the paper is one target trained by one method: its settings in each preset, its training, its measurement.

Each method changes in the preset only what its name states. The paper's baselines and "continuity_trainable_alone" also
keep the base that the paper gives all of its flows, and do not train on the pilot's points: a base or points that cover
all modes would hide their failures.
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
TARGETS: Mapping[str, tuple[str, dict[str, Any]]] = {name: (shipped, {}) for name, shipped in _MIXTURES.items()} | {
    name: ("double-well", {"num_sites": SIZES.get(name, 16), "mass": MASSES.get(name, 1.5)}) for name in MASSES | SIZES
}
"""The paper's targets by the names of its tables: a shipped target and its options."""

METHODS: Mapping[str, dict[str, Any]] = {
    "reverse_kl_loss": {"loss": "reverse-kl"},
    "continuity": {},
    "continuity_trainable": {},
    "continuity_trainable_alone": {},
    "continuity_linear": {"interpolation": "linear"},
    "continuity_diffusion": {"interpolation": "diffusion"},
    **{f"penalty_{name}": {"penalty": name} for name in ("abs", "square", "log1p")},
}
"""The settings that a method changes in the preset."""

METRICS = ("hausdorff", "reverse_kl", "reverse_ess", "forward_kl", "forward_ess")
SITE_EDGES = np.linspace(-5.0, 5.0, 101)  # of the bins of a row's `sites`
_BASELINES = ("reverse_kl_loss", "continuity_linear", "continuity_diffusion", "continuity_trainable_alone")
_BASELINE_STEPS = 2500  # the preset would derive more from the pilot, which takes many steps in β from a narrow base
# Solver intervals of the reverse KL on the mixtures: with the 8 that suffice for the chain, three of five seeds on
# Eq. (2) learn to exploit the solver error and end with a training loss below its bound.
_MIXTURE_INTERVALS = 16
_QUICK_REVERSE_KL_STEPS = 50
_QUICK_SAMPLE_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Cell:
    """A target and a method."""

    table: str  # the file of the cell's rows
    target: str  # a name of `TARGETS`
    method: str  # a name of `METHODS`

    @property
    def name(self) -> str:
        """The name for `--cells`, such as "eq2/continuity_trainable"."""
        return f"{self.target}/{self.method}"


def config_of(cell: Cell, preset: str, changes: Mapping[str, Any] | None = None) -> Config:
    """The settings of a cell in a preset, with `changes` on top."""
    name, options = TARGETS[cell.target]
    dim = make_target(name, **options).dim
    settings = dict(METHODS[cell.method])
    if preset != "paper" and cell.method in _BASELINES:
        paper = paper_preset(name, dim)
        width = "base_std" if paper.base == "gaussian" else "base_power"
        settings |= {"base": paper.base, width: getattr(paper, width), "pilot_fraction": 0.0, "warmup_fraction": 0.0}
        if cell.method != "reverse_kl_loss":
            settings["num_steps"] = _BASELINE_STEPS
        elif cell.target in _MIXTURES:
            settings["num_intervals"] = _MIXTURE_INTERVALS
    if preset == "quick":
        settings["sample_steps"] = _QUICK_SAMPLE_STEPS  # without a search for the number of steps
        settings.pop("num_steps", None)
        if cell.method == "reverse_kl_loss":
            settings["num_steps"] = _QUICK_REVERSE_KL_STEPS
    return with_changes(make_preset(preset, name, dim), {**settings, **(changes or {})})


def train(cell: Cell, config: Config, seed: int, on_progress: Callable[[Progress], None], keep: Path) -> Run:
    """Trains one seed of a cell, or resumes its interrupted training from the snapshots in the folder `keep`."""
    name, options = TARGETS[cell.target]
    target = make_target(name, **options)
    return runs.fit(
        target, seed=seed, config=config, name=name, options=options, progress=False, on_progress=on_progress, keep=keep
    )


def measure(run: Run) -> dict[str, Any]:
    """The record of one seed; `sites`, for the chain, is the density of all sites of all samples."""
    report = run.report()
    estimates = {name: report.estimates[name] for name in METRICS if name in report.estimates}
    result = {
        "seed": run.seed,
        "metrics": {name: float(estimate.value) for name, estimate in estimates.items()},
        "errors": {name: float(estimate.stderr) for name, estimate in estimates.items()},
        "log_z": [float(report.estimates["log_z"].value), float(report.estimates["log_z"].stderr)],
        "trusted": report.verdict.trustworthy,
        **{name: report.cost[name] for name in ("train_seconds", "compile_seconds", "total_seconds")},
        "steps": int(report.cost["steps"]),
        "curve": _curve(run.history),
    }
    if isinstance(run.target, DoubleWell):
        x = np.asarray(run.samples.x)
        counts, _ = np.histogram(x, SITE_EDGES)
        result["sites"] = counts / (x.size * (SITE_EDGES[1] - SITE_EDGES[0]))
    return result


def _curve(history: list[dict[str, float]]) -> list[list[float]]:
    """The step, seconds, mean loss since the last look, and reverse ESS of 2048 samples, where the ESS was measured."""
    curve: list[list[float]] = []
    losses: list[float] = []
    for row in history:
        losses.append(row["loss"])
        if "reverse_ess" in row:
            finite = [loss for loss in losses if np.isfinite(loss)]
            loss = float(np.mean(finite)) if finite else float("nan")
            curve.append([int(row["step"]), row["seconds"], loss, row["reverse_ess"]])
            losses = []
    return curve
