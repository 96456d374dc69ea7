"""What a user of Python sees: progress, short texts of results, pictures, tables, a saved run that opens at once."""

import dataclasses
import json
import subprocess
import sys

import jax
import matplotlib.figure
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import make_preset, with_changes
from boltzflow.errors import InputError
from boltzflow.report.draws import Draws
from boltzflow.report.figures import Plots
from boltzflow.run.fitting import _settle
from boltzflow.sampling.corrections import Corrected
from boltzflow.statistics.estimates import exact
from boltzflow.statistics.notation import concise, concise_array

FEW = bf.Config(num_steps=20, width=16, num_networks=2, num_eval_samples=2048, route="flow")


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def unmeasured(told):
    return bf.fit(bf.mixture_2(), config=FEW, name="mixture-2", on_progress=told.append)


@pytest.fixture(scope="module")
def run(unmeasured, told):
    before = repr(unmeasured), unmeasured._repr_html_(), unmeasured.measured
    assert before[2] is None and "not measured yet" in before[0] and "20 steps" in before[1]
    assert {row.phase for row in told} == {"pilot", "compile", "train"}
    unmeasured.report()
    return unmeasured


# --- progress ---------------------------------------------------------------------------------------------------------


def test_the_callback_hears_of_the_pilot_the_steps_and_the_report(run, told):
    shares = {phase: [row.share for row in told if row.phase == phase] for phase in ("pilot", "train", "evaluate")}
    for phase, found in shares.items():
        known = [share for share in found if share is not None]
        assert known == sorted(known) and 0 <= known[0] <= known[-1] <= 1, phase
        assert len(known) >= 2
    assert shares["train"] == [0.5, 1.0]
    messages = {row.message for row in told if row.phase in ("pilot", "evaluate")}
    assert {"SMC from a wide base", "descent to minima", "annealing along the path"} <= messages


@pytest.mark.parametrize(("progress", "is_shown"), [(None, False), (False, False), (True, True)])
def test_a_report_is_shown_where_somebody_watches_or_asks_for_it(run, monkeypatch, capsys, progress, is_shown):
    monkeypatch.setattr("boltzflow.run.run.report_of", lambda draws, name, options: run.measured)
    unmeasured = dataclasses.replace(run, measured=None, on_progress=None)
    assert unmeasured.report(progress=progress) is run.measured
    said = capsys.readouterr()
    assert said.out == "" and ("measuring" in said.err) == is_shown


def test_the_library_loads_no_display_and_no_pictures():
    program = "import boltzflow, sys; print({'rich', 'tyro', 'matplotlib', 'pandas', 'IPython'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# --- short texts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (1.050931, 0.000049, "1.05093(5)"),
        (-12.3456, 1.2, "-12.3(1.2)"),
        (41234.0, 120.0, "41230(120)"),
        (0.5, 0.0, "0.5"),
        (5.0, 0.96, "5.0(10)"),
        (3.2e-9, 4e-11, "3.20(4)e-09"),
        (np.nan, 1.0, "nan ± 1"),
        (1.0, np.inf, "1 ± inf"),
    ],
)
def test_concise_notation(value, stderr, text):
    assert concise(value, stderr) == text


def test_concise_notation_is_read_back_within_a_tenth_of_the_error():
    rng = np.random.default_rng(0)
    for value, size in zip(rng.normal(size=300), rng.uniform(-6, 0, 300), strict=True):
        stderr = 10.0**size
        number, error = concise(10 * value, stderr).rstrip(")").split("(")
        decimals = len(number.partition(".")[2])
        error = float(error) if "." in error else int(error) * 10.0**-decimals
        assert abs(float(number) - 10 * value) <= 0.51 * 10.0**-decimals
        assert abs(error - stderr) <= 0.2 * stderr


def test_arrays_are_shown_by_their_entries_and_long_ones_by_their_ends():
    assert concise_array([1.0, 2.0], [0.1, 0.2]) == "[1.00(10), 2.00(20)]"
    assert "..." in concise_array(np.arange(1000.0), 0.5)


def test_an_estimate_that_is_not_ok_says_why():
    good, bad = exact(1.5, stderr=0.04), bf.Estimate(1.5, 0.04, 10, ok=False, reason="Too <few>.")
    assert repr(good) == "1.50(4)" and str(bad) == "1.50(4) ! Too <few>."
    assert "Too &lt;few&gt;." in bad._repr_html_() and "!" not in good._repr_html_()


