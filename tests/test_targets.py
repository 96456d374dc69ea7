"""The targets against quadrature, the exact numbers in `data/exact.json`, and their exact samples.

Statistical tests compare at 5 standard errors with seeds made from the test's name: a correct target fails for about
one seed in two million for each number compared.
"""

import inspect
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import AbstractDistribution, HasModes
from boltzflow.densities.catalog import SHIPPED, gmm_40, make_target, mixture_2, mixture_4
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import Energy
from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.densities.many_well import many_well
from boltzflow.errors import InputError

SIGMAS = 5.0
EXACT = json.loads((pathlib.Path(__file__).parent / "data" / "exact.json").read_text())
ROWS = EXACT["double_well"]
PARAMETERS = ("num_sites", "mass", "coupling", "total_time")
COVARIANCES = np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.1, 0.0], [0.0, 3.0]]])
MIXTURES = {
    "mixture-4": mixture_4(),
    "mixture-2": mixture_2(),
    "gmm-40": gmm_40(),
    "full": GaussianMixture([0.25, 0.75], [[0.0, 1.0], [3.0, -1.0]], COVARIANCES),
    "diagonal": GaussianMixture([0.25, 0.75], [[0.0, 1.0], [3.0, -1.0]], [[1.0, 0.5], [0.1, 3.0]]),
    "one-each": GaussianMixture([0.2, 0.3, 0.5], np.eye(3)[:, :2], [0.1, 1.0, 2.0]),
}


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def samples_of(target, key, num):
    x, log_prob = jax.jit(jax.vmap(target.sample_and_log_prob))(jax.random.split(key, num))
    return np.asarray(x, np.float64), np.asarray(log_prob, np.float64)


def assert_mean(values, expected):
    error = np.std(values, axis=0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - expected) <= SIGMAS * error)


def plane(edge, spacing):
    axis = np.arange(-edge, edge, spacing)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


# --- mixtures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_integrates_to_one(name):
    spacing = 0.15 if name in ("full", "diagonal", "one-each") else 0.4
    with jax.enable_x64(True):
        points = jnp.asarray(plane(50.0 if name == "gmm-40" else 16.0, spacing))
        total = jnp.sum(jnp.exp(-jax.jit(jax.vmap(MIXTURES[name].energy))(points))) * spacing**2
    assert float(total) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_samples_have_the_exact_moments(name, key):
    mixture = MIXTURES[name]
    x, _ = samples_of(mixture, key, 20_000)
    matrices = [np.diag(c) if c.ndim == 1 else c for c in mixture.covariances]
    second = [w * (c + np.outer(m, m)) for w, c, m in zip(mixture.weights, matrices, mixture.means, strict=True)]
    assert_mean(x, mixture.weights @ mixture.means)
    assert_mean(np.einsum("ni,nj->nij", x, x), np.sum(second, axis=0))


