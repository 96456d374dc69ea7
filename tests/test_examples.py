"""The examples: fast checks, and as slow tests whole runs against long runs of other samplers."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import boltzflow as bf
from boltzflow.densities.from_file import load_target
from boltzflow.statistics.estimates import disagreement, exact

FULL_PILOT = True

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))


def target_of(name):
    needed = {"butane": "openmm", "pymc_model": "pymc"}
    pytest.importorskip(needed.get(name.split(".")[0], "numpyro"))
    return load_target(str(EXAMPLES / name), {}).target


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("skew_normal.py:target", 4),
        ("two_groups.py:model", 2),
        ("eight_schools.py:model", 10),
        ("butane.py:target", 12),
        ("phi4.py:target", 64),
        ("xy_model.py:target", 32),
        ("two_models.py:line", 2),
        ("sinusoid.py:target", 3),
        ("sinusoid.py:bounded", 3),
        ("pymc_model.py:target", 2),
    ],
)
def test_every_example_is_a_target(name, dim):
    assert target_of(name).dim == dim


def test_skew_normal_log_z_matches_quadrature():
    """By a sum over a grid in two of the four dimensions, which factorize."""
    import skew_normal

    axis = np.linspace(-8, 8, 401)
    u = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    x = np.concatenate([u, np.zeros_like(u)], axis=1) @ skew_normal.ROTATION
    energy, _ = skew_normal.energy_and_gradient(x)
    others = -2 * np.log(0.5)  # the energy of the two at 0: -log Φ(0) each
    half = np.log(np.sum(np.exp(others - energy)) * (axis[1] - axis[0]) ** 2)
    assert half == pytest.approx(skew_normal.LOG_Z / 2, abs=1e-9)


def test_two_groups_have_two_modes():
    pytest.importorskip("numpyro")
    import two_groups

    log_z, left = two_groups.exact()
    assert 0.6 < left < 0.99 and np.isfinite(log_z)
    target = target_of("two_groups.py:model")
    near, far = (float(target.energy(jnp.asarray(x, jnp.float32))) for x in ([-1.9 / 3, 1.8 / 3], [0.0, 0.0]))
    assert near < far


def test_sinusoid_is_the_same_with_priors_and_with_bounds():
    import sinusoid

    volume = float(np.log(np.prod(sinusoid.UPPER - sinusoid.LOWER)))
    z = jax.random.normal(jax.random.key(0), (5, 3))
    both = [np.asarray(jax.vmap(one.energy)(z)) for one in (sinusoid.target, sinusoid.bounded)]
    np.testing.assert_allclose(both[0] - volume, both[1], rtol=1e-4)


def test_phi4_is_the_lattice_action():
    """Symmetric under shifts and signs, and at λ = 0 a Gaussian whose determinant the Fourier modes give."""
    import phi4

    phi = jax.random.normal(jax.random.key(0), (phi4.SIDE**2,))
    moved = -jnp.roll(phi.reshape(phi4.SIDE, phi4.SIDE), (1, 3), (0, 1)).ravel()
    np.testing.assert_allclose(phi4.action(phi), phi4.action(moved), rtol=1e-5)
    matrix = np.asarray(jax.hessian(lambda x: phi4.action(x, 1.25, 0.0))(phi), np.float64)
    _, log_det = np.linalg.slogdet(matrix / (2 * np.pi))
    assert phi4.free_log_z(1.25) == pytest.approx(-log_det / 2, abs=1e-3)


def test_phi4_observables_of_a_constant_field():
    import phi4

    found = phi4.observables(jnp.full(phi4.SIDE**2, -0.5))
    np.testing.assert_allclose(found["|M|"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found["susceptibility"], 64 * 0.25, rtol=1e-6)
    np.testing.assert_allclose(found["correlator"], np.full(5, 0.25), rtol=1e-6)
    np.testing.assert_allclose(found["Σ φ ∂S"], 64 * (2 * phi4.M2 / 4 + 4 * phi4.LAMBDA / 16), rtol=1e-5)


def test_xy_model_of_two_by_two_sites_is_a_ring_of_doubled_links():
    """Whose log Z is a sum of Bessel functions; and the energy of 4 x 4 equal spins."""
    import xy_model

    order = np.arange(-60, 61)
    for beta in (0.5, 1.0):
        ring = 4 * np.log(2 * np.pi) + np.log(np.sum(special.iv(order, 2 * beta) ** 4))
        assert xy_model.exact_log_z(beta, side=2) == pytest.approx(ring, abs=1e-6)
    found = xy_model.observables(jnp.full(16, 2.0))
    np.testing.assert_allclose([found["energy per site"], found["magnetization²"]], [-2.0, 1.0], rtol=1e-6)
    assert float(xy_model.target.fn(jnp.full(16, 2.0))) == pytest.approx(-32 * xy_model.BETA)


def test_scan_is_of_double_wells():
    import scan

    x = jax.random.normal(jax.random.key(0), (scan.NUM_SITES,))
    for mass in scan.MASSES[[0, -1]]:
        well = bf.DoubleWell(scan.NUM_SITES, mass, total_time=scan.TOTAL_TIME)
        assert float(scan.at(mass).energy(x)) == pytest.approx(float(well.energy(x)), rel=1e-5)
        up, down = (scan.action(x, mass + step) for step in (1e-2, -1e-2))
        assert float(scan.slope(x, mass)) == pytest.approx(float(up - down) / 2e-2, rel=1e-2)


def test_scan_compares_log_z_with_the_integral_of_its_slope():
    """On exact values, of which the spline's error is below that of the samples."""
    import scan

    def log_z(mass):
        return bf.DoubleWell(scan.NUM_SITES, mass).log_z

    slopes = [(log_z(mass + 1e-4) - log_z(mass - 1e-4)) / 2e-4 for mass in scan.MASSES]
    rows = [
        scan.Row(mass, exact(log_z(mass), stderr=1e-4), exact(slope, stderr=7e-3), True, 1.0)
        for mass, slope in zip(scan.MASSES, slopes, strict=True)
    ]
    by_log_z, by_slope = scan.difference(rows)
    assert by_log_z.stderr < by_slope.stderr < 3e-3
    assert by_slope.value == pytest.approx(by_log_z.value, abs=2e-4)


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_finds_log_z_of_skew_normal():
    import skew_normal

    run = bf.fit(target_of("skew_normal.py:target"))
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    assert disagreement(run.log_z(), exact(skew_normal.LOG_Z)) < 4


