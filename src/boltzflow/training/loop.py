"""Training: from a target to a transport whose continuity residual is small."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PRNGKeyArray

from boltzflow.config import Config
from boltzflow.densities.base import AbstractDensity, AbstractDistribution
from boltzflow.densities.energy_checks import check_energy
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.noncentered import NonCentered
from boltzflow.densities.precision import Programs, trains_in_single
from boltzflow.errors import TrainingError
from boltzflow.model.continuity import Transport, trainable
from boltzflow.numerics.compiling import Stopwatch, make_room
from boltzflow.numerics.stages import following
from boltzflow.sampling.exploring import explore
from boltzflow.sampling.pilot import Pilot, in_coordinates, with_fitted_mixture
from boltzflow.statistics.estimates import MOST_SAMPLES
from boltzflow.training.build import NO_PARTS, Parts, check_field, check_parts, choose_base, untrained
from boltzflow.training.race import Race, candidates, run_race, steps_of, with_field
from boltzflow.training.snapshots import Snapshots, TrainingState
from boltzflow.training.start import Start, Started
from boltzflow.training.step import points_in_step
from boltzflow.training.trainer import CHUNK, Trainer

_NUM_LOOKS = 20  # at the reverse ESS, evenly spaced over the steps
_FEWEST_LOOKS = 2  # of a started run, which has fewer as it has fewer steps
_MAX_SKIPPED_CHUNKS = 5  # with a lower learning rate after each
_SAMPLES_FOR_A_POINT = 8  # weighted samples of a base that cost as much as one point of a training step
_STEPS_PER_TEMPERATURE = 200
_STEPS_RANGE = (1000, 8000)
_NUM_CHECKED = 64  # points at which the energy is checked before the pilot


@dataclass(frozen=True)
class Progress:
    """The state of a run, as given to a callback.

    Args:
        phase: "pilot", "race" (where several fields are tried), "compile", "train" or "evaluate".
        step: Optimizer steps taken.
        num_steps: Optimizer steps in all; 0 before the pilot has found how many the target needs.
        seconds: Wall time since the start of the pilot, without compilation.
        loss: The mean loss of the last ten steps.
        reverse_ess: The reverse ESS of 2048 samples, at one of at most twenty looks.
        message: A sentence for the user, or an empty string; in the phases "pilot" and "evaluate" what is done now.
        share: The share of the phase that is done, from 0 to 1; None where it is not known.
    """

    phase: str
    step: int
    num_steps: int
    seconds: float
    loss: float | None = None
    reverse_ess: float | None = None
    message: str = ""
    share: float | None = None


@dataclass
class Trained:
    """The result of training: the transport, the pilot's findings, the history by step, and the cost so far.

    `race` tells which of several fields was chosen; None where there was one. `started` tells from which other run this
    one began.
    """

    transport: Transport
    pilot: Pilot
    history: list[dict[str, float]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    race: Race | None = None
    started: Started | None = None

    @property
    def in_double(self) -> bool:
        """Whether the parameters are in double precision, because the energy needs it."""
        leaves = jax.tree.leaves(eqx.filter(self.transport, trainable(self.transport)))
        return any(leaf.dtype == np.float64 for leaf in leaves)


def train(
    target: AbstractDensity,
    config: Config,
    seed: int,
    programs: Programs,
    on_progress: Callable[[Progress], None] | None = None,
    parts: Parts = NO_PARTS,
    snapshots: Snapshots | None = None,
    start: Start | None = None,
) -> Trained:
    """Run the pilot on `target`, build what is trained, and take the optimizer steps, fewer from the flow of a `start`.

    An interrupted training continues from its `snapshots`. Raises `InputError` where the energy cannot be used, and
    `TrainingError` where the loss stays non-finite.
    """
    check_field(config, target)
    check_parts(config, parts)
    if start:
        start.check(target, config, parts)
    make_room()
    on_progress = on_progress or (lambda progress: None)
    on_progress(Progress("pilot", 0, config.num_steps, 0.0, message="checking the energy"))
    keys = jax.random.split(jax.random.key(seed), 5)
    base = choose_base(config, parts, target.dim)
    probe = base or Gaussian(jnp.zeros(target.dim), 1.0)
    check_keys = jax.random.split(keys[0], _NUM_CHECKED)
    with programs.answering():
        check_energy(target, jax.vmap(lambda k: probe.sample_and_log_prob(k)[0])(check_keys))
    with Stopwatch() as watch:

        def explored(stage: str, share: float | None) -> None:
            on_progress(Progress("pilot", 0, config.num_steps, watch.seconds, message=stage, share=share))

        with programs.answering(), following(explored):
            kept = snapshots.read_pilot(base) if snapshots else None
            pilot = kept or _find_pilot(target, config, base, keys, parts)
            target = in_coordinates(target, pilot)
            if start and not pilot.enough:
                pilot = start.with_subspace(pilot, target)
            in_double = programs.double and not trains_in_single(target, pilot.points)
        with programs.training(in_double):
            return _train(target, config, pilot, keys, programs, on_progress, parts, snapshots, watch, start)


def _find_pilot(
    target: AbstractDensity,
    config: Config,
    base: AbstractDistribution | None,
    keys: Key[Array, " num"],
    parts: Parts,
) -> Pilot:
    """A new pilot."""
    pilot_key, *_, mixture_key = keys
    pilot = explore(target, pilot_key, base=base, pace=config.clock, adapt=not parts.depend_on_coordinates)
    if config.loss == "continuity" and parts == NO_PARTS and base is None:
        pilot = without_a_flow(pilot, in_coordinates(target, pilot), config, mixture_key)
    return pilot


def _train(
    target: AbstractDensity,
    config: Config,
    pilot: Pilot,
    keys: Key[Array, " num"],
    programs: Programs,
    on_progress: Callable[[Progress], None],
    parts: Parts,
    snapshots: Snapshots | None,
    watch: Stopwatch,
    start: Start | None,
) -> Trained:
    _, network_key, train_key, ess_key, _ = keys
    num_steps = 0 if pilot.enough else config.num_steps or steps_for(pilot)

    def keep_pilot() -> None:
        """Called after an `on_progress`, which may have set an earlier run in this folder aside."""
        if snapshots and not snapshots.has_pilot:
            with programs.answering():
                snapshots.write_pilot(pilot)

    def report_race(sentence: str) -> None:
        on_progress(Progress("race", 0, num_steps, watch.seconds, message=sentence))
        keep_pilot()

    race = _choose_field(target, config, parts, pilot, num_steps, keys, report_race, snapshots, start)
    if not config.num_steps:
        num_steps = steps_of(race, num_steps)
    config = with_field(config, race)
    transport = untrained(config, parts, target, pilot, network_key)
    first_step = 0
    num_looks = _NUM_LOOKS
    started = None
    if start and not pilot.enough:
        with programs.answering():
            transport, started = start.carried(transport, pilot, target, ess_key, config)
        if not started.anew:
            ordinary = num_steps
            num_steps = config.num_steps or started.steps_of(ordinary)
            num_looks = max(_FEWEST_LOOKS, _NUM_LOOKS * num_steps // ordinary)
            first_step = num_steps  # the second half of a schedule: a lower rate, no warm-up
    trained = Trained(transport, pilot, race=race, started=started)
    trainer = (
        None
        if pilot.enough
        else Trainer(transport, pilot, config, num_steps, train_key, ess_key, parts.objective, first_step)
    )
    resumed = snapshots.read(trainer.state) if snapshots and trainer else None
    earlier = resumed.seconds if resumed else 0.0

    def seconds() -> float:
        return earlier + watch.seconds

    told = [one.sentence for one in (race, started) if one]
    message = "; ".join([*(snapshots.notes if snapshots else []), *told])
    if trainer is None:
        message = "no training needed: weighted samples of the mixture fitted to the pilot's points are enough"
    phase = "compile" if trainer else "evaluate"
    on_progress(Progress(phase, resumed.step if resumed else 0, num_steps, seconds(), message=message))
    keep_pilot()
    if trainer:
        trained.history = _take_all_steps(trainer, seconds, on_progress, snapshots, resumed, num_looks)
        trained.transport = trainer.transport
    num_raced = race.num_steps_in_all if race else 0
    trained.cost = {
        "train_seconds": seconds(),
        "compile_seconds": watch.compile_seconds,
        "steps": num_steps,
        "gradient_evaluations": (num_steps + num_raced) * points_in_step(config) + pilot.num_gradients,
    }
    if trainer and trainer.num_skipped:
        trained.cost["skipped_steps"] = trainer.num_skipped
    return trained


def _choose_field(
    target: AbstractDensity,
    config: Config,
    parts: Parts,
    pilot: Pilot,
    num_steps: int,
    keys: Key[Array, " num"],
    say: Callable[[str], None],
    snapshots: Snapshots | None,
    start: Start | None,
) -> Race | None:
    """The race between several fields, of an interrupted run the one that it kept; None where there is one field.

    A `start` has chosen already.
    """
    fields = candidates(config, parts, target)
    if pilot.enough or len(fields) == 1:
        return None
    if start:
        return Race(start.config.field, 0, {}, {})
    race = snapshots.read_race() if snapshots else None
    if race is None:
        race = run_race(fields, target, config, parts, pilot, num_steps, keys[1:4], say)
        if snapshots:
            snapshots.write_race(race)
    return race


def without_a_flow(pilot: Pilot, target: AbstractDensity, config: Config, key: PRNGKeyArray) -> Pilot:
    """The pilot with a base whose weighted samples alone reach the target error of log Z, if there is one.

    Drawing these samples must cost no more work than training would. Where no error is asked for, where steps are, or
    where no such base is found, the pilot keeps its base.
    """
    if not config.log_z_error or config.num_steps:
        return pilot
    better, mixture = with_fitted_mixture(pilot, target, key)
    most = min(_SAMPLES_FOR_A_POINT * steps_for(pilot) * points_in_step(config), MOST_SAMPLES)
    if mixture.num_samples(config.log_z_error) <= most:
        return better
    return dataclasses.replace(pilot, num_gradients=better.num_gradients)


def steps_for(pilot: Pilot) -> int:
    """The number of optimizer steps that the target seems to need, between 1000 and 8000.

    It is 200 for each inverse temperature of the pilot's last SMC run, which starts from the base of the run. These
    inverse temperatures cut the path into pieces of equal difficulty.
    """
    return int(np.clip(_STEPS_PER_TEMPERATURE * (len(pilot.path_times) - 1), *_STEPS_RANGE))


def _take_all_steps(
    trainer: Trainer,
    seconds: Callable[[], float],
    on_progress: Callable[[Progress], None],
    snapshots: Snapshots | None,
    resumed: TrainingState | None,
    num_looks: int,
) -> list[dict[str, float]]:
    """Take the optimizer steps that are left; return the history, with a row for every ten steps."""
    now = resumed
    step = 0
    skipped_chunks = 0
    history: list[dict[str, float]] = []
    if resumed:
        step = resumed.step
        skipped_chunks = resumed.skipped_chunks
        history = list(resumed.history)
        trainer.state = resumed.state
    try:
        while step < trainer.num_steps:
            length = min(CHUNK, trainer.num_steps - step)
            skipped_before = trainer.num_skipped
            loss = trainer.take_steps(length)
            skipped = trainer.num_skipped - skipped_before
            # Only a chunk without a skipped step is a recovery: of a bad start the first step may be finite.
            skipped_chunks = skipped_chunks + (skipped == length) if skipped else 0
            if skipped_chunks == _MAX_SKIPPED_CHUNKS:
                raise _diverged(skipped_chunks * CHUNK, step + length, trainer)
            row = {"step": step + length, "seconds": seconds(), "loss": loss}
            if _is_look(step, length, trainer.num_steps, num_looks):
                row["reverse_ess"] = trainer.quick_look()[0]
            step += length
            history = [*history, row]
            now = TrainingState(step, row["seconds"], trainer.state, history, skipped_chunks)
            if snapshots:
                snapshots.offer(now)
            trouble = snapshots.trouble if snapshots else ""
            ess = row.get("reverse_ess")
            share = step / trainer.num_steps
            on_progress(Progress("train", step, trainer.num_steps, row["seconds"], loss, ess, trouble, share))
    except (KeyboardInterrupt, Exception):  # an interruption by the user, or an error of an energy outside JAX
        if snapshots and now:
            snapshots.write(now)
        raise
    if snapshots and now:
        snapshots.write(now)
    return history


def _diverged(num_steps: int, step: int, trainer: Trainer) -> TrainingError:
    at = ""
    where = trainer.nonfinite_point()
    if where:
        t, x, energy = where
        target = trainer.transport.interpolation.target
        if isinstance(target, NonCentered):  # the energy that the user has given, at the user's point
            energy += float(target.log_jacobian(jnp.asarray(x)))
            x = np.asarray(target.constrain(jnp.asarray(x)))
        shown = ", ".join(f"{value:.4g}" for value in x[:4]) + (", ..." if len(x) > 4 else "")
        at = f" One such point is t = {t:.3g}, x = ({shown}), where the target's energy is {energy:.4g}."
    return TrainingError(
        f"The loss was not finite for {num_steps} steps, up to step {step}, although the learning rate was lowered "
        f"repeatedly from {trainer.config.learning_rate:g}: check the energy far from its modes.{at}"
    )


def _is_look(step: int, length: int, num_steps: int, num_looks: int) -> bool:
    """Whether one of the evenly spaced looks at the ESS falls in these steps."""
    return (step + length) * num_looks // num_steps > step * num_looks // num_steps
