"""φ⁴ on a periodic square lattice of 8 x 8 sites: log Z, the magnetization, the susceptibility and the correlator.

    boltzflow run examples/phi4.py:target --out runs/phi4
    boltzflow expect runs/phi4 examples/phi4.py:observables

S(φ) = Σ_x [Σ_μ (φ_{x+μ} - φ_x)² + m² φ_x² + λ φ_x⁴]

Two exact results check a run. At λ = 0 log Z is a sum over Fourier modes. At any couplings E[Σ_x φ_x ∂S/∂φ_x] is the
number of sites, by partial integration.
"""

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow

SIDE = 8
M2, LAMBDA = -4.0, 6.975


# --8<-- [start:action]
def action(phi, m2=M2, lam=LAMBDA):
    """S of one configuration of shape (64,)."""
    field = phi.reshape(SIDE, SIDE)
    kinetic = sum(jnp.sum((jnp.roll(field, 1, axis) - field) ** 2) for axis in (0, 1))
    return kinetic + jnp.sum(m2 * field**2 + lam * field**4)


def at(m2, lam):
    """The target at other couplings. Its symmetries are declared: shifts of all sites, and φ to -φ."""
    energy = jax.tree_util.Partial(action, m2=np.float64(m2), lam=np.float64(lam))
    return boltzflow.Energy(energy, SIDE * SIDE, lattice_shape=(SIDE, SIDE), sign_symmetric=True)


target = at(M2, LAMBDA)
# --8<-- [end:action]


# --8<-- [start:observables]
def observables(phi):
    """Numbers and arrays of one configuration of shape (64,), by name."""
    field = phi.reshape(SIDE, SIDE)
    total = jnp.sum(field)
    at_distance = [jnp.mean(field * jnp.roll(field, d, axis=0)) for d in range(SIDE // 2 + 1)]
    return {
        "|M|": jnp.abs(total) / SIDE**2,
        "susceptibility": total**2 / SIDE**2,  # that of ⟨M⟩ = 0, with the symmetry unbroken
        "correlator": jnp.stack(at_distance),  # ⟨φ_x φ_{x+d}⟩ for d = 0 ... 4
        "Σ φ ∂S": phi @ jax.grad(action)(phi),  # exactly 64
    }


# --8<-- [end:observables]


def free_log_z(m2):
    """log Z at λ = 0: the action's matrix has the eigenvalues 2 (m² + Σ_μ (2 - 2 cos k_μ))."""
    wave = 2 - 2 * np.cos(2 * np.pi * np.arange(SIDE) / SIDE)
    return float(0.5 * np.sum(np.log(np.pi / (m2 + wave[:, None] + wave))))
