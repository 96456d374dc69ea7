"""Every table and figure of the paper: which cells it needs, and what it draws from them."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from boltzflow.densities.base import AbstractDistribution, HasModes, sample_batch
from boltzflow.densities.catalog import make_target
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.statistics import estimates as estimators
from boltzflow.studies.paper import draw, one_dimension
from boltzflow.studies.paper.cells import MASSES, METRICS, SIZES, TARGETS, Cell, site_edges
from boltzflow.studies.paper.results import Results, mean_and_spread

_BOTH = ("reverse_kl_loss", "continuity")
_EVALUATION_BATCH = 4096  # the paper's
_NOTE = "drawn from"
Draw = Callable[[Results, str], dict[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """`title`, the `cells` it trains and for how many seeds, and `draw`, from results and preset to pictures."""

    title: str
    cells: Sequence[Cell] = ()
    num_seeds: int = 1
    draw: Draw | None = None


def picture_name(figure: str, preset: str) -> str:
    """The file of a picture: those of the preset "paper" lie beside the others."""
    return f"{figure}-paper.png" if preset == "paper" else f"{figure}.png"


def exact_row(target: str, preset: str, num_seeds: int = 5) -> dict[str, Any]:
    """What a perfect sampler would get: the divergences and ESS it has, and its own Hausdorff distance."""
    name, options = TARGETS[target]
    density = make_target(name, **options)
    assert isinstance(density, AbstractDistribution) and isinstance(density, HasModes)
    log_z = float(density.log_z)
    known = {"reverse_kl": -log_z, "reverse_ess": 1.0, "forward_kl": 0.0, "forward_ess": 1.0}
    keys = [jax.random.key(seed) for seed in range(num_seeds)]
    batches = [np.asarray(sample_batch(density, key, _EVALUATION_BATCH)[0]) for key in keys]
    distances = [float(estimators.hausdorff(np.asarray(density.modes), x).value) for x in batches]
    metrics = {"hausdorff": mean_and_spread(distances), **{key: [value, 0.0] for key, value in known.items()}}
    return {
        "target": target, "method": "exact", "preset": preset, "seeds": num_seeds, "log_z": log_z,
        "metrics": {name: metrics[name] for name in METRICS},
    }  # fmt: skip


def _line(which: str) -> Draw:
    def drawn(results: Results, preset: str) -> dict[str, bytes]:
        target = one_dimension.even_modes if which == "fig5" else one_dimension.uneven_modes
        path = one_dimension.linear_path(one_dimension.base_energy, target)
        norms = {f"{t:.1f}": float(norm) for t, norm in zip(path.times, path.norm, strict=True)}
        results.put({"target": which, "method": "exact", "preset": preset, "seeds": 0, "velocity_norm": norms})
        return {which: draw.line_path(path)}

    return drawn


def _potentials(results: Results, preset: str) -> dict[str, bytes]:
    phi = np.linspace(-4, 4, 401)
    return {
        "fig9": draw.potentials(
            phi, {mass: np.asarray(DoubleWell(16, mass).potential(jnp.asarray(phi))) for mass in MASSES.values()}
        )
    }


def _wells(results: Results, preset: str) -> dict[str, bytes]:
    table = Results(results.path.parent, "table2")
    phi = np.linspace(-4.5, 4.5, 901)
    chains = [DoubleWell(16, mass) for mass in MASSES.values()]
    potentials = [np.asarray(chain.potential(jnp.asarray(phi)), np.float64) for chain in chains]
    boltzmann = [np.exp(potential.min() - potential) for potential in potentials]
    histograms = []
    for method in _BOTH:
        rows = [table.find(Cell("table2", target, method), preset) for target in MASSES]
        histograms.append([np.asarray(row["runs"][0]["sites"]) if row else None for row in rows])
    exact = [chain.site_density() for chain in chains]
    labels = ("reverse KL", "continuity loss")
    return {"fig10": draw.wells(site_edges(), histograms, phi, boltzmann, exact, list(MASSES.values()), labels)}


def _training(results: Results, preset: str) -> dict[str, bytes]:
    curves = {}
    for cell in EXPERIMENTS["fig11"].cells:
        row = Results(results.path.parent, cell.table).find(cell, preset)
        if row:
            curve = np.array([[float(value) for value in look] for look in row["runs"][0]["curve"]])
            curves[f"N = {SIZES[cell.target]}", cell.method] = curve
    return {"fig11": draw.training(curves)}


_PICTURED = {
    ("eq2", "reverse_kl_loss"): "fig2", ("eq2", "continuity_linear"): "fig3", ("eq2", "continuity_trainable"): "",
    ("eq18", "reverse_kl_loss"): "", ("eq18", "continuity_linear"): "fig4", ("eq18", "continuity_trainable"): "fig8",
}  # fmt: skip
_TABLE_1 = [Cell("table1", target, method, figure) for (target, method), figure in _PICTURED.items()]
_TABLE_2 = [Cell("table2", target, method) for target in MASSES for method in _BOTH]
_FIG_11 = [
    Cell("table2" if target in MASSES else "fig11", target, method) for target in SIZES for method in _BOTH
]  # fmt: skip
_PENALTIES = [
    *(
        Cell("penalties", target, f"penalty_{name}")
        for target in ("eq18", "m1_5")
        for name in ("abs", "square", "log1p")
    ),
    Cell("table1", "eq18", "continuity_trainable"),  # |r| + r², which the tables have
    Cell("table2", "m1_5", "continuity"),
]

_FIG_7 = Cell("fig7", "eq18", "continuity_diffusion", "fig7")
_PATHS = [
    Cell("table1", "eq18", "continuity_linear", "fig4"),
    _FIG_7,
    Cell("paths", "eq18", "continuity_trainable_alone"),
    Cell("table1", "eq18", "continuity_trainable", "fig8"),
]


def _path(figure: str) -> Experiment:
    title = {
        "fig2": "Fig. 2: the reverse KL on Eq. (2)",
        "fig3": "Fig. 3: the continuity loss on Eq. (2), linear path",
        "fig4": "Fig. 4: the continuity loss on Eq. (18), linear path",
        "fig8": "Fig. 8: the continuity loss on Eq. (18), trainable path",
    }[figure]
    return Experiment(title, [cell for cell in _TABLE_1 if cell.figure == figure])


EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Experiment("Table 1: Gaussian mixtures", _TABLE_1, 5),
    "table2": Experiment("Table 2: the quantum particle, N = 16", _TABLE_2, 3),
    "fig2": _path("fig2"),
    "fig3": _path("fig3"),
    "fig4": _path("fig4"),
    "fig5": Experiment("Fig. 5: a linear path that moves mass locally", draw=_line("fig5")),
    "fig6": Experiment("Fig. 6: a linear path that moves mass between modes", draw=_line("fig6")),
    "fig7": Experiment(
        "Fig. 7: the continuity loss on Eq. (18), diffusion path",
        [_FIG_7],
    ),
    "fig8": _path("fig8"),
    "fig9": Experiment("Fig. 9: the double well over m", draw=_potentials),
    "fig10": Experiment("Fig. 10: flattened samples of the particle", _TABLE_2, draw=_wells),
    "fig11": Experiment("Fig. 11: training over N, both losses", _FIG_11, draw=_training),
    "paths": Experiment("Eq. (18): what the path by itself is worth", _PATHS, 3),
    "penalties": Experiment("Footnote 1: the function L of the residual", _PENALTIES, 3),
}
"""By the names that `boltzflow reproduce` knows, in the order in which "all" goes through them."""


# --- pictures, and what they were drawn from --------------------------------------------------------------------------


def pictures(folder: Path, preset: str, drawn: Mapping[str, bytes], cells: Sequence[Cell] = ()) -> list[Path]:
    """Writes pictures by name, with a mark of the rows of `cells` that they show; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    note = PngInfo()
    note.add_text(_NOTE, drawn_from(folder, preset, cells))
    paths = []
    for figure, png in drawn.items():
        path = folder / picture_name(figure, preset)
        with Image.open(io.BytesIO(png)) as image:
            image.save(path, "PNG", pnginfo=note, optimize=True)
        paths.append(path)
    return paths


def is_current(folder: Path, preset: str, figure: str, cells: Sequence[Cell]) -> bool:
    """Whether there is a picture of that name, drawn from the rows of `cells` as they are now."""
    path = folder / picture_name(figure, preset)
    if not path.exists():
        return False
    with Image.open(path) as image:
        return image.info.get(_NOTE) == drawn_from(folder, preset, cells)


def drawn_from(folder: Path, preset: str, cells: Sequence[Cell]) -> str:
    """A mark of the first seeds of these cells, which are what the pictures show."""
    rows = [Results(folder, cell.table).find(cell, preset) for cell in cells]
    runs = [row["runs"][0] if row else None for row in rows]
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()[:16]
