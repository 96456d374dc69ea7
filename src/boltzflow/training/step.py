"""Optimizer steps: where the residual is taken, its gradient, and the state that the next step needs."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.errors import InputError
from boltzflow.model.continuity import Transport, continuity_residual
from boltzflow.model.flow import Flow
from boltzflow.model.losses import continuity_loss, reverse_kl_loss, stratified_times, trajectory
from boltzflow.numerics.compiling import compiled
from boltzflow.training.build import AS_CONFIGURED, Loss, Objective, make_flow, make_optimizer

_KNOT_BLOCK = 8
_POINT_BLOCK = 2048
_RATE_FACTOR = 0.3  # of the learning rate, after a chunk in which every step was skipped
_ESS_SAMPLES = 2048
_STREAM_OF_LOSS = 2**20  # folded into the key of a step


class PilotPath(NamedTuple):
    """The pilot's particles along the path: knots at `times`, and equally weighted `points` at each knot."""

    times: Float[Array, " num_knots"]
    points: Float[Array, "num_knots num_saved dim"]


def padded_path(times: Float[Array, " num_knots"], points: Float[Array, "num_knots num_saved dim"]) -> PilotPath:
    """The pilot's path with its number of knots rounded up to a multiple of 8, so that few lengths are compiled.

    The added knots lie after the last one and repeat its points. Training draws times from [0, 1]. Up to the last knot
    it never meets an added one; beyond the last knot, where a pilot stopped early, the points are those of the last
    knot with and without padding. So padding changes no draw.
    """
    num_added = -len(times) % _KNOT_BLOCK
    added_times = times[-1] + jnp.arange(1, num_added + 1, dtype=times.dtype)
    added_points = jnp.broadcast_to(points[-1:], (num_added, *points.shape[1:]))
    return PilotPath(jnp.concatenate([times, added_times]), jnp.concatenate([points, added_points]))


class StepState(eqx.Module):
    """Everything that the next optimizer step needs. Step k draws its random numbers from `key` and k alone.

    After `num_steps` steps the learning rate is 0, and further steps change nothing. `good` holds the parameters and
    the optimizer's state before the last chunk without a skipped step. `rate` is the factor on the learning rate after
    returns to `good`.
    """

    params: Transport
    opt_state: Any
    key: PRNGKeyArray
    num_steps: Int[Array, ""]
    step: Int[Array, ""]
    num_skipped: Int[Array, ""]
    good: tuple[Transport, Any]
    rate: Float[Array, ""]


def initial_state(
    params: Transport,
    config: Config,
    num_steps: int,
    key: PRNGKeyArray,
    objective: Objective = AS_CONFIGURED,
    first_step: int = 0,
) -> StepState:
    """The state before step `first_step` of a schedule of `num_steps` optimizer steps."""
    opt_state = make_optimizer(config, objective).init(params)
    return StepState(
        params=params,
        opt_state=opt_state,
        key=key,
        num_steps=jnp.asarray(num_steps, int),
        step=jnp.asarray(first_step, int),
        num_skipped=jnp.zeros((), int),
        good=(params, opt_state),
        rate=jnp.ones(()),
    )


@compiled
def train_chunk(
    state: StepState,
    frozen: Transport,
    path: PilotPath,
    *,
    config: Config,
    length: int,
    objective: Objective = AS_CONFIGURED,
) -> tuple[StepState, Float[Array, ""]]:
    """Take `length` optimizer steps in one dispatch; return the state after them and the mean of the finite losses.

    A step whose loss or gradient is not finite is skipped: it changes nothing but the counters. Where every step of the
    chunk was skipped, training returns to the last good state with a lower learning rate.
    """
    optimizer = make_optimizer(config, objective)
    start = state

    def one(state: StepState, _):
        key = jax.random.fold_in(state.key, state.step)
        loss, gradient = _loss_and_gradient(state, frozen, path, key, config, objective)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        done = jnp.minimum(state.step / state.num_steps, 1.0)
        schedule = config.learning_rate * (1 + jnp.cos(jnp.pi * done)) / 2
        rate = state.rate * (schedule if objective.optimizer is None else 1.0)
        params = optax.apply_updates(state.params, jax.tree.map(lambda update: rate * update, updates))
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        params, opt_state = _where(good, (params, opt_state), (state.params, state.opt_state))
        after = dataclasses.replace(
            state,
            params=params,
            opt_state=opt_state,
            step=state.step + 1,
            num_skipped=state.num_skipped + ~good,
        )
        return after, loss

    state, losses = jax.lax.scan(one, state, None, length=length)
    skipped = state.num_skipped - start.num_skipped
    params, opt_state = _where(skipped == length, start.good, (state.params, state.opt_state))
    state = dataclasses.replace(
        state,
        params=params,
        opt_state=opt_state,
        good=_where(skipped == 0, (start.params, start.opt_state), start.good),
        rate=jnp.where(skipped == length, _RATE_FACTOR * start.rate, start.rate),
    )
    return state, jnp.nanmean(jnp.where(jnp.isfinite(losses), losses, jnp.nan))