def test_mixture_of_one_component_is_gaussian():
    x = np.array([1.0, -0.5])
    d = x - [0.0, 1.0]
    expected = 0.5 * d @ np.linalg.solve(COVARIANCES[0], d) + 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCES[0])[1]
    mixture = GaussianMixture([1.0], [[0.0, 1.0]], COVARIANCES[:1])
    assert mixture.energy(jnp.asarray(x)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", MIXTURES)
def test_mixture_is_finite_far_from_every_mode(name):
    for x in (jnp.array([1e4, -1e4]), jnp.array([-1e4, 0.0])):
        value, gradient = jax.jit(jax.value_and_grad(MIXTURES[name].energy))(x)
        assert jnp.isfinite(value) and value > 1e6
        assert jnp.all(jnp.isfinite(gradient)) and gradient @ x > 0


def test_paper_mixtures_have_published_parameters():
    assert sorted(map(tuple, mixture_4().means)) == [(-8, -8), (-8, 8), (8, -8), (8, 8)]
    np.testing.assert_allclose(mixture_4().weights, 0.25)
    np.testing.assert_allclose(mixture_2().weights, [1 / 3, 2 / 3], rtol=1e-15)
    np.testing.assert_allclose(mixture_2().means, [[4, 4], [-8, -8]])
    np.testing.assert_allclose(mixture_2().covariances, 1.0)


def test_gmm_40_has_published_parameters():
    mixture, exact = gmm_40(), EXACT["gmm_40"]
    np.testing.assert_allclose(np.sqrt(mixture.covariances), exact["std"], rtol=1e-12)
    np.testing.assert_allclose(mixture.means[[0, -1]], [exact["first_mean"], exact["last_mean"]])
    np.testing.assert_allclose(mixture.means.sum(axis=0), exact["sum_of_means"])
    assert np.square(mixture.means).sum() == pytest.approx(exact["sum_of_squares"])


# --- the double well -------------------------------------------------------------------------------------------------


def row_name(row):
    return f"N{row['num_sites']}-m{row['mass']}"


def well_of(row):
    return DoubleWell(*(row[name] for name in PARAMETERS))


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_double_well_has_the_exact_numbers(row):
    target = well_of(row)
    assert target.log_z == pytest.approx(row["log_z"], abs=1e-9)
    assert target.site_expectation(lambda phi: phi**2) == pytest.approx(row["phi2"], rel=1e-9)
    assert target.site_expectation(lambda phi: phi**4) == pytest.approx(row["phi4"], rel=1e-9)
    assert target.mean_abs == pytest.approx(row["abs_phi"], rel=1e-9)
    np.testing.assert_allclose(target.correlator[: len(row["correlator"])], row["correlator"], rtol=1e-9)
    np.testing.assert_allclose(target.correlator[1:], target.correlator[:0:-1], rtol=1e-12)


def test_double_well_of_four_sites_matches_quadrature():
    target, spacing = DoubleWell(4, 1.5), 0.25
    axis = np.arange(-4.375, 4.4, spacing)
    with jax.enable_x64(True):
        rest = jnp.asarray(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3))
        weight_of = jax.jit(lambda first: jnp.exp(-jax.vmap(lambda r: target.energy(jnp.append(r, first)))(rest)))
        weights = np.stack([np.asarray(weight_of(first)) for first in axis], axis=-1)
    assert np.log(weights.sum() * spacing**4) == pytest.approx(target.log_z, abs=1e-8)
    marginal = weights.sum(axis=0) / (weights.sum() * spacing)
    assert np.sum(marginal * axis**2) * spacing == pytest.approx(target.correlator[0], rel=1e-7)
    grid, density = target.site_density()
    np.testing.assert_allclose(marginal, np.interp(axis, grid, density), atol=2e-3)
    neighbors = np.einsum("nf,n,f->", weights, np.asarray(rest)[:, 0], axis) / weights.sum()
    assert neighbors == pytest.approx(target.correlator[1], rel=1e-7)


@pytest.mark.parametrize(
    "parameters", [(2, 0.5), (3, 8.0), (4, 0.05, 20.0, 4.0), (16, 1.5, 0.1, 1.0), (128, 8.0), (2, 8.0, 1.0, 40.0)]
)
def test_double_well_is_exact_far_from_the_papers_parameters(parameters):
    # The check differs from the code: Gauss-Legendre on two half lines, a wider range, powers of a matrix.
    target = DoubleWell(*parameters)
    step, edge = target.time_step, 1.15 * target.site_grid[-1]
    nodes, weights = np.polynomial.legendre.leggauss(
        60 + int(3 * edge * np.sqrt(target.mass / step + target.mass * step))
    )
    x = np.concatenate([-edge * (1 + nodes) / 2, edge * (1 + nodes) / 2])
    w = np.concatenate([weights, weights]) * edge / 2
    depth = target.mass**2 / (4 * target.coupling)
    half = 0.5 * step * (target.potential(x) + depth)
    kernel = np.exp(-target.mass * np.subtract.outer(x, x) ** 2 / (2 * step) - np.add.outer(half, half))
    matrix = np.sqrt(w)[:, None] * kernel * np.sqrt(w)
    largest = np.linalg.norm(matrix @ np.ones(x.size)) / np.sqrt(x.size)  # keeps the powers in range
    diagonal = np.diag(np.linalg.matrix_power(matrix / largest, target.dim))
    log_z = np.log(diagonal.sum()) + target.dim * np.log(largest) + target.total_time * depth
    assert target.log_z == pytest.approx(log_z, abs=1e-9)
    assert target.mean_abs == pytest.approx(np.abs(x) @ diagonal / diagonal.sum(), rel=1e-9)
    assert target.correlator[0] == pytest.approx(x**2 @ diagonal / diagonal.sum(), rel=1e-9)


