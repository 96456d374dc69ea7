"""Figures from arrays: pure functions that return the bytes of a PNG file of less than 300 kB. No global state.

The colors are those of Okabe & Ito, which common color blindness leaves distinct: blue for the flow's samples, orange
for the reweighted samples, black for exact values, green for the pilot.
"""

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from boltzflow.statistics.weights import as_log_weight, screen, shares

RAW = "#0072B2"
REWEIGHTED = "#D55E00"
PILOT = "#009E73"
EXACT = "#222222"
MAX_BYTES = 300_000
MAX_POINTS = 1_500
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
}
Floats = NDArray[np.float64]


def draw(shape: tuple[int, int], size: tuple[float, float], paint: Callable[..., None], **kwargs: Any) -> bytes:
    """The PNG of a grid of axes after `paint` has drawn on them; the resolution falls until it is small enough."""
    with matplotlib.rc_context():  # the user's own settings and backend stay as they are
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        paint(figure.subplots(*shape, squeeze=False, **kwargs))
        for dpi in (144, 110, 80, 50):
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=dpi)
            if buffer.tell() < MAX_BYTES:
                break
    return buffer.getvalue()


def training_curves(
    steps: ArrayLike, seconds: ArrayLike, loss: ArrayLike, ess_steps: ArrayLike = (), ess: ArrayLike = ()
) -> bytes:
    """The loss (log axis, if it spans a decade) and the reverse ESS (0 to 1) over steps and over seconds.

    `steps`, `seconds`, `loss`: shape `(n,)`; `ess_steps`, `ess`: shape `(m,)`, measured more rarely, possibly never.
    """
    step, second, value = (np.asarray(a, dtype=np.float64) for a in (steps, seconds, loss))
    ess_step = np.asarray(ess_steps, dtype=np.float64)
    fraction = np.asarray(ess, dtype=np.float64)
    ess_second = np.interp(ess_step, step, second) if len(step) else ess_step
    num_rows = 2 if len(fraction) else 1

    def paint(axes: NDArray[Any]) -> None:
        for column, (x, ess_x, unit) in enumerate([(step, ess_step, "step"), (second, ess_second, "seconds")]):
            _loss_curve(axes[0, column], x, value)
            axes[-1, column].set_xlabel(unit)
            if num_rows == 2:
                axes[1, column].plot(ess_x, fraction, "o-", color=REWEIGHTED, markersize=3.5)
                axes[1, column].set_ylim(0, 1.04)
        axes[0, 0].set_ylabel("loss")
        axes[-1, 0].set_ylabel("reverse ESS" if num_rows == 2 else "loss")

    return draw((num_rows, 2), (8.6, 2.3 * num_rows + 0.4), paint, sharex="col", sharey="row")


