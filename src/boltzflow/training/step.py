"""The optimizer's steps, of one seed: where the residual is taken, its gradient, and what the next step needs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.model.continuity import Transport, continuity_residual
from boltzflow.model.flow import Flow
from boltzflow.model.losses import continuity_loss, reverse_kl_loss, stratified_times, trajectory
from boltzflow.training.build import make_flow, make_optimizer


class StepState(eqx.Module):
    """Everything that the next optimizer step needs. Step k draws its random numbers from `key` and k alone.

    `num_steps` is how many there will be: the learning rate has then fallen to 0, and further steps change nothing.
    `good` are the parameters and the optimizer's state before the last chunk of steps of which none was skipped, and
    `rate` is what has become of the learning rate where training had to go back to them.
    """

    params: Transport
    opt_state: Any
    key: PRNGKeyArray
    num_steps: Int[Array, ""]
    step: Int[Array, ""]
    num_skipped: Int[Array, ""]
    good: tuple[Transport, Any]
    rate: Float[Array, ""]


_BLOCK = 2048  # points
_LOWER = 0.3  # of the learning rate, after a chunk of steps that were all skipped


def train_chunk(state: StepState, frozen: Transport, points, *, config: Config, length: int):
    """`length` optimizer steps in one dispatch; the state after them and the mean loss of the finite ones.

    A step whose loss or gradient is not finite is skipped and counted; it changes nothing but the step's number. Where
    all of them were, training goes back to the last good state with a lower learning rate.
    """
    optimizer, start = make_optimizer(config), state

    def one(state: StepState, _):
        key = jax.random.fold_in(state.key, state.step)
        loss, gradient = _loss_and_gradient(state, frozen, points, key, config)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        done = jnp.minimum(state.step / state.num_steps, 1.0)
        rate = state.rate * config.learning_rate * (1 + jnp.cos(jnp.pi * done)) / 2
        params = optax.apply_updates(state.params, jax.tree.map(lambda update: rate * update, updates))
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        params, opt_state = _where(good, (params, opt_state), (state.params, state.opt_state))
        return StepState(
            params, opt_state, state.key, state.num_steps, state.step + 1, state.num_skipped + ~good, state.good,
            state.rate,
        ), loss  # fmt: skip

    state, losses = jax.lax.scan(one, state, None, length=length)
    skipped, now = state.num_skipped - start.num_skipped, (state.params, state.opt_state)
    params, opt_state = _where(skipped == length, start.good, now)
    good = _where(skipped == 0, (start.params, start.opt_state), start.good)
    rate = jnp.where(skipped == length, _LOWER * start.rate, start.rate)
    state = StepState(
        params, opt_state, state.key, state.num_steps, state.step, state.num_skipped, good, rate
    )  # fmt: skip
    return state, jnp.nanmean(jnp.where(jnp.isfinite(losses), losses, jnp.nan))


def offending_point(state: StepState, frozen: Transport, points, *, config: Config):
    """Of the step that is next: the first (t, x) at which its residual or, for the reverse KL, its log-weight is not
    finite; the target's energy there; and whether there is any such point."""
    key = jax.random.fold_in(state.key, state.step)
    transport = eqx.combine(state.params, frozen)
    path = transport.interpolation
    if config.loss == "reverse-kl":
        flow = Flow(path.base, transport.field, solver=config.train_solver, num_steps=config.num_intervals)
        x, log_prob = jax.vmap(flow.sample_and_log_prob)(jax.random.split(key, config.batch_size))
        times, value = jnp.ones(len(x)), log_prob + jax.vmap(path.target.energy)(x)
    else:
        times, x = _draw_points(transport, points, state.step / state.num_steps, key, config)
        value = jax.vmap(continuity_residual, (None, 0, 0))(transport, times, x)
    bad = ~jnp.isfinite(value)
    first = jnp.argmax(bad)
    return times[first], x[first], path.target.energy(x[first]), bad.any()