@compiled
def first_nonfinite_point(
    state: StepState, frozen: Transport, path: PilotPath, *, config: Config
) -> tuple[Float[Array, ""], Float[Array, " dim"], Float[Array, ""], Bool[Array, ""]]:
    """Find the first non-finite residual of the next step, or the first non-finite log-weight for the reverse KL.

    Returns:
        t, x, the target's energy at x, and whether there is such a point.
    """
    key = jax.random.fold_in(state.key, state.step)
    transport = eqx.combine(state.params, frozen)
    target = transport.interpolation.target
    if config.loss == "reverse-kl":
        flow = _training_flow(transport, config)
        x, log_prob = jax.vmap(flow.sample_and_log_prob)(jax.random.split(key, config.batch_size))
        times = jnp.ones(len(x))
        value = log_prob + jax.vmap(target.energy)(x)
    else:
        times, x = draw_points(transport, path, state.step / state.num_steps, key, config)
        value = jax.vmap(continuity_residual, (None, 0, 0))(transport, times, x)
    bad = ~jnp.isfinite(value)
    first = jnp.argmax(bad)
    return times[first], x[first], target.energy(x[first]), bad.any()


@compiled
def quick_look(
    params: Transport, frozen: Transport, key: PRNGKeyArray, *, config: Config
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The reverse ESS (22) and the mean log-weight of 2048 samples: enough to watch training, too few to report."""
    transport = eqx.combine(params, frozen)
    flow = make_flow(config, transport)
    x, log_prob = jax.vmap(flow.sample_and_log_prob)(jax.random.split(key, _ESS_SAMPLES))
    log_weight = -jax.vmap(transport.interpolation.target.energy)(x) - log_prob
    ess = jnp.exp(2 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2 * log_weight)) / _ESS_SAMPLES
    return ess, jnp.mean(log_weight)


def points_in_step(config: Config) -> int:
    """The number of points at which a step evaluates the energy and its gradient."""
    if config.loss == "reverse-kl":
        return config.batch_size
    all_points = (config.num_intervals + (not config.jitter)) * config.batch_size
    return min(config.points_per_step or all_points, all_points)


# --- loss and gradient ------------------------------------------------------------------------------------------------


def _where(condition: Bool[Array, ""], one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _training_flow(transport: Transport, config: Config) -> Flow:
    """The flow that the reverse KL differentiates through."""
    base = transport.interpolation.base
    return Flow(base, transport.field, solver=config.train_solver, num_steps=config.num_intervals)


def _loss_and_gradient(
    state: StepState, frozen: Transport, path: PilotPath, key: PRNGKeyArray, config: Config, objective: Objective
):
    if config.loss == "reverse-kl":
        keys = jax.random.split(key, config.batch_size)

        def reverse_kl(params):
            transport = eqx.combine(params, frozen)
            return reverse_kl_loss(_training_flow(transport, config), transport.interpolation.target, keys)

        return jax.value_and_grad(reverse_kl)(state.params)
    times, x = draw_points(eqx.combine(state.params, frozen), path, state.step / state.num_steps, key, config)
    if objective.loss is not None:
        return jax.value_and_grad(_own_loss)(state.params, frozen, objective.loss, times, x, key)
    penalty = objective.penalty or config.penalty
    return _in_blocks(
        lambda p, times, x: continuity_loss(eqx.combine(p, frozen), times, x, penalty), state.params, times, x
    )


def _own_loss(
    params: Transport,
    frozen: Transport,
    loss: Loss,
    times: Float[Array, " num"],
    x: Float[Array, "num dim"],
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """The user's loss at the points of a step. Raises `InputError` where it returns anything but one number."""
    value = loss(eqx.combine(params, frozen), times, x, jax.random.fold_in(key, _STREAM_OF_LOSS))
    if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise InputError(f"a loss returns one real number, got {jnp.result_type(value)} of shape {jnp.shape(value)}")
    return value


def _in_blocks(loss: Callable[..., Any], params: Transport, times: Float[Array, " num"], x: Float[Array, "num dim"]):
    """The value and gradient of a mean over points, computed as the mean over equal blocks of points.

    On a CPU the intermediate values of one block stay in the cache, and only those of a few thousand points take
    memory. The default's 1024 points are one block. An accelerator takes all points at once.
    """
    gradient = jax.value_and_grad(loss)
    fewest = -(-len(x) // _POINT_BLOCK) if jax.default_backend() == "cpu" else 1
    number = next((n for n in range(fewest, 2 * fewest) if len(x) % n == 0), 1)
    if number == 1:
        return gradient(params, times, x)
    blocks = times.reshape(number, -1), x.reshape(number, -1, x.shape[1])

    def add(total, block):
        return jax.tree.map(jnp.add, total, gradient(params, *block)), None

    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, (jnp.zeros(()), params)), blocks)
    return jax.tree.map(lambda value: value / number, total)


