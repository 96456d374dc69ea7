"""The bases against closed forms and quadrature.

Statistical tests compare at 5 standard errors with seeds made from the test's name: a correct base fails for about one
seed in two million for each number compared.
"""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.errors import InputError
from boltzflow.numerics.linalg import Circulant

SIGMAS = 5.0
POWERS = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 20.0]
COVARIANCE = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
MEAN = np.array([1.0, -2.0, 0.5])


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def samples_of(base, key, num=20_000):
    return np.asarray(
        jax.jit(jax.vmap(lambda k: base.sample_and_log_prob(k)[0]))(jax.random.split(key, num)), np.float64
    )


def assert_mean(values, expected):
    error = np.std(values, axis=0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - expected) <= SIGMAS * error)


@pytest.mark.parametrize("scale", [0.3, 2.0])
@pytest.mark.parametrize("power", POWERS)
def test_generalized_gaussian_integrates_to_one(power, scale):
    # x = scale u³ puts many nodes near the kink at 0, and reaches the tail of small powers.
    u = np.linspace(-14, 14, 20_001)
    x = scale * u**3
    x, jacobian = x[x != 0], (3 * scale * u**2)[x != 0]
    with jax.enable_x64(True):
        base = GeneralizedGaussian(1, scale, power)
        density = np.exp(np.asarray(jax.vmap(base.log_prob)(jnp.asarray(x)[:, None])))
    assert np.sum(density * jacobian) * (u[1] - u[0]) == pytest.approx(1.0, abs=2e-5 if power < 1 else 1e-8)


@pytest.mark.parametrize("power", [0.5, 1.5, 2.0, 4.0, 20.0])
def test_generalized_gaussian_samples_have_the_exact_moments(power, key):
    scale = np.array([0.5, 3.0])
    x = samples_of(GeneralizedGaussian(2, scale, power), key) / scale
    assert_mean(np.abs(x) ** power, 1 / power)
    assert_mean(x**2, math.gamma(3 / power) / math.gamma(1 / power))
    assert_mean(np.sign(x), 0.0)


@pytest.mark.parametrize("power", POWERS)
def test_generalized_gaussian_gradient_is_zero_at_the_origin_and_exact_elsewhere(power):
    base = GeneralizedGaussian(3, 2.0, power)
    at_zero = jax.grad(base.energy)(jnp.array([0.0, 1.0, -1.0]))
    slope = power * 0.5**power
    np.testing.assert_allclose(at_zero, [0.0, slope, -slope], rtol=1e-5)


def test_at_power_2_the_standard_deviation_is_scale_over_root_2():
    generalized, gaussian = GeneralizedGaussian(3, math.sqrt(2), 2.0), Gaussian(np.zeros(3), 1.0)
    x = jnp.array([0.3, -1.0, 2.0])
    assert generalized.log_z == pytest.approx(gaussian.log_z, rel=1e-14)
    assert generalized.energy(x) == pytest.approx(float(gaussian.energy(x)), rel=1e-6)


@pytest.mark.parametrize("covariance", [0.7, [0.5, 1.0, 2.0], COVARIANCE], ids=["scalar", "diagonal", "full"])
def test_gaussian_matches_closed_form(covariance, key):
    base = Gaussian(MEAN, covariance)
    matrix = np.diag(np.broadcast_to(covariance, (3,))) if np.ndim(covariance) < 2 else covariance
    d = np.array([0.3, -1.0, 2.0]) - MEAN
    energy = 0.5 * d @ np.linalg.solve(matrix, d)
    log_z = 0.5 * np.linalg.slogdet(2 * np.pi * matrix)[1]
    assert base.log_z == pytest.approx(log_z, rel=1e-13)
    assert base.energy(jnp.asarray(d + MEAN)) == pytest.approx(energy, rel=1e-5)
    assert base.log_prob(jnp.asarray(d + MEAN)) == pytest.approx(-energy - log_z, rel=1e-5)
    np.testing.assert_allclose(base.scale_tril @ base.scale_tril.T, matrix, atol=1e-6)
    np.testing.assert_allclose(base.unwhiten(base.whiten(jnp.asarray(d))), d, atol=1e-5)
    x = samples_of(base, key)
    assert_mean(x, MEAN)
    assert_mean(np.einsum("ni,nj->nij", x - MEAN, x - MEAN), matrix)


def test_gaussian_from_scale_tril_is_the_same_gaussian():
    lower = np.linalg.cholesky(COVARIANCE)
    a, b = Gaussian(MEAN, COVARIANCE), Gaussian.from_scale_tril(MEAN, lower)
    np.testing.assert_allclose(a.scale, b.scale)
    np.testing.assert_allclose(a.inverse_scale @ lower, np.eye(3), atol=1e-12)
    assert a.log_z == pytest.approx(b.log_z)


