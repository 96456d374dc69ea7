"""Training: from a target to a transport whose residual is small."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .assembly import NO_PARTS, Parts, build_transport, choose_base, make_flow, make_optimizer, with_mean_rate
from .bases import Gaussian
from .compilation import Stopwatch
from .continuity import Transport, trainable
from .densities import AbstractDensity
from .errors import TrainingError
from .flow import Flow
from .losses import continuity_loss, reverse_kl_loss, stratified_times, trajectory
from .pilot import Pilot, fly_pilot
from .presets import Config
from .targets import check_energy

_CHUNK = 10  # optimizer steps in one dispatch: enough to hide its cost, few enough to show progress
_MAX_SKIPPED_CHUNKS = 5


@dataclass(frozen=True)
class Progress:
    """Where a run stands: its phase ("pilot", "compile", "train", "evaluate"), step, seconds, and what is known."""

    phase: str
    step: int
    num_steps: int
    seconds: float
    loss: float | None = None
    reverse_ess: float | None = None
    message: str = ""


@dataclass
class Trained:
    """What training leaves: the transport, the pilot, the history by step, and the cost so far."""

    transport: Transport
    pilot: Pilot
    history: list[dict[str, float]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)


class TrainState(eqx.Module):
    """Everything that the next optimizer step needs. Step k draws its random numbers from `key` and k alone."""

    params: Transport
    opt_state: Any
    key: PRNGKeyArray
    step: Int[Array, ""]
    num_skipped: Int[Array, ""]


def train(
    target: AbstractDensity,
    config: Config,
    key: PRNGKeyArray,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    parts: Parts = NO_PARTS,
) -> Trained:
    """Fly the pilot, then take `config.num_steps` optimizer steps.

    Raises `InputError` for an energy that cannot be used, `TrainingError` when the loss stays non-finite.
    """
    watch, start = Stopwatch(), time.perf_counter()

    def seconds() -> float:
        return time.perf_counter() - start - watch.compile_seconds

    pilot_key, network_key, train_key, ess_key = jax.random.split(key, 4)
    on_progress(Progress("pilot", 0, config.num_steps, 0.0, message="looking for the target's modes"))
    base = choose_base(config, parts, target.dim)
    probe = base or Gaussian(jnp.zeros(target.dim), 1.0)
    check_energy(target, jax.vmap(lambda k: probe.sample_and_log_prob(k)[0])(jax.random.split(pilot_key, 64)))
    start = time.perf_counter()
    pilot = fly_pilot(target, pilot_key, base=base, pace=config.clock, stopwatch=watch)
    transport = build_transport(config, parts, pilot.base, target, pilot.clock, network_key)
    transport = with_mean_rate(transport, pilot.log_z - float(pilot.base.log_z))
    params, frozen = eqx.partition(transport, trainable(transport))
    opt_state = make_optimizer(config).init(params)
    state = TrainState(params, opt_state, train_key, jnp.zeros((), int), jnp.zeros((), int))
    trained = Trained(transport, pilot)
    on_progress(Progress("compile", 0, config.num_steps, seconds()))
    bad_chunks = 0
    while (step := int(state.step)) < config.num_steps:
        length = min(_CHUNK, config.num_steps - step)
        points = (pilot.path_times, pilot.path_points)
        state, loss = watch.run(_train_chunk, state, frozen, points, config=config, length=length)
        bad_chunks = 0 if jnp.isfinite(loss) else bad_chunks + 1
        if bad_chunks == _MAX_SKIPPED_CHUNKS:
            raise TrainingError(
                f"The loss was not finite for {bad_chunks * _CHUNK} steps in a row, up to step {step + length}: lower "
                f"the learning rate (now {config.learning_rate:g}) or check the energy far from its modes."
            )
        row = {"step": step + length, "seconds": seconds(), "loss": float(loss)}
        if _due(step, length, config.num_steps):
            row["reverse_ess"] = float(watch.run(_quick_ess, state.params, frozen, ess_key, config=config))
        trained.history.append(row)
        on_progress(
            Progress("train", step + length, config.num_steps, row["seconds"], row["loss"], row.get("reverse_ess"))
        )
    trained.transport = eqx.combine(state.params, frozen)
    trained.cost = _cost(config, pilot, seconds(), watch.compile_seconds, int(state.num_skipped))
    return trained


def _due(step: int, length: int, num_steps: int) -> bool:
    """Whether one of twenty evenly spaced looks at the ESS falls in these steps."""
    return (step + length) * 20 // num_steps > step * 20 // num_steps


def _train_chunk(state: TrainState, frozen: Transport, points, *, config: Config, length: int):
    """`length` optimizer steps in one dispatch; the state after them and the mean loss of the finite ones."""
    optimizer = make_optimizer(config)

    def one(state: TrainState, _):
        key = jax.random.fold_in(state.key, state.step)
        loss, gradient = _loss_and_gradient(state, frozen, points, key, config)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # A step whose loss or gradient is not finite is skipped and counted; it changes nothing but the step number.
        good = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), (params, opt_state), (state.params, state.opt_state)
        )
        return TrainState(params, opt_state, state.key, state.step + 1, state.num_skipped + ~good), loss

    state, losses = jax.lax.scan(one, state, None, length=length)
    return state, jnp.nanmean(jnp.where(jnp.isfinite(losses), losses, jnp.nan))


def _loss_and_gradient(state: TrainState, frozen: Transport, points, key: PRNGKeyArray, config: Config):
    if config.loss == "reverse-kl":

        def reverse_kl(params):
            path = eqx.combine(params, frozen).interpolation
            velocity_field = eqx.combine(params, frozen).field
            flow = Flow(path.base, velocity_field, solver=config.train_solver, num_steps=config.num_intervals)
            return reverse_kl_loss(flow, path.target, jax.random.split(key, config.batch_size))

        return jax.value_and_grad(reverse_kl)(state.params)
    times, x = _draw_points(eqx.combine(state.params, frozen), points, state.step, key, config)
    return jax.value_and_grad(lambda p: continuity_loss(eqx.combine(p, frozen), times, x, config.penalty))(state.params)


def _draw_points(transport: Transport, points, step: Int[Array, ""], key: PRNGKeyArray, config: Config):
    """Times `(num,)` and points `(num, dim)` at which to take the residual: the flow's trajectories and the pilot's."""
    base_key, time_key, pick_key, pilot_key = jax.random.split(key, 4)
    n = config.num_intervals
    times = stratified_times(time_key, n) if config.jitter else jnp.linspace(0, 1, n + 1)
    warming = step < config.warmup_fraction * config.num_steps

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


def _quick_ess(params: Transport, frozen: Transport, key: PRNGKeyArray, *, config: Config) -> Float[Array, ""]:
    """The reverse ESS (22) of 2048 samples: to watch training by, too few to report."""
    transport = eqx.combine(params, frozen)
    flow = make_flow(config, transport)
    x, log_prob = jax.vmap(flow.sample_and_log_prob)(jax.random.split(key, 2048))
    log_weight = -jax.vmap(transport.interpolation.target.energy)(x) - log_prob
    return jnp.exp(2 * jax.nn.logsumexp(log_weight) - jax.nn.logsumexp(2 * log_weight)) / 2048


def _cost(config: Config, pilot: Pilot, train_seconds: float, compile_seconds: float, skipped: int) -> dict[str, float]:
    all_points = (config.num_intervals + (not config.jitter)) * config.batch_size
    points = min(config.points_per_step or all_points, all_points)
    gradients = config.num_steps * (config.batch_size if config.loss == "reverse-kl" else points)
    cost = {
        "train_seconds": train_seconds,
        "compile_seconds": compile_seconds,
        "steps": config.num_steps,
        "gradient_evaluations": gradients + pilot.num_gradients,
    }
    return cost | ({"skipped_steps": skipped} if skipped else {})
