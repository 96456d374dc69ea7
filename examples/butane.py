"""Butane of four united atoms in OpenMM, with bonds, angles and the OPLS torsion, which has three wells.

    boltzflow run examples/butane.py:target --out runs/butane

Tethers on the first three atoms fix the molecule in space. `python examples/butane.py` prints the shares of the three
wells in a long Langevin run.
"""

import math

import numpy as np
import openmm
from openmm import unit

from boltzflow.interop.openmm import boltzmann

TEMPERATURE = 600.0  # K; at room temperature the Langevin run crosses the barriers too rarely
BOND = 0.153  # nm
ANGLE = math.radians(112.0)
TETHER = np.array([[BOND * math.sin(ANGLE), BOND * (1 - math.cos(ANGLE)), 0.0], [0.0, BOND, 0.0], [0.0, 0.0, 0.0]])
ANTI = np.array([BOND * -math.sin(ANGLE), BOND * math.cos(ANGLE), 0.0])
OPLS = (2.952, -0.567, 6.579)  # kJ/mol: V1, V2 and V3 of n-butane


# --8<-- [start:system]
def system():
    """The OpenMM system. Bonds are a hundred times softer than real ones, for similar widths; the torsion is real."""
    made = openmm.System()
    for _ in range(4):
        made.addParticle(14.027)
    bonds = openmm.HarmonicBondForce()
    angles = openmm.HarmonicAngleForce()
    torsions = openmm.PeriodicTorsionForce()
    tethers = openmm.CustomExternalForce("k/2*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for i in range(3):
        bonds.addBond(i, i + 1, BOND, 2.0e4)
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, ANGLE, 400.0)
    for periodicity, constant in enumerate(OPLS, start=1):
        torsions.addTorsion(0, 1, 2, 3, periodicity, math.pi * (periodicity - 1), constant / 2)
    for name in ("k", "x0", "y0", "z0"):
        tethers.addPerParticleParameter(name)
    for i, place in enumerate(TETHER):
        tethers.addParticle(i, [2.0e4, *place])
    for force in (bonds, angles, torsions, tethers):
        made.addForce(force)
    return made


# --8<-- [end:system]


# --8<-- [start:target]
def target():
    """exp(-U / kT) over the positions of the four atoms, in nm."""
    return boltzmann(system(), TEMPERATURE, check_at=np.vstack([TETHER, ANTI]))


# --8<-- [end:target]


# --8<-- [start:shares]
def dihedral(x):
    """The torsion angle of positions `(..., 12)`, in radians; π is anti."""
    a, b, c, d = np.moveaxis(np.asarray(x).reshape(*np.shape(x)[:-1], 4, 3), -2, 0)
    first = np.cross(b - a, c - b)
    second = np.cross(c - b, d - c)
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    return np.arctan2(np.sum(np.cross(first, second) * axis, axis=-1), np.sum(first * second, axis=-1))


def shares(angle, weight=None):
    """The shares of the wells gauche-, anti and gauche+."""
    angle = np.asarray(angle)
    well = np.where(np.abs(angle) > 2 * math.pi / 3, 1, np.where(angle < 0, 0, 2))
    found = np.bincount(well.ravel(), weights=None if weight is None else np.ravel(weight), minlength=3)
    return found / found.sum()


# --8<-- [end:shares]


def langevin(num_samples=20_000, spacing=200, seed=0):
    """Torsion angles along a Langevin run with steps of 2 fs, one every `spacing` steps."""
    integrator = openmm.LangevinMiddleIntegrator(
        TEMPERATURE * unit.kelvin, 5 / unit.picosecond, 0.002 * unit.picosecond
    )
    integrator.setRandomNumberSeed(seed + 1)
    context = openmm.Context(system(), integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.vstack([TETHER, ANTI]))
    angles = []
    for _ in range(num_samples):
        integrator.step(spacing)
        positions = context.getState(getPositions=True).getPositions(asNumpy=True)
        angles.append(dihedral(positions.value_in_unit(unit.nanometer).ravel()))
    return np.array(angles)


if __name__ == "__main__":
    parts = [shares(part) for part in np.array_split(langevin(), 10)]
    mean = np.mean(parts, axis=0)
    error = np.std(parts, axis=0, ddof=1) / math.sqrt(len(parts))
    for name, value, stderr in zip(("gauche-", "anti", "gauche+"), mean, error, strict=True):
        print(f"{name:8s} {value:.4f} ± {stderr:.4f}")
