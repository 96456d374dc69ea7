"""The pictures: PNG bytes of bounded size from ordinary and from degenerate arrays, without a trace left behind."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from boltzflow.report import picture, plots


def assert_png(drawn):
    data = drawn.png()
    assert data.startswith(b"\x89PNG")
    assert len(data) < picture.MAX_BYTES
    image = imread(io.BytesIO(data))
    assert min(image.shape[:2]) > 100
    assert image[..., :3].std() > 0.01  # something was drawn


@pytest.mark.parametrize("num_ess", [0, 1, 10])
@pytest.mark.parametrize("num_steps", [0, 1, 300])
def test_training_curves(num_steps, num_ess):
    steps = np.arange(num_steps)
    loss = np.exp(-steps / 50.0)
    loss[100:110] = np.nan
    assert_png(plots.training_curves(steps, 0.1 * steps, loss, 30 * np.arange(num_ess), np.linspace(0, 1, num_ess)))


def test_path_panels():
    rng = np.random.default_rng(0)
    grid = np.linspace(-3, 3, 30)
    square = grid[None, :] ** 2 + grid[:, None] ** 2
    densities = np.array([-square, np.where(square < 4, 0.0, -np.inf)])
    samples = rng.normal(size=(2, 5_000, 2))
    few = samples[:, :9]
    assert_png(plots.path_panels([0, 1], (grid, grid), -square, samples, densities))
    assert_png(plots.path_panels([0, 1], (grid, grid), -square, samples, densities, few, few))
    assert_png(plots.path_panels([0, 1], (grid, grid), -square, samples, arrow_points=few, arrows=few))


def test_the_picture_shrinks_until_it_is_small_enough():
    rng = np.random.default_rng(0)
    grid = np.linspace(-3, 3, 60)
    noise = rng.normal(size=(5, 60, 60))  # as incompressible as a path can look
    assert_png(plots.path_panels(np.arange(5), (grid, grid), noise[0], rng.normal(size=(5, 3_000, 2)), noise))


def test_site_histogram():
    rng = np.random.default_rng(0)
    grid = np.linspace(-4, 4, 50)
    sites, bell = rng.normal(size=(500, 8)), np.exp(-(grid**2) / 2)
    assert_png(plots.site_histogram(sites, rng.normal(size=500), grid, 7 * bell))
    assert_png(plots.site_histogram(sites, np.zeros(500), grid, bell, bell / np.sqrt(2 * np.pi)))


@pytest.mark.parametrize(
    "log_weight",
    [[], [0.0], [np.nan, np.inf], [-np.inf] * 3, np.zeros(100), [0.0, -1e4, 3.0, -np.inf], [1e5, -1e5]],
    ids=["empty", "one", "failed", "zeros", "equal", "wide", "very-wide"],
)
def test_weight_histogram_of_anything(log_weight):
    assert_png(plots.weight_histogram(np.array(log_weight)))


@pytest.mark.parametrize("dim", [1, 2, 4, 6, 40])
def test_marginals(dim):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, dim))
    x[0, 0] = np.nan
    assert_png(plots.marginals(x, rng.normal(size=400)))
    assert_png(plots.marginals(x, np.full(400, -np.inf), pilot_points=x[:30] + 5))


def test_nothing_global_is_changed_and_nothing_global_matters():
    log_weight = np.random.default_rng(0).normal(size=200)
    before = dict(matplotlib.rcParams)
    first = plots.weight_histogram(log_weight).png()
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert plots.weight_histogram(log_weight).png() == first
