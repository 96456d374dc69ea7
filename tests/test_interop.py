"""Targets from other libraries: functions outside JAX, and NumPyro models."""

import functools
import inspect
import json
import platform
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import boltzflow as bf
from boltzflow.config import default_preset, make_preset, with_changes
from boltzflow.densities.energy import check_energy
from boltzflow.densities.from_file import load_target
from boltzflow.interop.callback import Callback
from boltzflow.interop.numpyro import Posterior, is_model
from boltzflow.numerics.validation import is_numpyro_model
from boltzflow.run.fitting import _settle

PRECISION = np.array([[2.0, 0.3], [0.3, 0.5]])
LOG_Z = float(np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1])


def gaussian(x):
    return 0.5 * np.einsum("ni,ij,nj->n", x, PRECISION, x), x @ PRECISION


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_callback_returns_energy_and_gradient_in_one_call():
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return gaussian(x)

    target = Callback(counted, 2)
    x = jax.random.normal(jax.random.key(0), (7, 2))
    sizes.clear()
    energy, gradient = jax.block_until_ready(jax.jit(jax.vmap(jax.value_and_grad(target.energy)))(x))
    assert sizes == [7]
    np.testing.assert_allclose(energy, gaussian(np.asarray(x))[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, gaussian(np.asarray(x))[1], rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.vmap(target.energy))(x[None]), energy[None], rtol=1e-6)
    check_energy(target, x)


def test_callback_trains_to_exact_log_z():
    config = with_changes(default_preset(), {"num_steps": 100, "width": 8, "num_eval_samples": 4096})
    run = bf.fit(Callback(gaussian, 2), config=config)
    assert run.report().verdict.trustworthy
    assert abs(run.log_z().value - LOG_Z) < 5 * run.log_z().stderr


def fails(x):
    raise RuntimeError("no such\nmolecule")


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: (gaussian(x)[0], 2 * gaussian(x)[1]), "the gradient is not that of the energy: at x = "),
        (lambda x: (gaussian(x)[0], -gaussian(x)[1]), "the gradient gives"),
        (lambda x: gaussian(x)[0], "energies and gradients"),
        (lambda x: (gaussian(x)[0][:, None], gaussian(x)[1]), r"got \(4, 1\) and \(4, 2\)"),
        (lambda x: (np.full(len(x), np.nan), x), "give check_at"),
        (fails, "RuntimeError: no such molecule"),
    ],
)
def test_invalid_callback_is_refused(fn, words):
    with pytest.raises(bf.InputError, match=words):
        Callback(fn, 2)


def test_callback_stops_at_time_limit():
    started = time.perf_counter()
    with pytest.raises(bf.InputError, match=r"more than 0.1 s for 4 points"):
        Callback(lambda x: time.sleep(30), 2, time_limit=0.1)
    assert time.perf_counter() - started < 5


def test_callback_works_after_timeout_or_error():
    moods = iter(["ok"] * 6 + ["slow", "ok", "fails", "ok"])  # the gradient check makes the first five calls

    def moody(x):
        mood = next(moods)
        if mood == "fails":
            raise RuntimeError("no such molecule")
        time.sleep(5 if mood == "slow" else 0)
        return gaussian(x)

    target = Callback(moody, 2, time_limit=0.5)
    assert target.energy(jnp.ones(2)) == pytest.approx(gaussian(np.ones((1, 2)))[0][0])
    for _ in range(2):
        with pytest.raises(Exception, match=r"more than 0.5 s|no such molecule"):
            jax.block_until_ready(target.energy(jnp.ones(2)))
        assert target.energy(jnp.ones(2)) == pytest.approx(gaussian(np.ones((1, 2)))[0][0])


def test_system_exit_in_callback_is_an_error():
    with pytest.raises(bf.InputError, match="SystemExit: 3"):
        Callback(lambda x: sys.exit(3), 2)


def test_interop_modules_load_on_access():
    program = "import boltzflow; print([boltzflow.interop.callback.Callback, boltzflow.interop.arviz.to_datatree])"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'pymc'"):
        bf.interop.pymc  # noqa: B018


