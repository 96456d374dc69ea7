"""The XY model on a periodic square lattice of 4 x 4 sites: log Z, energy and magnetization of planar spins.

    boltzflow run examples/xy_model.py:target --out runs/xy
    boltzflow expect runs/xy examples/xy_model.py:observables

S(θ) = -β Σ_x Σ_μ cos(θ_{x+μ} - θ_x), with each θ_x an angle.

`exact_log_z` is that of a transfer matrix, whose sums over a grid of angles converge faster than any power.
"""

import jax.numpy as jnp
import numpy as np

import boltzflow

SIDE = 4
BETA = 0.8


# --8<-- [start:action]
def neighbors(theta):
    """Σ cos(θ_{x+μ} - θ_x) over the links, for one configuration of shape (16,)."""
    spins = theta.reshape(SIDE, SIDE)
    return sum(jnp.sum(jnp.cos(jnp.roll(spins, 1, axis) - spins)) for axis in (0, 1))


target = boltzflow.Energy(lambda theta: -BETA * neighbors(theta), SIDE * SIDE, periodic=True)
# --8<-- [end:action]


def observables(theta):
    """Numbers of one configuration of shape (16,), by name."""
    magnetization = jnp.stack([jnp.mean(jnp.cos(theta)), jnp.mean(jnp.sin(theta))])
    return {
        "energy per site": -neighbors(theta) / SIDE**2,
        "magnetization²": magnetization @ magnetization,
        "cos θ": jnp.mean(jnp.cos(theta)),  # exactly 0, for all spins may turn together
    }


def exact_log_z(beta, side=SIDE, num=12):
    """log Z of a lattice of side x side sites, an even side, with `num` angles for each spin.

    With T the symmetric transfer matrix from row to row, Z is the trace of T^side, which is the sum of squares of
    T^(side/2). All spins may turn together, so the first one stands still.
    """
    angle = 2 * np.pi * np.arange(num) / num
    link = np.exp(beta * np.cos(angle[:, None] - angle))
    half = np.ones((num,) * side)  # the square root of the weight of a row
    for axis in range(side):
        pair = np.moveaxis(half, (axis, (axis + 1) % side), (-2, -1))  # a view
        pair *= np.sqrt(link)
    rows = np.moveaxis(np.eye(num ** (side - 1)).reshape(-1, *(num,) * (side - 1)), 0, -1)
    total = 0.0
    for chunk in np.array_split(rows, num, axis=-1):  # of the rows that T^(side/2) starts from
        state = np.zeros((num,) * side + chunk.shape[-1:])
        state[0] = chunk
        for _ in range(side // 2):
            state *= half[..., None]
            for axis in range(side):
                state = np.moveaxis(np.tensordot(link, state, (1, axis)), 0, axis)
            state *= half[..., None]
        total += np.sum(state**2)
    return float(np.log(num * total) + side**2 * np.log(2 * np.pi / num))


def exact_energy(beta, step=1e-3):
    """The mean energy per site, -∂ log Z/∂β over the number of sites."""
    return -(exact_log_z(beta + step) - exact_log_z(beta - step)) / (2 * step * SIDE**2)
