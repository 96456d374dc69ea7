"""Priors as maps from standard normals: quantiles against SciPy, derivatives, and samples of the composed ones.

Two-sided Kolmogorov-Smirnov tests with fixed keys refuse below p = 10⁻⁴: a correct map fails for one key in 10⁴.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from boltzflow import priors
from boltzflow.errors import InputError
from boltzflow.priors.translated import from_numpyro

Z = np.linspace(-37, 37, 741)[:-1] + 0.007  # off the nodes of the tables
NORMAL = {"Φ(z)": special.ndtr(Z), "Φ(-z)": special.ndtr(-Z)}


def quantile(distribution):
    """F⁻¹(Φ(z)) by SciPy, from the smaller of the two probabilities."""
    with np.errstate(all="ignore"):
        return np.where(Z < 0, distribution.ppf(NORMAL["Φ(z)"]), distribution.isf(NORMAL["Φ(-z)"]))


def half_normal():
    """SciPy's own is wrong near 0."""
    return np.where(Z < 0, np.sqrt(2) * special.erfinv(NORMAL["Φ(z)"]), -special.ndtri(NORMAL["Φ(-z)"] / 2))


def arcsine():
    """Beta(1/2, 1/2): sin²(π Φ/2)."""
    return np.sin(np.pi / 2 * NORMAL["Φ(z)"]) ** 2


CLOSED = {
    "uniform": (priors.Uniform(-1.0, 3.0), quantile(stats.uniform(-1, 4))),
    "normal": (priors.Normal(1.0, 2.0), 1 + 2 * Z),
    "log-normal": (priors.LogNormal(0.5, 2.0), np.exp(0.5 + 2 * Z)),
    "half-normal": (priors.HalfNormal(1.0), half_normal()),
    "exponential": (priors.Exponential(2.0), quantile(stats.expon(scale=0.5))),
    "cauchy": (priors.Cauchy(0.0, 2.0), quantile(stats.cauchy(0, 2))),
    "half-cauchy": (priors.HalfCauchy(3.0), quantile(stats.halfcauchy(0, 3))),
}
TABLES = {
    **{f"gamma-{a}": (priors.Gamma(a, 2.0), quantile(stats.gamma(a, scale=0.5))) for a in (0.05, 0.5, 1, 3.0, 50, 1e4)},
    **{f"beta-{a}-{b}": (priors.Beta(a, b), quantile(stats.beta(a, b))) for a, b in ((1, 1), (30, 0.2), (500, 2000))},
    "beta-1/2-1/2": (priors.Beta(0.5, 0.5), arcsine()),
    **{f"t-{df}": (priors.StudentT(df), quantile(stats.t(df))) for df in (1, 2.0, 4, 30, 1000)},
}


def evaluate(prior, z=Z):
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(prior.from_normals)))(jnp.asarray(z))
    return np.asarray(value), np.asarray(slope)


@pytest.mark.parametrize(("prior", "expected"), [*CLOSED.values(), *TABLES.values()], ids=[*CLOSED, *TABLES])
def test_quantile_matches_scipy_in_both_tails(prior, expected):
    with jax.enable_x64(True):
        value, slope = evaluate(prior)
    known = np.isfinite(expected) & (np.abs(expected) > 1e-290)
    np.testing.assert_allclose(value[known], expected[known], rtol=3e-11)
    assert np.isfinite(value).all() and np.isfinite(slope).all() and (slope >= 0).all()
    assert known.sum() > len(Z) / 2


def test_gamma_of_an_unknown_concentration_matches_scipy():
    a = np.array([0.05, 1.0, 50.0, 1e4, 1e6])
    some = slice(None, None, 12)
    expected = np.stack([quantile(stats.gamma(one)) for one in a])[:, some]
    with jax.enable_x64(True):
        prior = priors.Gamma(jnp.asarray(a)[:, None], shape=expected.shape)
        assert prior.table is None
        value = np.asarray(prior.from_normals(jnp.broadcast_to(jnp.asarray(Z[some]), prior.shape)))
    known = np.isfinite(expected) & (np.abs(expected) > 1e-290)
    np.testing.assert_allclose(value[:-1][known[:-1]], expected[:-1][known[:-1]], rtol=1e-10)
    near = np.abs(Z[some]) < 8  # above 10⁵ by Wilson and Hilferty
    np.testing.assert_allclose(value[-1, near], expected[-1, near], rtol=1e-7)


