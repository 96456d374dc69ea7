"""The diffusion path: the formula (19), its exact field and rate, and what it refuses."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import GaussianMixtureLike
from boltzflow.densities.catalog import mixture_2
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.errors import InputError
from boltzflow.model.continuity import Transport, continuity_residual
from boltzflow.model.diffusion import Diffusion
from boltzflow.model.fields import AbstractVectorField

BASE = GeneralizedGaussian(2, 3.0, 4.0)
CHAIN = DoubleWell(4, 1.5)
CHAIN_BASE = GeneralizedGaussian(4, 1.0, 4.0)
LINE = GaussianMixture([0.3, 0.7], [[-2.0], [1.5]], [0.3, 0.6])
FULL = GaussianMixture(
    [0.25, 0.75], [[0.0, 1.0], [3.0, -1.0]], np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.1, 0.0], [0.0, 3.0]]])
)
DIAGONAL = GaussianMixture([0.2, 0.3, 0.5], 3 * np.eye(3), [[0.1, 1.0, 2.0], [1.0, 1.0, 1.0], [3.0, 0.3, 0.3]])
MIXTURES = {"line": LINE, "full": FULL, "diagonal": DIAGONAL}


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


@pytest.mark.parametrize("target", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_diffusion_is_the_mixture_of_stretched_and_widened_components(target, key):
    """Eq. (19) at paper-time t = s²: the mixture of means √t μ and covariances t Σ + (1 - t) σ² I."""
    variance = 1.7
    dim = target.dim
    covariances = target.covariances if target.covariances.ndim == 3 else [np.diag(c) for c in target.covariances]
    with jax.enable_x64(True):
        base = Gaussian(np.zeros(dim), variance)
        x = 3 * jax.random.normal(key, (16, dim))
        energy = jax.jit(jax.vmap(Diffusion(base, target).energy, (None, 0)))
        energy_of = eqx.filter_jit(lambda mixture, x: jax.vmap(mixture.energy)(x))
        for s in (0.0, 0.01, 0.3, 0.9, 1.0):
            at_s = np.stack([s**2 * c + (1 - s**2) * variance * np.eye(dim) for c in covariances])
            exact = np.asarray(energy_of(GaussianMixture(target.weights, s * target.means, at_s), x))
            np.testing.assert_allclose(energy(s, x), exact - (1 - s) * np.asarray(base.log_z), rtol=1e-12, atol=1e-12)


def test_diffusion_has_the_rate_it_states():
    """Z_t by quadrature in one dimension; C_t = log Z_1 - log Z_0 at every t."""
    with jax.enable_x64(True):
        base = Gaussian(np.zeros(1), 4.0)
        target = GaussianMixture([0.3, 0.7], [[-3.0], [2.0]], [0.2, 0.6])
        path = Diffusion(base, target)
        x = jnp.linspace(-20, 20, 4001)[:, None]
        energy = jax.jit(jax.vmap(jax.vmap(path.energy, (None, 0)), (0, None)))
        t = np.linspace(0, 1, 5)
        log_z = np.log(np.sum(np.exp(-energy(jnp.asarray(t), x)), axis=1) * 0.01)
    np.testing.assert_allclose(log_z, base.log_z + t * path.log_z_rate, atol=1e-9)
    assert path.log_z_rate == pytest.approx(-0.5 * np.log(2 * np.pi * 4.0), rel=1e-12)


def test_diffusion_is_smooth_at_start_unlike_in_paper_time():
    path = Diffusion(Gaussian(np.zeros(2), 1.0), mixture_2())
    x = jnp.asarray([1.0, -1.5])
    t = jnp.asarray([0.0, 1e-6, 1e-3])
    df_dt, _ = jax.jit(jax.vmap(path.derivatives, (0, None)))(t, x)
    mean = mixture_2().weights @ mixture_2().means
    # ∂_s f_0 = -x·⟨μ⟩/σ² + log Z_0; on the paper's clock it would be divided by 2√t: 500 times as large at 1e-6.
    assert df_dt[0] == pytest.approx(float(-x @ mean + np.log(2 * np.pi)), rel=1e-5)
    np.testing.assert_allclose(df_dt, df_dt[0], atol=0.1)


def test_diffusion_is_stable_in_single_precision_far_from_every_mode():
    path = Diffusion(Gaussian(np.zeros(2), 1.0), mixture_2())
    both = jax.jit(jax.vmap(lambda t, x: (path.energy(t, x), *path.derivatives(t, x)), (None, 0)))
    x = np.asarray([[300.0, -200.0], [1e4, 1e4]])
    for t in (0.0, 0.5, 1.0):
        single = both(np.float32(t), jnp.asarray(x, jnp.float32))
        with jax.enable_x64(True):
            double = both(t, x)
        # The energy and its gradient; the time derivative too, up to the rounding of an energy that is 10⁵ and 10⁸.
        np.testing.assert_allclose(single[0], double[0], rtol=1e-5)
        np.testing.assert_allclose(single[2], double[2], rtol=1e-5)
        assert np.all(np.isfinite(single[1])) and single[1][0] == pytest.approx(float(double[1][0]), rel=0.01)


def test_gaussian_mixture_satisfies_protocol_of_diffusion():
    assert isinstance(FULL, GaussianMixtureLike)
    assert not isinstance(CHAIN, GaussianMixtureLike) and not isinstance(BASE, GaussianMixtureLike)


@pytest.mark.parametrize(
    "base, target, sentence",
    [
        (CHAIN_BASE, CHAIN, "Gaussian mixtures only, and DoubleWell is none; use the trainable interpolation"),
        (Gaussian(np.zeros(3), 1.0), FULL, "the base has dimension 3 and the target 2"),
        (BASE, FULL, "centered isotropic Gaussian, energy |x|²/2σ², and GeneralizedGaussian is none"),
        (Gaussian([0.1, 0.0], 1.0), FULL, "centered isotropic Gaussian"),
        (Gaussian(np.zeros(2), [1.0, 1.1]), FULL, "centered isotropic Gaussian"),
        (Gaussian(np.zeros(2), [[1.0, 0.1], [0.1, 1.0]]), FULL, "use Gaussian(np.zeros(2), variance)"),
    ],
)
def test_diffusion_refuses_other_densities(base, target, sentence):
    with pytest.raises(InputError) as error:
        Diffusion(base, target)
    assert sentence in str(error.value)


# --- the exact field --------------------------------------------------------------------------------------------------


class MixtureField(AbstractVectorField):
    """The exact field of the diffusion of a mixture: Σ w_i p_i V_i / Σ w_i p_i with the V_i of its components.

    Each p_i solves its continuity equation with V_i = ṁ_i + ½ Σ̇_i Σ_i⁻¹ (x - m_i), so their sum solves it with this.
    """

    mixture: GaussianMixture
    base_variance: float
    dim: int = eqx.field(static=True)

    def velocity(self, t, x):
        matrices = jnp.asarray(self.mixture.covariances)
        matrices = jax.vmap(jnp.diag)(matrices) if matrices.ndim == 2 else matrices
        eye = jnp.eye(self.dim)

        def component(weight, mean, matrix):
            covariance = t**2 * matrix + (1 - t**2) * self.base_variance * eye
            scaled = jnp.linalg.solve(covariance, x - t * mean)
            log_p = -0.5 * (x - t * mean) @ scaled - 0.5 * jnp.linalg.slogdet(covariance)[1]
            return jnp.log(weight) + log_p, mean + t * (matrix - self.base_variance * eye) @ scaled

        log_p, velocities = jax.vmap(component)(*map(jnp.asarray, (self.mixture.weights, self.mixture.means)), matrices)
        return jax.nn.softmax(log_p) @ velocities

    def velocity_and_divergence(self, t, x):
        return self.velocity(t, x), jnp.trace(jax.jacfwd(self.velocity, argnums=1)(t, x))


@pytest.mark.parametrize("name", MIXTURES)
def test_residual_vanishes_on_the_diffusion_of_a_mixture(name, key):
    mixture = MIXTURES[name]
    with jax.enable_x64(True):
        interpolation = Diffusion(Gaussian(np.zeros(mixture.dim), 1.7), mixture)
        rng = np.random.default_rng(np.ravel(jax.random.key_data(key)))
        t = jnp.asarray(np.append([0.0, 1.0], rng.uniform(size=126)))
        x = jnp.asarray(3 * rng.normal(size=(128, mixture.dim)))
        rate = interpolation.log_z_rate
        transport = Transport(MixtureField(mixture, 1.7, mixture.dim), interpolation, lambda t: rate)
        residuals = eqx.filter_jit(jax.vmap(continuity_residual, (None, 0, 0)))(transport, t, x)
        assert np.max(np.abs(residuals)) < 1e-8
