"""Non-centered coordinates: the map, its fit to points with a neck, and runs that are sampled in them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.base import prior_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.noncentered import NonCentered, NonCentering
from boltzflow.model.interpolations import Clock
from boltzflow.priors import Normal
from boltzflow.sampling import exploring
from boltzflow.sampling.noncentering import fit_noncentering, narrowest, narrowness
from boltzflow.sampling.pilot import Pilot, in_coordinates
from boltzflow.testing import check_density, check_distribution

FULL_PILOT = True  # of an eighth of the points the mixture lacks a part of the neck
NUM = 4096
STD = 2.0


def funnel(x):
    """x₀ ~ N(0, 2²), x_i ~ N(0, variance e^{x₀}): log Z = 0."""
    wide = 0.5 * (x[0] / STD) ** 2 + jnp.log(STD)
    return wide + jnp.sum(0.5 * x[1:] ** 2 * jnp.exp(-x[0]) + 0.5 * x[0]) + 0.5 * x.size * jnp.log(2 * jnp.pi)


def funnel_points(dim=3, num=NUM, below=np.inf, seed=0):
    """Exact samples, without those of a neck beyond `below` standard deviations of x₀."""
    rng = np.random.default_rng(seed)
    first = STD * rng.normal(size=2 * num)
    first = first[first > -below * STD][:num]
    return np.concatenate([first[:, None], np.exp(first / 2)[:, None] * rng.normal(size=(num, dim - 1))], axis=1)


def hierarchy(num=NUM, num_groups=4):
    """Points (μ, log τ, θ): θ ~ N(μ, τ²) with observations of error 3, the last two by exact conditionals."""
    rng = np.random.default_rng(1)
    mean, log_scale = rng.normal(size=num), rng.normal(-1.0, 1.0, size=num)
    variance = np.exp(2 * log_scale)
    seen = np.array([3.0, -2.0, 0.5, 6.0])[:num_groups]
    pulled = variance / (variance + 9.0)
    center = mean[:, None] + pulled[:, None] * (seen - mean[:, None])
    effects = center + np.sqrt(variance * (1 - pulled))[:, None] * rng.normal(size=(num, num_groups))
    return np.concatenate([mean[:, None], log_scale[:, None], effects], axis=1)


def random_map(dim=4):
    """A map with every coefficient that a rank allows."""
    rng = np.random.default_rng(2)
    rank = np.array([1, 0, 2, 1][:dim])
    allowed = np.concatenate([np.ones((dim, 1)), rank[:, None] > rank], axis=1)
    means, log_scales = allowed * rng.normal(size=(2, dim, dim + 1))
    return NonCentering(
        rng.normal(size=dim), [1.0, 2.0, 0.5, 3.0], means, log_scales, -2.0 * np.ones(dim), np.ones(dim), rank
    )


def raw_slopes(found, i, j):
    """How the mean and the log-scale of coordinate i follow coordinate j, in the units of x."""
    return found.means[i, 1 + j] * found.width[i] / found.width[j], found.log_scales[i, 1 + j] / found.width[j]


# --- the map ----------------------------------------------------------------------------------------------------------


def test_map_is_inverted_and_has_its_jacobian():
    found = random_map()
    with jax.enable_x64(True):
        for z in np.random.default_rng(3).normal(size=(5, 4)):
            x, log_jacobian = found.forward(jnp.asarray(z))
            back, same = found.inverse(x)
            np.testing.assert_allclose(back, z, atol=1e-12)
            matrix = jax.jacfwd(lambda z: found.forward(z)[0])(jnp.asarray(z))
            np.testing.assert_allclose(log_jacobian, np.linalg.slogdet(matrix)[1], atol=1e-12)
            np.testing.assert_allclose(same, log_jacobian, atol=1e-12)


def test_energy_in_other_coordinates_keeps_the_contract_and_log_z():
    """log Z of a Gaussian, as a sum over a grid of z."""
    target = bf.Energy(lambda x: 0.5 * jnp.sum(x**2), 2)
    found = NonCentering(
        [0.3, -0.2], [1.0, 2.0], [[0, 0, 0], [0.4, 0.5, 0]], [[0.1, 0, 0], [0.0, 0.1, 0]], [-2, -2], [2, 2], [0, 1]
    )
    moved = NonCentered(target, found)
    check_density(moved, jax.random.key(0))
    with jax.enable_x64(True):
        line = jnp.linspace(-14.0, 14.0, 561)
        grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
        log_z = jax.nn.logsumexp(-jax.vmap(moved.energy)(grid)) + 2 * jnp.log(line[1] - line[0])
    assert float(log_z) == pytest.approx(np.log(2 * np.pi), abs=1e-6)


def test_a_prior_is_that_of_the_target():
    """z is the same point whatever the coordinates of the prior: its density is that of x times the Jacobian."""
    posterior = bf.Posterior(lambda a, b: -0.5 * (a + b) ** 2, {"a": Normal(0.0, 1.0), "b": Normal(0.0, 1.0)})
    found = NonCentering(
        [0.3, -0.2], [1.0, 2.0], [[0, 0, 0], [0.4, 0.5, 0]], [[0.1, 0, 0], [0.0, 0.3, 0]], [-2, -2], [2, 2], [0, 1]
    )
    prior = prior_of(NonCentered(posterior, found))
    check_distribution(prior, jax.random.key(0))
    assert prior_of(NonCentered(bf.Energy(funnel, 2), found)) is None


# --- its fit ----------------------------------------------------------------------------------------------------------


def test_scales_of_a_funnel_are_found():
    found = fit_noncentering(funnel_points(5))
    assert found.rank == (0, 1, 1, 1, 1)
    for i in range(1, 5):
        assert raw_slopes(found, i, 0)[1] == pytest.approx(0.5, abs=4 * 1 / np.sqrt(2 * NUM) / STD)


def test_a_funnel_in_a_funnel_has_three_ranks():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM, 3))
    x[:, 1] *= np.exp(x[:, 0])
    x[:, 2] *= np.exp(x[:, 1] / 4)
    assert fit_noncentering(x).rank == (0, 1, 2)


def test_effects_follow_their_mean_in_the_neck():
    """There θ = μ + τ z: a slope that differs from 1 leaves a neck of its own behind."""
    found = fit_noncentering(hierarchy())
    assert found.rank == (0, 0, 1, 1, 1, 1)
    for i in range(2, 6):
        of_mean, of_scale = raw_slopes(found, i, 0)[0], raw_slopes(found, i, 1)[1]
        assert of_mean == pytest.approx(1.0, abs=0.01)
        assert 0.85 < of_scale < 1.0  # below 1 where the likelihood bounds the scale


def test_members_of_groups_come_after_their_group():
    """Groups ~ N(0, e^{2 x₀}), members ~ N(group, e^{2 x₁}): the scales of members alone follow both."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=NUM)
    second = 0.5 * first + rng.normal(size=NUM)
    groups = np.exp(first)[:, None] * rng.normal(size=(NUM, 3))
    members = np.repeat(groups, 2, axis=1) + np.exp(second)[:, None] * rng.normal(size=(NUM, 6))
    found = fit_noncentering(np.concatenate([first[:, None], second[:, None], groups, members], axis=1))
    assert found.rank == (0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2)
    for i in range(5, 11):
        group = 2 + (i - 5) // 2
        assert raw_slopes(found, i, group)[0] == pytest.approx(1.0, abs=0.02)
        assert raw_slopes(found, i, 1)[1] == pytest.approx(1.0, abs=4 / np.sqrt(2 * NUM))