@pytest.mark.parametrize("double", [False, True])
def test_gamma_of_any_concentration_is_finite(double):
    with jax.enable_x64(double):
        a = jnp.asarray([1e-30, 1e-8, 1e-3, 1.0, 1e5, 1e9, 1e30], float)[:, None]
        z = jnp.asarray([-1e12, -30.0, -1.0, 0.0, 1.0, 30.0, 1e12], float)
        value = priors.Gamma(a, shape=(7, 7)).from_normals(jnp.broadcast_to(z, (7, 7)))
        assert np.isfinite(value).all() and (np.asarray(value) > 0).all()


def test_far_tail_of_a_beta_variable_is_its_leading_term():
    """SciPy's search for the quantile fails there: I_x(2, 5) = 15 x² (1 + O(x))."""
    with jax.enable_x64(True):
        value, _ = evaluate(priors.Beta(2.0, 5.0), np.array([-37.0, -20.0]))
    np.testing.assert_allclose(value, np.sqrt(special.ndtr([-37.0, -20.0]) / 15), rtol=1e-12)


@pytest.mark.parametrize(("prior", "expected"), [*CLOSED.values(), *TABLES.values()], ids=[*CLOSED, *TABLES])
def test_derivative_matches_central_differences(prior, expected):
    z = np.linspace(-6, 6, 49)
    step = 1e-4
    with jax.enable_x64(True):
        _, slope = evaluate(prior, z)
        (far, _), (near, _) = evaluate(prior, z + step), evaluate(prior, z - step)
    np.testing.assert_allclose(slope, (far - near) / (2 * step), rtol=2e-5, atol=1e-11 * np.max(np.abs(far)))


def test_derivative_by_a_parameter_matches_central_differences():
    z = jnp.linspace(-5, 5, 21)
    with jax.enable_x64(True):
        z = jnp.asarray(z, float)
        for a in (0.3, 2.0, 40.0):

            def value(a, z=z):
                return priors.Gamma(jnp.full(z.shape, a)).from_normals(z)

            slope = jax.jacfwd(value)(jnp.asarray(a))
            difference = (value(jnp.asarray(a + 1e-5)) - value(jnp.asarray(a - 1e-5))) / 2e-5
            np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", [*CLOSED, *TABLES])
@pytest.mark.parametrize("double", [False, True])
def test_values_and_derivatives_are_finite_everywhere(name, double):
    prior, _ = {**CLOSED, **TABLES}[name]
    z = np.concatenate([np.linspace(-40, 40, 201), [-1e12, -1e4, 0, 1e4, 1e12]])
    with jax.enable_x64(double):
        value, slope = jax.vmap(jax.value_and_grad(prior.from_normals))(jnp.asarray(z, float))
        assert value.dtype == (jnp.float64 if double else jnp.float32)
        assert np.isfinite(value).all() and np.isfinite(slope).all()
        if name not in ("normal", "cauchy", "uniform") and not name.startswith("t-"):
            assert (np.asarray(value) > 0).all()
        if name.startswith("beta"):
            assert (np.asarray(value) < 1).all()
    assert (np.diff(np.asarray(value)[:201]) >= 0).all()


# --- composed ones ----------------------------------------------------------------------------------------------------

