"""What a target is like before training: points in every mode found, a base, a pace, and a first log Z.

The annealed sampler flies from ever better bases. Scouts from an isotropic one, widened until the target fits well
inside it, find where the target is; from the Gaussian fitted to what they found, three times as wide, come the target's
points. Descent from where the flights have been finds minima, and wells that annealing has lost. From the base of the
run (by default the Gaussian fitted to all of these points) a last flight finds how fast the path may be walked, in
which directions the base differs from the target, leaves points all along the path, and measures log Z with no flow
involved.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity, AbstractDistribution, is_sign_symmetric, lattice_of
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import whitening_gaussian
from boltzflow.errors import InputError
from boltzflow.model.interpolations import Clock, fit_clock
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import Stopwatch
from boltzflow.numerics.linalg import Circulant
from boltzflow.sampling.coverage import MIN_SHARE, behind_barriers, energies_at, weigh_missed_modes
from boltzflow.sampling.gaussian_fit import active_subspace, fit_gaussian
from boltzflow.sampling.minima import descend, far_apart
from boltzflow.sampling.mixture_fit import DEFENSIVE, FittedDensity, fit_mixture
from boltzflow.sampling.resampling import spread
from boltzflow.sampling.smc import SMCSample, run_smc

# At most so many particles, and so many floats of all of them together: in many dimensions fewer. Scouts need only find
# where the target is, so they are few and change temperature fast; the flight after them does not descend from them.
_SCOUT_PARTICLES, _SCOUT_NUMBERS = 2048, 2**16
_PARTICLES, _NUMBERS = 4096, 2**20
_SCOUT_MOVES = 2  # at a temperature, where the others take 4
_SCOUT_ESS, _WIDE_ESS, _PATH_ESS = 0.5, 0.8, 0.97  # the share of effective samples that a change of temperature keeps
_OVERDISPERSION = 3.0
_DESCENT_STEPS, _MAX_MINIMA = 100, 256
_MAX_WIDENINGS = 8
_MIN_STDERR = 1e-3  # single precision, and particles that are correlated, allow no smaller error of log Z


@dataclasses.dataclass(frozen=True)
class Pilot:
    """The annealed sampler's findings.

    `base` and `clock` to train with; for a base that was fitted, the `active_subspace` in which the target differs from
    it, `(dim, size)`; equally weighted `points` of the target as found from that base, and `wide_points`
    as found from a wide one and in lost wells, each of shape `(num_points, dim)`; `minima` of the energy, or low points
    on the way to one, as far apart as can be, `(num_minima, dim)`; `path_times`,
    shape `(num_knots,)` from 0 to 1, and equally weighted `path_points` at each of them, `(num_knots, num_saved, dim)`;
    log Z with its error, from `num_particles`; and what it cost. `complaints` are sentences on what went wrong, if
    anything did. `enough` says that weighted samples of `base` give log Z as well as was asked: no flow is needed.
    """

    base: AbstractDistribution
    clock: Clock
    active_subspace: Float[np.ndarray, "dim size"] | None
    points: Float[Array, "num_points dim"]
    wide_points: Float[Array, "num_points dim"]
    minima: Float[Array, "num_minima dim"]
    path_times: Float[Array, " num_knots"]
    path_points: Float[Array, "num_knots num_saved dim"]
    log_z: float
    log_z_stderr: float
    acceptance: float
    num_gradients: int
    num_particles: int
    nonfinite_share: float
    complaints: tuple[str, ...] = ()
    enough: bool = False


def run_pilot(
    target: AbstractDensity,
    key: PRNGKeyArray,
    *,
    base: AbstractDistribution | None = None,
    pace: bool = True,
    stopwatch: Stopwatch | None = None,
) -> Pilot:
    """Explore `target`; `base` None fits a Gaussian to it, or where annealing has lost wells a mixture that has them;
    `pace` False keeps the paper's clock β = t.

    Raises `InputError` where the target's energy leads to points that are not finite.
    """
    watch = stopwatch or Stopwatch()
    scout_key, explore_key, path_key, start_key, wells_key, fit_key = jax.random.split(key, 6)
    scout, flights, doubts = _scout(target, scout_key, watch)
    num, wide = _num_particles(target, _PARTICLES, _NUMBERS), _widened(_fit(target, scout.x))
    found = _fly(wide, target, explore_key, _WIDE_ESS, num, watch)
    flights = [*flights, found]
    minima = _minima(target, flights, np.std(np.asarray(found.x), axis=0), num, watch)
    fitted = base is None
    points = _with_lost_wells(target, found, minima, wells_key, watch)
    asked = 0
    if base is None:
        base = _fit(target, points)
        if points is not found.x:  # from one Gaussian the next flight would lose the same wells again
            proposal = _propose(target, base, points, fit_key, watch, defensive=0.0)
            base, asked = proposal.density, proposal.num_energies
    sample = _fly(base, target, path_key, _PATH_ESS, num, watch)
    subspace = None
    if fitted and isinstance(base, Gaussian):
        of_target = np.asarray(sample.x)
        subspace = active_subspace(base, of_target, _gradients(target, sample.x), lattice_of(target))
    clock = fit_clock(sample.betas) if pace and sample.betas[-1] == 1 else Clock()
    times = np.concatenate([[0.0], clock.inverse(sample.betas)])
    start = jax.vmap(base.sample_and_log_prob)(jax.random.split(start_key, sample.path.shape[1]))[0]
    flights.append(sample)
    looked_at = len(scout.x) + (len(points) + len(sample.x) if fitted else 0)  # with a gradient more
    return Pilot(
        base=base,
        clock=clock,
        active_subspace=subspace,
        points=sample.x,
        wide_points=points,
        minima=minima,
        path_times=jnp.asarray(times, jnp.float32),
        path_points=jnp.concatenate([start[None], sample.path]),
        log_z=sample.log_z,
        log_z_stderr=max(sample.log_z_stderr, _MIN_STDERR),
        acceptance=sample.acceptance,
        num_gradients=sum(flight.num_gradients for flight in flights) + looked_at + asked + num * (1 + _DESCENT_STEPS),
        num_particles=len(sample.x),
        nonfinite_share=sum(f.num_nonfinite for f in flights) / sum(f.num_proposals for f in flights),
        complaints=tuple(
            doubts + _complaints(found, "from a wide base") + _complaints(sample, "from the base of the run")
        ),
    )


def with_fitted_mixture(
    pilot: Pilot, target: AbstractDensity, key: PRNGKeyArray, watch: Stopwatch
) -> tuple[Pilot, FittedDensity]:
    """A pilot that fitted its base, with the nearest density to the target in place of it; and that density."""
    proposal = _propose(target, whitening_gaussian(pilot.base), pilot.points, key, watch, defensive=DEFENSIVE)
    spent = pilot.num_gradients + proposal.num_energies
    better = dataclasses.replace(
        pilot, base=proposal.density, clock=Clock(), active_subspace=None, num_gradients=spent, enough=True
    )  # fmt: skip
    return better, proposal


def _propose(
    target: AbstractDensity, gaussian: Gaussian, x: Float[Array, "num dim"], key, watch: Stopwatch, defensive: float
) -> FittedDensity:
    subspace = active_subspace(gaussian, np.asarray(x), _gradients(target, x), lattice_of(target))
    points = np.asarray(x)
    return fit_mixture(
        target, lambda x: energies_at(target, x, watch), gaussian, subspace, points, key, defensive=defensive
    )  # fmt: skip


def _fly(base, target, key, ess_fraction, num_particles, watch, num_moves=4) -> SMCSample:
    # From a wide base temperatures grow in number as the square root of the dimension.
    most = int(max(400, 60 * np.sqrt(target.dim)))
    settings = {"num_particles": num_particles, "num_moves": num_moves, "max_steps": most, "watch": watch}
    return run_smc(base, target, key, ess_fraction, **settings)


def _minima(target, flights, scale, num, watch) -> Float[Array, "num_minima dim"]:
    """Down from `num` points of all temperatures of these flights: at the early ones they are everywhere."""
    share = -(-num // len(flights))
    starts = []
    for flight in flights:
        knots, saved, dim = flight.path.shape
        points = flight.path[:, :: max(1, knots * saved // share)].reshape(-1, dim)
        starts.append(points[np.linspace(0, len(points) - 1, share).astype(int)])
    x, f = watch.run(descend, target, jnp.concatenate(starts)[:num], num_steps=_DESCENT_STEPS)
    x = np.asarray(x)[np.isfinite(np.asarray(f)) & np.isfinite(np.asarray(x)).all(axis=1)]
    return jnp.asarray(x[far_apart(x, scale + 1e-12, _MAX_MINIMA)]) if len(x) else jnp.zeros((0, target.dim))


def _with_lost_wells(
    target: AbstractDensity, found: SMCSample, minima, key: PRNGKeyArray, watch: Stopwatch
) -> Float[Array, "num dim"]:
    """The points that were found; where wells were lost, as many of them replaced by points of these as they hold."""
    x, scale = np.asarray(found.x), np.asarray(found.x).std(axis=0) + 1e-12
    minima = np.asarray(minima)[behind_barriers(target, np.asarray(minima), x, scale, watch)]
    if not len(minima):
        return found.x
    cover = _fit(target, found.x)
    excess = energies_at(cover, minima, watch) + float(cover.log_z) - energies_at(target, minima, watch) - found.log_z
    lost, _ = weigh_missed_modes(target, cover.log_prob, minima, excess, found.log_z, scale, key, found=x, watch=watch)
    wells = [region for region in lost if region.share >= MIN_SHARE]
    if not wells:
        return found.x
    odds = np.array([well.share / max(1 - well.share, 1e-6) for well in wells])  # against all that was found
    nums = np.ceil(len(x) * odds / (1 + odds.sum())).astype(int)
    parts = [spread(jnp.asarray(well.points), num) for well, num in zip(wells, nums, strict=True)]
    return jnp.concatenate([spread(found.x, max(1, len(x) - sum(map(len, parts)))), *parts])


def _gradients(target: AbstractDensity, x: Float[Array, "num dim"]) -> np.ndarray:
    return np.asarray(map_points(jax.grad(target.energy), x))


def _fit(target: AbstractDensity, x: Float[Array, "num dim"]) -> Gaussian:
    return fit_gaussian(np.asarray(x), _gradients(target, x), lattice_of(target), is_sign_symmetric(target))


def _widened(base: Gaussian) -> Gaussian:
    if isinstance(base.scale, Circulant):
        return Gaussian(base.mean, scale_tril=Circulant(_OVERDISPERSION * base.scale.eigenvalues))
    return Gaussian(base.mean, scale_tril=_OVERDISPERSION * base.scale)


def _num_particles(target: AbstractDensity, most: int, numbers: int) -> int:
    """At most `most`, of `numbers` floats in all, but enough: no covariance is seen in fewer than twice the dimension,
    except where a lattice has it the same at every site."""
    fewest = 512 if lattice_of(target) else max(512, 2 * target.dim)
    return max(min(most, numbers // target.dim), fewest)


def _scout(
    target: AbstractDensity, key: PRNGKeyArray, watch: Stopwatch
) -> tuple[SMCSample, list[SMCSample], list[str]]:
    """Anneal from N(0, s² I), with s grown until the target fits well inside it, and no wider base finds more of it.

    A mode out of reach of one base is seen from a wider one: so the base that fits is confirmed from one four times as
    wide, whose particles are used only where they spread further. Also returns every flight flown, and doubts.
    """
    lattice, num = lattice_of(target), _num_particles(target, _SCOUT_PARTICLES, _SCOUT_NUMBERS)
    # On a lattice the sites may all move together, which makes the target √dim as wide in that one direction.
    scale, flights, fitting, stuck = 5.0 * (np.sqrt(target.dim) if lattice else 1.0), [], None, False
    for attempt in range(_MAX_WIDENINGS):
        isotropic = Circulant(scale * np.ones(lattice)) if lattice else scale * np.eye(target.dim)
        base = Gaussian(np.zeros(target.dim), scale_tril=isotropic)
        attempt_key = jax.random.fold_in(key, attempt)
        sample = _fly(base, target, attempt_key, _SCOUT_ESS, num, watch, num_moves=_SCOUT_MOVES)
        flights.append(sample)
        reach, was_stuck, stuck = _reach(sample), stuck, sample.betas[-1] < 1
        if fitting is not None and reach <= 1.5 * fitting[1]:
            doubts = _unfinished(fitting[0], "that scouted") + _unfinished(sample, "that confirmed it")
            return fitting[0], flights, doubts
        fitting = (sample, reach) if 2 * reach <= scale else None
        if stuck and was_stuck:  # out of temperatures at two scales: a third would be no better
            break
        scale = 4 * scale if fitting else max(3 * reach, 2 * scale)
    sentence = f"The target was still wide in the widest base tried, of scale {scale:.3g}: can it be normalized?"
    return sample, flights, [sentence]


def _reach(sample: SMCSample) -> float:
    """How far the particles are from the origin: their mean and their largest standard deviation in any direction."""
    points = np.asarray(sample.x, np.float64)
    if not np.isfinite(points).all():
        raise InputError("The energy led the pilot to non-finite points: is it finite, and does it grow outwards?")
    variance = np.linalg.eigvalsh(np.atleast_2d(np.cov(points, rowvar=False)))[-1]
    return float(np.hypot(np.abs(points.mean(axis=0)).max(), np.sqrt(variance)))


def _complaints(sample: SMCSample, where: str) -> list[str]:
    """What makes the pilot's word doubtful."""
    sentences = _unfinished(sample, where)
    if sample.acceptance < 0.2:
        sentences.append(f"The pilot's moves {where} were accepted only {sample.acceptance:.0%} of the time.")
    if sample.num_ancestors < 30:
        sentences.append(f"The pilot's particles {where} descend from only {sample.num_ancestors} starting points.")
    return sentences


def _unfinished(sample: SMCSample, where: str) -> list[str]:
    """A flight that ran out of temperatures has not seen the target, only what it looks like from afar."""
    beta = sample.betas[-1]
    return [f"The annealed pilot {where} stopped at temperature β = {beta:.3g} of 1."] if beta < 1 else []
