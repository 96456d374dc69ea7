"""Training: from a target to transports whose residual is small, one for each seed."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.checks import check_energy
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import TrainingError
from boltzflow.model.continuity import Transport
from boltzflow.numerics.compiling import Stopwatch, make_room
from boltzflow.sampling.pilot import Pilot, run_pilot, with_fitted_mixture
from boltzflow.statistics.estimates import MOST_SAMPLES
from boltzflow.training.build import NO_PARTS, Parts, check_field, choose_base, make_transport, with_mean_rate
from boltzflow.training.cohort import Cohort, Member, divide, with_full_block
from boltzflow.training.snapshots import Snapshots, TrainingState

_CHUNK = 10  # optimizer steps in one dispatch: enough to hide its cost, few enough to show progress
_MAX_SKIPPED_CHUNKS = 5  # with a lower learning rate after each
_SAMPLES_FOR_A_POINT = 8  # weighted samples of a base that are as much work as a point in a step of training
_STEPS_PER_TEMPERATURE, _STEPS_RANGE = 200, (1000, 8000)


@dataclass(frozen=True)
class Progress:
    """Where a run stands: its phase ("pilot", "compile", "train", "evaluate"), step, seconds, and what is known.

    `rows` has the newest row of each seed's history, by seed; of several seeds `loss` and `reverse_ess` are medians.
    """

    phase: str
    step: int
    num_steps: int
    seconds: float
    loss: float | None = None
    reverse_ess: float | None = None
    message: str = ""
    rows: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass
class Trained:
    """What training leaves: the transport, the pilot, the history by step, and the cost so far."""

    transport: Transport
    pilot: Pilot
    history: list[dict[str, float]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)


def train(
    target: AbstractDensity,
    config: Config,
    seeds: Sequence[int],
    on_progress: Callable[[Progress], None] = lambda progress: None,
    parts: Parts = NO_PARTS,
    snapshots: Snapshots | None = None,
) -> dict[int, Trained | TrainingError]:
    """For each of `seeds`, which differ: fly its pilot; then take the optimizer steps of all of them.

    With `snapshots`, goes on from what they hold, and keeps there where it stands. Where the loss of a seed stays
    non-finite, there is a `TrainingError` in place of what it would have become; the others go on. Raises `InputError`
    for an energy that cannot be used.
    """
    check_field(config, target)
    make_room()
    watch, start = Stopwatch(), time.perf_counter()

    def seconds() -> float:
        return time.perf_counter() - start - watch.compile_seconds

    on_progress(Progress("pilot", 0, config.num_steps, 0.0, message="looking for the target's modes"))
    keys = {seed: jax.random.split(jax.random.key(seed), 5) for seed in seeds}
    base = choose_base(config, parts, target.dim)
    probe = base or Gaussian(jnp.zeros(target.dim), 1.0)
    for pilot_key, *_ in keys.values():
        check_energy(target, jax.vmap(lambda k: probe.sample_and_log_prob(k)[0])(jax.random.split(pilot_key, 64)))
    start = time.perf_counter()
    pilots = snapshots.read_pilots(base) if snapshots else {}
    resumed = bool(pilots)
    trained, members = {}, []
    for seed, (pilot_key, network_key, *training_keys, proposal_key) in keys.items():
        if not resumed:
            pilot = run_pilot(target, pilot_key, base=base, pace=config.clock, stopwatch=watch)
            may_do = config.loss == "continuity" and parts == NO_PARTS and base is None
            pilots[seed] = without_a_flow(pilot, target, config, proposal_key, watch) if may_do else pilot
        pilot = pilots[seed]
        transport = make_transport(config, parts, target, pilot, network_key)
        transport = with_mean_rate(transport, pilot.log_z - float(pilot.base.log_z))
        trained[seed] = Trained(transport, pilot)
        if pilot.enough:
            continue
        points = with_full_block(pilot.path_times, pilot.path_points)
        members.append(Member(seed, config.num_steps or steps_for(pilot), transport, points, *training_keys))
    cohorts = [Cohort(group, config, watch) for group in divide(members)]
    num_steps = dict.fromkeys(trained, 0) | {member.seed: member.num_steps for member in members}
    standing = snapshots.read([cohort.state for cohort in cohorts]) if snapshots else None
    if standing:
        start -= standing.seconds
    message = "; ".join(snapshots.notes) if snapshots else ""
    if not members:
        message = "nothing to train: weighted samples of what was fitted to the pilot's points are enough"
    phase, step = "compile" if members else "evaluate", standing.step if standing else 0
    on_progress(Progress(phase, step, max(num_steps.values()), seconds(), message=message))
    if snapshots and not resumed:
        snapshots.write_pilots(pilots)
    failures = _take_all_steps(cohorts, trained, num_steps, config, seconds, on_progress, snapshots, standing)
    took = seconds()
    for cohort in cohorts:
        skipped = cohort.num_skipped()
        for seed, transport in cohort.transports().items():
            one = trained[seed]
            one.transport = transport
            one.cost["skipped_steps"] = skipped[seed]
    for seed, one in trained.items():
        one.cost = _cost(config, one, num_steps[seed], took, watch.compile_seconds, len(seeds))
    return {seed: failures.get(seed, trained[seed]) for seed in seeds}


def without_a_flow(pilot: Pilot, target: AbstractDensity, config: Config, key: PRNGKeyArray, watch: Stopwatch) -> Pilot:
    """The pilot with a base whose weighted samples are enough for the error of log Z that is asked for, if drawing them
    is no more work than training would be; else, and where no error or some training is asked for, the pilot as is."""
    if not config.log_z_error or config.num_steps:
        return pilot
    better, proposal = with_fitted_mixture(pilot, target, key, watch)
    most = min(_SAMPLES_FOR_A_POINT * steps_for(pilot) * points_in_step(config), MOST_SAMPLES)
    if proposal.num_samples(config.log_z_error) <= most:
        return better
    return dataclasses.replace(pilot, num_gradients=better.num_gradients)


def points_in_step(config: Config) -> int:
    """At how many points a step asks for the energy and its gradient."""
    if config.loss == "reverse-kl":
        return config.batch_size
    all_points = (config.num_intervals + (not config.jitter)) * config.batch_size
    return min(config.points_per_step or all_points, all_points)


def steps_for(pilot: Pilot) -> int:
    """As many optimizer steps as the target seems to need: 200 for each temperature that the pilot stepped through from
    the base of the run, between 1000 and 8000. These temperatures cut the path into pieces of equal difficulty."""
    return int(np.clip(_STEPS_PER_TEMPERATURE * (len(pilot.path_times) - 1), *_STEPS_RANGE))


def _take_all_steps(
    cohorts: Sequence[Cohort],
    trained: Mapping[int, Trained],
    num_steps: Mapping[int, int],
    config: Config,
    seconds: Callable[[], float],
    on_progress: Callable[[Progress], None],
    snapshots: Snapshots | None,
    standing: TrainingState | None,
) -> dict[int, TrainingError]:
    """The optimizer steps, with a row in the history of each seed for every few of them; the seeds that failed."""
    failures: dict[int, TrainingError] = {}
    bad_chunks, step, last = dict.fromkeys(trained, 0), 0, max(num_steps.values())
    if standing:
        step, bad_chunks = standing.step, dict(standing.bad_chunks)
        failures = {seed: TrainingError(text) for seed, text in standing.failures.items()}
        for cohort, state in zip(cohorts, standing.states, strict=True):
            cohort.go_on_from(state)
        for seed, kept in standing.histories.items():
            trained[seed].history[:] = kept
    now = standing
    try:
        while step < last and len(failures) < len(trained):
            length = min(_CHUNK, last - step)
            losses: dict[int, float] = {}
            for cohort in cohorts:
                before = cohort.num_skipped()
                losses |= cohort.take_steps(length)
                for seed, skipped in cohort.num_skipped().items():
                    skipped -= before[seed]
                    # Only a chunk without a skipped step is a recovery: of a bad start the first step may be finite.
                    bad_chunks[seed] = bad_chunks[seed] + (skipped == length) if skipped else 0
                    if bad_chunks[seed] == _MAX_SKIPPED_CHUNKS and seed not in failures:
                        where = cohort.offending_point(seed)
                        failures[seed] = _diverged(bad_chunks[seed] * _CHUNK, step + length, config, where)
            after = {"step": step + length, "seconds": seconds()}
            going = [seed for seed in trained if seed not in failures and step < num_steps[seed]]
            rows = {seed: after | {"loss": losses[seed]} for seed in going}
            if rows and _due(step, length, last):
                ess = {seed: value for cohort in cohorts for seed, value in cohort.quick_ess().items()}
                rows = {seed: row | {"reverse_ess": ess[seed]} for seed, row in rows.items()}
            histories = {seed: [*one.history, *filter(None, [rows.get(seed)])] for seed, one in trained.items()}
            step += length
            told = {seed: str(failure) for seed, failure in failures.items()}
            states = [cohort.state for cohort in cohorts]
            now = TrainingState(step, after["seconds"], states, histories, dict(bad_chunks), told)
            for seed, one in trained.items():
                one.history[:] = histories[seed]
            if snapshots:
                snapshots.offer(now)
            if rows:
                trouble = snapshots.trouble if snapshots else ""
                on_progress(_progress(rows, last, len(trained), len(failures), trouble))
    except (KeyboardInterrupt, Exception):  # the user's, or of an energy outside JAX
        if snapshots and now:
            snapshots.write(now)
        raise
    if snapshots and now:
        snapshots.write(now)
    return failures


def _diverged(
    num_steps: int, step: int, config: Config, where: tuple[float, np.ndarray, float] | None
) -> TrainingError:
    at = ""
    if where:
        t, x, energy = where
        shown = ", ".join(f"{value:.4g}" for value in x[:4]) + (", ..." if len(x) > 4 else "")
        at = f" At t = {t:.3g}, x = ({shown}), for one; the target's energy there is {energy:.4g}."
    return TrainingError(
        f"The loss was not finite for {num_steps} steps, up to step {step}, also with a learning rate that "
        f"was lowered again and again from {config.learning_rate:g}: check the energy far from its modes.{at}"
    )


def _progress(
    rows: Mapping[int, Mapping[str, float]], num_steps: int, num_seeds: int, num_failed: int, trouble: str = ""
) -> Progress:
    """One look at all seeds: medians over those whose number is finite."""

    def median(name: str) -> float | None:
        values = [row[name] for row in rows.values() if name in row]
        finite = [value for value in values if math.isfinite(value)]
        return statistics.median(finite) if finite else values[0] if values else None

    row = next(iter(rows.values()))
    message = f"median of {len(rows)} seeds" if num_seeds > 1 else ""
    if num_failed:
        message += f", {num_failed} of {num_seeds} failed"
    message = ", ".join(filter(None, [message, trouble]))
    return Progress(
        "train", int(row["step"]), num_steps, row["seconds"], median("loss"), median("reverse_ess"), message, rows
    )


def _due(step: int, length: int, num_steps: int) -> bool:
    """Whether one of twenty evenly spaced looks at the ESS falls in these steps."""
    return (step + length) * 20 // num_steps > step * 20 // num_steps


def _cost(
    config: Config, one: Trained, num_steps: int, train_seconds: float, compile_seconds: float, num_seeds: int
) -> dict[str, float]:
    """What one seed cost. The seconds are those of all `num_seeds`: nobody waited for a part of them."""
    skipped = one.cost.get("skipped_steps")
    cost = {
        "train_seconds": train_seconds,
        "compile_seconds": compile_seconds,
        "steps": num_steps,
        "gradient_evaluations": num_steps * points_in_step(config) + one.pilot.num_gradients,
    }
    return cost | ({"skipped_steps": skipped} if skipped else {}) | ({"num_seeds": num_seeds} if num_seeds > 1 else {})
