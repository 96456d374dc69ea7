"""NumPyro models as targets: their evidence, their coordinates, and what is said of a mistake in them."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import boltzflow as bf
from boltzflow.densities.base import prior_of
from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.from_file import load_target
from boltzflow.interop.numpyro import Posterior, is_model
from boltzflow.numerics.validation import is_numpyro_model

OBSERVED = jnp.array([1.3, 0.4, 2.2])


def normal_model(y=OBSERVED):
    """μ ~ N(0, 2²), y ~ N(μ, 1): the evidence and the posterior are known."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.deterministic("double", 2 * mu)
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def scale_model():
    """τ ~ Gamma(3, 2), nothing observed: the evidence is 1."""
    numpyro.sample("tau", dist.Gamma(3.0, 2.0))


def log_evidence():
    covariance = np.eye(3) + 4.0
    y = np.asarray(OBSERVED, np.float64)
    return -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(covariance)[1] + 3 * np.log(2 * np.pi))


@pytest.mark.parametrize(("model", "exact"), [(normal_model, log_evidence()), (scale_model, 0.0)])
def test_posterior_integrates_to_evidence(model, exact):
    grid = jnp.linspace(-14, 14, 20_001)
    energy = jax.vmap(Posterior(model).energy)(grid[:, None])
    assert np.log(np.trapezoid(np.exp(-np.asarray(energy, np.float64)), np.asarray(grid))) == pytest.approx(
        exact, abs=2e-4
    )


def test_sites_are_named_and_constrained():
    posterior = Posterior(scale_model, coordinates="unconstrained")
    assert posterior.dim == 1 and posterior.site_shapes == {"tau": ()}
    np.testing.assert_allclose(posterior.sites(jnp.array([[0.0], [1.0]]))["tau"], [1.0, np.e], rtol=1e-6)
    sites = Posterior(normal_model, coordinates="unconstrained").sites(jnp.array([[0.5]]))
    assert float(sites["mu"][0]) == 0.5 and float(sites["double"][0]) == 1.0
    sites = Posterior(normal_model).values(jnp.array([[0.5]]))
    assert float(sites["mu"][0]) == 1.0 and float(sites["double"][0]) == 2.0


