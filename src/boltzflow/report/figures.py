"""The figures of a report: which ones a run has, and the arrays behind them."""

import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.numerics.compiling import compiled
from boltzflow.report import plots
from boltzflow.report.draws import Draws, Samples
from boltzflow.report.html import Figure

_NUM_SHOWN = 2000
_NUM_PANELS = 5
_NUM_ARROWS = 60
_NUM_GRID = 90
_NUM_SITE_SAMPLES = 20_000


def figures(draws: Draws, answer: Samples | None = None) -> list[Figure]:
    """(title, caption, PNG) of each figure that applies to the run.

    `answer` are samples of the route that answers, where that is not the flow.
    """
    with draws.programs.answering():
        return _figures(draws, answer)


def _figures(draws: Draws, answer: Samples | None) -> list[Figure]:
    shown = [_training(draws)] if draws.trained.history else []
    if draws.target.dim == 2:
        caption = "Above, the densities exp(-f_t) from base to target; below, samples and velocities."
        if draws.config.loss == "reverse-kl":
            caption = "Samples and velocities; the reverse KL trains no path of densities."
        shown.append(("The path", caption, path_panels(draws)))
    if isinstance(draws.target, DoubleWell):
        shown.append(_sites(draws, draws.target))
    log_weight = np.asarray(draws.samples.log_weight)
    if draws.target.dim != 2:
        x = np.asarray(draws.samples.x)
        points = np.asarray(draws.pilot.points)
        caption = "Samples as drawn and reweighted, and the points that the pilot found without the flow."
        shown.append(
            ("Marginals of the flow" if answer else "Marginals", caption, plots.marginals(x, log_weight, points))
        )
    if answer:
        caption = "Samples of the route that answers, as drawn and reweighted, and the points that the pilot found."
        points = np.asarray(draws.pilot.points)
        shown.append(("Marginals", caption, plots.marginals(answer.x, answer.log_weight, points)))
    caption = "A perfect sampler has all its log-weights at log Z; a tail to the right is where it comes too rarely."
    return [*shown, ("Weights", caption, plots.weight_histogram(log_weight))]


def _training(draws: Draws) -> Figure:
    rows = draws.trained.history
    looks = [row for row in rows if "reverse_ess" in row]
    steps, seconds, loss = (np.array([row[name] for row in rows]) for name in ("step", "seconds", "loss"))
    ess_steps = [row["step"] for row in looks]
    png = plots.training_curves(steps, seconds, loss, ess_steps, [row["reverse_ess"] for row in looks])
    return "Training", "The loss, and the reverse ESS of 2048 samples, over steps and over seconds.", png


def path_panels(draws: Draws) -> bytes:
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


def _sites(draws: Draws, target: DoubleWell) -> Figure:
    grid, density = (np.asarray(a) for a in target.site_density())
    inside = density > 1e-5 * density.max()
    grid = grid[inside]
    boltzmann = np.exp(-(np.asarray(jax.vmap(target.potential)(jnp.asarray(grid)))))
    x = np.asarray(draws.samples.x)[:_NUM_SITE_SAMPLES]
    log_weight = np.asarray(draws.samples.log_weight)[:_NUM_SITE_SAMPLES]
    caption = "The histogram of all sites against exp(-V), as in Fig. 10, and against the exact density of one site."
    return "Sites", caption, plots.site_histogram(x, log_weight, grid, boltzmann, density[inside])
