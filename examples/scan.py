"""A scan: the quantum particle of 16 sites at eight masses, each run started from the one before it.

    python examples/scan.py

It prints log Z beside the exact value, and the slope d log Z/dm; and compares the integral of the slope with log Z.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow

NUM_SITES, TOTAL_TIME = 16, 4.0
MASSES = np.linspace(1.5, 2.2, 8)


# --8<-- [start:target]
def action(x, m):
    """The action of a path x `(16,)` of a particle of mass m in the potential -m x²/2 + x⁴/4."""
    step = TOTAL_TIME / NUM_SITES
    kinetic = m / 2 * ((x - jnp.roll(x, 1)) / step) ** 2
    return step * jnp.sum(kinetic - m / 2 * x**2 + x**4 / 4)


def at(m):
    """The target at mass m. As an array of a `Partial` the mass is an argument of the programs, compiled once."""
    energy = jax.tree_util.Partial(action, m=np.float64(m))
    return boltzflow.Energy(energy, NUM_SITES, lattice_shape=(NUM_SITES,), sign_symmetric=True)


def slope(x, m):
    """∂S/∂m at one path."""
    return jax.grad(action, argnums=1)(x, jnp.asarray(m, x.dtype))


# --8<-- [end:target]


@dataclasses.dataclass(frozen=True)
class Row:
    """The answers at one mass."""

    mass: float
    log_z: boltzflow.Estimate
    slope: boltzflow.Estimate  # of log Z
    trusted: bool
    seconds: float


# --8<-- [start:scan]
def scan(masses, **settings):
    """A `Row` for each mass. Each has a seed of its own, so that the errors are independent."""
    rows = []
    run = None
    for seed, mass in enumerate(masses):
        run = boltzflow.fit(at(mass), seed=seed, start=run, **settings)
        report = run.report()
        slope_of_log_z = run.log_z_gradient(lambda x, m=mass: slope(x, m))
        rows.append(Row(mass, run.log_z(), slope_of_log_z, report.verdict.trustworthy, report.cost["total_seconds"]))
    return rows


# --8<-- [end:scan]


def difference(rows):
    """The difference of log Z over the scan, and the integral of its slope through a cubic spline: two `Estimate`."""
    mass = np.array([row.mass for row in rows])
    weight = _weights(mass)
    slopes = np.array([row.slope.value for row in rows])
    errors = np.array([row.slope.stderr for row in rows])
    first, last = rows[0].log_z, rows[-1].log_z
    n = min(row.log_z.n for row in rows)
    by_log_z = boltzflow.Estimate(last.value - first.value, float(np.hypot(first.stderr, last.stderr)), n)
    by_slope = boltzflow.Estimate(float(weight @ slopes), float(np.linalg.norm(weight * errors)), n)
    return by_log_z, by_slope


def _weights(x):
    """The weights of values at x in the integral of the cubic spline through them."""
    from scipy.interpolate import CubicSpline

    return np.array([CubicSpline(x, values).integrate(x[0], x[-1]) for values in np.eye(len(x))])


if __name__ == "__main__":
    rows = scan(MASSES)
    print("   m   log Z            exact      d log Z/dm      seconds")
    for row in rows:
        exact = boltzflow.DoubleWell(NUM_SITES, row.mass).log_z
        trusted = "" if row.trusted else "  not trusted"
        print(f"{row.mass:5.2f}  {row.log_z!r:15}  {exact:9.5f}  {row.slope!r:14}  {row.seconds:5.0f}{trusted}")
    by_log_z, by_slope = difference(rows)
    print(f"difference of log Z {by_log_z!r}, integral of its slope {by_slope!r}")
    print(f"{sum(row.seconds for row in rows) / rows[0].seconds:.2f} times the seconds of the first run")
