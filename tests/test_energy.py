"""Checks of a user's energy: its values, its gradient, the callable behind it, its attributes."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.energy import Energy
from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.gradient_check import CENTRAL, FORWARD, slopes

POINTS = 1.5 * jax.random.normal(jax.random.key(7), (16, 3))


@jax.custom_jvp
def wrong_gradient(x):
    return jnp.sum(x**2)


wrong_gradient.defjvp(lambda primals, tangents: (wrong_gradient(*primals), jnp.sum(primals[0] * tangents[0])))


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.sum(x**4) - x[0],
        lambda x: jnp.sum(jnp.abs(x)),
        lambda x: 1e4 + jnp.sum(x**2),  # rounding hides the gradient from a difference, which is not an error
        lambda x: 1e6 * jnp.sum((x - 1) ** 2),
        lambda x: jnp.sum(x**2) - jax.nn.logsumexp(-50 * (x - 1) ** 2),
    ],
)
def test_check_energy_accepts_valid_energies(fn):
    check_energy(Energy(fn, 3), POINTS)


@pytest.mark.parametrize("name", SHIPPED)
def test_check_energy_accepts_shipped_targets(name):
    target = make_target(name)
    check_energy(target, jax.random.normal(jax.random.key(1), (8, target.dim)))


@pytest.mark.parametrize(
    "fn, sentence",
    [
        (lambda x: x**2, r"must return one number, got an array of shape \(3,\); sum over the components"),
        (lambda x: jnp.sum(x, keepdims=True), r"got an array of shape \(1,\); return a scalar"),
        (lambda x: jnp.sum(x) + 1j, "a real floating number, got one that is complex"),
        (lambda x: jnp.sum(x > 0), "a real floating number, got one that is of type int32"),
        (lambda x: None, "is a return missing"),
        (lambda x: np.sum(np.sin(np.asarray(x))), "does not trace under JAX"),
        (lambda x: x[0] if x[0] > 0 else -x[0], "does not trace under JAX"),
        (lambda x: jnp.sum(x @ jnp.ones((4, 2))), r"raised TypeError for a point of shape \(3,\)"),
        (lambda x: jnp.sum(jnp.log(x)), r"energy is not finite at 1\d of 16 points: nan at x = \["),
        (lambda x: jnp.where(x[0] > 0, jnp.inf, jnp.sum(x**2)), r"points: inf at x = "),
        (lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), -x)), "gradient of the energy is not finite at"),
        (
            lambda x: jnp.sum(jax.lax.stop_gradient(x**2)),
            "disagrees with central differences at 8 of 8 points: 0 by JAX",
        ),
        (wrong_gradient, "disagrees with central differences at 8 of 8 points"),
    ],
)
def test_check_energy_names_the_error(fn, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        check_energy(Energy(fn, 3), POINTS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("stencil", [CENTRAL, FORWARD])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slopes_detect_a_gradient_that_is_wrong_by_5_percent(stencil, dtype):
    points = np.asarray(POINTS, dtype)
    directions = np.random.default_rng(0).normal(size=points.shape)

    def found(factor):
        return slopes(lambda x: np.sum(x**4, axis=1), factor * 4 * points**3, points, directions, stencil=stencil)

    assert not found(1.0).wrong().any()
    assert found(1.05).wrong().sum() > 12
    assert found(np.nan).wrong().all()
    assert np.all(np.abs(found(1.0).claimed - found(1.0).difference) <= found(1.0).uncertainty)


# --- callables of any kind --------------------------------------------------------------------------------------------

WEIGHTS = np.arange(1.0, 4.0)


@dataclasses.dataclass
class Spring:
    """Equal by value, so without a hash."""

    strength: Any

    def __call__(self, x):
        return jnp.sum(jnp.asarray(self.strength, x.dtype) * x**2) / 2


@dataclasses.dataclass(frozen=True)
class FrozenSpring:
    """Its hash is that of its content, which an array does not have."""

    strength: Any
    __call__ = Spring.__call__


class Tempered:
    __hash__ = None

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, x):
        return jnp.sum(jnp.asarray(self.strength, x.dtype) * x**2) / 2


class Plain(Tempered):
    def __hash__(self):
        return id(self)

    def __eq__(self, other):
        return self.strength == other.strength  # an array, which is neither true nor false


class Module(eqx.Module):
    strength: jax.Array

    def __call__(self, x):
        return jnp.sum(jnp.asarray(self.strength, x.dtype) * x**2) / 2


class ModuleOfParts(eqx.Module):
    part: Any

    def __call__(self, x):
        return self.part(x)


def spring(x, strength):
    return jnp.sum(jnp.asarray(strength, x.dtype) * x**2) / 2


@pytest.mark.parametrize(
    "fn",
    [
        Spring(WEIGHTS),
        Spring(WEIGHTS).__call__,
        FrozenSpring(WEIGHTS),
        Tempered(WEIGHTS),
        Plain(WEIGHTS),
        Module(jnp.asarray(WEIGHTS)),
        ModuleOfParts(Spring(WEIGHTS)),
        functools.partial(spring, strength=WEIGHTS),
        functools.partial(spring, strength=list(WEIGHTS)),
        functools.partial(Spring(WEIGHTS)),
        jax.tree_util.Partial(spring, strength=jnp.asarray(WEIGHTS)),
        jax.jit(Spring(WEIGHTS).__call__),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_any_callable_is_an_energy(fn):
    target = Energy(fn, 3)
    check_energy(target, POINTS)
    exact = np.sum(WEIGHTS * np.asarray(POINTS) ** 2, axis=1) / 2
    np.testing.assert_allclose(map_points(target.energy, POINTS), exact, rtol=1e-5)
    np.testing.assert_allclose(eqx.filter_jit(lambda f, x: f.energy(x))(target, POINTS[0]), exact[0], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(target.energy)(POINTS[0]), exact[0], rtol=1e-5)


def test_equal_callables_that_change_are_not_confused():
    one, other = Spring(1.0), Spring(1.0)
    first, second = (Energy(fn, 3) for fn in (one, other))
    before = float(jax.jit(first.energy)(jnp.ones(3)))
    other.strength = 2.0
    assert (before, float(jax.jit(second.energy)(jnp.ones(3)))) == (1.5, 3.0)


@pytest.mark.parametrize("name", SHIPPED)
def test_bound_methods_of_densities_compile(name):
    target = make_target(name)
    x = jnp.ones(target.dim)
    for method in (target.energy, target.log_prob):
        np.testing.assert_allclose(jax.jit(method)(x), method(x), rtol=1e-5)
    assert hash(target) == hash(target) and target in {target}


# --- attributes -------------------------------------------------------------------------------------------------------


class Odd(AbstractDensity):
    dim: Any = 3
    modes: Any = ((0.0, 0.0, 0.0),)
    lattice_shape: Any = None
    sign_symmetric: Any = True
    prior_base: Any = None

    def energy(self, x):
        return jnp.sum(x**2) / 2


class OddDistribution(Odd, AbstractDistribution):
    log_z: Any = 0.0

    def log_prob(self, x):
        return -self.energy(x)

    def sample_and_log_prob(self, key):
        return jnp.zeros(3), jnp.zeros(())


class Bare(AbstractDensity):
    dim: int = 3

    def energy(self, x):
        return jnp.sum(x**2) / 2


class Failing(Bare):
    @property
    def modes(self):
        return 1 / 0


class Calling(Bare):
    def modes(self):
        return np.zeros((1, 3))


class Holding(Bare):
    part: Any = None


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Odd(modes=4), r"modes of Odd must be the known modes of the target, of shape \(num_modes, 3\), got 4"),
        (Odd(modes=np.zeros((2, 2))), r"of shape \(num_modes, 3\)"),
        (Odd(modes=np.zeros(3)), r"of shape \(num_modes, 3\)"),
        (Odd(modes=np.zeros((0, 3))), r"of shape \(num_modes, 3\)"),
        (Odd(modes=np.full((2, 3), np.nan)), "modes of Odd must be finite"),
        (Odd(modes=1j * np.ones((2, 3))), "modes of Odd must be real numbers"),
        (Odd(modes="normal"), "modes of Odd must be real numbers"),
        (Odd(modes=None), r"modes of Odd must be "),
        (Odd(modes=[[0.0], [0.0, 1.0]]), "modes of Odd must be real numbers"),
        (
            Failing(),
            r"the attribute modes of Failing fails: ZeroDivisionError: division by zero \(test_energy.py, line",
        ),
        (Calling(), "modes of Calling must be real numbers"),
        (Odd(lattice_shape=4), "lattice_shape must be the numbers of sites"),
        (Odd(lattice_shape=(4,)), "lattice_shape must have as many sites as dim, 3"),
        (Odd(lattice_shape=(3.0,)), "each entry of lattice_shape must be a whole number"),
        (Odd(sign_symmetric="no"), "sign_symmetric of Odd must be True or False, got 'no'"),
        (Odd(prior_base=1.0), "prior_base of Odd must be its prior, an AbstractDistribution of dimension 3, got 1.0"),
        (Odd(prior_base=Gaussian(np.zeros(2), 1.0)), "prior_base of Odd must be its prior"),
        (Odd(dim=3.0), "dim of Odd must be a whole number"),
        (Odd(dim=10**30), "dim of Odd must be a whole number from 1 to 1000000"),
        (OddDistribution(log_z="unknown"), "log_z of OddDistribution must be real numbers"),
        (OddDistribution(log_z=np.zeros(2)), "log_z of OddDistribution must be one number"),
        (OddDistribution(log_z=np.inf), "log_z of OddDistribution must be finite"),
        (OddDistribution(log_z=None), "log_z of OddDistribution must be"),
        (Holding(part=Spring(1.0)), "Holding holds a Spring, which has no hash"),
    ],
    ids=lambda value: "" if isinstance(value, AbstractDensity) else value[:40],
)
def test_attributes_are_asked_before_training(unchecked, target, says):
    with pytest.raises(InputError, match=says) as raised:
        check_energy(target, POINTS)
    assert "\n" not in str(raised.value)


def test_attributes_that_fit_are_accepted():
    for target in (
        Odd(),
        Odd(modes=np.zeros((2, 3)), lattice_shape=(3,)),
        Odd(prior_base=Gaussian(np.zeros(3), 1.0)),
        OddDistribution(log_z=jnp.zeros(())),
    ):
        check_energy(target, POINTS)


def test_what_an_energy_raises_has_its_file_and_line():
    def inner(x):
        raise RuntimeError("the simulator\n is gone")

    with pytest.raises(
        InputError, match=r"raised RuntimeError .*: the simulator is gone \(test_energy.py, line \d+\)$"
    ):
        check_energy(Energy(lambda x: inner(x), 3), POINTS)

    unfinished = jax.custom_jvp(lambda x: jnp.sum(x**2))
    unfinished.defjvp(lambda primals, tangents: 1 / 0)

    with pytest.raises(
        InputError, match=r"the energy fails in a batch or under jax.grad: ZeroDivisionError: .* \(test_energy.py, line"
    ):
        check_energy(Energy(unfinished, 3), POINTS)