def eight_schools():
    """Centered, with a correlation matrix, which has no quantile function, beside."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    numpyro.sample("correlation", dist.LKJCholesky(2, 1.5))
    with numpyro.plate("schools", 3):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, 10.0), obs=OBSERVED)


def test_both_coordinates_have_the_same_density():
    """energy(z) = energy(u(z)) - log |∂u/∂z| at random points."""
    with jax.enable_x64(True):
        by_prior, unconstrained = Posterior(eight_schools), Posterior(eight_schools, coordinates="unconstrained")
        assert by_prior.coordinates == "prior" and by_prior.site_shapes == unconstrained.site_shapes

        def to_unconstrained(z):  # the sites stand in the order of their names, the correlation first
            sites = by_prior.constrain(z)
            return jnp.concatenate([z[:1], sites["mu"][None], jnp.log(sites["tau"])[None], sites["theta"]])

        def there(z):
            _, log_jacobian = jnp.linalg.slogdet(jax.jacfwd(to_unconstrained)(z))
            return unconstrained.energy(to_unconstrained(z)) - log_jacobian

        z = jax.random.normal(jax.random.key(0), (8, by_prior.dim))
        here = jax.jit(jax.vmap(by_prior.energy))(z)
        np.testing.assert_allclose(here, jax.jit(jax.vmap(there))(z), atol=1e-10)


def test_a_model_in_prior_coordinates_is_the_posterior_of_names():
    with jax.enable_x64(True):
        model = Posterior(normal_model)
        by_name = bf.Posterior(
            lambda mu: jnp.sum(dist.Normal(mu, 1.0).log_prob(OBSERVED)), {"mu": bf.priors.Normal(0.0, 2.0)}
        )
        z = jnp.array([0.7])
        np.testing.assert_allclose(model.energy(z), by_name.energy(z), atol=1e-12)


def test_the_prior_is_the_base_where_all_coordinates_are_of_priors():
    assert prior_of(Posterior(normal_model)).dim == 1
    assert prior_of(Posterior(normal_model, coordinates="unconstrained")) is None
    assert prior_of(Posterior(eight_schools)) is None  # a correlation matrix has NumPyro's coordinates


def test_a_prior_that_is_scaled_or_masked_keeps_its_weight():
    def model():
        with numpyro.handlers.scale(scale=2.0):
            numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("b", dist.Normal(0.0, 3.0))

    z = jnp.array([0.5, 1.0])
    expected = -2 * dist.Normal(0, 1).log_prob(0.5) + 0.5 + 0.5 * np.log(2 * np.pi)
    assert Posterior(model).energy(z) == pytest.approx(float(expected), rel=1e-6)


def test_plates_of_subsamples_and_unknown_coordinates_are_refused(unchecked):
    def subsampled():
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 3, subsample_size=2) as index:
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=OBSERVED[index])

    with pytest.raises(bf.InputError, match="the plate 'data' takes 2 of 3 data at random"):
        Posterior(subsampled)
    with pytest.raises(bf.InputError, match="coordinates must be 'prior' or 'unconstrained'"):
        Posterior(normal_model, coordinates="centered")


def test_sites_are_sorted_by_name():
    def model():
        numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("a", dist.Normal(0.0, 1.0).expand([2]).to_event(1))

    posterior = Posterior(model)
    assert list(posterior.site_shapes.items()) == [("a", (2,)), ("z", ())]
    np.testing.assert_array_equal(posterior.sites(np.array([[1.0, 2.0, 3.0]]))["a"], [[1.0, 2.0]])


def test_arguments_reach_the_model():
    assert Posterior(normal_model, 2 * OBSERVED).energy(jnp.ones(1)) != Posterior(normal_model).energy(jnp.ones(1))
    assert Posterior(normal_model, y=2 * OBSERVED).dim == 1


def broken():
    numpyro.sample("x", dist.Normal(0, jnp.ones(3)))
    raise RuntimeError("no data")


def test_invalid_models_are_refused():
    with pytest.raises(bf.InputError, match="RuntimeError: no data"):
        Posterior(broken)
    with pytest.raises(bf.InputError, match="no continuous latent site"):
        Posterior(lambda: numpyro.sample("y", dist.Normal(0, 1), obs=1.0))


def with_a_mistake(y=OBSERVED):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(mu, undefined_scale), obs=y)


def mistake_before_any_site(y=OBSERVED):
    scale = np.array([1.0])[3]
    numpyro.sample("y", dist.Normal(0.0, scale), obs=y)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (with_a_mistake, r"NameError: name 'undefined_scale' is not defined \(test_numpyro.py, line \d+\)"),
        (mistake_before_any_site, r"IndexError: .* \(test_numpyro.py, line \d+\)"),
    ],
)
def test_mistake_in_a_model_is_told_with_its_line(model, words):
    for build in (Posterior, is_model):
        with pytest.raises(bf.InputError, match=words):
            build(model)


def test_discrete_sites_are_refused_with_what_to_do():
    def coin():
        numpyro.sample("side", dist.Bernoulli(0.5))
        numpyro.sample("mu", dist.Normal(0.0, 1.0))

    for latent in (coin, lambda: numpyro.sample("k", dist.Poisson(3.0))):
        with pytest.raises(bf.InputError, match=r"is discrete .* marginalize it") as raised:
            Posterior(latent)
        assert "funsor" not in str(raised.value)


def improper_prior(y=OBSERVED):
    mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def improper_posterior():
    numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (2,), ()))
    numpyro.sample("nu", dist.Normal(0.0, 1.0))


def test_improper_prior_is_the_same_in_a_file_and_in_python(tmp_path):
    lines = "import numpyro\nimport numpyro.distributions as dist\nimport jax.numpy as jnp\n"
    body = f"{lines}OBSERVED = jnp.array([1.3, 0.4, 2.2])\n"
    body += inspect.getsource(improper_prior) + inspect.getsource(improper_posterior)
    (tmp_path / "improper.py").write_text(body)
    for model in (improper_prior, improper_posterior):
        alone = Posterior(model)
        loaded = load_target(f"{tmp_path}/improper.py:{model.__name__}", {}).target
        assert alone.improper_sites == loaded.improper_sites == ("mu",)
        told = []
        for target in (alone, loaded):
            try:
                check_energy(target, jax.random.normal(jax.random.key(0), (16, target.dim)))
                told.append("")
            except bf.InputError as error:
                told.append(str(error))
        assert told[0] == told[1] and ("no finite integral" in told[0]) == (model is improper_posterior)
    assert Posterior(normal_model).improper_sites == ()


def test_models_are_recognized():
    assert is_model(normal_model) and is_model(scale_model)
    assert not is_model(lambda x: jnp.sum(x**2)) and not is_model(lambda: 3)
    assert is_numpyro_model(normal_model) and is_numpyro_model(functools.partial(normal_model, OBSERVED))
    assert not is_numpyro_model(lambda x: -dist.Normal(0.0, 1.0).log_prob(x).sum()) and not is_numpyro_model(3)


def test_model_in_file_is_a_target(tmp_path):
    (tmp_path / "model.py").write_text(
        "import numpyro\nimport numpyro.distributions as dist\n"
        "def model(y=1.0):\n    mu = numpyro.sample('mu', dist.Normal(0.0, 1.0))\n"
        "    numpyro.sample('y', dist.Normal(mu, 1.0), obs=y)\n"
        "def energy(x):\n    return (x**2).sum()\n"
    )
    assert isinstance(load_target(f"{tmp_path}/model.py:model", {}).target, Posterior)
    assert isinstance(load_target(f"{tmp_path}/model.py:energy", {"dim": 2}).target, bf.Energy)


# --- mistakes inside a model ------------------------------------------------------------------------------------------


def lookup():
    return {}["sensor"]


def fails_late():
    numpyro.sample("mu", dist.Normal(0.0, 1.0))
    lookup()


def fails_in_a_nested_model():
    numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", 3):
        numpyro.sample("y", dist.Normal(jnp.zeros(2), 1.0), obs=jnp.zeros(4))


def test_what_a_model_raises_has_its_file_and_line():
    for call in (is_model, Posterior):
        with pytest.raises(
            bf.InputError, match=r"^the model cannot be run: KeyError: 'sensor' \(test_numpyro.py, line \d+\)$"
        ):
            call(fails_late)
        with pytest.raises(
            bf.InputError, match=r"^the model cannot be run: \w+: .* \(test_numpyro.py, line \d+\)$"
        ) as raised:
            call(fails_in_a_nested_model)
        assert "\n" not in str(raised.value)
    assert not is_model(lookup)  # it may be anything


def test_methods_of_a_posterior_compile():
    posterior = Posterior(normal_model)
    z = jnp.asarray([0.3])
    np.testing.assert_allclose(jax.jit(posterior.energy)(z), posterior.energy(z), rtol=1e-6)
