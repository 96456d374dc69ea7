"""The Gaussian fit and the active subspace, against closed forms; the moves and preconditioners of SMC."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.base import lattice_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.numerics import linalg
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.gaussian_fit import _waves, active_subspace, aligned_base, fit_gaussian
from boltzflow.sampling.hmc import HamiltonianMoves, preconditioner

LATTICES = [(5,), (6,), (4, 3)]


def correlated(rng, dim):
    a = rng.normal(size=(dim, dim))
    return rng.normal(size=dim), a @ a.T / dim + 0.1 * np.eye(dim)


def covariance_of(base):
    scale = linalg.dense(base.scale)
    return scale @ scale.T


def distance(covariance, exact):
    """How far a covariance is from another: |L⁻¹ Σ L⁻ᵀ - I|, which no change of coordinates changes."""
    inverse = np.linalg.inv(np.linalg.cholesky(exact))
    return float(np.linalg.norm(inverse @ covariance @ inverse.T - np.eye(len(exact))))


# --- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim, num", [(1, 5), (3, 20), (20, 30), (20, 200)])
@pytest.mark.parametrize("sign_symmetric", [False, True])
def test_fit_of_gaussian_is_exact_from_few_points(dim, num, sign_symmetric):
    rng = np.random.default_rng(dim + num)
    mean, exact = correlated(rng, dim)
    mean = np.zeros(dim) if sign_symmetric else mean
    x = mean + rng.normal(size=(num, dim)) @ np.linalg.cholesky(exact).T
    base = fit_gaussian(x, (x - mean) @ np.linalg.inv(exact), sign_symmetric=sign_symmetric)
    assert distance(covariance_of(base), exact) < 1e-8
    np.testing.assert_allclose(base.mean, mean, atol=0 if sign_symmetric else 1e-8)


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("sign_symmetric", [False, True])
def test_fit_of_gaussian_on_lattice_is_exact(lattice, sign_symmetric):
    rng = np.random.default_rng(1)
    dim = int(np.prod(lattice))
    waves = np.meshgrid(*(np.sin(np.pi * np.arange(n) / n) ** 2 for n in lattice), indexing="ij")
    exact = Gaussian(np.full(dim, 0.0 if sign_symmetric else 2.5), scale_tril=Circulant(1 / (0.2 + sum(waves))))
    scale = linalg.dense(exact.scale)
    x = exact.mean + rng.normal(size=(40, dim)) @ scale.T
    base = fit_gaussian(x, (x - exact.mean) @ np.linalg.inv(scale @ scale.T), lattice, sign_symmetric)
    assert isinstance(base.scale, Circulant) and base.scale.eigenvalues.shape == lattice
    np.testing.assert_allclose(base.scale.eigenvalues, exact.scale.eigenvalues, rtol=1e-8)
    np.testing.assert_allclose(base.mean, exact.mean, atol=0 if sign_symmetric else 1e-8)


@pytest.mark.parametrize(
    "target, gain",
    [(bf.DoubleWell(8, 1.5), 2.0), (bf.DoubleWell(8, 6.0), 1.5), (bf.mixture_2(), 1.0), (bf.mixture_4(), 1.0)],
    ids=["nearly Gaussian", "two wells", "two modes", "four modes"],
)
@pytest.mark.parametrize("num", [200, 1000])
def test_gradients_reduce_covariance_error(target, gain, num):
    """Over 20 samples of each size; the mean error then errs by some 10 %."""
    keys = jax.random.split(jax.random.key(3), 20 * num)
    points = np.asarray(jax.jit(jax.vmap(lambda k: target.sample_and_log_prob(k)[0]))(keys), np.float64)
    gradients = np.asarray(jax.jit(jax.vmap(jax.grad(target.energy)))(points))
    exact = np.cov(points.T)
    samples = list(zip(points.reshape(20, num, -1), gradients.reshape(20, num, -1), strict=True))
    plain = np.mean([distance(np.cov(x.T), exact) for x, _ in samples])
    fitted = np.mean([distance(covariance_of(fit_gaussian(x, g)), exact) for x, g in samples])
    assert gain * fitted < 1.05 * plain
    if lattice := lattice_of(target):
        shifted = np.mean([distance(covariance_of(fit_gaussian(x, g, lattice, True)), exact) for x, g in samples])
        assert shifted < fitted


@pytest.mark.parametrize("num", [2, 10, 20, 21, 23])
def test_fit_from_few_points_is_finite(num):
    x = np.random.default_rng(num).normal(size=(num, 20))
    gradient = x + 0.5 * x**3  # of no Gaussian
    base = fit_gaussian(x, gradient)
    assert np.isfinite(base.log_z) and np.linalg.cond(covariance_of(base)) < 1e9
    twice = fit_gaussian(np.repeat(x, 3, axis=0), np.repeat(gradient, 3, axis=0))  # as after resampling
    assert np.isfinite(twice.log_z)


def test_fit_works_in_any_unit_of_length():
    rng = np.random.default_rng(0)
    for unit in (1e-12, 1e9):
        x = unit * rng.normal(size=(300, 4)) ** 3
        base = fit_gaussian(x, x / unit**2)
        assert distance(covariance_of(base), unit**2 * 15 * np.eye(4)) < 10


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_constant_gradient_leaves_sample_moments(noise):
    # Far down the slope of -x0 + x1²/2, the energy of no law, which a pilot follows as long as it is let.
    rng = np.random.default_rng(0)
    x = np.stack([1e5 * rng.normal(size=2048) - 3e7, 16 * rng.normal(size=2048)], axis=1)
    gradient = np.stack([noise * rng.normal(size=2048) - 1, x[:, 1]], axis=1)
    base = fit_gaussian(x, gradient)
    assert np.allclose(base.mean[0], x[:, 0].mean(), atol=1e4)
    assert np.allclose(np.sqrt(np.diag(covariance_of(base))), [1e5, 16], rtol=0.1)


def test_points_with_nonfinite_gradient_are_left_out():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 3))
    gradient = x.copy()
    gradient[:10, 0] = np.nan
    assert distance(covariance_of(fit_gaussian(x, gradient)), np.eye(3)) < 1e-8
    with pytest.raises(bf.InputError, match="gradient of the energy is not finite"):
        fit_gaussian(x, np.full_like(x, np.inf))


# --- where the target differs ----------------------------------------------------------------------------------------


def test_active_subspace_contains_non_gaussian_directions():
    """A Gaussian in 20 dimensions but for a quartic term in 2 directions of its own coordinates."""
    rng = np.random.default_rng(2)
    dim = 20
    mean, exact = correlated(rng, dim)
    base = Gaussian(mean, exact)
    planes = np.linalg.qr(rng.normal(size=(dim, 2)))[0]
    z = rng.normal(size=(500, dim))
    g = z + (z @ planes) ** 3 @ planes.T
    found = active_subspace(base, mean + z @ base.scale.T, g @ np.linalg.inv(base.scale))
    assert found.shape == (dim, 8)  # 2, rounded up
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(found @ (found.T @ planes), planes, atol=1e-6)
    np.testing.assert_allclose(found[:, :2] @ (found[:, :2].T @ planes), planes, atol=1e-6)  # the largest first


@pytest.mark.parametrize("strength", [0.05, 0.1])
def test_active_subspace_is_smallest_within_tolerance(strength):
    rng = np.random.default_rng(3)
    dim = 40
    z = rng.normal(size=(400, dim))
    g = z + strength * np.exp(-0.15 * np.arange(dim)) * (z**2 - 1)
    found = active_subspace(Gaussian(np.zeros(dim), 1.0), z, g)
    left_out, fewer = (
        np.sum(np.mean((g - z) ** 2, axis=0)) - np.sum(np.mean(((g - z) @ directions) ** 2, axis=0))
        for directions in (found, found[:, :-8])
    )
    assert found.shape[1] % 8 == 0 and 8 < found.shape[1] < dim
    assert left_out <= 1e-3 < fewer


def test_active_subspace_size_is_bounded():
    z = np.random.default_rng(0).normal(size=(100, 20))
    assert active_subspace(Gaussian(np.zeros(20), 1.0), z, z).shape == (20, 8)
    assert active_subspace(Gaussian(np.zeros(3), 1.0), z[:, :3], z[:, :3] ** 3).shape == (3, 3)


def test_aligned_base_leaves_only_directions_of_the_modes():
    """Four modes in 30 dimensions span three directions; the base errs by the noise of 2000 points in all of them."""
    rng = np.random.default_rng(0)
    dim = 30
    target = bf.GaussianMixture(np.ones(4) / 4, 3 * rng.normal(size=(4, dim)), 1.0)
    x = np.asarray(jax.vmap(lambda k: target.sample_and_log_prob(k)[0])(jax.random.split(jax.random.key(0), 2000)))
    gradient = np.asarray(jax.vmap(jax.grad(target.energy))(x), np.float64)
    base = fit_gaussian(x, gradient)
    aligned = aligned_base(base, x, gradient)
    assert active_subspace(base, x, gradient).shape[1] > 16
    found = active_subspace(aligned, x, gradient)
    assert found.shape[1] == 8
    modes = np.diff(np.asarray(target.means), axis=0) @ np.linalg.inv(aligned.scale).T
    np.testing.assert_allclose(modes @ found @ found.T, modes, atol=1e-3)
    outside = np.linalg.svd(found)[0][:, 8:]  # where the base now is the target
    z = (x - aligned.mean) @ np.linalg.inv(aligned.scale).T
    np.testing.assert_allclose(gradient @ aligned.scale @ outside, z @ outside, atol=1e-3)


def test_base_without_fewer_directions_stays():
    z = np.random.default_rng(0).normal(size=(2000, 20))
    base = Gaussian(np.zeros(20), 1.0)
    assert aligned_base(base, z, z + 0.2 * z**3) is base  # differs in all
    assert aligned_base(base, z, z) is base and aligned_base(base, z[:30], z[:30] ** 3) is base


@pytest.mark.parametrize("lattice", LATTICES)
def test_waves_diagonalize_shift_invariant_covariance(lattice):
    waves = _waves(lattice)
    dim = int(np.prod(lattice))
    np.testing.assert_allclose(waves.T @ waves, np.eye(dim), atol=1e-12)
    spectrum = np.random.default_rng(0).uniform(1, 2, lattice)
    axes = tuple(range(len(lattice)))
    spectrum += np.roll(np.flip(spectrum, axes), 1, axes)
    image = Circulant(spectrum).matrix() @ waves
    np.testing.assert_allclose(image, waves * np.linalg.norm(image, axis=0), atol=1e-12)


def test_active_subspace_on_lattice_is_made_of_waves():
    lattice = (20,)
    waves = _waves(lattice)
    z = np.random.default_rng(4).normal(size=(500, 20))
    y = z @ waves
    y[:, 3] += y[:, 3] ** 3
    base = Gaussian(np.zeros(20), scale_tril=Circulant(np.ones(20)))
    found = active_subspace(base, z, y @ waves.T, lattice)
    assert found.shape == (20, 8)
    np.testing.assert_allclose(found[:, 0], waves[:, 3], atol=1e-12)


# --- the moves of SMC -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num", "shrink"), [(500, 0.02), (60, 0.02), (30, 0.1)])
def test_preconditioner_is_a_root_of_the_covariance(num, shrink):
    x = 3 + jax.random.normal(jax.random.key(0), (num, 4)) @ jnp.tril(jnp.ones((4, 4))).T
    scale = preconditioner(x, None)
    covariance = np.cov(np.asarray(x).T)
    np.testing.assert_allclose(scale.push(jnp.eye(4)).T, scale.scale, rtol=1e-5)
    np.testing.assert_allclose(scale.pull(jnp.eye(4)), scale.scale, rtol=1e-5)
    root = np.asarray(scale.scale)
    shrunk = (1 - shrink) * covariance + shrink * np.diag(np.diag(covariance))
    np.testing.assert_allclose(root @ root.T, shrunk, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "most"), [(np.float64, 2.0), (np.float32, 20.0)])
def test_preconditioner_knows_a_ridge_across_the_coordinates(dtype, most):
    """Of a covariance of condition 10⁸ in double precision, and 10⁴ in single, L⁻¹ leaves one near 1."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    power = 2 if dtype == np.float64 else 1
    root = rotation * np.logspace(-power, power, 6)
    with jax.enable_x64(dtype == np.float64):
        scale = preconditioner(jnp.asarray(rng.normal(size=(4096, 6)) @ root.T, dtype), None)
        whitened = np.linalg.solve(np.asarray(scale.scale, np.float64), root)
    assert np.linalg.cond(whitened @ whitened.T) < most


