"""Every contract check of `boltzflow.testing` on every shipped density, and negative controls that must fail.

`check_distribution` compares at 5 standard errors with fixed keys: a correct class fails for about one key in 10^5.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_t

from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.densities.catalog import mixture_2
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import Energy
from boltzflow.densities.gaussian import Gaussian, GeneralizedGaussian
from boltzflow.densities.gaussian_mixture import DefensiveMixture, GaussianMixture, SubspaceMixture
from boltzflow.densities.many_well import many_well
from boltzflow.densities.student_t import StudentT, StudentTMixture
from boltzflow.errors import InputError
from boltzflow.numerics.linalg import Circulant
from boltzflow.testing.densities import check_density, check_distribution

KEY = jax.random.key(20)

DISTRIBUTIONS = {
    "generalized-gaussian-0.7": GeneralizedGaussian(1, 0.5, 0.7),
    "generalized-gaussian-4": GeneralizedGaussian(16, 1.0, 4.0),
    "gaussian-diagonal": Gaussian([1.0, 2.0], [0.5, 2.0]),
    "gaussian-full": Gaussian(np.arange(8.0), np.eye(8) + 0.5),
    "mixture": SubspaceMixture(
        Gaussian([1.0, 0.0, -1.0], np.eye(3) + 0.5),
        GaussianMixture([0.3, 0.7], [[-1.0, 0.2], [0.5, 0.0]], [[0.1, 0.3], [0.5, 0.2]]),
        np.linalg.qr(np.arange(6.0).reshape(3, 2) ** 2 + np.eye(3, 2))[0],
    ),
    "mixture-2": mixture_2(),
    "mixture-full": GaussianMixture([0.4, 0.6], np.eye(2, 3), np.stack([np.eye(3), np.eye(3) + 1.0])),
    "student-t": StudentT([1.0, -2.0], 6.0, scale_tril=[[0.5, 0.0], [0.3, 1.0]]),
    "student-t-heavy": StudentT([0.5], 3.0, scale_tril=2.0),
    "student-t-lattice": StudentT(np.zeros(8), 3.0, scale_tril=Circulant([1.0, 0.8, 0.5, 0.4, 0.3, 0.4, 0.5, 0.8])),
    "student-t-mixture": StudentTMixture([0.3, 0.7], [[1.0, 0.0], [-2.0, 1.0]], 6.0, scales=[[[0.5, 0], [0.3, 1]]] * 2),
    "heavy-mixture": SubspaceMixture(
        Gaussian([1.0, 0.0, -1.0], np.eye(3) + 0.5),
        StudentTMixture([0.3, 0.7], [[-1.0], [2.0]], 5.0, scales=[[0.5], [1.0]]),
        np.eye(3, 1),
    ),
    "defensive-mixture": DefensiveMixture(mixture_2(), Gaussian([0.0, 0.0], 50.0), 0.3),
    "few-well": many_well(1),
    "many-well": many_well(16),
    "double-well-3": DoubleWell(3, 4.0),
    "double-well-16": DoubleWell(),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_keep_their_contract(name):
    check_distribution(DISTRIBUTIONS[name], KEY)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SubspaceMixture(Gaussian(np.zeros(2), 1.0), mixture_2(), np.ones((2, 2))), "orthonormal"),
        (lambda: SubspaceMixture(Gaussian(np.zeros(3), 1.0), mixture_2(), np.eye(3)), r"shape \(3, 2\)"),
        (lambda: GaussianMixture([1.0], np.zeros((1, 2)), 1.0, scales=np.eye(2)[None]), "not both"),
        (lambda: GaussianMixture([1.0], np.zeros((1, 2)), scales=-np.eye(2)[None]), "positive diagonal"),
    ],
)
def test_invalid_mixture_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_student_t_is_exact_far_out_and_known_to_scipy():
    density = StudentT([1.0, -2.0], 3.0, scale_tril=[[0.5, 0.0], [0.3, 1.0]])
    scale = np.array([[0.5, 0.0], [0.3, 1.0]])
    x = np.array([[0.0, 0.0], [1.0, -2.0], [30.0, -400.0]])
    exact = multivariate_t([1.0, -2.0], scale @ scale.T, df=3.0).logpdf(x)
    np.testing.assert_allclose(jax.vmap(density.log_prob)(jnp.asarray(x)), exact, rtol=1e-5)
    far = jnp.array([3e30, 0.0])  # its square overflows in single precision
    assert density.energy(far) == pytest.approx(2.5 * (2 * np.log(3e30) + np.log(4 * 1.09 / 3)), rel=1e-5)
    assert np.isfinite(jax.grad(density.energy)(far)).all()
    with pytest.raises(InputError, match="degrees"):
        StudentT([0.0], 0.0, scale_tril=1.0)


def test_energies_keep_their_contract():
    check_density(Energy(lambda x: jnp.sum(x**4) - x[0], 3), KEY)
    check_density(Energy(lambda x: jnp.sum(x**4) + jnp.sum(x * jnp.roll(x, 1)), 6, (6,), True), KEY)


# --- negative controls: one property is wrong in each, and its check must fail ----------------------------------------


class Broken(AbstractDistribution):
    """A unit Gaussian in which one property at a time can be made wrong."""

    dim: int = eqx.field(static=True, default=2)
    log_z: float = eqx.field(static=True, default=float(np.log(2 * np.pi)))
    sample_scale: float = 1.0
    sample_shift: float = 0.0
    returned_shift: float = 0.0
    log_prob_shift: float = 0.0

    def energy(self, x):
        return 0.5 * jnp.sum(x**2)

    def log_prob(self, x):
        return -self.energy(x) - self.log_z + self.log_prob_shift

    def sample_and_log_prob(self, key):
        x = self.sample_scale * jax.random.normal(key, (self.dim,)) + self.sample_shift
        return x, self.log_prob(x) + self.returned_shift


class WrongWeights(AbstractDistribution):
    """Samples of the correct modes in a wrong proportion, which Stein's identities do not detect."""

    dim: int = eqx.field(static=True, default=2)
    log_z: float = eqx.field(static=True, default=0.0)

    def energy(self, x):
        return mixture_2().energy(x)

    def log_prob(self, x):
        return -self.energy(x)

    def sample_and_log_prob(self, key):
        x, _ = GaussianMixture([0.5, 0.5], [[4.0, 4.0], [-8.0, -8.0]]).sample_and_log_prob(key)
        return x, self.log_prob(x)


