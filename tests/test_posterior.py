"""Posteriors of named variables: evidences in closed form, the energy, nested models, and refused arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

import boltzflow as bf
from bad_input import PRIORS, refusal
from boltzflow.densities.precision import programs_of
from boltzflow.priors import Beta, Dirichlet, Exponential, Gamma, HalfCauchy, Normal
from boltzflow.sampling import locating, pilot
from boltzflow.statistics.estimates import disagreement, exact
from boltzflow.testing import check_density

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

FEW = {"log_z_error": 0.01, "num_eval_samples": 4096}  # a fitted Gaussian is enough: nothing is trained


def log_z_on_a_grid(posterior):
    """log Z of a posterior of one variable, by the trapezoid rule in double precision."""
    grid = np.linspace(-12, 12, 4001)
    with jax.enable_x64(True):
        energy = np.asarray(jax.vmap(posterior.energy)(jnp.asarray(grid)[:, None]))
    return np.log(np.trapezoid(np.exp(-energy), grid))


def normal_normal():
    y = np.array([1.3, 0.4, 2.2])
    covariance = np.eye(3) + 4.0
    posterior = bf.Posterior(lambda mu: jnp.sum(jax.scipy.stats.norm.logpdf(y, mu, 1.0)), {"mu": Normal(0.0, 2.0)})
    return posterior, stats.multivariate_normal(np.zeros(3), covariance).logpdf(y)


def beta_binomial():
    def log_likelihood(p):
        return 7 * jnp.log(p) + 3 * jnp.log1p(-p)

    return bf.Posterior(log_likelihood, {"p": Beta(2.0, 0.5)}), special.betaln(9.0, 3.5) - special.betaln(2.0, 0.5)


def gamma_poisson():
    y = np.array([3, 0, 5, 2])

    def log_likelihood(values):
        return jnp.sum(y * jnp.log(values["rate"]) - values["rate"])

    log_z = special.gammaln(1.5 + y.sum()) - special.gammaln(1.5) + 1.5 * np.log(0.5)
    return bf.Posterior(log_likelihood, {"rate": Gamma(1.5, 0.5)}), log_z - (1.5 + y.sum()) * np.log(4.5)


def exponential_by_numpyro():
    posterior = bf.Posterior(lambda *, x: -3 * x, {"x": dist.Exponential(2.0)})
    return posterior, np.log(2 / 5)


@pytest.mark.parametrize("model", [normal_normal, beta_binomial, gamma_poisson, exponential_by_numpyro])
def test_log_z_is_the_evidence_of_a_conjugate_model(model):
    posterior, log_z = model()
    assert log_z_on_a_grid(posterior) == pytest.approx(log_z, abs=1e-9)
    check_density(posterior, jax.random.key(0))


def log_likelihood_of_schools(theta):
    return jnp.sum(jax.scipy.stats.norm.logpdf(EFFECT, theta, ERROR))


PRIOR_OF_SCHOOLS = {
    "mu": Normal(0.0, 5.0),
    "tau": HalfCauchy(5.0),
    "theta": lambda mu, tau: Normal(mu, tau, shape=8),
}


def test_a_centered_hierarchy_is_mapped_to_a_non_centered_one():
    """θ_j = μ + τ z_j with μ = 5 z_μ and τ = 5 tan(π/2 Φ(z_τ))."""
    posterior = bf.Posterior(log_likelihood_of_schools, PRIOR_OF_SCHOOLS)
    assert posterior.names == ("mu", "tau", "theta") and posterior.shapes == {"mu": (), "tau": (), "theta": (8,)}
    z = np.asarray(jax.random.normal(jax.random.key(1), (6, 10)), np.float64)
    mu, tau = 5 * z[:, :1], 5 * np.tan(np.pi / 2 * special.ndtr(z[:, 1:2]))
    expected = -stats.norm.logpdf(z).sum(axis=1) - stats.norm.logpdf(EFFECT, mu + tau * z[:, 2:], ERROR).sum(axis=1)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.vmap(posterior.energy)(jnp.asarray(z)), expected, rtol=1e-12)
        values = posterior.values(z)
    assert list(values) == ["mu", "tau", "theta"]
    np.testing.assert_allclose(values["theta"], mu + tau * z[:, 2:], rtol=1e-12)
    check_density(posterior, jax.random.key(0))


def test_a_fixed_name_is_left_out_and_seen_by_later_priors():
    posterior = bf.Posterior(log_likelihood_of_schools, PRIOR_OF_SCHOOLS, fix={"tau": 2.0, "mu": 1.0})
    assert posterior.dim == 8 and posterior.shapes == {"theta": (8,)}
    z = jnp.ones((1, 8))
    values = posterior.values(z)
    np.testing.assert_allclose(values["theta"], 3.0)
    np.testing.assert_allclose(values["tau"], [2.0])
    one = bf.Posterior(lambda x: -x, {"a": Gamma(2.0), "x": lambda a: Exponential(a)}, fix={"a": 2.0})
    assert log_z_on_a_grid(one) == pytest.approx(np.log(2 / 3), abs=1e-9)


def test_layout_is_the_same_inside_and_outside_of_programs():
    prior = {"a": Gamma(2.0), "x": lambda a: Beta(a, 2.0), "w": Dirichlet([1.0, 2.0, 3.0])}
    posterior = bf.Posterior(lambda x, w: jnp.log(x) + w[0], prior)
    assert posterior.dim == 1 + 2 + 2  # a beta variable of an unknown exponent takes two normals
    z = jax.random.normal(jax.random.key(0), (5,))
    np.testing.assert_allclose(posterior.energy(z), jax.jit(posterior.energy)(z), rtol=1e-5)
    fixed = bf.Posterior(lambda x, w: jnp.log(x) + w[0], prior, fix={"a": 3.0})
    assert fixed.dim == 1 + 2


def test_prior_predictive_draws_from_the_prior():
    posterior = bf.Posterior(log_likelihood_of_schools, PRIOR_OF_SCHOOLS)
    draws = posterior.prior_predictive(jax.random.key(2), 10_000)
    assert draws["theta"].shape == (10_000, 8)
    assert stats.kstest(np.asarray(draws["tau"], np.float64), stats.halfcauchy(0, 5).cdf).pvalue > 1e-4
    totals = posterior.prior_predictive(jax.random.key(2), 10_000, lambda values: values["theta"].sum())
    np.testing.assert_allclose(totals, draws["theta"].sum(axis=1), rtol=1e-4)


def test_log_likelihood_may_be_an_object_or_take_all_names():
    class Model:
        def __call__(self, a, scale=2.0):
            return -scale * a**2

    posterior = bf.Posterior(Model(), {"a": Normal()})
    assert float(posterior.energy(jnp.zeros(1))) == pytest.approx(0.5 * np.log(2 * np.pi))
    everything = bf.Posterior(lambda **names: -sum(v**2 for v in names.values()), {"a": Normal(), "b": Normal()})
    assert float(everything.energy(jnp.ones(2))) == pytest.approx(1 + np.log(2 * np.pi) + 2)


@pytest.mark.parametrize(("code", "says"), PRIORS)
def test_invalid_posteriors_are_refused(unchecked, code, says):
    found = refusal(code)
    assert says in found and "\n" not in found


def test_a_run_answers_in_names_and_compares_nested_models(unchecked):
    """y = a + b t + noise with normal priors: means, evidences and their ratio are known."""
    t = np.linspace(-1, 1, 9)
    y = 0.3 + 1.1 * t + np.array([0.2, -0.4, 0.1, 0.5, -0.3, 0.0, 0.3, -0.1, -0.2])

    def log_likelihood(a, b):
        return jnp.sum(jax.scipy.stats.norm.logpdf(y, a + b * t, 0.5))

    prior = {"a": Normal(0.0, 1.0), "b": Normal(0.0, 2.0)}
    full = bf.fit(bf.Posterior(log_likelihood, prior), config=FEW, name="line")
    nested = bf.fit(bf.Posterior(log_likelihood, prior, fix={"b": 0.0}), config=FEW, name="constant")
    noise = 0.25 * np.eye(9)
    known = [
        stats.multivariate_normal(np.zeros(9), noise + 1.0 + slope * 4 * np.outer(t, t)).logpdf(y) for slope in (1, 0)
    ]
    ratio = full.log_bayes_factor(nested)
    assert ratio.ok and ratio.stderr == pytest.approx(np.hypot(full.log_z().stderr, nested.log_z().stderr))
    assert disagreement(ratio, exact(known[0] - known[1])) < 4
    found = full.expectation(lambda values: {"b": values["b"], "last": values["a"] + values["b"]})
    b = (y @ t / 0.25) / (t @ t / 0.25 + 1 / 4)
    a = (y.sum() / 0.25) / (9 / 0.25 + 1)
    assert disagreement(found["b"], exact(b)) < 4
    assert disagreement(found["last"], exact(a + b)) < 4
    assert full.expectation(lambda z: z[1], unconstrained=True).value == pytest.approx(b / 2, abs=0.01)
    with pytest.raises(bf.InputError, match="the observable fails"):
        full.expectation(lambda values: values["c"])
    with pytest.raises(bf.InputError, match="a Bayes factor is taken with another run"):
        full.log_bayes_factor("other")


# --- the pilot --------------------------------------------------------------------------------------------------------


def test_smc_of_a_posterior_starts_from_its_prior(monkeypatch):
    """A wider Gaussian sees little but the ends of the prior, and two of the modes at them draw all particles."""

    class Started(Exception):
        pass

    def run_smc(base, *rest, **options):
        raise Started(base)

    monkeypatch.setattr(locating, "run_smc", run_smc)
    with pytest.raises(Started) as started:
        pilot.run_pilot(beta_binomial()[0], jax.random.key(0))
    (base,) = started.value.args
    np.testing.assert_array_equal(base.mean, [0.0])
    assert float(base.energy(jnp.array([2.0]))) == 2.0 and float(base.log_z) == pytest.approx(0.5 * np.log(2 * np.pi))


@pytest.mark.slow
def test_modes_at_the_ends_of_the_prior_keep_their_shares():
    """Eighteen modes of the egg box on [0, 10π]², of 8 % of the mass, or of a half or a quarter of that at an end."""
    log_likelihood = lambda x, y: (2 + jnp.cos(x / 2) * jnp.cos(y / 2)) ** 5  # noqa: E731
    posterior = bf.Posterior(log_likelihood, dict.fromkeys("xy", bf.priors.Uniform(0.0, 10 * np.pi)))
    with programs_of(posterior).answering():
        found = pilot.run_pilot(posterior, jax.random.key(0))
    assert abs(found.log_z - 235.855940) < 4 * found.log_z_stderr
    place = [np.rint(posterior.values(found.points)[name] / (2 * np.pi)).astype(int) for name in "xy"]
    share = np.zeros((6, 6))
    np.add.at(share, tuple(place), 1 / len(found.points))
    inside = (np.add.outer(np.arange(6), np.arange(6)) % 2 == 0) / 12.5
    inside[[0, -1]] /= 2
    inside[:, [0, -1]] /= 2
    np.testing.assert_allclose(share, inside, atol=5 * np.sqrt(0.08 / len(found.points)))
