"""OpenMM systems as targets: units, closed forms, invalid systems, and butane."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.from_file import load_target
from boltzflow.errors import InputError
from boltzflow.interop.openmm import boltzmann

openmm = pytest.importorskip("openmm")
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

KT = 0.00831446261815324 * 300.0


def trapped(num=2, stiffness=50.0):
    """Particles in a harmonic trap of `stiffness` in kJ/mol/nm², bound to each other by no force."""
    system = openmm.System()
    trap = openmm.CustomExternalForce(f"{stiffness}/2*(x^2+y^2+z^2)")
    for i in range(num):
        system.addParticle(12.0)
        trap.addParticle(i, [])
    system.addForce(trap)
    return system


def test_energy_is_in_units_of_kt_and_positions_in_nm():
    target = boltzmann(trapped(), 300.0)
    x = 0.3 * jax.random.normal(jax.random.key(0), (5, 6))
    assert target.dim == 6
    energy, gradient = jax.jit(jax.vmap(jax.value_and_grad(target.energy)))(x)
    np.testing.assert_allclose(energy, 25.0 * np.sum(np.asarray(x) ** 2, axis=1) / KT, rtol=1e-5)
    np.testing.assert_allclose(gradient, 50.0 * np.asarray(x) / KT, rtol=1e-5, atol=1e-5)
    assert np.isinf(jax.vmap(target.energy)(jnp.full((1, 6), jnp.nan)))[0]  # OpenMM is not called


def test_lennard_jones_pair_has_its_minimum():
    system = openmm.System()
    force = openmm.NonbondedForce()
    for _ in range(2):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    distance = 2 ** (1 / 6) * 0.34
    at_rest = np.array([[0.0, 0, 0], [distance, 0, 0]])
    target = boltzmann(system, 300.0, check_at=at_rest + 0.01)
    energy, gradient = jax.value_and_grad(target.energy)(jnp.asarray(at_rest.ravel(), jnp.float32))
    assert float(energy) == pytest.approx(-1.0 / KT, rel=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)


def constrained():
    system = trapped()
    system.addConstraint(0, 1, 0.1)
    return system


def massless():
    system = trapped()
    system.setParticleMass(1, 0.0)
    return system


@pytest.mark.parametrize(
    ("make", "temperature", "sentence"),
    [
        (openmm.System, 300.0, "no particles"),
        (constrained, 300.0, "1 constraints"),
        (massless, 300.0, "particle 1 has no mass"),
        (trapped, -1.0, "temperature must be"),
    ],
)
def test_invalid_systems_are_refused(make, temperature, sentence):
    with pytest.raises(InputError, match=sentence):
        boltzmann(make(), temperature)


def test_unknown_platform_is_refused():
    with pytest.raises(InputError, match="cannot make a context"):
        boltzmann(trapped(), 300.0, platform="Abacus")


def test_butane_has_three_wells():
    import butane

    loaded = load_target(str(Path(butane.__file__)) + ":target", {})
    anti = np.vstack([butane.TETHER, butane.ANTI]).ravel()
    assert loaded.target.dim == 12 and abs(abs(butane.dihedral(anti)) - np.pi) < 1e-6
    check_energy(loaded.target, jnp.asarray(anti + 0.01 * np.random.default_rng(0).normal(size=(8, 12)), jnp.float32))
    angles = np.linspace(-np.pi, np.pi, 601)
    energies, _ = loaded.target.call(np.array([turned(butane, angle) for angle in angles]))
    inner = energies[1:-1]
    minima = angles[1:-1][(inner < energies[:-2]) & (inner < energies[2:])]
    assert len(minima) == 2 and np.allclose(np.abs(minima), np.radians(66), atol=0.1)  # and anti, at the ends
    np.testing.assert_allclose(butane.shares(np.array([3.0, -3.1, 1.0, -1.0])), [0.25, 0.5, 0.25])


def turned(butane, angle):
    """Positions with the last atom turned about the last bond, to a torsion of `angle`."""
    b, c = butane.TETHER[1:]
    axis = (c - b) / np.linalg.norm(c - b)
    arm, turn = butane.ANTI - c, angle - np.pi
    along = axis * (axis @ arm)
    place = c + along + (arm - along) * np.cos(turn) + np.cross(axis, arm) * np.sin(turn)
    x = np.vstack([butane.TETHER, place]).ravel()
    assert abs(np.angle(np.exp(1j * (butane.dihedral(x) - angle)))) < 1e-6
    return x