def test_diagonal_gaussian_keeps_no_matrix():
    base = Gaussian(np.zeros(1000), np.ones(1000))
    assert all(leaf.size <= 1000 for leaf in jax.tree.leaves(base))


@pytest.mark.parametrize(
    "base", [GeneralizedGaussian(2, 1.0, 3.0), Gaussian(np.zeros(2), np.eye(2))], ids=lambda base: type(base).__name__
)
def test_type_follows_the_point_under_x64(base):
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64):
            x = jax.ShapeDtypeStruct((2,), dtype)
            for fn in (base.energy, base.log_prob, jax.grad(base.energy)):
                assert jax.eval_shape(fn, x).dtype == dtype
        assert jax.eval_shape(base.sample_and_log_prob, jax.random.key(0))[0].dtype == jnp.float64


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: GeneralizedGaussian(0), "dim must be a whole number of at least 1, got 0"),
        (lambda: GeneralizedGaussian(2.0), "dim must be a whole number"),
        (lambda: GeneralizedGaussian(2, -1.0), "scale must be one positive number or 2 of them"),
        (lambda: GeneralizedGaussian(2, [1.0, 1.0, 1.0]), "scale must be one positive number or 2 of them"),
        (lambda: GeneralizedGaussian(2, np.nan), "scale must be finite"),
        (lambda: GeneralizedGaussian(2, 1.0, 0.0), "power must be one positive number, got 0.0"),
        (lambda: GeneralizedGaussian(2, 1.0, "four"), "power must be real numbers, got 'four'"),
        (lambda: GeneralizedGaussian(2, 1j), "it is complex"),
        (lambda: Gaussian(0.0, 1.0), r"mean must have shape \(dim,\), got \(\)"),
        (lambda: Gaussian([0.0, 0.0]), "exactly one of covariance and scale_tril"),
        (lambda: Gaussian([0.0, 0.0], 0.0), "covariance must be positive"),
        (lambda: Gaussian([0.0, 0.0], np.ones(3)), r"covariance must have shape \(\), \(2,\) or \(2, 2\), got \(3,\)"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "positive definite, got a smallest eigenvalue of -1"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 0.5], [0.1, 1.0]]), "must be symmetric, got a largest asymmetry of 0.4"),
        (lambda: Gaussian.from_scale_tril([0.0, 0.0], [[1.0, 1.0], [0.0, 1.0]]), "must be lower triangular"),
        (lambda: Gaussian.from_scale_tril([0.0, 0.0], [1.0, -1.0]), "must have a positive diagonal"),
        (lambda: Gaussian([0.0, 0.0], 1.0).energy(jnp.zeros((5, 2))), "use jax.vmap for a batch"),
        (lambda: GeneralizedGaussian(2).log_prob(jnp.zeros(3)), r"one point of shape \(2,\), got shape \(3,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_arguments_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


# --- circulant covariances --------------------------------------------------------------------------------------------


def circulant(shape):
    waves = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n) for n in shape), indexing="ij")
    return Circulant(1 / np.sqrt(0.3 + sum(2 - 2 * np.cos(k) for k in waves)))


@pytest.mark.parametrize("shape", [(6,), (5,), (4, 3), (2, 2, 3)], ids=str)
def test_circulant_gaussian_equals_dense_gaussian(shape, key):
    scale = circulant(shape)
    matrix, dim = np.asarray(scale.matrix()), math.prod(shape)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-15)
    on_lattice, dense = Gaussian(np.ones(dim), scale_tril=scale), Gaussian(np.ones(dim), matrix @ matrix)
    with jax.enable_x64(True):
        z = jax.random.normal(key, (dim,))
        np.testing.assert_allclose(on_lattice.unwhiten(z), 1 + matrix @ z, rtol=1e-12)
        np.testing.assert_allclose(on_lattice.whiten(on_lattice.unwhiten(z)), z, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(on_lattice.log_prob(z), dense.log_prob(z), rtol=1e-12)


@pytest.mark.parametrize(
    "eigenvalues, sentence",
    [(np.array([1.0, 0.0]), "positive"), (np.array([1.0, 2.0, 3.0]), "opposite"), (1.0, "lattice")],
)
def test_invalid_circulant_is_refused(eigenvalues, sentence):
    with pytest.raises(InputError, match=sentence):
        Circulant(eigenvalues)


def test_circulant_of_wrong_size_is_refused():
    with pytest.raises(InputError, match="must have 5 sites"):
        Gaussian(np.zeros(5), scale_tril=circulant((4,)))