def test_texts_of_results_are_short_and_have_the_answer(run):
    for thing in (run, run.report(), run.report().verdict, run.pilot, run.samples, run.log_z()):
        assert len(repr(thing)) < 1500 and len(thing._repr_html_()) < 2500
    number = repr(run.report().estimates["log_z"])
    for text in (repr(run), repr(run.report()), run._repr_html_()):
        assert number.split(" ")[0] in text and "mixture-2, dim 2, seed 0" in text
    assert run.report().verdict.headline in repr(run)
    assert "2,048 samples in 2 dimensions" in repr(run.samples)
    corrected = Corrected(run.samples.x, run.samples.energy, "metropolis", 1500, 0.8)
    assert repr(corrected).endswith("by metropolis; 1,500 different points, acceptance 80%>")


# --- pictures ---------------------------------------------------------------------------------------------------------

PICTURES = {"path": 10, "training": 4, "weights": 2, "marginals": 2, "corner": 4, "energy": 1}


@pytest.mark.parametrize(("name", "num_axes"), PICTURES.items())
def test_pictures_are_figures_and_are_drawn_on_axes_of_the_users(run, name, num_axes):
    figure = getattr(run.plot, name)()
    assert isinstance(figure, matplotlib.figure.Figure) and len(figure.axes) == num_axes
    assert figure._repr_png_().startswith(b"\x89PNG")
    own = matplotlib.figure.Figure()
    axes = own.subplots(1, num_axes, squeeze=False)[0]
    given = {"ax" if name == "energy" else "axes": axes[0] if num_axes == 1 else axes}
    assert getattr(run.plot, name)(**given) is own
    assert any(ax.has_data() for ax in own.axes)
    with pytest.raises(InputError, match=r"the picture needs .* as from plt.subplots"):
        getattr(run.plot, name)(**dict.fromkeys(given, own.subplots(1, 3)))


def test_corner_takes_coordinates_of_the_target(run, unchecked):
    figure = run.plot.corner([1])
    assert figure.axes[0].get_xlabel() == "x[1]"
    for wrong in ([2], [-1], 0, [], "x"):
        with pytest.raises(InputError, match="coordinate"):
            run.plot.corner(wrong)


def test_the_marginals_of_a_corner_are_those_of_the_samples(run):
    def heights(ax, label):
        return next(patch.get_data() for patch in ax.patches if patch.get_label() == label)

    ax = run.plot.corner([0]).axes[0]
    values, edges, _ = heights(ax, "flow, reweighted")
    samples = run.samples
    known, _ = np.histogram(samples.x[:, 0], edges, weights=samples.weight / samples.weight.sum())
    np.testing.assert_allclose(values * np.diff(edges), known, atol=1e-12)
    known, _ = np.histogram(samples.x[:, 0], edges)
    np.testing.assert_allclose(heights(ax, "flow")[0] * np.diff(edges), known / len(samples), atol=1e-12)


def test_a_picture_that_a_run_has_not_is_refused(run):
    target = bf.Gaussian(np.zeros(3), 1.0)
    draws = dataclasses.replace(run.draws, target=target, trained=dataclasses.replace(run.trained, history=[]))
    plots = Plots(draws, lambda: None)
    with pytest.raises(InputError, match=r"two dimensions, and this target has 3: see run\.plot\.corner"):
        plots.path()
    with pytest.raises(InputError, match="not trained"):
        plots.training()


# --- tables -----------------------------------------------------------------------------------------------------------


def test_samples_as_arrays_and_as_a_table(run):
    samples = run.sample(jax.random.key(1), 50)
    arrays = samples.to_numpy()
    assert list(arrays) == ["x", "log_weight", "log_prob", "energy"] and len(samples) == 50
    pandas = pytest.importorskip("pandas")
    table = samples.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["x0", "x1", "log_weight", "log_prob", "energy"]
    np.testing.assert_array_equal(table[["x0", "x1"]].to_numpy(), arrays["x"])
    assert samples.weight.max() == 1.0


def test_weights_of_failed_samples_are_zero():
    log_weight = np.array([0.0, np.nan, -np.inf, np.log(0.5)])
    samples = bf.Samples(np.zeros((4, 1)), log_weight, log_weight, log_weight)
    np.testing.assert_allclose(samples.weight, [1.0, 0.0, 0.0, 0.5])
    none = np.full(2, -np.inf)
    assert not bf.Samples(np.zeros((2, 1)), none, none, none).weight.any()