@pytest.mark.parametrize("lattice", LATTICES)
def test_preconditioner_on_lattice_is_root_of_shift_averaged_covariance(lattice):
    dim = int(np.prod(lattice))
    x = np.asarray(2 + jax.random.normal(jax.random.key(1), (50, dim)) @ jnp.tril(jnp.ones((dim, dim))).T, np.float64)
    centered = (x - x.mean()).reshape(-1, *lattice)
    axes = tuple(range(1, 1 + len(lattice)))
    shifted = [np.roll(centered, shift, axes).reshape(-1, dim) for shift in np.ndindex(*lattice)]
    averaged = np.mean([each.T @ each / len(x) for each in shifted], axis=0)
    scale = preconditioner(jnp.asarray(x, jnp.float32), lattice)
    root = np.asarray(scale.push(jnp.eye(dim)))
    np.testing.assert_allclose(root, scale.pull(jnp.eye(dim)), rtol=1e-5)
    np.testing.assert_allclose(root @ root.T, averaged, atol=1e-4 * np.abs(averaged).max())


BASE = Gaussian([0.5, -1.0, 0.0, 2.0], np.eye(4) + 0.5)
OTHER = Gaussian(np.zeros(4), scale_tril=Circulant([2.0, 0.7, 0.5, 0.7]))
MOVED = {"chain": (bf.DoubleWell(4, 1.5), 1.0, (4,)), "halfway between Gaussians": (OTHER, 0.5, None)}
NUM = 20_000