@pytest.mark.parametrize("num_sites, mass", [(2, 1.5), (4, 1.5), (16, 6.0), (64, 3.0)])
def test_double_well_samples_are_exact(num_sites, mass, key):
    target = DoubleWell(num_sites, mass)
    x, log_prob = samples_of(target, key, 20_000)
    for separation in {0, 1, 2, num_sites // 2} & set(range(num_sites)):
        assert_mean(np.mean(x * np.roll(x, -separation, axis=1), axis=1), target.correlator[separation])
    assert_mean(x**4, target.site_expectation(lambda phi: phi**4))  # for each site
    assert_mean(x * np.roll(x, -1, axis=1), target.correlator[1])
    assert_mean(np.mean(np.abs(x), axis=1), target.mean_abs)
    assert_mean(np.mean(x, axis=1), 0.0)
    kinetic = mass * num_sites / target.time_step * (target.correlator[0] - target.correlator[1])
    action = kinetic + target.total_time * target.site_expectation(target.potential)
    assert_mean(-log_prob - target.log_z, action)


def test_double_well_samples_follow_the_site_density(key):
    target = DoubleWell(16, 6.0)
    x, _ = samples_of(target, key, 20_000)
    grid, density = target.site_density()
    edges = np.linspace(-4, 4, 41)
    cumulative = np.interp(edges, grid + (grid[1] - grid[0]) / 2, np.cumsum(density) * (grid[1] - grid[0]))
    expected = np.diff(cumulative) * len(x)
    for site in (0, 1, 8, 15):
        counts = np.histogram(x[:, site], edges)[0]
        kept = expected > 10
        # Chi-square of about 30 bins; 5 sigma of its normal approximation, widened by a half for its longer tail.
        chi2 = np.sum((counts - expected)[kept] ** 2 / expected[kept])
        assert chi2 < kept.sum() + 1.5 * SIGMAS * np.sqrt(2 * kept.sum())


def test_double_well_samples_in_double_precision(key):
    with jax.enable_x64(True):
        x, log_prob = jax.jit(jax.vmap(DoubleWell(8).sample_and_log_prob))(jax.random.split(key, 5000))
        assert x.dtype == log_prob.dtype == jnp.float64
    assert_mean(np.mean(np.square(x), axis=1), DoubleWell(8).correlator[0])


def test_double_well_modes_are_its_minima():
    target = DoubleWell(8, 3.0, 0.75)
    np.testing.assert_allclose(target.modes, [[-2.0] * 8, [2.0] * 8])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(target.energy)))(target.modes), 0.0, atol=1e-5)
    assert target.energy(target.modes[0]) == pytest.approx(4.0 * float(target.potential(2.0)), rel=1e-6)


# --- many wells ------------------------------------------------------------------------------------------------------


def test_many_well_has_the_exact_numbers(key):
    exact, target = EXACT["many_well"], many_well(16)
    assert target.dim == 32
    assert target.log_z == pytest.approx(16 * exact["log_z_per_pair"], abs=1e-9)
    x, _ = samples_of(target, key, 20_000)
    assert_mean(x[:, ::2] > 0, exact["right_well_mass"])
    assert_mean(x[:, 1::2] ** 2, 1.0)
    grid = np.linspace(-4, 4, 20_001)
    density = np.exp(-(grid**4) + 6 * grid**2 + grid / 2)
    for power in (1, 2, 4):
        assert_mean(x[:, ::2] ** power, np.sum(density * grid**power) / density.sum())


def test_many_well_lists_modes_up_to_ten_pairs():
    target = many_well(3)
    assert isinstance(target, HasModes) and not isinstance(many_well(16), HasModes)
    assert target.modes.shape == (8, 6) and len(np.unique(target.modes, axis=0)) == 8
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(target.energy)))(target.modes), 0.0, atol=1e-4)