def test_points_without_a_neck_have_no_map():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(NUM, 4)) @ rng.normal(size=(4, 4))
    assert fit_noncentering(mixed) is None
    assert fit_noncentering(mixed / np.sqrt(rng.chisquare(5, size=(NUM, 1)) / 5)) is None
    assert fit_noncentering(np.zeros((NUM, 2))) is None


def test_narrow_places_are_measured():
    target = bf.Energy(funnel, 3)
    x = funnel_points()
    even = NonCentered(target, fit_noncentering(x))
    z = np.asarray(jax.vmap(lambda x: even.noncentering.inverse(x)[0])(jnp.asarray(x)))
    assert narrowness(target, x) > 5 > 3 > narrowness(even, z)
    found = even.noncentering
    assert narrowest(found, x) < narrowest(found, funnel_points(below=1.0)) - 1


# --- the pilot --------------------------------------------------------------------------------------------------------


def pilot_of(points, log_z=0.0, **changes):
    """A pilot that has found these points."""
    dim = points.shape[1]
    found = Pilot(
        base=Gaussian(np.zeros(dim), 1.0),
        clock=Clock(),
        active_subspace=None,
        points=points,
        wide_points=points,
        minima=points[:4],
        path_times=np.array([0.0, 1.0]),
        path_points=points[None, :4].repeat(2, axis=0),
        log_z=log_z,
        log_z_stderr=0.01,
        acceptance=0.9,
        num_gradients=100,
        num_particles=len(points),
        nonfinite_share=0.0,
    )
    return dataclasses.replace(found, **changes)


