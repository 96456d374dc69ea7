"""The pictures of a run: the arrays behind each, and which ones the report has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.densities.base import AbstractDistribution, coordinates_of, sample_batch
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import Energy
from boltzflow.errors import InputError
from boltzflow.numerics.batching import Stream, map_points, stream_key
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.validation import shown, whole_number
from boltzflow.report import html, plots
from boltzflow.report.draws import Draws
from boltzflow.report.picture import Figure, Picture
from boltzflow.report.samples import Samples

_NUM_SHOWN = 2000
_NUM_PANELS = 5
_NUM_ARROWS = 30
_NUM_GRID = 90
_NUM_SITE_SAMPLES = 20_000
_NUM_EXACT = 10_000
_MOST_COORDINATES = 5


@dataclass(frozen=True)
class Plots:
    """The pictures of a run, as matplotlib figures: `run.plot.path()`, `run.plot.corner([0, 3])`, ...

    Each is drawn on a figure of its own, which a notebook shows and `savefig` writes; `figure.axes` are its axes. With
    `axes` it is drawn on axes of yours, as from `plt.subplots`, whose figure is returned. The report has the same
    pictures.

    Args:
        draws: The flow and its samples.
        answer: Gives samples of the route that answers, where that is not the flow, else None.
    """

    draws: Draws = field(repr=False)
    answer: Callable[[], Samples | None] = field(repr=False)

    def path(self, axes: Any = None) -> Figure:
        """The path in two dimensions at five times: densities above, samples and velocities below.

        Args:
            axes: Ten axes in two rows of five, or five after training with the reverse KL, which learns no densities.

        Raises:
            InputError: The target has not two dimensions, or `axes` are others.
        """
        if self.draws.target.dim != 2:
            raise InputError(
                f"the path is drawn in two dimensions, and this target has {self.draws.target.dim}: see "
                "run.plot.corner() or run.plot.marginals()"
            )
        with self.draws.programs.answering():
            return path_panels(self.draws).figure(axes)

    def training(self, axes: Any = None) -> Figure:
        """The loss, and the reverse ESS of 2048 samples, over steps and over seconds.

        Args:
            axes: Four axes in two rows of two.

        Raises:
            InputError: Nothing was trained, or `axes` are others.
        """
        if not self.draws.trained.history:
            raise InputError("this run was not trained: weighted samples of a fitted mixture were enough")
        return training_curves(self.draws).figure(axes)

    def weights(self, axes: Any = None) -> Figure:
        """The log-weights of the flow's samples about log Z, and their tail.

        Args:
            axes: Two axes in a row.
        """
        return plots.weight_histogram(self.draws.samples.log_weight).figure(axes)

    def marginals(self, axes: Any = None) -> Figure:
        """Marginals of the answer, raw and reweighted, and the points that the pilot found without the flow.

        Args:
            axes: One for each coordinate, in rows of three; six above six coordinates, for principal axes.
        """
        return self._marginals(self._answering).figure(axes)

    def corner(self, coordinates: Sequence[int] | None = None, axes: Any = None) -> Figure:
        """Marginals of some coordinates of the answer, and the density of each pair, beside exact samples if any.

        Args:
            coordinates: Their indices; the first five where none are given.
            axes: As many rows and columns of axes as coordinates.

        Raises:
            InputError: There are no such coordinates, or `axes` are others.
        """
        dim = coordinates_of(self.draws.target)
        if coordinates is None:
            coordinates = range(min(dim, _MOST_COORDINATES))
        try:
            chosen = [whole_number("a coordinate", i, at_least=0, at_most=dim - 1) for i in coordinates]
        except TypeError:
            raise InputError(f"coordinates must be a list of indices, as [0, 1], got {shown(coordinates)}") from None
        if not chosen:
            raise InputError("coordinates must name at least one coordinate, as in [0, 1]")
        answer = self._answering
        return plots.corner(
            self._with_angles(self.draws.of_target(answer.x)), answer.log_weight, chosen, self._exact
        ).figure(axes)

    def energy(self, ax: Any = None) -> Figure:
        """The energies of the answer's samples, raw and reweighted, beside those of exact samples if there are any.

        Args:
            ax: One axes.
        """
        answer = self._answering
        exact = self._exact
        if exact is not None:
            with self.draws.programs.answering():
                exact = np.asarray(map_points(self.draws.target.energy, exact), np.float64)
        energy = answer.energy + self.draws.log_jacobian(answer.x)
        return plots.energy_histogram(energy, answer.log_weight, exact).figure(ax)

    @cached_property
    def _answering(self) -> Samples:
        return self.answer() or self.draws.samples

    @cached_property
    def _exact(self) -> np.ndarray | None:
        """Exact samples of the target, None where it has none."""
        target = self.draws.target
        if not isinstance(target, AbstractDistribution):
            return None
        with self.draws.programs.answering():
            return np.asarray(sample_batch(target, stream_key(self.draws.seed, Stream.EXACT_SAMPLES), _NUM_EXACT)[0])

    def _marginals(self, samples: Samples) -> Picture:
        x, pilot = (self.draws.of_target(points) for points in (samples.x, self.draws.pilot.points))
        if coordinates_of(self.draws.target) <= plots.MOST_MARGINALS:  # principal axes are those of planes
            x, pilot = self._with_angles(x), self._with_angles(pilot)
        return plots.marginals(x, samples.log_weight, pilot)

    def _with_angles(self, points: np.ndarray) -> np.ndarray:
        """Points that the flow moves, with angles in place of planes."""
        target = self.draws.target
        if not isinstance(target, Energy) or target.angles is None:
            return points
        with self.draws.programs.answering():
            return np.asarray(map_points(target.angles.coordinates, points), np.float64)

    def of_report(self) -> list[html.Figure]:
        """(title, caption, PNG) of each picture of the report."""
        with self.draws.programs.answering():
            return [(title, caption, picture.png()) for title, caption, picture in self._of_report()]

    def _of_report(self) -> list[tuple[str, str, Picture]]:
        draws = self.draws
        answer = self.answer()
        found: list[tuple[str, str, Picture]] = []
        if draws.trained.history:
            caption = "The loss, and the reverse ESS of 2048 samples, over steps and over seconds."
            found.append(("Training", caption, training_curves(draws)))
        if draws.target.dim == 2:
            caption = "Above, the densities exp(-f_t) from base to target; below, samples and velocities."
            if draws.config.loss == "reverse-kl":
                caption = "Samples and velocities; the reverse KL trains no path of densities."
            if draws.pilot.noncentering is not None:
                caption += " All of it is in non-centered coordinates."
            found.append(("The path", caption, path_panels(draws)))
        if isinstance(draws.target, DoubleWell):
            caption = "The histogram of all sites against exp(-V), as in Fig. 10, and the exact density of one site."
            found.append(("Sites", caption, _sites(draws, draws.target)))
        if draws.target.dim != 2 or coordinates_of(draws.target) != 2 or draws.pilot.noncentering is not None:
            title = "Marginals of the flow" if answer else "Marginals"
            caption = "Samples as drawn and reweighted, and the points that the pilot found without the flow."
            found.append((title, caption, self._marginals(draws.samples)))
        if answer:
            caption = "Samples of the route that answers, as drawn and reweighted, and the points that the pilot found."
            found.append(("Marginals", caption, self._marginals(answer)))
        caption = (
            "A perfect sampler has all its log-weights at log Z; a tail to the right is where it comes too rarely."
        )
        return [*found, ("Weights", caption, plots.weight_histogram(draws.samples.log_weight))]


def training_curves(draws: Draws) -> Picture:
    """The loss and the reverse ESS over steps and over seconds."""
    rows = draws.trained.history
    looks = [row for row in rows if "reverse_ess" in row]
    steps, seconds, loss = (np.array([row[name] for row in rows]) for name in ("step", "seconds", "loss"))
    ess_steps = [row["step"] for row in looks]
    return plots.training_curves(steps, seconds, loss, ess_steps, [row["reverse_ess"] for row in looks])


def path_panels(draws: Draws) -> Picture:
    """The path in two dimensions at five times, as in Figs. 3 to 8: densities above, samples and velocities below.

    The reverse KL trains no path of densities, so its figure has the lower row alone, as Fig. 2.
    """
    flow = draws.flow
    path = draws.trained.transport.interpolation
    keys = jax.random.split(jax.random.key(draws.seed), _NUM_SHOWN)
    steps = np.linspace(0, flow.num_steps, _NUM_PANELS).round().astype(int)
    times = jnp.asarray(steps / flow.num_steps)
    trajectories = compiled(jax.vmap(flow.sample_path))(keys)[:, steps].swapaxes(0, 1)
    corners = jnp.concatenate([trajectories.reshape(-1, 2), draws.pilot.points])
    low, high = np.nanpercentile(np.asarray(corners), [0.2, 99.8], axis=0)
    margin = 0.15 * (high - low)
    axes = [jnp.linspace(a, b, _NUM_GRID) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = jnp.stack(jnp.meshgrid(*axes), axis=-1)
    log_densities = None
    if draws.config.loss != "reverse-kl":
        energy = compiled(jax.vmap(jax.vmap(jax.vmap(path.energy, (None, 0)), (None, 0)), (0, None)))
        log_densities = -energy(times, grid)
    target_energy = compiled(jax.vmap(jax.vmap(draws.target.energy)))(grid)
    arrow_points = trajectories[:, :: _NUM_SHOWN // _NUM_ARROWS]
    arrows = compiled(jax.vmap(jax.vmap(flow.field.velocity, (None, 0))))(times, arrow_points)
    return plots.path_panels(
        times, (axes[0], axes[1]), -target_energy, trajectories, log_densities, arrow_points, arrows
    )


def _sites(draws: Draws, target: DoubleWell) -> Picture:
    grid, density = (np.asarray(a) for a in target.site_density())
    inside = density > 1e-5 * density.max()
    grid = grid[inside]
    boltzmann = np.exp(-(np.asarray(jax.vmap(target.potential)(jnp.asarray(grid)))))
    x = np.asarray(draws.samples.x)[:_NUM_SITE_SAMPLES]
    log_weight = np.asarray(draws.samples.log_weight)[:_NUM_SITE_SAMPLES]
    return plots.site_histogram(x, log_weight, grid, boltzmann, density[inside])
