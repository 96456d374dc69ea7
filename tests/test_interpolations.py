"""The paths: each keeps the contract, and is the formula that the paper gives for it."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.bases import Gaussian, GeneralizedGaussian
from boltzflow.densities import GaussianMixtureLike
from boltzflow.errors import InputError
from boltzflow.interpolations import (
    AbstractInterpolation,
    Clock,
    Diffusion,
    Linear,
    Trainable,
    Trigonometric,
    fit_clock,
)
from boltzflow.networks import Whitening
from boltzflow.targets import DoubleWell, GaussianMixture, gmm_40, mixture_2
from boltzflow.testing import check_interpolation, randomize

BASE = GeneralizedGaussian(2, 3.0, 4.0)
CHAIN, CHAIN_BASE = DoubleWell(4, 1.5), GeneralizedGaussian(4, 1.0, 4.0)
FULL = GaussianMixture(
    [0.25, 0.75], [[0.0, 1.0], [3.0, -1.0]], np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.1, 0.0], [0.0, 3.0]]])
)
DIAGONAL = GaussianMixture([0.2, 0.3, 0.5], 3 * np.eye(3), [[0.1, 1.0, 2.0], [1.0, 1.0, 1.0], [3.0, 0.3, 0.3]])


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def trainable_path(base, target, clock=None):
    whitening = Whitening(np.ones(base.dim), np.tril(np.ones((base.dim, base.dim))))
    sizes = {"num_networks": 2, "width": 8}
    return Trainable(base, target, whitening=whitening, clock=clock, key=jax.random.key(0), **sizes)


PATHS = {
    "linear": Linear(BASE, mixture_2()),
    "linear-clock": Linear(CHAIN_BASE, CHAIN, Clock(2.5)),
    "trigonometric": Trigonometric(CHAIN_BASE, CHAIN),
    "trainable-clock": trainable_path(CHAIN_BASE, CHAIN, Clock(1.4)),
    "diffusion-full": Diffusion(Gaussian(np.zeros(2), 3.0), FULL),
    "diffusion-steep": Diffusion(GeneralizedGaussian(2, 28.0, 2.0), gmm_40()),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_keep_their_contract(name, key):
    check_interpolation(PATHS[name], key)


# --- the formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.25, 0.8])
def test_formulas_of_the_paper(t, key):
    x = 2 * jax.random.normal(key, (2,))
    f0, f1 = BASE.energy(x), mixture_2().energy(x)
    assert Linear(BASE, mixture_2()).energy(t, x) == pytest.approx(float((1 - t) * f0 + t * f1), rel=1e-6)
    s = np.sin(np.pi * t / 2) ** 2
    assert Trigonometric(BASE, mixture_2()).energy(t, x) == pytest.approx(float((1 - s) * f0 + s * f1), rel=1e-5)
    beta = np.expm1(2 * t) / np.expm1(2)
    clocked = Linear(BASE, mixture_2(), Clock(2.0))
    assert clocked.energy(t, x) == pytest.approx(float((1 - beta) * f0 + beta * f1), rel=1e-5)
    path = randomize(trainable_path(BASE, mixture_2()), key)
    f_theta = path.mlp(jnp.asarray(t), path.whitening.whiten(x))[0]
    assert abs(f_theta) > 1e-3
    expected = float((1 - t) * f0 + t * f1 + t * (1 - t) * f_theta)
    assert path.energy(jnp.asarray(t), x) == pytest.approx(expected, rel=1e-5)


def test_trainable_path_starts_as_the_linear_one(key):
    x, t = jax.random.normal(key, (2,)), jnp.asarray(0.4)
    assert trainable_path(BASE, mixture_2()).energy(t, x) == Linear(BASE, mixture_2()).energy(t, x)


def test_trigonometric_path_is_at_rest_at_both_ends(key):
    path, x = Trigonometric(BASE, mixture_2()), jax.random.normal(key, (2,))
    rates = jax.jit(jax.vmap(lambda t: path.derivatives(t, x)[0]))(np.asarray([0.0, 0.5, 1.0]))
    assert abs(rates[0]) < 1e-5 and abs(rates[2]) < 1e-5 and abs(rates[1]) > 0.1


# --- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda fn: fn, jax.jit, lambda fn: jax.jit(jax.vmap(fn))], ids=["", "jit", "vmap"])
def test_clocks_start_at_zero_and_end_at_one_to_the_last_bit(wrap):
    """A compiled e^k - 1 need not be the one of which the denominator was folded: 10 of 24 rates were off by a bit."""
    for rate in np.arange(0, 8, 1 / 3 if wrap(abs) is abs else 1.0):
        ends = wrap(Clock(round(float(rate), 2)))(jnp.asarray([0.0, 1.0]))
        assert np.array_equal(ends, [0.0, 1.0]), rate


def test_clock_is_undone_by_its_inverse_and_keeps_its_slope_at_the_end():
    clock, t = Clock(3.0), np.linspace(0, 1, 7)
    np.testing.assert_allclose(clock.inverse(np.asarray(clock(jnp.asarray(t)))), t, atol=1e-6)
    slopes = jax.jit(jax.vmap(jax.grad(clock.__call__)))(t)
    np.testing.assert_allclose(slopes, 3 * np.exp(3 * t) / np.expm1(3), rtol=1e-5)


def test_clock_is_fitted_to_temperatures_of_equal_cost():
    times = np.arange(1, 21) / 20.5
    betas = np.append(np.asarray(Clock(4.0)(jnp.asarray(times))), 1.0)
    assert fit_clock(betas).rate == pytest.approx(4.0, abs=0.11)
    assert fit_clock(np.append(times, 1.0)).rate == pytest.approx(0.0, abs=0.11)


# --- diffusion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [FULL, DIAGONAL], ids=["full", "diagonal"])
def test_diffusion_is_the_mixture_of_stretched_and_widened_components(target, key):
    """Eq. (19) at paper-time t = s²: the mixture of means √t μ and covariances t Σ + (1 - t) σ² I."""
    variance, dim = 1.7, target.dim
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
        base, target = Gaussian(np.zeros(1), 4.0), GaussianMixture([0.3, 0.7], [[-3.0], [2.0]], [0.2, 0.6])
        path, x = Diffusion(base, target), jnp.linspace(-20, 20, 4001)[:, None]
        energy = jax.jit(jax.vmap(jax.vmap(path.energy, (None, 0)), (0, None)))
        t = np.linspace(0, 1, 5)
        log_z = np.log(np.sum(np.exp(-energy(jnp.asarray(t), x)), axis=1) * 0.01)
    np.testing.assert_allclose(log_z, base.log_z + t * path.log_z_rate, atol=1e-9)
    assert path.log_z_rate == pytest.approx(-0.5 * np.log(2 * np.pi * 4.0), rel=1e-12)


def test_diffusion_is_smooth_at_the_start_where_the_clock_of_the_paper_is_not():
    path, x = Diffusion(Gaussian(np.zeros(2), 1.0), mixture_2()), jnp.asarray([1.0, -1.5])
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


def test_mixtures_have_what_diffusion_asks_for():
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
def test_diffusion_refuses_what_it_is_not_known_for(base, target, sentence):
    with pytest.raises(InputError) as error:
        Diffusion(base, target)
    assert sentence in str(error.value)


# --- negative controls -----------------------------------------------------------------------------------------------


START, END = Gaussian(np.zeros(2), 2.0), Gaussian(np.ones(2), 0.7)


class Broken(AbstractInterpolation):
    """A linear path in which one thing at a time can be made wrong."""

    base: Gaussian
    target: object
    fault: str = eqx.field(static=True)

    def energy(self, t, x):
        f0, f1 = self.base.energy(x), self.target.energy(x)
        match self.fault:
            case "wrong start":
                return (1 - t) * (f0 + 0.01) + t * f1
            case "wrong end":
                return (1 - t) * f0 + t * f1 * 1.0001
            case "rounded end":
                return (1 - t) * f0 + t * (f1 * 3 / 7) * 7 / 3
            case "no slope at the end":
                return jnp.where(t == 1, f1, (1 - t) * f0 + t * f1)
            case "singular":
                return (1 - jnp.sqrt(t)) * f0 + jnp.sqrt(t) * f1
            case "not finite":
                return (1 - t) * f0 + t * f1 + jnp.where((t > 0.4) & (t < 1), jnp.inf, 0.0)
            case "time stopped":
                s = jax.lax.stop_gradient(t)
                return (1 - s) * f0 + s * f1
            case _:
                return (1 - t) * f0 + t * f1


class OwnDerivatives(AbstractInterpolation):
    """A path whose own `derivatives` forgets the base."""

    base: Gaussian
    target: object

    def energy(self, t, x):
        return (1 - t) * self.base.energy(x) + t * self.target.energy(x)

    def derivatives(self, t, x):
        df_dt, _ = jax.grad(self.energy, argnums=(0, 1))(t, x)
        return df_dt, t * jax.grad(self.target.energy)(x)


class Unfrozen(eqx.Module):
    center: jax.Array
    dim: int = 2

    def energy(self, x):
        return jnp.sum((x - self.center) ** 2)


def broken(fault):
    return Broken(START, END, fault)


@pytest.mark.parametrize(
    "path, sentence",
    [
        (broken("wrong start"), "at t = 0 must be that of the base to the last bit"),
        (broken("wrong end"), "at t = 1 must be that of the target to the last bit"),
        (broken("rounded end"), "at t = 1 must be that of the target to the last bit"),
        (broken("no slope at the end"), "derivatives disagree with differences at 1 of 8 points, t = 1"),
        (broken("singular"), "derivatives are not finite at t = "),
        (broken("not finite"), "is not finite near the origin"),
        (broken("time stopped"), "derivatives disagree with differences at 8 of 8"),
        (OwnDerivatives(START, END), "derivatives disagree with differences"),
        (Linear(START, Unfrozen(jnp.zeros(2))), "training would move arrays of Linear.target"),
    ],
)
def test_wrong_path_fails(path, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_interpolation(path, jax.random.key(3))


def test_the_unbroken_one_passes():
    check_interpolation(broken("nothing"), jax.random.key(3))