@pytest.fixture
def pilots(monkeypatch):
    """Pilots that find the funnel down to so many standard deviations, in whatever coordinates they are asked."""
    asked = []

    def find(depths, **changes):
        def run_pilot(target, key, base=None, pace=True):
            x = funnel_points(below=depths[len(asked)])
            asked.append(target)
            z = x
            if isinstance(target, NonCentered):
                z = np.asarray(jax.vmap(lambda x: target.noncentering.inverse(x)[0])(jnp.asarray(x)))
            return pilot_of(z, **(changes if len(asked) > 1 else {}))

        monkeypatch.setattr(exploring, "run_pilot", run_pilot)
        return exploring.explore(bf.Energy(funnel, 3), jax.random.key(0)), asked

    return find


def test_coordinates_are_fitted_until_points_reach_no_farther(pilots):
    pilot, asked = pilots([1.5, 2.2, np.inf, np.inf])
    assert len(asked) == 4 and pilot.num_gradients == 400
    assert not pilot.complaints and "in these it is 2." in pilot.coordinates
    assert pilot.known_points.shape == (2, NUM, 3) and len(pilot.point_sets) == 4 and len(pilot.minima) == 8
    known = jax.vmap(lambda z: pilot.noncentering.forward(z)[0])(jnp.asarray(pilot.minima[4:]))
    np.testing.assert_allclose(known, funnel_points(below=1.5)[:4], rtol=1e-4, atol=1e-4)
    moved = in_coordinates(asked[0], pilot)
    assert isinstance(moved, NonCentered) and in_coordinates(moved, pilot) is moved


def test_a_neck_without_an_end_is_a_complaint(pilots, monkeypatch):
    depth = iter(range(0, -100, -1))
    monkeypatch.setattr(exploring, "narrowest", lambda *_: float(next(depth)))
    pilot, _ = pilots([1.5] + 6 * [np.inf])
    assert "farther into the neck" in pilot.complaints[-1]


def test_a_neck_whose_next_map_is_not_found_is_a_complaint(pilots, monkeypatch):
    maps = iter([fit_noncentering(funnel_points()), None])
    monkeypatch.setattr(exploring, "fit_noncentering", lambda points: next(maps))
    pilot, asked = pilots([1.5, np.inf])
    assert len(asked) == 2 and pilot.noncentering is not None and "farther into the neck" in pilot.complaints[-1]


@pytest.mark.parametrize("worse", [{"log_z": -1.0}, {"complaints": ("It failed.",)}], ids=["log Z", "complaint"])
def test_coordinates_that_find_less_are_not_taken(pilots, worse):
    pilot, asked = pilots([np.inf, np.inf], **worse)
    assert len(asked) == 2 and pilot.noncentering is None and pilot.num_gradients == 200


