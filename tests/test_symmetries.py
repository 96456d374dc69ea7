"""Declared symmetries of an energy: true ones pass whatever the rounding, and false ones are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.densities.base import is_sign_symmetric, lattice_of
from boltzflow.densities.double_well.target import DoubleWell
from boltzflow.densities.energy import Energy
from boltzflow.densities.energy_checks import broken_symmetry, check_energy
from boltzflow.densities.many_well import many_well
from boltzflow.errors import InputError


def phi_fourth(x, field=0.0, defect=0.0, offset=0.0):
    """A scalar field on the sites of a lattice of 4 x 3, with a field on all sites and a defect at one."""
    phi = x.reshape(4, 3)
    hops = sum(jnp.sum((phi - jnp.roll(phi, 1, axis)) ** 2) for axis in (0, 1))
    return hops / 2 + jnp.sum((phi**2 - 1) ** 2) + field * jnp.sum(phi) + defect * phi[1, 1] ** 2 + offset


LATTICE_POINTS = 1.5 * jax.random.normal(jax.random.key(8), (16, 12))


def on_lattice(shape=(4, 3), sign_symmetric=True, **options):
    return Energy(lambda x: phi_fourth(x, **options), 12, shape, sign_symmetric)


@pytest.mark.parametrize(
    "target",
    [
        on_lattice(),
        on_lattice(offset=1e5),
        on_lattice(field=0.1, sign_symmetric=False),
        on_lattice(shape=None, defect=0.1),
        on_lattice(shape=None, sign_symmetric=False, field=0.1, defect=0.1),
    ],
)
def test_true_symmetries_pass(target):
    check_energy(target, LATTICE_POINTS)
    assert lattice_of(target) == target.lattice_shape and is_sign_symmetric(target) == target.sign_symmetric


@pytest.mark.parametrize(
    "target, sentence",
    [
        (
            on_lattice(defect=0.1),
            r"lattice_shape \(4, 3\) is declared, but a shift by one site along axis 0 changes the ",
        ),
        (on_lattice(shape=(3, 4)), r"lattice_shape \(3, 4\) is declared, but a shift by one site along axis 0 changes"),
        (
            on_lattice(shape=(12,)),
            r"\(12,\) is declared, .* at 16 of 16 points, at one from \d.* to \d.*, where rounding",
        ),
        (
            on_lattice(field=0.1),
            "sign_symmetric is declared, but the change of x to -x changes the energy at 1[56] of 16",
        ),
        (on_lattice(shape=None, field=0.1), "sign_symmetric is declared, but the change of x to -x"),
    ],
)
def test_false_symmetries_are_refused(target, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        check_energy(target, LATTICE_POINTS)
    assert "\n" not in str(raised.value)


def tilted(tilt, offset, kind=None):
    """A Gaussian that is sign-symmetric but for a tilt; computed in the type `kind` at any type of x."""

    def energy(x):
        x = x.astype(kind or x.dtype)
        return offset + jnp.sum(x**2) / 2 + tilt * x[0]

    return Energy(energy, 2, sign_symmetric=True)


TILT_POINTS = np.random.default_rng(0).normal(size=(64, 2))


@pytest.mark.parametrize(
    "tilt, offset, kind, double",
    [
        (1.5, 1e6, None, False),
        (0.1, 1e4, None, False),
        (1e-4, 0.0, None, False),
        (1e-6, 1e6, None, True),
        (1e-3, 1e9, None, True),
        (1.5, 1e6, np.float32, True),
    ],
)
def test_offsets_hide_no_tilt(tilt, offset, kind, double):
    with jax.enable_x64(double):
        assert not broken_symmetry(tilted(0.0, offset, kind), jnp.asarray(TILT_POINTS, float))
        assert "-x changes the energy" in broken_symmetry(tilted(tilt, offset, kind), jnp.asarray(TILT_POINTS, float))


def test_an_outlier_hides_no_tilt():
    points = jnp.asarray(TILT_POINTS, float).at[0].set(1e12)
    assert "at 6" in broken_symmetry(tilted(0.1, 0.0), points)


@pytest.mark.parametrize("offset", [0.0, 1e5, 1e7])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_true_symmetries_pass_with_rounding(offset, double, kind):
    """A sum over a lattice, shifted: the order of its terms changes, in the type of the sum."""

    def energy(x):
        phi = x.reshape(32, 32).astype(kind if double else x.dtype)
        return jnp.sum((phi**2 - 1) ** 2 + (phi - jnp.roll(phi, 1, 0)) ** 2) + offset

    with jax.enable_x64(double):
        points = jnp.asarray(np.random.default_rng(1).normal(size=(16, 1024)), float)
        assert broken_symmetry(Energy(energy, 1024, (32, 32), True), points) == ""


def test_symmetries_of_shipped_densities():
    assert lattice_of(many_well(4)) is None and not is_sign_symmetric(many_well(4))
    assert lattice_of(DoubleWell(8)) == (8,) and is_sign_symmetric(DoubleWell(8))
