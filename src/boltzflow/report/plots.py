"""Pictures from arrays: pure functions that return a `Picture`, which draws itself on axes. No global state.

The report and `run.plot` draw the same pictures.

The colors are those of Okabe & Ito, which common color blindness leaves distinct: blue for the flow's samples, orange
for the reweighted samples, black for exact values, green for the pilot.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from boltzflow.report.picture import Picture, legend_above
from boltzflow.statistics.weights import as_log_weight, screen, shares

RAW = "#0072B2"
REWEIGHTED = "#D55E00"
PILOT = "#009E73"
EXACT = "#222222"
MAX_POINTS = 1_500
MOST_MARGINALS = 6
"""More coordinates are shown by their principal axes."""
Floats = NDArray[np.float64]


def training_curves(
    steps: ArrayLike, seconds: ArrayLike, loss: ArrayLike, ess_steps: ArrayLike = (), ess: ArrayLike = ()
) -> Picture:
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

    return Picture((num_rows, 2), (8.6, 2.3 * num_rows + 0.4), paint, {"sharex": "col", "sharey": "row"})


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
) -> Picture:
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
                below.quiver(*points[i].T, *velocity[i].T, color=REWEIGHTED, width=0.006, alpha=0.75)
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
    return Picture(
        (num_rows, len(t)), (width + 0.6, num_rows * width / len(t) + 0.5), paint, {"sharex": True, "sharey": True}
    )


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
) -> Picture:
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

    return Picture((1, 1), (7.0, 3.8), paint)


def _weighted(x: ArrayLike, log_weight: ArrayLike) -> tuple[Floats, Floats]:
    """The samples `(n, dim)` whose weights are usable, and those weights, normalized; uniform if all are zero."""
    log_w = as_log_weight(log_weight)
    points = np.asarray(x, dtype=np.float64)
    usable = (log_w < np.inf) & np.isfinite(points).all(axis=-1)
    log_w = log_w[usable]
    weight = shares(log_w) if np.isfinite(log_w).any() else np.full(len(log_w), 1.0)
    return points[usable], weight


def _histograms(
    ax: Axes, x: Floats, weight: Floats, limits: tuple[float, float], bins: int, exact: Floats | None = None
) -> None:
    """Raw samples as a filled histogram, reweighted ones as an outline over it, all normalized over all of x."""
    edges = np.linspace(*limits, bins + 1)
    width = edges[1] - edges[0]
    ax.stairs(
        np.histogram(x, edges)[0] / (max(len(x), 1) * width), edges, fill=True, color=RAW, alpha=0.35, label="flow"
    )
    reweighted = np.histogram(x, edges, weights=weight)[0] / (max(weight.sum(), 1e-300) * width)
    ax.stairs(reweighted, edges, color=REWEIGHTED, linewidth=1.5, label="flow, reweighted")
    if exact is not None:
        density = np.histogram(exact, edges)[0] / (len(exact) * width)
        ax.stairs(density, edges, color=EXACT, linewidth=1.0, label="exact samples")


def weight_histogram(log_weight: ArrayLike) -> Picture:
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

    return Picture((1, 2), (8.6, 3.2), paint)


def marginals(x: ArrayLike, log_weight: ArrayLike, pilot_points: ArrayLike | None = None) -> Picture:
    """One-dimensional marginals of the flow, raw and reweighted, with the points that the pilot found without the flow.

    Up to six dimensions these are the coordinates. Above six they are projections on the first six principal axes of
    flow and pilot together, so that a mode which only the pilot found is visible.
    `x`: `(n, dim)`; `log_weight`: `(n,)`; `pilot_points`: `(m, dim)`.
    """
    points, weight = _weighted(x, log_weight)
    pilot = np.empty((0, points.shape[1])) if pilot_points is None else np.asarray(pilot_points, dtype=np.float64)
    pilot = pilot[np.isfinite(pilot).all(axis=1)]
    names = [f"x[{i}]" for i in range(points.shape[1])]
    if points.shape[1] > MOST_MARGINALS:
        together = np.concatenate([points, pilot])
        names = [f"principal axis {i + 1}" for i in range(MOST_MARGINALS)]
        axes_of_spread = np.linalg.eigh(np.cov(together.T))[1][:, ::-1][:, :MOST_MARGINALS]
        points, pilot = ((part - together.mean(axis=0)) @ axes_of_spread for part in (points, pilot))
    dim = points.shape[1]
    num_rows = -(-dim // 3)
    num_columns = min(dim, 3)

    def paint(axes: NDArray[Any]) -> None:
        for i, ax in enumerate(axes.ravel()):
            if i < dim:
                _marginal(ax, points[:, i], weight, pilot[:MAX_POINTS, i])
            ax.set(xlabel=names[i] if i < dim else "", yticks=[], visible=i < dim)
        legend_above(axes, ncols=3)

    return Picture((num_rows, num_columns), (2.9 * max(num_columns, 2), 2.4 * num_rows + 0.5), paint)


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


def corner(
    x: ArrayLike,
    log_weight: ArrayLike,
    coordinates: Sequence[int],
    exact: ArrayLike | None = None,
) -> Picture:
    """Marginals of some coordinates on the diagonal, and below it the reweighted density of each pair of them.

    `x`: `(n, dim)`; `log_weight`: `(n,)`; `exact`: exact samples of the target, `(m, dim)`.
    """
    points, weight = _weighted(x, log_weight)
    points = points[:, list(coordinates)]
    known = None if exact is None else np.asarray(exact, dtype=np.float64)[:, list(coordinates)]
    num = len(coordinates)
    limits = [_limits(points[:, i], weight, None if known is None else known[:, i]) for i in range(num)]
    bins = int(np.clip(np.sqrt(len(points)) / 2, 12, 50))

    def paint(axes: NDArray[Any]) -> None:
        for (row, column), ax in np.ndenumerate(axes):
            if column > row:
                ax.set_visible(False)
            elif column == row:
                exactly = None if known is None else known[:, row]
                _histograms(ax, points[:, row], weight, limits[row], 50, exactly)
                ax.set(xlim=limits[row], yticks=[])
            else:
                edges = [np.linspace(*limits[i], bins + 1) for i in (column, row)]
                density = np.histogram2d(points[:, column], points[:, row], edges, weights=weight)[0].T
                ax.pcolormesh(*edges, density, cmap="Blues", rasterized=True)
                ax.grid(False)
                ax.set(xlim=limits[column], ylim=limits[row])
            if row == num - 1:
                ax.set_xlabel(f"x[{coordinates[column]}]")
            if column == 0 and row > 0:
                ax.set_ylabel(f"x[{coordinates[row]}]")
            ax.tick_params(labelbottom=row == num - 1, labelleft=column == 0 and row > 0)
        legend_above(axes, ncols=3)

    size = 1.0 + (3.0 if num == 1 else 2.0) * num
    return Picture((num, num), (max(size, 5.0), size + 0.3), paint)


def energy_histogram(energy: ArrayLike, log_weight: ArrayLike, exact: ArrayLike | None = None) -> Picture:
    """The histogram of the samples' energies, raw and reweighted, beside that of exact samples.

    `energy`, `log_weight`: `(n,)`; `exact`: energies of exact samples, `(m,)`.
    """
    points, weight = _weighted(np.asarray(energy, dtype=np.float64)[:, None], log_weight)
    known = None if exact is None else np.asarray(exact, dtype=np.float64)
    limits = _limits(points[:, 0], weight, known)

    def paint(axes: NDArray[Any]) -> None:
        ax = axes[0, 0]
        _histograms(ax, points[:, 0], weight, limits, 60, known)
        ax.set(xlabel="energy", ylabel="density", xlim=limits)
        ax.legend()

    return Picture((1, 1), (6.4, 3.6), paint)


def _limits(x: Floats, weight: Floats, exact: Floats | None) -> tuple[float, float]:
    """The range that holds nearly all of the weight, and of the exact samples."""
    order = np.argsort(x)
    total = np.cumsum(weight[order])
    ends = [0.0, 1.0]
    if len(x) and total[-1] > 0:
        first, last = np.searchsorted(total, [0.001 * total[-1], 0.999 * total[-1]])
        ends = [x[order[first]], x[order[min(last, len(x) - 1)]]]
    if exact is not None:
        ends += [*np.quantile(exact, [0.001, 0.999])]
    margin = 0.08 * (max(ends) - min(ends)) + 1e-9
    return float(min(ends) - margin), float(max(ends) + margin)
