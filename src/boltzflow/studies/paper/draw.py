"""The pictures of the paper that a report does not have, each as the bytes of a PNG.

Figs. 5 and 6 show the linear path between two energies on the line, where the velocity is known exactly. For densities
p_t on R with distribution functions F_t it is V_t = -(∂_t F_t) / p_t. Between modes that exchange mass p_t is nearly 0,
and V_t explodes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.report.picture import Picture, legend_above
from boltzflow.report.plots import EXACT, RAW, REWEIGHTED
from boltzflow.studies.paper.cells import MASSES, SITE_EDGES, SIZES, Cell
from boltzflow.studies.paper.results import curve_of
from boltzflow.studies.rows import Row

Floats = NDArray[np.float64]
_COLORS = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
TIMES = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
_GRID = np.linspace(-14.0, 14.0, 28_001)


def base_energy(x: Floats) -> Floats:
    """f_0(x) = x²/4."""
    return x**2 / 4


def even_modes(x: Floats) -> Floats:
    """f_1 of Fig. 5: -log(½ exp(-(x-3)²) + ½ exp(-(x+3)²))."""
    return -np.logaddexp(np.log(0.5) - (x - 3) ** 2, np.log(0.5) - (x + 3) ** 2)


def uneven_modes(x: Floats) -> Floats:
    """f_1 of Fig. 6: -log(⅓ exp(-(x-1)²) + ⅔ exp(-(x+4)²))."""
    return -np.logaddexp(np.log(1 / 3) - (x - 1) ** 2, np.log(2 / 3) - (x + 4) ** 2)


class LinePath(NamedTuple):
    """-f_t, p_t and V_t, each `(T, n)`, on the points `x`, `(n,)`, at `times`, `(T,)`; the norms √E[V_t²], `(T,)`."""

    x: Floats
    times: Floats
    log_density: Floats
    density: Floats
    velocity: Floats
    norm: Floats


def linear_path(f0: Callable[[Floats], Floats], f1: Callable[[Floats], Floats], times: Floats = TIMES) -> LinePath:
    """The path (17) from f_0 to f_1 with its exact velocity, by the trapezoid rule.

    ∂_t F_t is the integral of ∂_t p_t = p_t (E[∂_t f_t] - ∂_t f_t) from the left; right of the median it is taken from
    the right, so that neither tail is a small difference of large numbers.
    """
    x = _GRID
    start = f0(x)
    rate = f1(x) - start
    step = x[1] - x[0]
    log_density = -(start + times[:, None] * rate)
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    density /= step * density.sum(axis=1, keepdims=True)
    mean_rate = step * (density * rate).sum(axis=1, keepdims=True)
    change = density * (mean_rate - rate)
    area = step * (change[:, 1:] + change[:, :-1]) / 2
    from_left = np.pad(np.cumsum(area, axis=1), ((0, 0), (1, 0)))
    from_right = -np.pad(np.cumsum(area[:, ::-1], axis=1)[:, ::-1], ((0, 0), (0, 1)))
    is_left = step * np.cumsum(density, axis=1) < 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        velocity = -np.where(is_left, from_left, from_right) / density
    norm = np.sqrt(step * (density * np.nan_to_num(velocity, posinf=0.0, neginf=0.0) ** 2).sum(axis=1))
    return LinePath(x, times, log_density, density, velocity, norm)


def line_path(path: LinePath) -> bytes:
    """Log-density, density and velocity over x, a column for each time, as in Figs. 5 and 6."""
    seen = (np.abs(path.x) <= 8) & (path.density.max(axis=0) > 1e-4)
    x = path.x[seen]
    density = path.density[:, seen]
    log_density = path.log_density[:, seen]
    velocity = np.where(density > 1e-6, path.velocity[:, seen], np.nan)  # only where there is mass to move

    def paint(axes: NDArray[Any]) -> None:
        for row, values, label in zip(axes, (log_density, density, velocity), ("−f_t", "p_t", "V_t"), strict=True):
            for ax, value in zip(row, values, strict=True):
                ax.plot(x, value, color=RAW)
            row[0].set_ylabel(label)
        axes[0, 0].set_ylim(np.percentile(log_density, 2), 0.5 + log_density.max())
        for (top, _, bottom), t, norm in zip(axes.T, path.times, path.norm, strict=True):
            top.set_title(f"t = {t:.1f}")
            bottom.axhline(0, color="#bbbbbb", linewidth=0.8)
            bottom.set(xlabel="x", title=f"√E[V²] = {norm:.3g}")

    return Picture((3, len(path.times)), (2.1 * len(path.times), 6.2), paint, {"sharex": True, "sharey": "row"}).png()


def potentials() -> bytes:
    """V(φ) and e^{-V(φ)} for each mass, as in Fig. 9."""
    phi = np.linspace(-4, 4, 401)
    potential = {mass: _potential(DoubleWell(16, mass), phi) for mass in MASSES.values()}

    def paint(axes: NDArray[Any]) -> None:
        left, right = axes[0]
        for color, (mass, value) in zip(_COLORS[1:], potential.items(), strict=False):
            left.plot(phi, value, color=color, label=f"m = {mass:g}")
            right.plot(phi, np.exp(-value), color=color)
        lowest = min(value.min() for value in potential.values())
        left.set(xlabel="φ", ylabel="V(φ)", ylim=(1.15 * lowest, 6))
        right.set(xlabel="φ", ylabel="exp(−V(φ))", yscale="log", ylim=(1e-2, 3 * np.exp(-lowest)))
        left.legend()

    return Picture((1, 2), (8.6, 3.4), paint).png()


def _potential(chain: DoubleWell, phi: Floats) -> Floats:
    return np.asarray(chain.potential(jnp.asarray(phi)), np.float64)


def wells(rows: Mapping[Cell, Row]) -> bytes:
    """The density of all sites by method and mass, with e^{-V} and the exact density, as in Fig. 10."""
    phi = np.linspace(-4.5, 4.5, 901)
    methods = {"reverse_kl_loss": "reverse KL", "continuity": "continuity loss"}

    def paint(axes: NDArray[Any]) -> None:
        for column, (target, mass) in zip(axes.T, MASSES.items(), strict=True):
            chain = DoubleWell(16, mass)
            potential = _potential(chain, phi)
            boltzmann = np.exp(potential.min() - potential)
            exact = chain.site_density()
            for ax, method in zip(column, methods, strict=True):
                row = rows.get(Cell("table2", target, method))
                if row:
                    sites = np.asarray(row["runs"][0]["sites"])
                    ax.stairs(sites, SITE_EDGES, fill=True, color=REWEIGHTED, alpha=0.5, label="samples of the flow")
                ax.plot(phi, boltzmann / np.trapezoid(boltzmann, phi), color=RAW, linestyle="--", label="exp(−V)")
                ax.plot(*exact, color=EXACT, label="exact density of a site")
                ax.set(xlim=(-4.5, 4.5))
            column[0].set_title(f"m = {mass:g}")
            column[-1].set_xlabel("φ")
        for ax, label in zip(axes[:, 0], methods.values(), strict=True):
            ax.set_ylabel(label)
        legend_above(axes, ncols=3)

    return Picture((2, len(MASSES)), (2.6 * len(MASSES), 5.2), paint, {"sharex": True}).png()


def training(rows: Mapping[Cell, Row]) -> bytes:
    """Reverse ESS and continuity loss over steps and over seconds, as in Fig. 11; the reverse KL is dashed."""
    colors = dict(zip(dict.fromkeys(cell.target for cell in rows), _COLORS, strict=False))

    def paint(axes: NDArray[Any]) -> None:
        for cell, row in rows.items():
            curve = curve_of(row)
            dashed = cell.method == "reverse_kl_loss"
            label = f"N = {SIZES[cell.target]}"
            _over_time(axes[0], curve, curve[:, 3], label, dashed, color=colors[cell.target])
            if not dashed:  # the reverse KL has no path, hence no residual
                _over_time(axes[1], curve, curve[:, 2], label, dashed, color=colors[cell.target])
        for ax, unit in zip(axes[1], ("step", "seconds"), strict=True):
            ax.set(xlabel=unit, yscale="log", xscale="log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.xaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].set(ylabel="reverse ESS", ylim=(0, 1.04))
        axes[1, 0].set_ylabel("continuity loss")
        legend_above(axes, ncols=5, fontsize=8, title="solid: continuity; dashed: reverse KL")

    return Picture((2, 2), (9.6, 6.4), paint, {"sharex": "col", "sharey": "row"}).png()


def paper_preset(rows: Mapping[str, tuple[Row, Row | None]]) -> bytes:
    """1 − reverse ESS over steps and seconds: by label, the rows of the paper preset and of the default preset."""

    def paint(axes: NDArray[Any]) -> None:
        for i, (label, pair) in enumerate(rows.items()):
            color = _COLORS[(i + 1) % len(_COLORS)]
            for row, dashed in zip(pair, (False, True), strict=True):
                if row:
                    curve = curve_of(row)
                    _over_time(axes[0], curve, 1 - curve[:, 3], label, dashed, color=color, marker=".", markersize=4)
        for ax, unit in zip(axes[0], ("step", "seconds of training"), strict=True):
            ax.set(xlabel=unit, xscale="log", yscale="log")
        axes[0, 0].set_ylabel("1 − reverse ESS")
        legend_above(axes, ncols=3, fontsize=8, title="solid: paper preset; dashed: default preset")

    return Picture((1, 2), (9.6, 3.6 + 0.18 * (len(rows) // 3)), paint, {"sharey": "row"}).png()


def _over_time(axes: NDArray[Any], curve: Floats, y: Floats, label: str, dashed: bool, **style: Any) -> None:
    """A line over the steps in one panel and over the seconds in the other; a dashed line is not in the legend."""
    for ax, x in zip(axes, curve.T[:2], strict=True):
        ax.plot(x, y, linestyle="--" if dashed else "-", label=None if dashed else label, **style)
