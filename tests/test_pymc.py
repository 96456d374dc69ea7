"""PyMC models as targets: the same energy and names as PyMC's own, and refusals. Skipped without PyMC."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import boltzflow as bf
from bad_input import PYMC
from boltzflow.errors import InputError

pm = pytest.importorskip("pymc")

from boltzflow.interop.pymc import Posterior  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools():
    with pm.Model(coords={"school": list("abcdefgh")}) as model:
        mu = pm.Normal("mu", 0.0, 5.0)
        tau = pm.HalfCauchy("tau", 5.0)
        theta = pm.Normal("theta", mu, tau, dims="school")
        pm.Deterministic("best", theta.max())
        pm.Normal("effect", theta, ERROR, observed=EFFECT, dims="school")
    return model


def families():
    with pm.Model() as model:
        a = pm.Gamma("a", 2.0, 3.0)
        pm.Beta("b", 2.0, a + 1.0)  # of a variable: two normals
        pm.Exponential("c", 3.0)
        d = pm.StudentT("d", 3.0, mu=a, sigma=2.0, shape=2)
        pm.Uniform("e", -1.0, a)
        pm.LogNormal("f", 0.3, 0.5)
        pm.HalfNormal("g", 2.0)
        pm.Cauchy("h", 1.0, 2.0)
        pm.Dirichlet("i", np.array([1.0, 2.0, 3.0]))
        pm.InverseGamma("j", 3.0, 1.0)  # with PyMC's own map
        pm.Normal("k", 0.0, 1.0, shape=2, transform=pm.distributions.transforms.ordered)
        pm.Potential("more", -((d[0] - d[1]) ** 2))
    return model


def test_hierarchy_is_mapped_by_its_priors():
    posterior = Posterior(schools())
    assert posterior.dim == 10 and list(posterior.site_shapes) == ["mu", "tau", "theta"]
    with jax.enable_x64(True):
        z = jax.random.normal(jax.random.key(0), (5, 10))
        values = posterior.values(z)
        energies = jax.vmap(posterior.energy)(z)
    z = np.asarray(z)
    mu, tau, theta = (np.asarray(values[name]) for name in ("mu", "tau", "theta"))
    np.testing.assert_allclose(theta, mu[:, None] + tau[:, None] * z[:, 2:], rtol=1e-9)
    np.testing.assert_allclose(values["best"], theta.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(stats.halfcauchy.cdf(tau, scale=5.0), stats.norm.cdf(z[:, 1]), rtol=1e-9)
    expected = -stats.norm.logpdf(z).sum(axis=1) - stats.norm.logpdf(EFFECT, theta, ERROR).sum(axis=1)
    np.testing.assert_allclose(energies, expected, rtol=1e-10)


def test_unconstrained_energy_is_that_of_pymc():
    model = families()
    posterior = Posterior(model, coordinates="unconstrained")
    with jax.enable_x64(True):
        u = 0.3 * jax.random.normal(jax.random.key(0), (posterior.dim,))
        energy = float(posterior.energy(u))
        parts = posterior._split(u)
    point = {model.rvs_to_values[one].name: np.asarray(parts[one.name]) for one in model.free_RVs}
    assert energy == pytest.approx(-float(model.compile_logp(mode="FAST_COMPILE")(point)), rel=1e-10)


def test_every_family_has_its_prior_and_others_keep_their_map():
    """exp(-energy) changes with the coordinates as PyMC's density with the Jacobian of the map."""
    model = families()
    mapped, plain = Posterior(model), Posterior(model, coordinates="unconstrained")
    assert mapped.dim == plain.dim + 1 and mapped.site_shapes["b"] == (2,) and mapped.site_shapes["i"] == (2,)
    with jax.enable_x64(True):
        z = jax.random.normal(jax.random.key(1), (200, mapped.dim))
        values = {name: np.asarray(value) for name, value in mapped.values(z).items()}
        energies = np.asarray(jax.vmap(mapped.energy)(z))
    assert np.all(values["k"][:, 0] < values["k"][:, 1])
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in mapped.site_shapes.values())])
    of = {name: np.asarray(z)[:, ends[i] : ends[i + 1]] for i, name in enumerate(mapped.site_shapes)}
    for name, frozen in {
        "a": stats.gamma(2.0, scale=1 / 3), "c": stats.expon(scale=1 / 3), "f": stats.lognorm(0.5, scale=np.exp(0.3)),
        "g": stats.halfnorm(scale=2.0), "h": stats.cauchy(1.0, 2.0),
    }.items():  # fmt: skip
        np.testing.assert_allclose(frozen.cdf(values[name]), stats.norm.cdf(of[name][:, 0]), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose((values["e"] + 1) / (values["a"] + 1), stats.norm.cdf(of["e"][:, 0]), rtol=1e-9)
    own = [-stats.norm.logpdf(of[name]).sum(axis=1) for name in of if name not in ("j", "k")]
    j, u = values["j"], of["k"]
    own += [
        -stats.invgamma.logpdf(j, 3.0, scale=1.0) - np.log(j),
        -stats.norm.logpdf(values["k"]).sum(axis=1) - u[:, 1],
    ]
    potential = (values["d"][:, 0] - values["d"][:, 1]) ** 2
    np.testing.assert_allclose(energies, sum(own) + potential, rtol=1e-8)


def test_precision_of_jax_stays():
    Posterior(schools())
    assert not jax.config.jax_enable_x64
    assert jnp.zeros(()).dtype == jnp.float32


def made(fill):
    with pm.Model() as model:
        a = pm.Normal("a")
        fill(a)
    return model


@pytest.mark.parametrize(("code", "message"), [*PYMC, ("pm.HalfFlat('f')", PYMC[1][1].replace("(Flat)", "(HalfFlat)"))])
def test_model_without_an_energy_is_refused_by_name(code, message):
    with pytest.raises(InputError) as raised:
        Posterior(made(lambda a: eval(code, {"pm": pm, "np": np, "a": a})))
    assert str(raised.value) == message


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match=r"model must be a pymc\.Model, got 3"):
        Posterior(3)
    with pytest.raises(InputError, match="no free variable"):
        Posterior(pm.Model())


@pytest.mark.slow
def test_fit_finds_the_evidence_of_a_gaussian():
    data = np.array([0.3, 1.1, -0.4])
    run = bf.fit(Posterior(made(lambda a: pm.Normal("y", a, 0.5, observed=data))))
    exact = stats.multivariate_normal(np.zeros(3), 0.25 * np.eye(3) + 1.0).logpdf(data)
    assert run.report().verdict.trustworthy
    assert abs(run.log_z().value - exact) < 4 * run.log_z().stderr + 1e-5
    mean = run.expectation(lambda values: values["a"])
    assert mean.value == pytest.approx(4 * data.sum() / 13, abs=5 * mean.stderr)