def draw(name, key):
    """Exact draws of exp(-f_β): of a product of Gaussians, which is one, where the target is a Gaussian."""
    target, beta, _ = MOVED[name]
    if beta < 1:
        one, other = (np.linalg.inv(covariance_of(base)) for base in (BASE, OTHER))
        covariance = np.linalg.inv((one + other) / 2)
        target = Gaussian(covariance @ (one @ BASE.mean + other @ OTHER.mean) / 2, covariance)
    return jax.jit(jax.vmap(lambda k: target.sample_and_log_prob(k)[0]))(jax.random.split(key, NUM))


def worst_deviation(x, other):
    """Of means, second and fourth moments of both, in standard errors."""

    def moments(x):
        x = np.asarray(x, np.float64)
        return np.concatenate([x, (x[:, :, None] * x[:, None, :]).reshape(len(x), -1), x**4], axis=1)

    one = moments(x)
    two = moments(other)
    return np.max(np.abs(one.mean(0) - two.mean(0)) / np.sqrt((one.var(0) + two.var(0)) / NUM))


@pytest.mark.parametrize("name", MOVED)
def test_moves_keep_density_invariant_and_leapfrog_alone_does_not(name):
    """24 moments at 5 σ: a right move fails for one key in 10^5."""
    target, beta, lattice = MOVED[name]
    keys = jax.random.split(jax.random.key(11), 3)
    x = draw(name, keys[0])
    beta = jnp.asarray(beta)

    def between(x):
        return (1 - beta) * BASE.energy(x) + beta * target.energy(x)

    moves = HamiltonianMoves(between, jnp.asarray(6), 5)
    scale = preconditioner(x, lattice)
    moved, rate, size, num_bad = eqx.filter_jit(moves)(keys[1], x, scale, jnp.asarray(0.6))
    assert 0.4 < rate < 0.99 and num_bad < 0.1 * 6 * NUM and 0.1 < size < 1.5
    assert np.abs(np.corrcoef(np.asarray(x).T, np.asarray(moved).T)[:4, 4:]).max() < 0.6  # they do move
    fresh = draw(name, keys[2])
    assert worst_deviation(moved, fresh) < 5
    momentum = jax.random.normal(keys[1], x.shape)
    f, force = moves._force(x, scale)
    unadjusted = eqx.filter_jit(moves._leapfrog)(x, f, force, momentum, jnp.full((NUM, 1), 0.9), scale)[0]
    assert not worst_deviation(unadjusted, fresh) < 8  # of the chain some are not even finite


def test_gradients_that_are_not_finite_are_told_with_a_place():
    x = np.array([[1.0, 2.0], [3e19, -1.0], [0.5, 0.5]])
    gradient = np.array([[1.0, 2.0], [np.inf, 1.0], [np.nan, 0.5]])
    with pytest.raises(
        bf.InputError, match=r"not finite at 2 of the 3 points that the pilot found, as at x = \(3e\+19, -1\)"
    ):
        fit_gaussian(x, gradient)
