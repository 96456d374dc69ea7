"""The pictures of the paper that a report does not have: functions from arrays to the bytes of a PNG.

Figs. 5 and 6 show the linear path between two energies on the line, where the velocity is known exactly. For densities
p_t on R with distribution functions F_t it is V_t = -(∂_t F_t) / p_t. Between modes that exchange mass p_t is nearly 0,
and V_t explodes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from boltzflow.report.plots import EXACT, RAW, REWEIGHTED, draw

Floats = NDArray[np.float64]
_SIZES = ("#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
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


def linear_path(
    f0: Callable[[Floats], Floats], f1: Callable[[Floats], Floats], times: Floats = TIMES, x: Floats = _GRID
) -> LinePath:
    """The path (17) from f_0 to f_1 with its exact velocity, by the trapezoid rule.

    ∂_t F_t is the integral of ∂_t p_t = p_t (E[∂_t f_t] - ∂_t f_t) from the left; right of the median it is taken from
    the right, so that neither tail is a small difference of large numbers.

    Args:
        f0: The energy of the base.
        f1: The energy of the target.
        times: The times. Defaults to those of the figures.
        x: Uniform points that cover both densities.
    """
    start = f0(x)
    rate = f1(x) - start
    step = x[1] - x[0]
    log_density = -(start + times[:, None] * rate)
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    density /= step * density.sum(axis=1, keepdims=True)
    mean_rate = step * (density * rate).sum(axis=1, keepdims=True)
    change = density * (mean_rate - rate)
    area = step * (change[:, 1:] + change[:, :-1]) / 2
    none = np.zeros((len(times), 1))
    from_left = np.concatenate([none, np.cumsum(area, axis=1)], axis=1)
    from_right = -np.concatenate([np.cumsum(area[:, ::-1], axis=1)[:, ::-1], none], axis=1)
    is_left = step * np.cumsum(density, axis=1) < 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        velocity = -np.where(is_left, from_left, from_right) / density
    norm = np.sqrt(step * (density * np.nan_to_num(velocity, posinf=0.0, neginf=0.0) ** 2).sum(axis=1))
    return LinePath(x, times, log_density, density, velocity, norm)


# --- pictures ---------------------------------------------------------------------------------------------------------


def line_path(path: LinePath) -> bytes:
    """Log-density, density and velocity over x, a column for each time, as in Figs. 5 and 6."""
    seen = (np.abs(path.x) <= 8) & (path.density.max(axis=0) > 1e-4)
    x = path.x[seen]
    rows = ((path.log_density, "−f_t"), (path.density, "p_t"), (path.velocity, "V_t"))

    def paint(axes: NDArray[Any]) -> None:
        for row, (values, label) in zip(axes, rows, strict=True):
            shown = values[:, seen]
            if label == "V_t":  # only where there is mass to move
                shown = np.where(path.density[:, seen] > 1e-6, shown, np.nan)
            for i, ax in enumerate(row):
                ax.plot(x, shown[i], color=RAW)
                if label == "V_t":
                    ax.axhline(0, color="#bbbbbb", linewidth=0.8)
                    ax.set(xlabel="x", title=f"√E[V²] = {path.norm[i]:.3g}")
            row[0].set_ylabel(label)
        axes[0, 0].set_ylim(np.percentile(path.log_density[:, seen], 2), 0.5 + path.log_density[:, seen].max())
        for i, t in enumerate(path.times):
            axes[0, i].set_title(f"t = {t:.1f}")

    return draw((3, len(path.times)), (2.1 * len(path.times), 6.2), paint, sharex=True, sharey="row")


def potentials(phi: Floats, potential: Mapping[float, Floats]) -> bytes:
    """V(φ) and e^{-V(φ)} for each mass, as in Fig. 9."""

    def paint(axes: NDArray[Any]) -> None:
        left, right = axes[0]
        top = max(np.exp(-value).max() for value in potential.values())
        for color, (mass, value) in zip(_SIZES[1:], potential.items(), strict=False):
            left.plot(phi, value, color=color, label=f"m = {mass:g}")
            right.plot(phi, np.exp(-value), color=color)
        left.set(xlabel="φ", ylabel="V(φ)", ylim=(1.15 * min(v.min() for v in potential.values()), 6))
        right.set(xlabel="φ", ylabel="exp(−V(φ))", yscale="log", ylim=(1e-2, 3 * top))
        left.legend()

    return draw((1, 2), (8.6, 3.4), paint)


def wells(
    edges: Floats,
    histograms: Sequence[Sequence[Floats | None]],
    phi: Floats,
    boltzmann: Sequence[Floats],
    exact: Sequence[tuple[Floats, Floats]],
    masses: Sequence[float],
    methods: Sequence[str],
) -> bytes:
    """The density of all sites by method (rows) and mass (columns), with e^{-V} and the exact density, as in Fig. 10.

    Args:
        edges: The edges of the bins.
        histograms: For each method and mass the density in the bins, None where there is no row.
        phi: The points of `boltzmann`.
        boltzmann: For each mass e^{-V}, in any scale.
        exact: For each mass the points and values of the exact density of a site.
        masses: The masses.
        methods: The methods.
    """

    def paint(axes: NDArray[Any]) -> None:
        for row, method, of_method in zip(axes, methods, histograms, strict=True):
            for ax, value, curve, (x, density) in zip(row, of_method, boltzmann, exact, strict=True):
                if value is not None:
                    ax.stairs(value, edges, fill=True, color=REWEIGHTED, alpha=0.5, label="samples of the flow")
                ax.plot(phi, curve / np.trapezoid(curve, phi), color=RAW, linestyle="--", label="exp(−V)")
                ax.plot(x, density, color=EXACT, label="exact density of a site")
                ax.set(xlim=(-4.5, 4.5))
            row[0].set_ylabel(method)
        for ax, mass in zip(axes[0], masses, strict=True):
            ax.set_title(f"m = {mass:g}")
        for ax in axes[-1]:
            ax.set_xlabel("φ")
        _legend_above(axes, ncols=3)

    return draw((len(methods), len(masses)), (2.6 * len(masses), 2.3 * len(methods) + 0.6), paint, sharex=True)


def training(curves: Mapping[tuple[str, str], Floats]) -> bytes:
    """Reverse ESS and continuity loss over steps and over seconds, as in Fig. 11.

    Args:
        curves: By label and method, rows of step, seconds, loss, reverse ESS; "reverse_kl_loss" is dashed.
    """
    labels = list(dict.fromkeys(label for label, _ in curves))

    def paint(axes: NDArray[Any]) -> None:
        for (label, method), rows in curves.items():
            dashed = method == "reverse_kl_loss"
            color = _SIZES[labels.index(label) % len(_SIZES)]
            style = {"color": color, "linestyle": "--" if dashed else "-", "label": None if dashed else label}
            for column in (0, 1):
                axes[0, column].plot(rows[:, column], rows[:, 3], **style)
                if not dashed:  # the reverse KL has no path, hence no residual
                    axes[1, column].plot(rows[:, column], rows[:, 2], **style)
        for ax, unit in zip(axes[1], ("step", "seconds"), strict=True):
            ax.set(xlabel=unit, yscale="log", xscale="log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.xaxis.set_minor_formatter(NullFormatter())
        axes[0, 0].set(ylabel="reverse ESS", ylim=(0, 1.04))
        axes[1, 0].set_ylabel("continuity loss")
        _legend_above(axes, ncols=5, fontsize=8, title="solid: continuity; dashed: reverse KL")

    return draw((2, 2), (9.6, 6.4), paint, sharex="col", sharey="row")


def paper_preset(curves: Mapping[str, Sequence[Floats | None]]) -> bytes:
    """1 − reverse ESS over steps and seconds.

    Args:
        curves: By label, the curve of the paper preset (solid) and of the default preset (dashed), each with rows of
            step, seconds, reverse ESS, or None.
    """

    def paint(axes: NDArray[Any]) -> None:
        for i, (label, pair) in enumerate(curves.items()):
            for rows, dashed in zip(pair, (False, True), strict=True):
                if rows is None:
                    continue
                color = _SIZES[(i + 1) % len(_SIZES)]
                style = {"color": color, "linestyle": "--" if dashed else "-", "marker": ".", "markersize": 4}
                for column in (0, 1):
                    axes[0, column].plot(rows[:, column], 1 - rows[:, 2], label=None if dashed else label, **style)
        for ax, unit in zip(axes[0], ("step", "seconds of training"), strict=True):
            ax.set(xlabel=unit, xscale="log", yscale="log")
        axes[0, 0].set_ylabel("1 − reverse ESS")
        _legend_above(axes, ncols=3, fontsize=8, title="solid: paper preset; dashed: default preset")

    return draw((1, 2), (9.6, 3.6 + 0.18 * (len(curves) // 3)), paint, sharey="row")


def _legend_above(axes: NDArray[Any], **style: Any) -> None:
    """The legend of the first panel above all panels."""
    ax = axes[0, 0]
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", **style)
