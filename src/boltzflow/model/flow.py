"""The flow: samples of the base carried along a velocity field, with their exact log-density (Eq. 4)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDistribution, sample_batch
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.integrate import SOLVERS, solve, solve_between
from boltzflow.model.networks import Point, Scalar
from boltzflow.numerics.batching import map_batches, map_points
from boltzflow.numerics.compiling import compiled


class Flow(AbstractDistribution):
    """The distribution of x(1) where x(0) ~ base and dx/dt = V_t(x).

    log q(x(1)) = log p_0(x(0)) - ∫ ∇·V_t(x(t)) dt (Eq. 4), integrated together with x by a fixed-step Runge–Kutta
    method. As a density a flow is data, and its arrays are never trained.

    Args:
        base: The distribution of x(0).
        field: The velocity field V_t, of the same dimension.
        solver: A name in `integrate.SOLVERS`.
        num_steps: The number of equal time steps, at least 1.

    Raises:
        ValueError: For any other settings.
    """

    base: AbstractDistribution
    field: AbstractVectorField
    solver: str = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    dim: int = eqx.field(static=True)
    log_z: float = eqx.field(static=True)

    def __init__(
        self, base: AbstractDistribution, field: AbstractVectorField, *, solver: str = "rk4", num_steps: int = 16
    ):
        if solver not in SOLVERS:
            raise ValueError(f"Unknown solver {solver!r}: expected one of {', '.join(SOLVERS)}.")
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
        if base.dim != field.dim:
            raise ValueError(f"The base has dimension {base.dim} and the field {field.dim}: they must be equal.")
        self.base = base
        self.field = field
        self.solver = solver
        self.num_steps = num_steps
        self.dim = base.dim
        self.log_z = 0.0

    def energy(self, x):
        return -self.log_prob(x)

    def log_prob(self, x):
        """log q at a given point, by integrating back from t = 1 to t = 0."""
        times = jnp.linspace(1, 0, self.num_steps + 1, dtype=x.dtype)
        x0, outflow = solve(self._rates, (x, jnp.zeros((), x.dtype)), times, solver=self.solver)
        return self.base.log_prob(x0) - outflow

    def sample_and_log_prob(self, key: PRNGKeyArray):
        x0, log_prob = self.base.sample_and_log_prob(key)
        times = jnp.linspace(0, 1, self.num_steps + 1, dtype=x0.dtype)
        return solve(self._rates, (x0, log_prob), times, solver=self.solver)

    def sample_path(self, key: PRNGKeyArray) -> Float[Array, "num_times dim"]:
        """One trajectory, at the `num_steps + 1` equally spaced times from 0 to 1."""
        x0, _ = self.base.sample_and_log_prob(key)
        times = jnp.linspace(0, 1, self.num_steps + 1, dtype=x0.dtype)
        return solve(self.field.velocity, x0, times, solver=self.solver, save_steps=True)

    def _rates(self, t: Scalar, state: tuple[Point, Scalar]) -> tuple[Point, Scalar]:
        velocity, divergence = self.field.velocity_and_divergence(t, state[0])
        return velocity, -divergence


def sample_flow(
    flow: Flow, key: PRNGKeyArray, num_samples: int
) -> tuple[Float[np.ndarray, "num_samples dim"], Float[np.ndarray, " num_samples"]]:
    """Independent samples and their log-densities, as `sample_batch` draws them.

    Flows of one field share a program, whatever their bases and numbers of steps.
    """
    x0, log_prob = sample_batch(flow.base, key, num_samples)
    x, outflow = _carried(flow, x0, backward=False)
    return x, log_prob - outflow


def flow_log_prob(flow: Flow, x: Float[Array | np.ndarray, "num dim"]) -> Float[np.ndarray, " num"]:
    """log q at points, from a program that flows of one field share."""
    x0, outflow = _carried(flow, x, backward=True)
    return map_points(flow.base.log_prob, x0) - outflow


def _carried(
    flow: Flow, x: Float[Array | np.ndarray, "num dim"], backward: bool
) -> tuple[Float[np.ndarray, "num dim"], Float[np.ndarray, " num"]]:
    """The points at the other end of their trajectories, and ∫ ∇·V_t dt from t = 0 to 1."""
    num_steps = jnp.asarray(flow.num_steps)
    return map_batches(lambda batch: _carry(flow.field, batch, num_steps, flow.solver, backward), x)


@compiled
def _carry(field, x, num_steps, solver, backward):
    def rates(t, state):
        return field.velocity_and_divergence(t, state[0])

    def carry(x):
        start, end = (jnp.asarray(time, x.dtype) for time in ((1, 0) if backward else (0, 1)))
        x, divergence = solve_between(rates, (x, jnp.zeros((), x.dtype)), start, end, num_steps, solver=solver)
        return x, -divergence if backward else divergence

    return jax.vmap(carry)(x)


def with_resolution(flow: Flow, num_steps: int) -> Flow:
    """The same flow integrated in `num_steps` steps; the difference of the two is the solver's error."""
    return Flow(flow.base, flow.field, solver=flow.solver, num_steps=num_steps)
