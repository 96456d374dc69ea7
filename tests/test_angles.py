"""Energies with periods: log Z by quadrature and transfer matrix, the seam, refusals, a run, the command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import boltzflow as bf
from boltzflow.cli import main
from boltzflow.densities.base import prior_of
from boltzflow.densities.energy_checks import check_energy
from boltzflow.interop.arviz import to_datatree
from boltzflow.sampling.pilot import run_pilot
from boltzflow.statistics.estimates import disagreement, exact
from boltzflow.testing import check_density

KAPPA = 3.0


def von_mises(x):
    return -KAPPA * jnp.cos(x[0] - 6.0)


def flat(x):
    return 0.0 * jnp.sum(x)


def of_angle(fn, period):
    """fn of one angle, as a function of a point whose coordinate has another period."""
    return lambda x: fn(x * (2 * np.pi / period))


@pytest.mark.parametrize("period", [2 * np.pi, 1.0, 360.0])
@pytest.mark.parametrize("fn", [von_mises, flat])
def test_log_z_is_the_integral_over_one_period(fn, period):
    target = bf.Energy(of_angle(fn, period), 1, periodic=period)
    expected = np.log(period) + (np.log(special.i0(KAPPA)) if fn is von_mises else 0.0)
    radius, weight = special.roots_genlaguerre(40, 1.0)  # of s = r²/2, with the weight s exp(-s)
    angle = 2 * np.pi * np.arange(64) / 64
    r = np.sqrt(2 * radius)[:, None]
    z = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=-1)
    with jax.enable_x64(True):
        energy = np.asarray(jax.vmap(jax.vmap(target.energy))(jnp.asarray(z)))
    terms = weight[:, None] * np.exp(-energy + radius[:, None]) / radius[:, None]  # du dv = ds dθ
    assert np.log(terms.sum() * 2 * np.pi / 64) == pytest.approx(expected, abs=1e-12)


def mixed():
    """A phase and an angle in degrees, beside a coordinate with bounds, one with one, and a free one."""

    def energy(x):
        wave = jnp.cos(x[1] - x[0]) + jnp.sin(x[3] * (np.pi / 180))
        return -wave + x[0] ** 2 + x[2] * (1 + wave**2) + x[4] ** 2 / 2

    return bf.Energy(
        energy,
        5,
        lower=[0.0, -np.inf, 0.0, -np.inf, -np.inf],
        upper=[1.0, np.inf, np.inf, np.inf, np.inf],
        periodic=[None, True, False, 360, None],
    )


def test_energies_with_periods_keep_the_contract():
    for target in (bf.Energy(von_mises, 1, periodic=True), mixed()):
        check_density(target, jax.random.key(0))
    target = mixed()
    assert target.dim == 7 and target.num_coordinates == 5
    z = 3 * jax.random.normal(jax.random.key(1), (200, 7))
    x = np.asarray(jax.vmap(target.constrain)(z))
    assert x.shape == (200, 5) and ((x >= 0) | np.isinf([1, 1, 1, 1, np.inf])).all()
    assert (x[:, 0] < 1).all() and (x[:, 1] < 2 * np.pi).all() and (x[:, 3] < 360).all()
    np.testing.assert_array_equal(x[:, 4], z[:, 4])
    np.testing.assert_allclose(x[:, 3], np.degrees(np.arctan2(z[:, 6], z[:, 3])) % 360, rtol=1e-5)
    energy = jax.vmap(target.fn)(x) - jax.vmap(target.log_jacobian)(z)
    np.testing.assert_allclose(jax.vmap(target.energy)(z), energy, rtol=1e-5)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("period", [2 * np.pi, 0.1, 360.0])
def test_angles_lie_in_the_period_up_to_the_seam(double, period):
    target = bf.Energy(flat, 1, periodic=period)
    with jax.enable_x64(double):
        small = jnp.asarray([0.0, -0.0, 1e-40, -1e-40, -1e-20, -1e-9, -1e-7, -1e-3, 1e-9], float)
        z = jnp.stack([jnp.ones_like(small), small], axis=1)
        z = jnp.concatenate([z, z[:, ::-1], -z, jnp.zeros((1, 2), z.dtype)])
        x = np.asarray(jax.vmap(target.constrain)(z), np.float64)
        assert (x >= 0).all() and (x < period).all()
        slope = np.asarray(jax.vmap(jax.grad(target.energy))(z))
        assert np.isfinite(slope).all()


def test_energy_is_smooth_across_the_seam():
    """Energies and gradients just above and just below; gradients against differences."""
    target = bf.Energy(von_mises, 1, periodic=True)
    with jax.enable_x64(True):
        z = jnp.asarray([[1.3, 1e-9], [1.3, -1e-9]], float)
        above, below = jax.vmap(target.energy)(z)
        assert float(above) == pytest.approx(float(below), abs=1e-8)
        gradients = np.asarray(jax.vmap(jax.grad(target.energy))(z))
        np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-7)
        for one in (jnp.asarray([1.3, 0.0]), jnp.asarray([-0.2, 0.5])):
            step = 1e-5 * jnp.eye(2)
            difference = [(target.energy(one + s) - target.energy(one - s)) / 2e-5 for s in step]
            np.testing.assert_allclose(jax.grad(target.energy)(one), difference, rtol=1e-7)


def test_the_prior_is_uniform_in_x():
    """Its samples are uniform, and it has the second moments of the lifted flat density."""
    target = bf.Energy(flat, 2, lower=[-np.inf, 1.0], upper=[np.inf, 3.0], periodic=[True, False])
    prior = prior_of(target)
    np.testing.assert_allclose(np.diag(prior.scale_tril) ** 2, [2.0, 1.0, 2.0])
    s = np.linspace(1e-4, 40, 40001)  # r²/2
    assert np.trapezoid(s * s * np.exp(-s), s) == pytest.approx(2.0, abs=1e-6)  # E u² = E r²/2
    assert prior_of(bf.Energy(flat, 2, periodic=[True, False])) is None
    assert prior_of(bf.Energy(flat, 2)) is None


def test_spelling_of_periods():
    for periodic in (True, 2 * np.pi, [True, True], (2 * np.pi, True), np.full(2, 2 * np.pi), np.ones(2, bool)):
        angles = bf.Energy(flat, 2, periodic=periodic).angles
        np.testing.assert_array_equal(angles.period, np.full(2, 2 * np.pi))
    for periodic in (None, False, [None, False], np.zeros(2, bool)):
        target = bf.Energy(flat, 2, (2,), True, periodic=periodic)
        assert target.angles is None and target.dim == 2


@pytest.mark.parametrize(
    ("fn", "periodic", "words"),
    [
        (lambda x: x[0] ** 2, True, r"x\[0\] has the declared period 6.28319, but a shift by it changes the energy at"),
        (lambda x: jnp.cos(x[0]), 6.28, r"x\[0\] has the declared period 6.28"),
        (lambda x: jnp.cos(x[0]) + 1e4, 6.2, r"x\[0\] has the declared period 6.2"),
        (lambda x: jnp.cos(x[0]) + x[1] ** 2, [True, True], r"x\[1\] has the declared period"),
    ],
)
def test_an_energy_without_its_period_is_refused(fn, periodic, words):
    target = bf.Energy(fn, 2, periodic=periodic if isinstance(periodic, list) else [periodic, None])
    points = jax.random.normal(jax.random.key(0), (64, target.dim))
    with pytest.raises(bf.InputError, match=words):
        check_energy(target, points)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.cos(50 * x[0]) * 20,
        lambda x: 1e6 - jnp.cos(x[0]),
        lambda x: -1e4 * jnp.cos(x[0] - 1),
        lambda x: jnp.where(x[0] % (2 * np.pi) < 3, 0.0, x[0] % (2 * np.pi) - 3),
    ],
)
def test_rounding_is_no_broken_period(fn):
    check_energy(bf.Energy(fn, 1, periodic=True), jax.random.normal(jax.random.key(0), (64, 2)))


def test_messages_speak_of_x():
    """Of its coordinates and its place, not of the planes."""
    points = jax.random.normal(jax.random.key(0), (64, 2))
    x = float(jax.vmap(bf.Energy(flat, 1, periodic=True).constrain)(points)[0, 0])
    for fn, words in [
        (lambda x: jnp.log(x[0] - 7), rf"nan at x = \[{x:.4f}\d*\]"),
        (lambda x: jnp.cos(x[0] + x[1]), "index 1 of an axis with 1 entry.*x has the dimension 1"),
        (lambda x: jnp.cos(x), r"got an array of shape \(1,\); sum over the components"),
        (lambda x: jnp.cos(x) @ jnp.ones(2), r"TypeError for a point of shape \(1,\)"),
    ]:
        with pytest.raises(bf.InputError, match=words):
            check_energy(bf.Energy(fn, 1, periodic=True), points)


def test_a_phase_without_a_period_is_told_how_to_declare_it():
    points = jax.random.normal(jax.random.key(0), (64, 2))
    for fn in (lambda x: x[0] ** 2 + jnp.cos(x[1]), lambda x: jnp.sum(jnp.cos(x))):
        with pytest.raises(bf.InputError, match=r"or declare the periods? of an(gles| angle) \(periodic=\)"):
            check_energy(bf.Energy(fn, 2), points)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_pilot_finds_log_z_of_a_chain_of_spins():
    """Four planar spins on a ring: log Z is a sum of Bessel functions."""
    target = bf.Energy(lambda x: -jnp.sum(jnp.cos(x - jnp.roll(x, 1))), 4, periodic=True)
    pilot = run_pilot(target, jax.random.key(0))
    log_z = 4 * np.log(2 * np.pi) + np.log(np.sum(special.iv(np.arange(-30, 31), 1.0) ** 4))
    assert abs(pilot.log_z - log_z) < 4 * pilot.log_z_stderr < 0.3


FEW = ["--log-z-error", "0.01", "--num-eval-samples", "4096"]  # a fitted mixture is enough: nothing is trained
MIXTURE = """
import jax.numpy as jnp
TURN = 2 * jnp.pi
def energy(x):
    near, far = 6 * jnp.cos(x[0] - 0.1), 6 * jnp.cos(x[0] - 3.0) - 1.0
    return -jnp.logaddexp(near, far) + (1 - jnp.cos(x[1])) / 2