@pytest.mark.slow
def test_run_finds_log_z_of_xy_model():
    import xy_model

    run = bf.fit(xy_model.target)
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    assert disagreement(run.log_z(), exact(xy_model.exact_log_z(xy_model.BETA))) < 4
    energy = run.expectation(xy_model.observables)["energy per site"]
    assert disagreement(energy, exact(xy_model.exact_energy(xy_model.BETA))) < 4


@pytest.mark.slow
def test_run_finds_log_z_of_phi4():
    """Of a long run with the lattice field, 12.3580 ± 0.0002 (docs/reach.md); and the exact average of Σ φ ∂S."""
    import phi4

    run = bf.fit(phi4.target)
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    assert disagreement(run.log_z(), exact(12.3580, stderr=2e-4)) < 4
    assert disagreement(run.expectation(phi4.observables)["Σ φ ∂S"], exact(64.0)) < 4


@pytest.mark.slow
def test_scan_is_right_at_each_mass_and_in_its_slope():
    import scan

    rows = scan.scan(scan.MASSES[:3])
    assert all(row.trusted for row in rows)
    for row in rows:
        assert disagreement(row.log_z, exact(bf.DoubleWell(scan.NUM_SITES, row.mass).log_z)) < 4
        up, down = (bf.DoubleWell(scan.NUM_SITES, row.mass + step).log_z for step in (1e-4, -1e-4))
        assert disagreement(row.slope, exact((up - down) / 2e-4)) < 4