COMPOSED = {
    "beta": (priors.Beta(jnp.asarray(2.0), 0.7), stats.beta(2.0, 0.7)),
    "student-t": (priors.StudentT(jnp.asarray(3.0), 1.0, 2.0), stats.t(3.0, 1, 2)),
    "dirichlet-known": (priors.Dirichlet([0.5, 1.0, 3.0]), stats.beta(0.5, 4.0)),
    "dirichlet": (priors.Dirichlet(jnp.asarray([0.5, 1.0, 3.0])), stats.beta(0.5, 4.0)),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_priors_have_their_distribution(name):
    prior, exact = COMPOSED[name]
    z = jax.random.normal(jax.random.key(3), (20_000, *prior.normal_shape))
    value = np.asarray(jax.vmap(prior.from_normals)(z), np.float64)
    assert value.shape[1:] == prior.shape
    first = value[:, 0] if name.startswith("dirichlet") else value
    assert stats.kstest(first, exact.cdf).pvalue > 1e-4
    if name.startswith("dirichlet"):
        np.testing.assert_allclose(value.sum(axis=1), 1, atol=1e-5)
        assert stats.kstest(value[:, 2], stats.beta(3.0, 1.5).cdf).pvalue > 1e-4
        assert prior.normal_shape == ((2,) if name == "dirichlet-known" else (3,))


def test_a_wrong_map_fails_the_comparison():
    z = np.asarray(jax.random.normal(jax.random.key(3), (20_000,)), np.float64)
    assert stats.kstest(1.05 * z, "norm").pvalue < 1e-4


def test_parameters_broadcast_and_shapes_repeat():
    assert priors.Normal(np.zeros(3), np.ones((2, 1))).shape == (2, 3)
    assert priors.Gamma([1.0, 2.0], 1.0, shape=(4, 2)).shape == (4, 2)
    assert priors.Normal(shape=5).shape == (5,)
    value = priors.Gamma([1.0, 2.0, 1.0]).from_normals(jnp.array([0.0, 0.5, 0.0]))
    np.testing.assert_allclose(value, stats.gamma([1, 2, 1]).ppf(special.ndtr([0, 0.5, 0])), rtol=1e-5)


BAD = {
    "Normal(0, -1.0)": "scale of Normal must be positive, got -1",
    "Normal(0, np.array([1.0, 0.0]))": "scale of Normal must be positive, got 0 among them",
    "Uniform(1, 1)": "low of Uniform must be below high, got 1 and 1",
    "Uniform(0, np.inf)": "high of Uniform must be finite, got inf",
    "Gamma('a')": "concentration of Gamma must be real numbers",
    "Normal(np.zeros(3), np.ones(2))": "do not broadcast to one shape",
    "Normal(np.zeros(3), 1.0, shape=(2,))": r"do not broadcast to one shape \(2,\)",
    "Normal(shape='3')": "shape of Normal must be whole numbers",
    "Normal(shape=(-1,))": "each entry of shape of Normal must be a whole number of at least 1",
    "Dirichlet(2.0)": "an entry for each of at least 2 shares, got one number",
    "Beta(1.0, np.nan)": "b of Beta must be finite, got nan",
}


@pytest.mark.parametrize("call", BAD)
def test_invalid_parameters_are_refused(call):
    with pytest.raises(InputError, match=BAD[call]):
        eval(call, {**vars(priors), "np": np})


# --- NumPyro ----------------------------------------------------------------------------------------------------------

TRANSLATED = {
    "Uniform": (dist.Uniform(-1.0, 2.0), stats.uniform(-1, 3)),
    "HalfNormal": (dist.HalfNormal(2.0), stats.halfnorm(0, 2)),
    "Chi2": (dist.Chi2(3.0), stats.chi2(3)),
    "InverseGamma": (dist.InverseGamma(2.0, 3.0), stats.invgamma(2, scale=3)),
    "Laplace": (dist.Laplace(1.0, 2.0), stats.laplace(1, 2)),
    "TruncatedNormal": (dist.TruncatedNormal(0.0, 1.0, low=0.5), stats.truncnorm(0.5, np.inf)),
    "LogUniform": (dist.LogUniform(0.1, 10.0), stats.loguniform(0.1, 10)),
    "Beta": (dist.Beta(2.0, 3.0), stats.beta(2, 3)),
    "StudentT": (dist.StudentT(4.0, 1.0, 2.0), stats.t(4, 1, 2)),
}


@pytest.mark.parametrize("name", TRANSLATED)
def test_distributions_of_numpyro_keep_their_quantiles(name):
    given, exact = TRANSLATED[name]
    z = np.linspace(-4, 4, 33)
    prior = from_numpyro(given)
    value = np.sort(np.asarray(jax.vmap(prior.from_normals)(jnp.asarray(z))))
    np.testing.assert_allclose(value, exact.ppf(special.ndtr(z)), rtol=1e-3, atol=1e-5)


def test_wrapped_distributions_of_numpyro_have_their_shapes():
    prior = from_numpyro(dist.Normal(0.0, jnp.array([1.0, 2.0])).expand([3, 2]).to_event(1))
    assert prior.shape == prior.normal_shape == (3, 2)
    np.testing.assert_array_equal(prior.from_normals(jnp.ones((3, 2)))[1], [1.0, 2.0])
    correlated = from_numpyro(dist.MultivariateNormal(jnp.ones(2), scale_tril=jnp.array([[1.0, 0.0], [2.0, 1.0]])))
    np.testing.assert_array_equal(correlated.from_normals(jnp.ones(2)), [2.0, 4.0])
    assert from_numpyro(dist.LKJCholesky(3)) is None
    assert from_numpyro(dist.ImproperUniform(dist.constraints.real, (), ())) is None
