"""The pictures of a report: which ones a run gets, and the arrays behind them."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.report import plots as plotting

if TYPE_CHECKING:
    from boltzflow.run import Run

Figure = tuple[str, str, bytes]
_NUM_SHOWN = 2000
_NUM_PANELS = 5


def figures(run: "Run") -> list[Figure]:
    """(title, caption, PNG) of each picture that applies to the run."""
    shown = [_training(run)] if run.history else []
    if run.target.dim == 2:
        caption = "Above, the densities exp(-f_t) from base to target; below, samples and velocities."
        if run.config.loss == "reverse-kl":
            caption = "Samples and velocities; the reverse KL trains no path of densities."
        shown.append(("The path", caption, path_panels(run)))
    if isinstance(run.target, DoubleWell):
        shown.append(_sites(run, run.target))
    log_weight = np.asarray(run.samples.log_weight)
    if run.target.dim != 2:
        x = np.asarray(run.samples.x)
        points = np.asarray(run.pilot.points)
        caption = "Samples as drawn and reweighted, and the points that the pilot found without the flow."
        shown.append(("Marginals", caption, plotting.marginals(x, log_weight, points)))
    caption = "A perfect sampler has all its log-weights at log Z; a tail to the right is where it comes too rarely."
    return [*shown, ("Weights", caption, plotting.weight_histogram(log_weight))]


def _training(run: "Run") -> Figure:
    rows = run.history
    seen = [row for row in rows if "reverse_ess" in row]
    columns = {name: np.array([row[name] for row in rows]) for name in ("step", "seconds", "loss")}
    png = plotting.training_curves(
        columns["step"], columns["seconds"], columns["loss"],
        [row["step"] for row in seen], [row["reverse_ess"] for row in seen],
    )  # fmt: skip
    return "Training", "The loss, and the reverse ESS of 2048 samples, over steps and over seconds.", png


def path_panels(run: "Run") -> bytes:
    """In two dimensions the learned densities above, samples and velocities below, at five times, as in Figs. 3 to 8.

    The reverse KL trains no path, so there is nothing above: Fig. 2.
    """
    flow, path = run.flow, run.trained.transport.interpolation
    keys = jax.random.split(jax.random.key(run.seed), _NUM_SHOWN)
    steps = np.linspace(0, flow.num_steps, _NUM_PANELS).round().astype(int)
    times = jnp.asarray(steps / flow.num_steps, jnp.float32)
    trajectories = jax.jit(jax.vmap(flow.sample_path))(keys)[:, steps].swapaxes(0, 1)
    corners = jnp.concatenate([trajectories.reshape(-1, 2), run.pilot.points])
    low, high = np.nanpercentile(np.asarray(corners), [0.2, 99.8], axis=0)
    margin = 0.15 * (high - low)
    axes = [jnp.linspace(a, b, 90) for a, b in zip(low - margin, high + margin, strict=True)]
    grid = jnp.stack(jnp.meshgrid(*axes), axis=-1)
    log_densities = None
    if run.config.loss != "reverse-kl":
        energy = jax.jit(jax.vmap(jax.vmap(jax.vmap(path.energy, (None, 0)), (None, 0)), (0, None)))
        log_densities = -energy(times, grid)
    target_energy = jax.jit(jax.vmap(jax.vmap(run.target.energy)))(grid)
    arrow_points = trajectories[:, :: _NUM_SHOWN // 60]
    arrows = jax.jit(jax.vmap(jax.vmap(flow.field.velocity, (None, 0))))(times, arrow_points)
    return plotting.path_panels(
        times, (axes[0], axes[1]), -target_energy, trajectories, log_densities, arrow_points, arrows
    )


def _sites(run: "Run", target: DoubleWell) -> Figure:
    grid, density = (np.asarray(a) for a in target.site_density())
    inside = density > 1e-5 * density.max()
    grid, density = grid[inside], density[inside]
    boltzmann = np.exp(-(np.asarray(jax.vmap(target.potential)(jnp.asarray(grid)))))
    x, log_weight = np.asarray(run.samples.x)[:20_000], np.asarray(run.samples.log_weight)[:20_000]
    caption = "The histogram of all sites against exp(-V), as in Fig. 10, and against the exact density of one site."
    return "Sites", caption, plotting.site_histogram(x, log_weight, grid, boltzmann, density)
