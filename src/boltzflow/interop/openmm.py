"""OpenMM systems as targets: positions in nm, energies in units of kT.

Needs the extra `openmm`: pip install 'boltzflow[openmm]'.
"""

from typing import Any

import numpy as np

from boltzflow.errors import InputError
from boltzflow.interop import optional_module
from boltzflow.interop.callback import Callback
from boltzflow.numerics.validation import positive_number

_BOLTZMANN = 0.00831446261815324  # kJ/(mol K), exact


def boltzmann(
    system: Any, temperature: float, *, check_at: Any = None, platform: str = "Reference", time_limit: float = 600.0
) -> Callback:
    """The density p(x) ∝ exp(-U(x) / kT) of an `openmm.System`.

    x is the position of every particle in nm, flattened. log Z is that of the configurations, in nm³ for each particle.
    A molecule without an external force that holds it in place has no normalizable density.

    Args:
        system: The `openmm.System`.
        temperature: In K.
        check_at: Positions `(num_particles, 3)` in nm, or several of them, at which forces are compared with finite
            differences of the energy. The default, a Gaussian of width 1 nm, is far from most molecules.
        platform: OpenMM's platform. "Reference" has double precision, and for a small system is as fast as any.
        time_limit: How long one call may take, in s.

    Raises:
        InputError: The system has constraints or massless particles, or its forces are not those of its energy.
    """
    openmm = optional_module("openmm", "openmm")
    unit = optional_module("openmm.unit", "openmm")
    num = system.getNumParticles()
    if not num:
        raise InputError("the system has no particles")
    if system.getNumConstraints():
        raise InputError(
            f"the system has {system.getNumConstraints()} constraints, which leave no density in all of space: make "
            "it without them (constraints=None, rigidWater=False)"
        )
    masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(num)]
    if min(masses) <= 0:
        raise InputError(f"particle {int(np.argmin(masses))} has no mass: its position is fixed or follows from others")
    thermal = _BOLTZMANN * positive_number("temperature", temperature)
    try:
        integrator = openmm.VerletIntegrator(0.001)  # required by a context, never stepped
        context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    except openmm.OpenMMException as error:
        raise InputError(f"OpenMM cannot make a context of the system: {' '.join(str(error).split())}") from error
    kilojoule = unit.kilojoule_per_mole

    def energy_and_gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        energies = np.full(len(x), np.inf)
        gradients = np.zeros_like(x)
        for i, positions in enumerate(x.reshape(len(x), num, 3)):
            if not np.isfinite(positions).all():  # OpenMM raises an error
                continue
            context.setPositions(positions)
            state = context.getState(getEnergy=True, getForces=True)
            energies[i] = state.getPotentialEnergy().value_in_unit(kilojoule)
            gradients[i] = -state.getForces(asNumpy=True).value_in_unit(kilojoule / unit.nanometer).ravel()
        return energies / thermal, gradients / thermal

    if check_at is not None:
        check_at = np.asarray(check_at, np.float64).reshape(-1, 3 * num)
    return Callback(energy_and_gradient, 3 * num, time_limit=time_limit, check_at=check_at)
