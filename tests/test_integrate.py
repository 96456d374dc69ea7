"""The solvers: measured orders against exact maps, grids of every kind, and the gradient through a solve."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffrax import Dopri8, Euler, Heun, ODETerm, Tsit5

from boltzflow.model.integrate import SOLVERS, solve
from gaussian_pair import ExactField, make_pair

# Few enough steps that the error is above the rounding errors, many enough that its leading term dominates.
NUM_STEPS = {"euler": (128, 512), "heun": (64, 256), "rk4": (32, 64), "tsit5": (32, 64), "dopri8": (8, 12)}


@pytest.fixture
def key(request):
    return jax.random.key(zlib.crc32(request.node.name.encode()))


def both_rates(pair):
    """The field of a Gaussian pair, affine in x, and beside it dy/dt = (1 + 2t) e^-y: y = log(t + t² + exp y_0)."""
    field = ExactField(pair)
    return lambda t, state: (field.velocity(t, state[0]), (1 + 2 * t) * jnp.exp(-state[1]))


@pytest.mark.parametrize("solver", SOLVERS)
def test_error_falls_with_the_order_of_the_solver(solver, key):
    with jax.enable_x64(True):
        pair = make_pair(3, seed=1)
        start = (jax.random.normal(key, (3,)), jnp.asarray(-1.0))
        exact = np.append(pair.carry(1.0, start[0]), np.log(2 + np.exp(start[1])))
        solved = jax.jit(lambda times: solve(both_rates(pair), start, times, solver=solver))
        few, many = (np.append(*solved(jnp.linspace(0, 1, num_steps + 1))) - exact for num_steps in NUM_STEPS[solver])
    assert np.max(np.abs(many)) > 2e-14  # otherwise the slope is that of rounding errors
    sizes = [np.array([np.linalg.norm(e[:3]), abs(e[3])]) for e in (few, many)]
    slope = np.log(sizes[0] / sizes[1]) / np.log(NUM_STEPS[solver][1] / NUM_STEPS[solver][0])
    order = SOLVERS[solver].order
    np.testing.assert_allclose(slope, order, atol=0.3 if order <= 4 else 0.5)


def test_order_test_rejects_wrong_order():
    """The control of the test above: Heun's method judged as if it were of order 3."""
    with jax.enable_x64(True):
        solved = jax.jit(
            lambda times: solve(lambda t, y: (1 + 2 * t) * jnp.exp(-y), jnp.asarray(-1.0), times, solver="heun")
        )
        errors = [solved(jnp.linspace(0, 1, n + 1)) - np.log(2 + np.exp(-1.0)) for n in (64, 256)]
    assert abs(np.log(errors[0] / errors[1]) / np.log(4) - 3) > 0.3


@pytest.mark.parametrize("solver", ["heun", "tsit5"])
def test_steps_backward_and_uneven_grids(solver, key):
    with jax.enable_x64(True):
        pair = make_pair(3, seed=1)
        x0 = jax.random.normal(key, (3,))
        uneven = jnp.linspace(0, 1, 129) ** 1.5
        solved = jax.jit(lambda x, times: solve(ExactField(pair).velocity, x, times, solver=solver, save_steps=True))
        path = solved(x0, uneven)
        assert path.shape == (129, 3) and np.array_equal(path[0], x0)
        exact = jax.vmap(pair.carry, (0, None))(uneven, x0)
        np.testing.assert_allclose(path, exact, atol=1e-3 if solver == "heun" else 1e-9)
        back = solved(path[-1], uneven[::-1])
        np.testing.assert_allclose(back[-1], x0, atol=1e-3 if solver == "heun" else 1e-9)
        # A grid that starts with an interval of no length, as stratified times may.
        np.testing.assert_allclose(solved(x0, uneven.at[1].set(0.0))[1], x0, rtol=1e-14)


def test_saved_steps_end_where_the_unsaved_solve_ends(key):
    field = ExactField(make_pair(3)).velocity
    x0 = jax.random.normal(key, (3,))
    times = jnp.linspace(0, 1, 9)
    end = jax.jit(lambda x: solve(field, x, times, solver="rk4"))(x0)
    path = jax.jit(lambda x: solve(field, x, times, solver="rk4", save_steps=True))(x0)
    np.testing.assert_allclose(path[-1], end, rtol=1e-6)


def test_gradient_goes_through_the_solve(key):
    with jax.enable_x64(True):
        x0 = jax.random.normal(key, (2,))
        times = jnp.linspace(0, 1, 9)

        def end(rate):
            return jnp.sum(solve(lambda t, x: jnp.sin(rate * x) + t, x0, times, solver="rk4") ** 2)

        rate = 0.8
        step = 1e-5
        value = jax.jit(end)
        difference = (value(rate + step) - value(rate - step)) / (2 * step)
        assert float(jax.jit(jax.grad(end))(rate)) == pytest.approx(float(difference), rel=1e-8)


def test_a_grid_drawn_inside_jit_makes_no_host_callback():
    """Host callbacks, which run-time checks of a grid would be, switch the persistent compilation cache off."""

    def end(key):
        times = jnp.sort(jax.random.uniform(key, (5,)))
        return solve(lambda t, x: -x, jnp.ones(2), times, solver="tsit5")

    assert "callback" not in str(jax.make_jaxpr(end)(jax.random.key(0)))


@pytest.mark.parametrize(("solver", "method"), [("euler", Euler), ("heun", Heun), ("tsit5", Tsit5), ("dopri8", Dopri8)])
def test_a_step_is_the_step_of_diffrax(solver, method, key):
    with jax.enable_x64(True):
        x0 = jax.random.normal(key, (3,))
        times = jnp.asarray([0.2, 0.9])
        solved = jax.jit(lambda x: solve(lambda t, x: jnp.sin(3 * x) + t, x, times, solver=solver))(x0)
        terms = ODETerm(lambda t, x, args: jnp.sin(3 * x) + t)
        method = method()
        state = method.init(terms, *times, x0, None)
        theirs, *_ = method.step(terms, *times, x0, None, state, made_jump=False)
        np.testing.assert_allclose(solved, theirs, rtol=1e-13)
        assert method.order(terms) == SOLVERS[solver].order