def _where(condition, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _loss_and_gradient(state: StepState, frozen: Transport, points, key: PRNGKeyArray, config: Config):
    if config.loss == "reverse-kl":

        def reverse_kl(params):
            path = eqx.combine(params, frozen).interpolation
            velocity_field = eqx.combine(params, frozen).field
            flow = Flow(path.base, velocity_field, solver=config.train_solver, num_steps=config.num_intervals)
            return reverse_kl_loss(flow, path.target, jax.random.split(key, config.batch_size))

        return jax.value_and_grad(reverse_kl)(state.params)
    times, x = _draw_points(eqx.combine(state.params, frozen), points, state.step / state.num_steps, key, config)
    return _in_blocks(
        lambda p, times, x: continuity_loss(eqx.combine(p, frozen), times, x, config.penalty), state.params, times, x
    )


def _in_blocks(loss: Callable[..., Any], params: Transport, times: Float[Array, " num"], x: Float[Array, "num dim"]):
    """The value and gradient of a mean over points, as the mean of those of equal blocks of points.

    What one block keeps for its gradient stays in a CPU's cache, and in memory for a few thousand points only; the
    1024 points of the default are one block, and so is everything on an accelerator, which wants them all at once.
    """
    gradient = jax.value_and_grad(loss)
    fewest = -(-len(x) // _BLOCK) if jax.default_backend() == "cpu" else 1
    number = next((n for n in range(fewest, 2 * fewest) if len(x) % n == 0), 1)
    if number == 1:
        return gradient(params, times, x)
    blocks = times.reshape(number, -1), x.reshape(number, -1, x.shape[1])

    def add(total, block):
        return jax.tree.map(jnp.add, total, gradient(params, *block)), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params)), blocks)
    return jax.tree.map(lambda value: value / number, total)


def _draw_points(transport: Transport, points, done: Float[Array, ""], key: PRNGKeyArray, config: Config):
    """Times `(num,)` and points `(num, dim)` at which to take the residual: the flow's trajectories and the pilot's."""
    base_key, time_key, pick_key, pilot_key = jax.random.split(key, 4)
    n = config.num_intervals
    times = stratified_times(time_key, n) if config.jitter else jnp.linspace(0, 1, n + 1)
    warming = done < config.warmup_fraction

    def own():
        x0 = jax.vmap(lambda k: transport.interpolation.base.sample_and_log_prob(k)[0])(
            jax.random.split(base_key, config.batch_size)
        )
        return trajectory(transport, x0, times, config.train_solver).reshape(-1, x0.shape[1])

    def unused():
        return jnp.zeros((times.shape[0] * config.batch_size, points[1].shape[2]))

    all_x = jax.lax.cond(warming, unused, own) if config.warmup_fraction else own()
    all_times = jnp.repeat(times, config.batch_size)
    pick = jax.random.permutation(pick_key, all_x.shape[0])[: config.points_per_step or None]
    pilot_times, pilot_x = _pilot_points(points, pilot_key, pick.shape[0])
    # The pilot's times are stratified in order: every second one of them spans [0, 1] as well as all.
    share = jnp.where(warming, 1.0, config.pilot_fraction)
    slot = jnp.arange(pick.shape[0])
    from_pilot = jnp.floor((slot + 1) * share) > jnp.floor(slot * share)
    return (
        jnp.where(from_pilot, pilot_times, all_times[pick]),
        jnp.where(from_pilot[:, None], pilot_x, all_x[pick]),
    )


def _pilot_points(points, key: PRNGKeyArray, num: int) -> tuple[Float[Array, " num"], Float[Array, "num dim"]]:
    """Stratified times, and at each a particle of one of the two knots around it, the nearer the likelier."""
    path_times, path_points = points
    time_key, knot_key, particle_key = jax.random.split(key, 3)
    times = (jnp.arange(num) + jax.random.uniform(time_key, (num,))) / num
    left = jnp.clip(jnp.searchsorted(path_times, times) - 1, 0, path_times.shape[0] - 2)
    fraction = (times - path_times[left]) / (path_times[left + 1] - path_times[left])
    knot = left + (jax.random.uniform(knot_key, (num,)) < fraction)
    return times, path_points[knot, jax.random.randint(particle_key, (num,), 0, path_points.shape[1])]


def quick_ess(params: Transport, frozen: Transport, key: PRNGKeyArray, *, config: Config) -> Float[Array, ""]:
    """The reverse ESS (22) of 2048 samples: to watch training by, too few to report."""
    transport = eqx.combine(params, frozen)
    flow = make_flow(config, transport)
    x, log_prob = jax.vmap(flow.sample_and_log_prob)(jax.random.split(key, 2048))
    log_weight = -jax.vmap(transport.interpolation.target.energy)(x) - log_prob
    return jnp.exp(2 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2 * log_weight)) / 2048