@pytest.mark.parametrize(
    "distribution, sentence",
    [
        (Broken(sample_scale=1.1), r"the mean of x·∇ log p over the samples of Broken must be -2"),
        (Broken(sample_shift=0.2), r"the mean of ∇ log p over the samples of Broken must be 0"),
        (Broken(log_z=2.0), r"the integral of exp\(log_prob\) of Broken must be 1, got 0\.8"),
        (Broken(returned_shift=0.1), "log_prob and the log_prob returned with a sample must agree"),
        (Broken(log_prob_shift=0.1), "log_prob and -energy - log_z must agree"),
        (Broken(sample_scale=0.0), "drew the same sample from different keys"),
        (WrongWeights(), "disagree on a moment of order 1"),
    ],
)
def test_wrong_distribution_fails(distribution, sentence):
    check_density(distribution, KEY)
    with pytest.raises(AssertionError, match=sentence):
        check_distribution(distribution, KEY)


def test_correct_distribution_passes():
    check_distribution(Broken(), KEY)


class Lambda(AbstractDensity):
    """An energy without the checks of `Energy`."""

    fn: object
    dim: int = eqx.field(static=True, default=2)

    def energy(self, x):
        return self.fn(x)


@jax.custom_jvp
def wrong_gradient(x):
    return jnp.sum(x**2)


wrong_gradient.defjvp(lambda primals, tangents: (wrong_gradient(*primals), jnp.sum(primals[0] * tangents[0])))


@pytest.mark.parametrize(
    "fn, sentence",
    [
        (lambda x: x**2, r"must return a scalar for x of shape \(2,\), got shape \(2,\)"),
        (lambda x: jnp.sum(x > 0), "must keep the type of x, float32, got int32"),
        (lambda x: jnp.sum(jnp.log(x)), "is not finite near the origin"),
        (lambda x: jnp.sum(x.astype(jnp.float32) ** 2), "must keep the type of x, float64, got float32"),
        (wrong_gradient, "disagrees with central differences at 8 of 8"),
        (lambda x: jnp.sum(jnp.where(x > 3, jnp.sqrt(x), x**2)), "Lambda: the gradient of the energy is not finite"),
        (lambda x: jnp.sum(x**2) + 0.1 * isinstance(x, jax.core.Tracer), "with and without jax.vmap must agree"),
    ],
)
def test_wrong_density_fails(fn, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_density(Lambda(fn), KEY)


def test_false_symmetry_fails():
    chain = Energy(lambda x: jnp.sum(x[1:] * x[:-1]) + jnp.sum(x**4), 6, lattice_shape=(6,))
    with pytest.raises(AssertionError, match=r"Energy: lattice_shape \(6,\) is declared, but a shift by one site"):
        check_density(chain, KEY)
    with pytest.raises(AssertionError, match="Energy: sign_symmetric is declared, but the change of x to -x changes"):
        check_density(Energy(lambda x: jnp.sum(x**4 - x), 6, sign_symmetric=True), KEY)


@pytest.mark.usefixtures("unchecked")
def test_density_that_is_not_fixed_fails():
    class Trainable(eqx.Module):
        dim: int = 2

        def energy(self, x):
            return jnp.sum(x**2)

    with pytest.raises(AssertionError, match="must subclass AbstractDensity"):
        check_density(Trainable(), KEY)