def test_callback_may_modify_its_points():
    def greedy(x):
        result = gaussian(x)
        if len(x) == 7:  # not in the gradient check
            x[:] = np.nan
        return result

    target = Callback(greedy, 2)
    for double in (False, True):
        with jax.enable_x64(double):
            x = jax.random.normal(jax.random.key(0), (7, 2))
            energy, same = jax.jit(lambda x: (jax.vmap(target.energy)(x), x + 0))(x)
            np.testing.assert_array_equal(same, x)
            np.testing.assert_allclose(energy, gaussian(np.asarray(x))[0], rtol=1e-5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not changed")
def test_callback_keeps_freed_memory():
    import resource

    faults = []

    def hungry(x):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for _ in range(4):
            _ = [np.ones(2**18) for _ in range(4)]  # 512 pages each, 8192 in all if mapped anew
        faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
        return gaussian(x)

    target = Callback(hungry, 2)
    faults.clear()
    for _ in range(5):
        jax.block_until_ready(target.energy(jnp.ones(2)))
    assert sorted(faults)[2] < 100


# --- NumPyro ----------------------------------------------------------------------------------------------------------

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
        (with_a_mistake, r"NameError: name 'undefined_scale' is not defined \(test_interop.py, line \d+\)"),
        (mistake_before_any_site, r"IndexError: .* \(test_interop.py, line \d+\)"),
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


def unused_target(x):
    return jnp.sum(x**2)


NO_FITS = {
    "fit(model)": "got the NumPyro model model: wrap it as boltzflow.interop.numpyro.Posterior(model)",
    "fit(function)": "got the function function: wrap it as boltzflow.Energy(function, dim)",
    "fit(bf.DoubleWell)": "got the class DoubleWell, a density: give an instance of a density, as in DoubleWell(...)",
    "fit(dict)": "got the class dict, a class that is no density",
    "fit(3.0)": "got float: wrap a function",
    "fit(None)": "got NoneType",
    "fit(target, config={'num_step': 3})": "no setting 'num_step'",
    "fit(target, config={'num_steps': 'many'})": "num_steps must be a whole number",
    "fit(target, config={'preset': 'best'})": "preset must be one of",
    "fit(target, config={3: 4})": "no setting 3",
    "fit(target, config='quick')": "config must be a boltzflow.Config or a dict of settings, got 'quick'",
    "fit(target, config=bf.Config)": "config must be a boltzflow.Config or a dict",
    "fit(target, config=0)": "config must be a boltzflow.Config or a dict",
    "fit(target, preset=None)": "Unknown preset None",
    "fit(target, preset=['quick'])": "Unknown preset ['quick']",
}


def test_what_cannot_be_fitted_is_one_sentence_that_says_what_to_do():
    """In another process: this one checks the types of all arguments first."""
    script = (
        "import json, boltzflow as bf, numpyro, numpyro.distributions as dist\n"
        "from boltzflow import fit\n"
        "def model(): numpyro.sample('mu', dist.Normal(0.0, 1.0))\n"
        "def function(x): return (x**2).sum()\n"
        "target = bf.Energy(function, 2)\nfound = {}\n"
        f"for call in {list(NO_FITS)!r}:\n"
        "    try: eval(call)\n"
        "    except bf.InputError as error: found[call] = str(error)\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert [call for call, words in NO_FITS.items() if words not in found.get(call, "")] == []
    assert not any("\n" in sentence for sentence in found.values())


def test_settings_may_be_a_dict_of_changes():
    target = bf.Energy(unused_target, 2)
    name, config = _settle(target, "default", {"preset": "quick", "num_steps": 7}, "")
    assert config == with_changes(make_preset("quick"), {"num_steps": 7}) and name == "Energy"
    assert _settle(target, "quick", {"base_std": 2}, "")[1].base == "gaussian"
    assert _settle(target, "quick", {}, "")[1] == make_preset("quick")


def test_models_are_recognized():
    assert is_model(normal_model) and is_model(scale_model)
    assert not is_model(gaussian) and not is_model(lambda: 3)
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
            bf.InputError, match=r"^the model cannot be run: KeyError: 'sensor' \(test_interop.py, line \d+\)$"
        ):
            call(fails_late)
        with pytest.raises(
            bf.InputError, match=r"^the model cannot be run: \w+: .* \(test_interop.py, line \d+\)$"
        ) as raised:
            call(fails_in_a_nested_model)
        assert "\n" not in str(raised.value)
    assert not is_model(lookup)  # it may be anything


def test_methods_of_a_posterior_compile():
    posterior = Posterior(normal_model)
    z = jnp.asarray([0.3])
    np.testing.assert_allclose(jax.jit(posterior.energy)(z), posterior.energy(z), rtol=1e-6)
