"""Every table and figure of the paper: its cells, and the picture that its rows give."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.studies.paper import draw
from boltzflow.studies.paper.cells import MASSES, SITE_EDGES, SIZES, Cell
from boltzflow.studies.paper.results import curve_of, find, put

_BOTH = ("reverse_kl_loss", "continuity")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Args:
        title: The title.
        cells: The cells that it trains.
        num_seeds: The seeds of each cell.
        draw: Folder of the rows and preset to the PNG of its picture, where it has one that is drawn from rows.
    """

    title: str
    cells: Sequence[Cell] = ()
    num_seeds: int = 1
    draw: Callable[[Path, str], bytes] | None = None


def _line_path(figure: str, folder: Path, preset: str) -> bytes:
    target = draw.even_modes if figure == "fig5" else draw.uneven_modes
    path = draw.linear_path(draw.base_energy, target)
    norms = {f"{t:.1f}": float(norm) for t, norm in zip(path.times, path.norm, strict=True)}
    put(folder, figure, {"target": figure, "method": "exact", "preset": preset, "seeds": 0, "velocity_norm": norms})
    return draw.line_path(path)


def _potentials(folder: Path, preset: str) -> bytes:
    phi = np.linspace(-4, 4, 401)
    values = {mass: np.asarray(DoubleWell(16, mass).potential(jnp.asarray(phi))) for mass in MASSES.values()}
    return draw.potentials(phi, values)


def _wells(folder: Path, preset: str) -> bytes:
    phi = np.linspace(-4.5, 4.5, 901)
    chains = [DoubleWell(16, mass) for mass in MASSES.values()]
    potentials = [np.asarray(chain.potential(jnp.asarray(phi)), np.float64) for chain in chains]
    histograms = []
    for method in _BOTH:
        rows = [find(folder, Cell("table2", target, method), preset) for target in MASSES]
        histograms.append([np.asarray(row["runs"][0]["sites"]) if row else None for row in rows])
    return draw.wells(
        SITE_EDGES,
        histograms,
        phi,
        boltzmann=[np.exp(potential.min() - potential) for potential in potentials],
        exact=[chain.site_density() for chain in chains],
        masses=list(MASSES.values()),
        methods=("reverse KL", "continuity loss"),
    )


def _training(folder: Path, preset: str) -> bytes:
    rows = [(cell, find(folder, cell, preset)) for cell in EXPERIMENTS["fig11"].cells]
    return draw.training({(f"N = {SIZES[cell.target]}", cell.method): curve_of(row) for cell, row in rows if row})


_TABLE_1 = [
    Cell("table1", target, method)
    for target in ("eq2", "eq18")
    for method in ("reverse_kl_loss", "continuity_linear", "continuity_trainable")
]
_TABLE_2 = [Cell("table2", target, method) for target in MASSES for method in _BOTH]
_FIG_11 = [Cell("table2" if target in MASSES else "fig11", target, method) for target in SIZES for method in _BOTH]
_FIG_7 = Cell("fig7", "eq18", "continuity_diffusion")
_PATHS = [
    Cell("table1", "eq18", "continuity_linear"),
    _FIG_7,
    Cell("paths", "eq18", "continuity_trainable_alone"),
    Cell("table1", "eq18", "continuity_trainable"),
]
_PENALTIES = [
    *(Cell("penalties", target, f"penalty_{L}") for target in ("eq18", "m1_5") for L in ("abs", "square", "log1p")),
    Cell("table1", "eq18", "continuity_trainable"),  # |r| + r², from the tables
    Cell("table2", "m1_5", "continuity"),
]


def _path(figure: str, title: str) -> Experiment:
    return Experiment(title, [cell for cell in (*_TABLE_1, _FIG_7) if cell.figure == figure])


EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Experiment("Table 1: Gaussian mixtures", _TABLE_1, 5),
    "table2": Experiment("Table 2: the quantum particle, N = 16", _TABLE_2, 3),
    "fig2": _path("fig2", "Fig. 2: the reverse KL on Eq. (2)"),
    "fig3": _path("fig3", "Fig. 3: the continuity loss on Eq. (2), linear path"),
    "fig4": _path("fig4", "Fig. 4: the continuity loss on Eq. (18), linear path"),
    "fig5": Experiment("Fig. 5: a linear path that moves mass locally", draw=partial(_line_path, "fig5")),
    "fig6": Experiment("Fig. 6: a linear path that moves mass between modes", draw=partial(_line_path, "fig6")),
    "fig7": _path("fig7", "Fig. 7: the continuity loss on Eq. (18), diffusion path"),
    "fig8": _path("fig8", "Fig. 8: the continuity loss on Eq. (18), trainable path"),
    "fig9": Experiment("Fig. 9: the double well over m", draw=_potentials),
    "fig10": Experiment("Fig. 10: flattened samples of the particle", _TABLE_2, draw=_wells),
    "fig11": Experiment("Fig. 11: training over N, both losses", _FIG_11, draw=_training),
    "paths": Experiment("Eq. (18): what the path by itself is worth", _PATHS, 3),
    "penalties": Experiment("Footnote 1: the function L of the residual", _PENALTIES, 3),
}
"""By the names for `boltzflow reproduce`, in the order of "all"."""


def picture(folder: Path, figure: str, preset: str) -> Path:
    """The file of a picture; the preset "paper" has files of its own beside those of the other presets."""
    return folder / (f"{figure}-paper.png" if preset == "paper" else f"{figure}.png")


def draw_from_rows(folder: Path, name: str, preset: str) -> list[Path]:
    """Draws the picture of an experiment from its rows. Returns the file, [] where it has no such picture."""
    experiment = EXPERIMENTS[name]
    return [write_picture(folder, name, preset, experiment.draw(folder, preset))] if experiment.draw else []


def write_picture(folder: Path, figure: str, preset: str, png: bytes) -> Path:
    """Writes the PNG of a figure. Returns the file."""
    path = picture(folder, figure, preset)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    return path