def cosines(x):
    return jnp.cos(x)
"""


def test_a_run_samples_the_torus(tmp_path, monkeypatch):
    """Two modes of a phase, one of them across the seam; x, energy and weight belong together."""
    monkeypatch.setenv("BOLTZFLOW_CACHE", "off")
    (tmp_path / "phase.py").write_text(MIXTURE)
    monkeypatch.chdir(tmp_path)
    options = ["--dim", "2", "--periodic", str(2 * np.pi)]
    assert main(["run", "phase.py:energy", *options, *FEW, "--out", "run"]) == 0
    assert "dim = 2\nperiodic = 6.283185307179586" in (tmp_path / "run" / "config.toml").read_text()
    assert main(["sample", "run", "--num-samples", "1000", "--out", "samples.npz"]) == 0
    assert main(["expect", "run", "phase.py:cosines"]) == 0
    assert main(["report", "run", "--target", "phase.py:energy"]) == 0
    run = bf.load("run")
    assert "dim 2," in repr(run) and "dim 4" not in repr(run)
    log_z = np.log((2 * np.pi) ** 2 * special.i0(6.0) * (1 + np.exp(-1)) * special.i0(0.5)) - 0.5
    assert disagreement(run.log_z(), exact(log_z)) < 4
    found = run.expectation(jnp.cos)
    share = 1 / (1 + np.exp(-1))
    tilt = share * np.cos(0.1) + (1 - share) * np.cos(3.0)
    expected = [tilt * special.i1(6.0) / special.i0(6.0), special.i1(0.5) / special.i0(0.5)]
    assert (np.abs(found.value - expected) < 4 * found.stderr).all()
    assert run.expectation(lambda z: z, unconstrained=True).value.shape == (4,)
    samples = np.load("samples.npz")
    x = samples["x"]
    assert x.shape == (1000, 2) and ((x >= 0) & (x < 2 * np.pi)).all()
    energy = jax.vmap(run.target.fn)(jnp.asarray(x))
    np.testing.assert_allclose(samples["energy"], energy, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(samples["log_weight"], -samples["energy"] - samples["log_prob"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.log(np.mean(np.exp(samples["log_weight"]))), log_z, atol=0.05)
    corrected = run.correct(jax.random.key(0), 500)
    assert corrected.x.shape == (500, 2)
    assert len(run.figures()) > 1
    low, high = run.plot.corner().axes[0].get_xlim()
    assert -1 < low < 0.1 and 6 < high < 2 * np.pi + 1
    assert [axis.get_xlabel() for axis in run.plot.marginals().axes] == ["x[0]", "x[1]"]
    pytest.importorskip("arviz_base")
    assert to_datatree(run, jax.random.key(1), 400).posterior["x"].shape == (4, 100, 2)