@pytest.mark.slow
def test_run_finds_evidence_and_modes_of_two_groups():
    import two_groups

    run = bf.fit(target_of("two_groups.py:model"))
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    log_z, left = two_groups.exact()
    assert disagreement(run.log_z(), exact(log_z)) < 4
    found = run.expectation(lambda sites: jnp.where(sites["centers"][0] < sites["centers"][1], 1.0, 0.0))
    assert disagreement(found, exact(left)) < 4


@pytest.mark.slow
def test_runs_find_the_bayes_factor_of_two_models():
    import two_models

    runs = [bf.fit(target) for target in (two_models.line, two_models.constant)]
    ratio = runs[0].log_bayes_factor(runs[1])
    assert ratio.ok and disagreement(ratio, exact(two_models.exact())) < 4


@pytest.mark.slow
def test_run_finds_evidence_and_amplitude_of_the_sinusoid():
    import sinusoid

    log_z, amplitude = sinusoid.exact()
    run = bf.fit(sinusoid.target)
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    assert disagreement(run.log_z(), exact(log_z)) < 4
    assert disagreement(run.expectation(lambda values: values["amplitude"]), exact(amplitude)) < 4


@pytest.mark.slow
def test_run_finds_evidence_and_ratio_of_the_pymc_model():
    target = target_of("pymc_model.py:target")
    import pymc_model

    log_z, ratio = pymc_model.exact()
    run = bf.fit(target)
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    assert disagreement(run.log_z(), exact(log_z)) < 4
    assert disagreement(run.expectation(lambda values: values["ratio"]), exact(ratio)) < 4


@pytest.mark.slow
def test_eight_schools_against_nuts():
    """Means and standard deviations of every site within 3 Monte Carlo errors; evidence within 0.05 of tempered SMC."""
    pytest.importorskip("blackjax")
    import eight_schools
    from numpyro.infer import MCMC, NUTS

    from boltzflow.studies.baselines import smc

    posterior = target_of("eight_schools.py:model")
    run = bf.fit(posterior)
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    kernel = NUTS(eight_schools.model, target_accept_prob=0.95)
    settings = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
    chains = MCMC(kernel, num_warmup=2000, num_samples=20_000, **settings)
    chains.run(jax.random.key(0))
    of_chains = chains.get_samples(group_by_chain=True)
    ours = posterior.sites(run.correct(jax.random.key(1), 40_000).x)
    for name in ("mu", "tau", "theta"):
        theirs = np.asarray(of_chains[name], np.float64)
        own = np.asarray(ours[name], np.float64)
        for power in (1, 2):
            blocks = (theirs**power).reshape(4 * 20, -1, *theirs.shape[2:]).mean(axis=1)  # longer than autocorrelation
            error = np.hypot(blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks)), (own**power).std(axis=0) / 200 * 1.3)
            np.testing.assert_array_less(np.abs(blocks.mean(axis=0) - (own**power).mean(axis=0)) / error, 3)
    other = smc.estimate_log_z(posterior.energy, posterior.dim, jax.random.key(2), 20_000, std=5.0)
    assert abs(run.log_z().value - other.log_z) < 0.05


@pytest.mark.slow
def test_butane_against_langevin():
    """The shares of the three wells, within 3 errors of both."""
    pytest.importorskip("openmm")
    import butane

    run = bf.fit(target_of("butane.py:target"))
    assert run.report().verdict.trustworthy, run.report().verdict.warnings
    parts = np.array([butane.shares(part) for part in np.array_split(butane.langevin(), 10)])
    weight = np.exp(np.asarray(run.samples.log_weight, np.float64) - np.max(run.samples.log_weight))
    ours = butane.shares(butane.dihedral(run.samples.x), weight)
    error = np.hypot(parts.std(axis=0, ddof=1) / np.sqrt(len(parts)), np.sqrt(ours * (1 - ours) / len(weight) * 2))
    np.testing.assert_array_less(np.abs(parts.mean(axis=0) - ours) / error, 3)