# --- shipped targets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_record_matches_factory_and_target(name):
    record = SHIPPED[name]
    target = make_target(name)
    parameters = inspect.signature(record.factory).parameters
    assert {option.name: option.default for option in record.options} == {k: p.default for k, p in parameters.items()}
    assert all(option.kind is parameters[option.name].annotation for option in record.options)
    assert isinstance(target, AbstractDistribution)
    assert ("modes" in record.exact) == isinstance(target, HasModes)
    assert all(hasattr(target, known) for known in record.exact if known != "samples" and " " not in known)


@pytest.mark.parametrize("name", SHIPPED)
def test_type_follows_the_point_under_x64(name):
    target = make_target(name)
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            x = jax.ShapeDtypeStruct((target.dim,), dtype)
            for fn in (target.energy, target.log_prob, jax.grad(target.energy)):
                assert jax.eval_shape(fn, x).dtype == dtype


# --- invalid arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: GaussianMixture([0.5, 0.6], np.zeros((2, 2))), "sum to 1, got a smallest of 0.5 and a sum of 1.1"),
        (lambda: GaussianMixture([1.5, -0.5], np.zeros((2, 2))), "weights must be positive and sum to 1"),
        (lambda: GaussianMixture(1.0, np.zeros((1, 2))), r"weights must have shape \(K,\)"),
        (lambda: GaussianMixture([1.0], np.zeros(2)), r"means must have shape \(1, dim\)"),
        (lambda: GaussianMixture([1.0], np.zeros((1, 2)), np.ones(3)), "covariances must have shape"),
        (lambda: GaussianMixture([1.0], np.zeros((1, 2)), -1.0), r"covariances\[0\] must be positive"),
        (
            lambda: GaussianMixture([1.0], np.zeros((1, 2)), np.ones((1, 2, 2))),
            r"covariances\[0\] must be positive definite",
        ),
        (lambda: GaussianMixture([1.0], [[0.0, np.inf]]), "means must be finite"),
        (lambda: DoubleWell(1), "num_sites must be a whole number of at least 2, got 1"),
        (lambda: DoubleWell(4, -1.5), "mass must be one positive number, got -1.5"),
        (lambda: DoubleWell(4, 1.5, 0.0), "coupling must be one positive number, got 0.0"),
        (lambda: DoubleWell(4, 1.5, 1.0, np.inf), "total_time must be finite"),
        (lambda: DoubleWell(4).energy(jnp.zeros((7, 4))), "use jax.vmap for a batch"),
        (lambda: DoubleWell(100_000), "needs a grid of .* take fewer sites"),
        (lambda: many_well(0), "num_pairs must be a whole number of at least 1, got 0"),
        (lambda: Energy(3.0, 2), "the energy must be a function of one point, got float"),
        (lambda: Energy(jnp.sum, 0), "dim must be a whole number of at least 1"),
        (lambda: Energy(jnp.sum, 12, (4, 4)), r"as many sites as dim, 12, got \(4, 4\) with 16"),
        (lambda: Energy(jnp.sum, 12, 12), r"as in \(8, 8\), got 12"),
        (lambda: Energy(jnp.sum, 12, ()), r"as in \(8, 8\), got \(\)"),
        (lambda: Energy(jnp.sum, 12, (4.0, 3)), "each entry of lattice_shape must be a whole number of at least 1"),
        (lambda: Energy(jnp.sum, 12, (-4, -3)), "each entry of lattice_shape must be a whole number of at least 1"),
        (lambda: Energy(jnp.sum, 2, sign_symmetric=1), "sign_symmetric must be True or False, got 1"),
        (
            lambda: check_energy(Energy(jnp.sum, 2), jnp.zeros((4, 3))),
            r"points must have shape \(num, 2\), got \(4, 3\)",
        ),
        (lambda: make_target("mixture-5"), "no target 'mixture-5'; the shipped ones are mixture-4, mixture-2"),
        (lambda: make_target("double-well", num_site=4), "no option 'num_site'; its options are num_sites, mass"),
        (lambda: make_target("gmm-40", dim=2), "it takes none"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
