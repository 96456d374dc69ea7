"""Every table and figure of the paper: its cells, and the picture that its rows give."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from boltzflow.studies.paper import draw
from boltzflow.studies.paper.cells import MASSES, SIZES, Cell
from boltzflow.studies.paper.results import found, put
from boltzflow.studies.rows import Row


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure."""

    title: str
    cells: Sequence[Cell] = ()  # that it trains
    num_seeds: int = 1  # of each cell
    ends_at: Callable[[draw.Floats], draw.Floats] | None = None  # the target of a linear path on the line
    draw: Callable[[Mapping[Cell, Row]], bytes] | None = None  # the picture of its rows


_BOTH = ("reverse_kl_loss", "continuity")
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

EXPERIMENTS: Mapping[str, Experiment] = {
    "table1": Experiment("Table 1: Gaussian mixtures", _TABLE_1, 5),
    "table2": Experiment("Table 2: the quantum particle, N = 16", _TABLE_2, 3),
    "fig2": Experiment("Fig. 2: the reverse KL on Eq. (2)", [Cell("table1", "eq2", "reverse_kl_loss")]),
    "fig3": Experiment(
        "Fig. 3: the continuity loss on Eq. (2), linear path", [Cell("table1", "eq2", "continuity_linear")]
    ),
    "fig4": Experiment("Fig. 4: the continuity loss on Eq. (18), linear path", _PATHS[:1]),
    "fig5": Experiment("Fig. 5: a linear path that moves mass locally", ends_at=draw.even_modes),
    "fig6": Experiment("Fig. 6: a linear path that moves mass between modes", ends_at=draw.uneven_modes),
    "fig7": Experiment("Fig. 7: the continuity loss on Eq. (18), diffusion path", [_FIG_7]),
    "fig8": Experiment("Fig. 8: the continuity loss on Eq. (18), trainable path", _PATHS[3:]),
    "fig9": Experiment("Fig. 9: the double well over m", draw=lambda rows: draw.potentials()),
    "fig10": Experiment("Fig. 10: flattened samples of the particle", _TABLE_2, draw=draw.wells),
    "fig11": Experiment("Fig. 11: training over N, both losses", _FIG_11, draw=draw.training),
    "paths": Experiment("Eq. (18): what the path by itself is worth", _PATHS, 3),
    "penalties": Experiment("Footnote 1: the function L of the residual", _PENALTIES, 3),
}
"""By the names for `boltzflow reproduce`, in the order of "all"."""


def path_figure(cell: Cell) -> str:
    """The figure of the path of a cell's seed 0, "" where the paper shows none."""
    return next((name for name, experiment in EXPERIMENTS.items() if list(experiment.cells) == [cell]), "")


def picture(folder: Path, figure: str, preset: str) -> Path:
    """The file of a picture; the preset "paper" has files of its own beside those of the other presets."""
    return folder / (f"{figure}-paper.png" if preset == "paper" else f"{figure}.png")


def draw_from_rows(folder: Path, name: str, preset: str) -> list[Path]:
    """Draws the picture of an experiment from its rows. Returns the file, [] where it has no such picture."""
    experiment = EXPERIMENTS[name]
    if experiment.ends_at:
        path = draw.linear_path(draw.base_energy, experiment.ends_at)
        norms = {f"{t:.1f}": float(norm) for t, norm in zip(path.times, path.norm, strict=True)}
        put(folder, Cell(name, name, "exact"), preset, {"seeds": 0, "velocity_norm": norms})
        return [write_picture(folder, name, preset, draw.line_path(path))]
    if experiment.draw:
        return [write_picture(folder, name, preset, experiment.draw(found(folder, experiment.cells, preset)))]
    return []


def write_picture(folder: Path, figure: str, preset: str, png: bytes) -> Path:
    """Writes the PNG of a figure. Returns the file."""
    path = picture(folder, figure, preset)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    return path