def _loss_curve(ax: Axes, x: Floats, loss: Floats) -> None:
    """The loss, pale, and its running median, which shows the trend through the noise of small batches."""
    shown = np.isfinite(loss) & (loss > 0)
    x = x[shown]
    loss = loss[shown]
    window = max(1, len(loss) // 60)
    ax.plot(x, loss, color=RAW, alpha=0.3 if window > 1 else 1.0, linewidth=0.9)
    if window > 1:
        middle = np.lib.stride_tricks.sliding_window_view(loss, window)
        ax.plot(x[window // 2 :][: len(middle)], np.median(middle, axis=1), color=RAW)
    if len(loss) and loss.max() > 10 * loss.min():  # below a decade, logarithmic ticks are hard to read
        ax.set_yscale("log")


def path_panels(
    times: ArrayLike,
    grid: tuple[ArrayLike, ArrayLike],
    target_log_density: ArrayLike,
    samples: ArrayLike,
    log_densities: ArrayLike | None = None,
    arrow_points: ArrayLike | None = None,
    arrows: ArrayLike | None = None,
) -> bytes:
    """The path in two dimensions: densities above, samples and velocities over the target's contours below.

    The layout is that of Figs. 2, 3, 4, 7 and 8 of the paper.

    `times`: `(T,)`; `grid`: two axes, `(nx,)` and `(ny,)`; `target_log_density`, unnormalized: `(ny, nx)`; `samples`:
    `(T, n, 2)`; `log_densities`: -f_t, `(T, ny, nx)`; `arrow_points`, and `arrows` (V_t there): `(T, m, 2)`.
    """
    t, x, target_log_p = (np.asarray(a, dtype=np.float64) for a in (times, samples, target_log_density))
    grid_x, grid_y = (np.asarray(a, dtype=np.float64) for a in grid)
    log_p, points, velocity = (
        None if a is None else np.asarray(a, dtype=np.float64) for a in (log_densities, arrow_points, arrows)
    )
    num_rows = 1 if log_p is None else 2

    def paint(axes: NDArray[Any]) -> None:
        for i, below in enumerate(axes[-1]):
            contours = {"levels": [0.05, 0.3, 0.7], "colors": EXACT, "linewidths": 0.6, "alpha": 0.6}
            below.contour(grid_x, grid_y, _density(target_log_p), **contours)
            below.scatter(*x[i, :MAX_POINTS].T, s=3, color=RAW, alpha=0.45, linewidths=0)
            if points is not None and velocity is not None and np.any(velocity[i]):
                below.quiver(*points[i].T, *velocity[i].T, color=REWEIGHTED, width=0.007, alpha=0.9)
            if log_p is not None:
                axes[0, i].contourf(grid_x, grid_y, _density(log_p[i]), levels=np.linspace(0.02, 1, 15), cmap="Blues")
            axes[0, i].set_title(f"t = {t[i]:.2f}")
        for ax in axes.ravel():
            ax.set(xlim=(grid_x[0], grid_x[-1]), ylim=(grid_y[0], grid_y[-1]), aspect="equal")
            ax.grid(False)
        if log_p is not None:
            axes[0, 0].set_ylabel("density exp(−f_t)")
        axes[-1, 0].set_ylabel("samples and velocity")

    width = min(2.3 * len(t), 13.0)
    return draw((num_rows, len(t)), (width + 0.6, num_rows * width / len(t) + 0.5), paint, sharex=True, sharey=True)


def _density(log_density: Floats) -> Floats:
    """exp(log_density) over its largest value; 0 where the log-density is -inf or NaN."""
    log_p = np.where(np.isfinite(log_density), log_density, -np.inf)
    return np.exp(log_p - log_p.max())


def site_histogram(
    sites: ArrayLike,
    log_weight: ArrayLike,
    grid: ArrayLike,
    boltzmann: ArrayLike,
    exact_density: ArrayLike | None = None,
) -> bytes:
    """The histogram of all sites, raw and reweighted, against e^{-V} of one site and the exact density (Fig. 10).

    `sites`: `(n, num_sites)`; `log_weight`: `(n,)`; `grid`: values of one site, `(g,)`; `boltzmann`: e^{-V} on the grid
    in any scale, normalized here; `exact_density`: the normalized density of one site on the grid.
    """
    x, weight = _weighted(sites, log_weight)
    phi = np.asarray(grid, dtype=np.float64)
    potential = np.asarray(boltzmann, dtype=np.float64)
    potential = potential / np.trapezoid(potential, phi)

    def paint(axes: NDArray[Any]) -> None:
        ax = axes[0, 0]
        _histograms(ax, x.ravel(), np.repeat(weight, x.shape[1]), (phi[0], phi[-1]), 80)
        ax.plot(phi, potential, color="#888888", linestyle="--", label="exp(−V), not the exact answer")
        if exact_density is not None:
            ax.plot(phi, np.asarray(exact_density), color=EXACT, label="exact density of a site")
        ax.set(xlabel="φ", ylabel="density", xlim=(phi[0], phi[-1]))
        ax.set_ylim(top=1.28 * ax.get_ylim()[1])  # room for the legend
        ax.legend(ncols=2, loc="upper center")

    return draw((1, 1), (7.0, 3.8), paint)


def _weighted(x: ArrayLike, log_weight: ArrayLike) -> tuple[Floats, Floats]:
    """The samples `(n, dim)` whose weights are usable, and those weights, normalized; uniform if all are zero."""
    log_w = as_log_weight(log_weight)
    points = np.asarray(x, dtype=np.float64)
    usable = (log_w < np.inf) & np.isfinite(points).all(axis=-1)
    log_w = log_w[usable]
    weight = shares(log_w) if np.isfinite(log_w).any() else np.full(len(log_w), 1.0)
    return points[usable], weight


def _histograms(ax: Axes, x: Floats, weight: Floats, limits: tuple[float, float], bins: int) -> None:
    """Raw samples as a filled histogram, reweighted ones as an outline over it, both normalized over all of x."""
    edges = np.linspace(*limits, bins + 1)
    width = edges[1] - edges[0]
    ax.stairs(
        np.histogram(x, edges)[0] / (max(len(x), 1) * width), edges, fill=True, color=RAW, alpha=0.35, label="flow"
    )
    reweighted = np.histogram(x, edges, weights=weight)[0] / (max(weight.sum(), 1e-300) * width)
    ax.stairs(reweighted, edges, color=REWEIGHTED, linewidth=1.5, label="flow, reweighted")


def weight_histogram(log_weight: ArrayLike) -> bytes:
    """The log-weights about log Z, and the tail: which fraction of samples weighs more than w/mean(w), in logarithms.

    `log_weight`: shape `(n,)`. A line of slope -1/k on the right is a Pareto tail; steeper than -1/0.7 is safe.
    """
    log_w = np.sort(screen(log_weight)[0])
    n = len(log_w)
    num_zero = int(np.isneginf(log_w).sum())
    log_w = log_w[num_zero:]

    def paint(axes: NDArray[Any]) -> None:
        left, right = axes[0]
        left.set(xlabel="log w − log Z", ylabel="samples", title=f"{n} samples, {num_zero} of weight zero")
        right.set(xlabel="w / mean(w)", ylabel="fraction of samples above")
        if len(log_w) == 0:
            return
        share = shares(log_w)
        relative = log_w - log_w[-1] + np.log(n * share[-1])
        left.hist(relative, bins=70, color=RAW, alpha=0.75, log=True)
        left.axvline(0.0, color=EXACT, linewidth=1.0)
        right.step(np.exp(relative), (np.arange(len(log_w))[::-1] + 1) / n, where="pre", color=RAW)
        right.set(xscale="log", yscale="log", xlim=(max(np.exp(relative[0]), 1e-4), 1.5 * np.exp(relative[-1])))
        right.axvline(1.0, color=EXACT, linewidth=1.0)
        right.set_title(f"ESS = {1 / (n * (share**2).sum()):.3f}, largest share = {share.max():.2g}")

    return draw((1, 2), (8.6, 3.2), paint)


def marginals(x: ArrayLike, log_weight: ArrayLike, pilot_points: ArrayLike | None = None) -> bytes:
    """One-dimensional marginals of the flow, raw and reweighted, with the points that the pilot found without the flow.

    Up to six dimensions these are the coordinates. Above six they are projections on the first six principal axes of
    flow and pilot together, so that a mode which only the pilot found is visible.
    `x`: `(n, dim)`; `log_weight`: `(n,)`; `pilot_points`: `(m, dim)`.
    """
    points, weight = _weighted(x, log_weight)
    pilot = np.empty((0, points.shape[1])) if pilot_points is None else np.asarray(pilot_points, dtype=np.float64)
    pilot = pilot[np.isfinite(pilot).all(axis=1)]
    name = "coordinate"
    if points.shape[1] > 6:
        together = np.concatenate([points, pilot])
        name = "principal axis"
        axes_of_spread = np.linalg.eigh(np.cov(together.T))[1][:, ::-1][:, :6]
        points, pilot = ((part - together.mean(axis=0)) @ axes_of_spread for part in (points, pilot))
    dim = points.shape[1]
    num_rows = -(-dim // 3)
    num_columns = min(dim, 3)

    def paint(axes: NDArray[Any]) -> None:
        for i, ax in enumerate(axes.ravel()):
            if i < dim:
                _marginal(ax, points[:, i], weight, pilot[:MAX_POINTS, i])
            ax.set(xlabel=f"{name} {i + 1}", yticks=[], visible=i < dim)
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)

    return draw((num_rows, num_columns), (2.9 * max(num_columns, 2), 2.4 * num_rows + 0.5), paint)


def _marginal(ax: Axes, x: Floats, weight: Floats, pilot: Floats) -> None:
    """One marginal as histograms, and below the axis a tick for each pilot point, all of them inside the limits."""
    ends = [*np.quantile(x, [0.0005, 0.9995]), *pilot] if len(x) else [-1.0, 1.0, *pilot]
    margin = 0.05 * (max(ends) - min(ends)) + 1e-9
    limits = (min(ends) - margin, max(ends) + margin)
    _histograms(ax, x, weight, limits, 60)
    if len(pilot):
        floor = -0.05 * ax.get_ylim()[1]
        ax.plot(pilot, np.full(len(pilot), floor), "|", color=PILOT, alpha=0.5, label="pilot")
    ax.set_xlim(*limits)