@pytest.mark.parametrize(
    "declared", [{}, {"sign_symmetric": True}, {"lattice_shape": (3,)}, {"periodic": [False, True, False]}], ids=str
)
def test_what_is_declared_keeps_its_coordinates(monkeypatch, declared):
    monkeypatch.setattr(exploring, "run_pilot", lambda target, *_, **__: pilot_of(funnel_points(target.dim)))
    adapt = bool(declared)  # and a loss of the user's own
    assert exploring.explore(bf.Energy(funnel, 3, **declared), jax.random.key(0), adapt=adapt).noncentering is None


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_uneven_places_that_cannot_be_measured_change_nothing(pilots, monkeypatch, value):
    monkeypatch.setattr(exploring, "narrowness", lambda *_: value)
    pilot, asked = pilots([np.inf])
    assert len(asked) == 1 and pilot.noncentering is None


def test_parts_that_depend_on_coordinates_keep_them():
    parts = bf.Parts(loss=lambda transport, times, points, key: jnp.mean(times))
    assert parts.depend_on_coordinates and not bf.Parts(penalty=jnp.abs).depend_on_coordinates
    pilot = pilot_of(funnel_points(), noncentering=fit_noncentering(funnel_points()))
    parts = bf.Parts(make_field=lambda base, key: None)
    with pytest.raises(bf.InputError, match="explore with the same parts"):
        bf.make_transport(bf.Energy(funnel, 3), pilot, jax.random.key(0), parts=parts)


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    """A funnel of which the pilot finds all, whose flow is hardly trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exploring, "_NARROW", 2.0)
        target = bf.Energy(funnel, 3, lower=[-8.0, -np.inf, -np.inf])  # at four standard deviations of x₀
        return bf.fit(target, preset="quick", config={"num_steps": 30, "width": 16, "num_networks": 2})


def test_a_run_is_sampled_in_other_coordinates_and_answers_in_its_own(run):
    assert run.pilot.noncentering is not None
    report = run.report()
    assert report.verdict.trustworthy and any("non-centered" in note for note in report.verdict.notes)
    log_z = run.log_z()
    assert log_z.ok and abs(log_z.value) < 4 * log_z.stderr < 0.2
    found = run.expectation(lambda x: {"square": x[0] ** 2, "neck": (x[0] < -4.0).astype(float)})
    assert abs(found["square"].value - STD**2) < 4 * found["square"].stderr < 0.8
    assert abs(found["neck"].value - 0.02275) < 4 * found["neck"].stderr < 0.02
    raw = run.expectation(lambda z: run.target.constrain(z)[0] ** 2, unconstrained=True)
    assert raw.value == pytest.approx(float(found["square"].value))
    samples = run.sample(jax.random.key(1), 2000)
    with jax.enable_x64(True):
        energy = jax.vmap(lambda x: funnel(x))(jnp.asarray(samples.x))
    np.testing.assert_allclose(samples.energy, energy, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(samples.log_weight, -samples.energy - samples.log_prob, atol=1e-9)


def test_a_run_in_other_coordinates_is_loaded(run, tmp_path):
    run.save(tmp_path)
    loaded = bf.load(tmp_path, run.target)
    assert loaded.pilot.coordinates == run.pilot.coordinates
    assert loaded.log_z().value == run.log_z().value
    ours, theirs = (one.sample(jax.random.key(2), 100) for one in (run, loaded))
    np.testing.assert_array_equal(ours.x, theirs.x)


def test_figures_are_in_the_coordinates_of_the_target(run):
    points = run.draws.of_target(np.zeros((1, 3)))
    x, log_jacobian = run.pilot.noncentering.forward(jnp.zeros(3))
    np.testing.assert_allclose(points[0], x, atol=1e-6)
    np.testing.assert_allclose(run.draws.log_jacobian(np.zeros((1, 3)))[0], log_jacobian, atol=1e-5)
    assert run.plot.corner([0, 1]) and run.plot.marginals()


def test_no_flow_goes_on_from_one_in_other_coordinates(run):
    start = run.as_start()
    _, started = start.carried(run.trained.transport, run.pilot, run.draws.target, jax.random.key(0), run.config)
    assert "non-centered" in started.anew