# --- points of a step -------------------------------------------------------------------------------------------------


def draw_points(
    transport: Transport, path: PilotPath, done: Float[Array, ""], key: PRNGKeyArray, config: Config
) -> tuple[Float[Array, " num"], Float[Array, "num dim"]]:
    """Times and points at which the step takes the residual: from the flow's trajectories and from the pilot's path."""
    base_key, time_key, pick_key, pilot_key = jax.random.split(key, 4)
    num_intervals = config.num_intervals
    times = stratified_times(time_key, num_intervals) if config.jitter else jnp.linspace(0, 1, num_intervals + 1)
    warming = done < config.warmup_fraction

    def own():
        x0 = jax.vmap(lambda k: transport.interpolation.base.sample_and_log_prob(k)[0])(
            jax.random.split(base_key, config.batch_size)
        )
        return trajectory(transport, x0, times, config.train_solver).reshape(-1, x0.shape[1])

    def unused():
        return jnp.zeros((times.shape[0] * config.batch_size, path.points.shape[2]))

    all_x = jax.lax.cond(warming, unused, own) if config.warmup_fraction else own()
    all_times = jnp.repeat(times, config.batch_size)
    pick = jax.random.permutation(pick_key, all_x.shape[0])[: config.points_per_step or None]
    pilot_times, pilot_x = _pilot_points(path, pilot_key, pick.shape[0])
    # The pilot's times are stratified in order: every second one of them spans [0, 1] as well as all.
    share = _share_of_pilot(done, config)
    slot = jnp.arange(pick.shape[0])
    from_pilot = jnp.floor((slot + 1) * share) > jnp.floor(slot * share)
    return (
        jnp.where(from_pilot, pilot_times, all_times[pick]),
        jnp.where(from_pilot[:, None], pilot_x, all_x[pick]),
    )


def _share_of_pilot(done: Float[Array, ""], config: Config) -> Float[Array, ""]:
    """The share of the points that comes from the pilot: all in the warm-up.

    Over as many steps after it the share falls linearly to `pilot_fraction`. The trajectories of a hardly trained flow
    would otherwise come in at once, at points where the residual is large.
    """
    if not config.warmup_fraction:
        return jnp.asarray(config.pilot_fraction)
    fall = jnp.clip(done / config.warmup_fraction - 1, 0, 1)
    return 1 - (1 - config.pilot_fraction) * fall


def _pilot_points(
    path: PilotPath, key: PRNGKeyArray, num: int
) -> tuple[Float[Array, " {num}"], Float[Array, "{num} dim"]]:
    """Stratified times, and for each a particle of one of the two knots around it; the nearer knot is likelier."""
    time_key, knot_key, particle_key = jax.random.split(key, 3)
    times = (jnp.arange(num) + jax.random.uniform(time_key, (num,))) / num
    left = jnp.clip(jnp.searchsorted(path.times, times) - 1, 0, path.times.shape[0] - 2)
    fraction = (times - path.times[left]) / (path.times[left + 1] - path.times[left])
    knot = left + (jax.random.uniform(knot_key, (num,)) < fraction)
    return times, path.points[knot, jax.random.randint(particle_key, (num,), 0, path.points.shape[1])]
