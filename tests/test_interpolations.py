"""The paths: each keeps the contract, and is the formula that the paper gives for it."""

import zlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.catalog import gmm_40, mixture_2
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.densities.gaussian_mixture import GaussianMixture
from boltzflow.model.diffusion import Diffusion
from boltzflow.model.interpolations import AbstractInterpolation, Clock, Linear, Trainable, Trigonometric, fit_clock
from boltzflow.model.networks import Whitening
from boltzflow.testing.model import check_interpolation, randomize

BASE = GeneralizedGaussian(2, 3.0, 4.0)
CHAIN = DoubleWell(4, 1.5)
CHAIN_BASE = GeneralizedGaussian(4, 1.0, 4.0)
FULL = GaussianMixture(
    [0.25, 0.75], [[0.0, 1.0], [3.0, -1.0]], np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.1, 0.0], [0.0, 3.0]]])
)


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
    f0 = BASE.energy(x)
    f1 = mixture_2().energy(x)
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
    x = jax.random.normal(key, (2,))
    t = jnp.asarray(0.4)
    assert trainable_path(BASE, mixture_2()).energy(t, x) == Linear(BASE, mixture_2()).energy(t, x)


def test_trigonometric_path_is_at_rest_at_both_ends(key):
    path = Trigonometric(BASE, mixture_2())
    x = jax.random.normal(key, (2,))
    rates = jax.jit(jax.vmap(lambda t: path.derivatives(t, x)[0]))(np.asarray([0.0, 0.5, 1.0]))
    assert abs(rates[0]) < 1e-5 and abs(rates[2]) < 1e-5 and abs(rates[1]) > 0.1


# --- clocks ----------------------------------------------------------------------------------------------------------


def evaluate(clock, t):
    return clock(t)


CALLS = {
    "as it is": (evaluate, 24),
    "rate a constant": (lambda clock, t: jax.jit(clock.__call__)(t), 8),
    "rate an argument": (eqx.filter_jit(evaluate), 24),
    "vmap": (eqx.filter_jit(eqx.filter_vmap(evaluate, in_axes=(None, 0))), 24),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("way", CALLS)
def test_clock_is_exact_at_both_ends(way, dtype):
    """A compiled e^k - 1 need not be the one of which the denominator was folded: 10 of 24 rates were off by a bit."""
    call, num_rates = CALLS[way]
    with jax.enable_x64(dtype == jnp.float64):
        t = jnp.asarray([0.0, 0.5, 1.0], dtype)
        for rate in np.linspace(0, 8, num_rates).round(2):
            beta = call(Clock(rate), t)
            assert beta.dtype == dtype and (beta[0], beta[2]) == (0, 1), rate
            middle = np.expm1(rate / 2) / np.expm1(rate) if rate else 0.5
            assert beta[1] == pytest.approx(middle, rel=100 * float(jnp.finfo(dtype).eps))


def test_clock_has_inverse_and_keeps_slope_at_end():
    clock = Clock(3.0)
    t = np.linspace(0, 1, 7)
    np.testing.assert_allclose(clock.inverse(np.asarray(clock(jnp.asarray(t)))), t, atol=1e-6)
    slopes = jax.jit(jax.vmap(jax.grad(clock.__call__)))(t)
    np.testing.assert_allclose(slopes, 3 * np.exp(3 * t) / np.expm1(3), rtol=1e-5)


def test_fit_clock_spaces_betas_evenly():
    times = np.arange(1, 21) / 20.5
    betas = np.append(np.asarray(Clock(4.0)(jnp.asarray(times))), 1.0)
    assert fit_clock(betas).rate == pytest.approx(4.0, abs=0.11)
    assert fit_clock(np.append(times, 1.0)).rate == pytest.approx(0.0, abs=0.11)


# --- negative controls -----------------------------------------------------------------------------------------------


START = Gaussian(np.zeros(2), 2.0)
END = Gaussian(np.ones(2), 0.7)


class Broken(AbstractInterpolation):
    """A linear path in which one thing at a time can be made wrong."""

    base: Gaussian
    target: object
    fault: str = eqx.field(static=True)

    def energy(self, t, x):
        f0 = self.base.energy(x)
        f1 = self.target.energy(x)
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
        (Broken(START, Unfrozen(jnp.zeros(2)), "nothing"), "training would move arrays of Broken.target"),
    ],
)
def test_wrong_path_fails(path, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_interpolation(path, jax.random.key(3))


def test_correct_path_passes():
    check_interpolation(broken("nothing"), jax.random.key(3))