def test_a_missing_pandas_is_one_sentence(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="needs pandas: pip install"):
        run.samples.to_dataframe()


def test_the_slope_of_log_z_is_minus_a_mean(run):
    """Of the energy λ f + μ x₀ at λ = 1, μ = 0."""

    def slope(x):
        return {"λ": run.target.energy(x), "μ": x[0]}

    mean, found = run.expectation(slope), run.log_z_gradient(slope)
    for name, estimate in found.items():
        assert estimate.value == -mean[name].value and estimate.stderr == mean[name].stderr > 0


# --- a saved run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(run, tmp_path):
    run.save(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def nothing_is_measured(monkeypatch):
    def measured(*args, **given):
        raise AssertionError("the report is measured again")

    monkeypatch.setattr("boltzflow.run.run.report_of", measured)
    monkeypatch.setattr("boltzflow.report.draws.with_sufficient_steps", measured)
    for part in ("samples", "log_weights", "pool", "heavy"):
        monkeypatch.setattr(Draws, part, property(measured))


def test_a_saved_run_opens_with_its_report(run, saved, nothing_is_measured):
    again = bf.load(saved, bf.mixture_2())
    assert again.report().to_json() == run.report().to_json()
    assert repr(again.log_z()) == repr(run.log_z())
    assert repr(again) == repr(run)


def test_an_expectation_of_a_loaded_run_draws_its_own_samples_alone(run, saved, nothing_is_measured, monkeypatch):
    drawn = []
    sample = Draws.sample
    monkeypatch.setattr(Draws, "sample", lambda self, key, num: drawn.append(num) or sample(self, key, num))
    estimate = bf.load(saved, bf.mixture_2()).expectation(lambda x: x[0], 500)
    assert drawn == [500] and estimate.n == 500


def test_a_loaded_run_has_the_same_samples(run, saved):
    key = jax.random.key(3)
    np.testing.assert_array_equal(bf.load(saved, bf.mixture_2()).sample(key, 20).x, run.sample(key, 20).x)


def test_a_report_of_another_run_or_a_changed_one_is_not_used(saved):
    path = saved / "report.json"
    content = json.loads(path.read_text("utf-8"))
    assert bf.load(saved, bf.mixture_2()).measured
    for change in ({"run": "0" * 32}, {"seed": 1}):
        path.write_text(json.dumps({**content, **change}), "utf-8")
        assert bf.load(saved, bf.mixture_2()).measured is None
    path.write_text("{", "utf-8")
    assert bf.load(saved, bf.mixture_2()).measured is None


def test_a_report_of_other_energies_is_not_used(run, saved):
    """A flow may serve a target that is near; numbers that were measured on another do not."""
    target = bf.mixture_2()
    for offset, is_used in ((0.0, True), (1e-12, True), (1e-5, False)):
        near = bf.Energy(lambda x, by=offset: target.energy(x) + by, 2)
        assert (bf.load(saved, near).measured is not None) == is_used
    with pytest.raises(bf.InputError, match="of another target"):
        bf.load(saved, bf.Energy(lambda x: target.energy(x) + 0.1, 2))


def test_a_run_that_was_not_measured_is_saved_without_a_report(run, tmp_path):
    dataclasses.replace(run, measured=None).save(tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_report_can_be_measured_again(saved, monkeypatch):
    loaded = bf.load(saved, bf.mixture_2())
    known = []
    other = dataclasses.replace(loaded.measured, seed=5)
    monkeypatch.setattr("boltzflow.run.run.report_of", lambda draws, name, options: known.append(draws.known) or other)
    assert loaded.report(again=True) is other is loaded.report()
    assert known == [{}]


# --- what `fit` is given ----------------------------------------------------------------------------------------------

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
    target = bf.Energy(lambda x: (x**2).sum(), 2)
    name, config = _settle(target, "default", {"preset": "quick", "num_steps": 7}, "")
    assert config == with_changes(make_preset("quick"), {"num_steps": 7}) and name == "Energy"
    assert _settle(target, "quick", {"base_std": 2}, "")[1].base == "gaussian"
    assert _settle(target, "quick", {}, "")[1] == make_preset("quick")
