"""Correctness, speed and answers on a GPU, in under eight minutes, from a checkout without an installation.

Each part is a process with its own share of the time: `correctness` (the card against the CPU, single against double
precision, TF32), `steps` (a step and samples over the sites of the chain, beside the arithmetic floor of the card),
`default` (whole runs), `paper` (the paper's procedure, as far as the time goes) and `tables` (cells of both tables of
the paper). A row is stored when it is measured, so that a part that is cut off keeps what it has.
"""

import dataclasses
import functools
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from benchmarks import common, gpu_checks
from benchmarks.products import flops, num_loose, products
from benchmarks.store import Row, Store
from benchmarks.tables import render
from boltzflow.config import paper_preset
from boltzflow.densities.base import sample_batch
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import Transport, trainable
from boltzflow.model.interpolations import Clock
from boltzflow.numerics.batching import BATCH_SIZE, map_points
from boltzflow.numerics.linalg import Circulant
from boltzflow.studies.paper import cells
from boltzflow.studies.paper.experiments import EXPERIMENTS
from boltzflow.training.build import NO_PARTS, build_transport, make_flow
from boltzflow.training.step import PilotPath, initial_state, points_in_step, train_chunk

NAME = "gpu"
MASS = 1.5
SITES = (16, 4096, 1024, 256, 64)
DEFAULT_TASKS = ("double-well N=16 m=1.5", "mixture-4")
PAPER_TASK = "double-well N=16 m=1.5"
NO_CARD = 3  # the exit status
_CHUNK = 10
_CHUNKS = 8
_KNOTS = 8
_SUBSPACE = 16  # as many waves as the pilot finds to matter on the chain at m = 1.5
_NUMBERS = 2**25  # coordinates of the samples that are timed
_SIZE = 8192  # of the matrices whose product gives the card's rate
_ENDS_EARLY = 0.85  # the share of its time after which a part begins nothing new


@dataclasses.dataclass(frozen=True)
class Time:
    """The end of a part's time."""

    end: float

    @classmethod
    def of(cls, seconds: float) -> "Time":
        return cls(time.monotonic() + _ENDS_EARLY * seconds)

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


# --- steps and samples ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled programs of one number of sites, and their arguments."""

    target: boltzflow.DoubleWell
    transport: Transport
    arguments: tuple
    step: Any
    values: Row


def chain_parts(sites: int) -> tuple[boltzflow.DoubleWell, Transport, PilotPath]:
    """The chain, an untrained transport and a path, of the sizes that a pilot finds, without the time of a pilot."""
    target = boltzflow.DoubleWell(sites, MASS)
    spectrum = np.maximum(np.fft.fft(target.correlator).real, 1e-6)
    base = Gaussian(np.zeros(sites), scale_tril=Circulant(np.sqrt((spectrum + np.roll(spectrum[::-1], 1)) / 2)))
    k = np.arange(_SUBSPACE)[None]
    waves, _ = np.linalg.qr(
        np.cos(2 * np.pi * ((k + 1) // 2) * np.arange(sites)[:, None] / sites + (k % 2) * np.pi / 2)
    )
    transport = build_transport(boltzflow.Config(), NO_PARTS, base, target, Clock(1.0), jax.random.key(0), waves)
    keys = jax.random.split(jax.random.key(1), max(1, 2**20 // sites))
    points = jax.vmap(base.sample_and_log_prob)(keys)[0]
    times = jnp.linspace(0, 1, _KNOTS)
    return target, transport, PilotPath(times, jnp.broadcast_to(points, (_KNOTS, *points.shape)))


def compile_programs(sites: int) -> Programs:
    """The programs of a chain, compiled, with the arithmetic of a step and the memory that it needs."""
    target, transport, path = chain_parts(sites)
    # With this number of steps and no warm-up, each step is a full one with trajectories of the flow.
    config = dataclasses.replace(boltzflow.Config(), warmup_fraction=0.0)
    params, frozen = eqx.partition(transport, trainable(transport))
    state = initial_state(params, config, 100_000, jax.random.key(2))
    found = products(train_chunk, state, frozen, path, config=config, length=1)
    start = time.perf_counter()
    step = train_chunk.lower(state, frozen, path, config=config, length=_CHUNK).compile()
    sizes = step.compiled.memory_analysis()
    values = {
        "compile_seconds": time.perf_counter() - start,
        "flops": flops(found),
        "loose_products": num_loose(found),
        "xla_flops": float(step.compiled.cost_analysis().get("flops", 0.0)),
        "step_bytes": int(sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes),
    }
    return Programs(target, transport, (state, frozen, path, config), step, values)


def time_programs(programs: Programs, numbers: int = _NUMBERS) -> Row:
    """Seconds of a step, the median over chunks, and samples per second with log-density, energy and weight."""
    state, frozen, path, config = programs.arguments
    times = []
    for _ in range(1 + _CHUNKS):
        start = time.perf_counter()
        state, loss = programs.step(state, frozen, path, config=config, length=_CHUNK)
        loss = float(loss)
        times.append((time.perf_counter() - start) / _CHUNK)
    flow = make_flow(boltzflow.Config(), programs.transport)
    num = max(1, min(numbers // flow.dim // BATCH_SIZE, 32)) * BATCH_SIZE

    def draw(num_samples: int) -> None:
        x, log_prob = sample_batch(flow, jax.random.key(3), num_samples)
        jax.block_until_ready(-map_points(programs.target.energy, x) - log_prob)

    draw(num)  # compiles
    start = time.perf_counter()
    draw(num)
    rate = num / (time.perf_counter() - start)
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "step_seconds": statistics.median(times[1:]),
        "points": points_in_step(config),
        "loss": loss,
        "samples": num,
        "samples_per_second": rate,
        **programs.values,
        "peak_bytes": int(memory.get("peak_bytes_in_use", 0)),  # of the process so far
    }


def rates_of_the_card(size: int = _SIZE) -> Row:
    """Measured rates: a large product in full precision and in the card's default, and a copy, bytes read and written.

    The operands are random: zeros can be faster.
    """
    a, b = (jax.random.normal(key, (size, size)) for key in jax.random.split(jax.random.key(0)))

    def seconds(function: Callable[..., jax.Array]) -> float:
        function = jax.jit(function)
        jax.block_until_ready(function(a, b))
        times = []
        for _ in range(8):
            start = time.perf_counter()
            jax.block_until_ready(function(a, b))
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    work = 2.0 * size**3
    return {
        "flops_highest": work / seconds(lambda a, b: jnp.matmul(a, b, precision="highest")),
        "flops_default": work / seconds(lambda a, b: jnp.matmul(a, b, precision="default")),
        "bytes_per_second": 3.0 * a.nbytes / seconds(lambda a, b: a + b),
    }


def steps(store: Store, until: Time, sites: tuple[int, ...]) -> None:
    """The programs of all sizes are compiled side by side, and timed one after another."""
    on_card = jax.default_backend() != "cpu"
    size, numbers = (_SIZE, _NUMBERS) if on_card else (512, 1)
    store.measured(lambda: rates_of_the_card(size), target="the card", method="steps")
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting = [(n, pool.submit(compile_programs, n)) for n in sites]
        for n, programs in waiting:
            if until.left < 0:
                programs.cancel()
                continue
            measure = functools.partial(lambda future: time_programs(future.result(), numbers), programs)
            store.measured(measure, target=f"double-well N={n} m={MASS:g}", method="steps")


# --- whole runs -------------------------------------------------------------------------------------------------------


def whole_run(name: str, config: boltzflow.Config | None = None) -> Row:
    """A run of the default preset and its report."""
    start = time.perf_counter()
    target = common.TASKS[name].make()
    run, pilot_seconds = common.fit(target, 0, config or boltzflow.Config())
    report = run.report()
    cost = run.trained.cost
    log_z = report.estimates["log_z"]
    ess = {key: float(value.value) for key, value in report.estimates.items() if key.endswith("_ess")}
    return {
        "total_seconds": time.perf_counter() - start,
        "pilot_seconds": pilot_seconds,
        "train_seconds": cost["train_seconds"],
        "compile_seconds": report.cost["compile_seconds"],
        "steps": cost["steps"],
        "log_z": float(log_z.value),
        "log_z_stderr": float(log_z.stderr),
        "error": float(log_z.value) - float(target.log_z),
        **ess,
        "trusted": report.verdict.trustworthy,
        "said": list(report.verdict.warnings),
    }


def default(store: Store, until: Time) -> None:
    for name in DEFAULT_TASKS:
        if until.left > 0:
            store.measured(functools.partial(whole_run, name), target=name, method="default")


def procedure(until: Time) -> Row:
    """The paper's procedure on its own schedule: its speed, and its looks (step, ESS of 2048 samples), until the end.

    Where all steps are done in time, also the reverse ESS of the report.
    """
    task = common.TASKS[PAPER_TASK]
    target = task.make()
    config = paper_preset(task.paper_name, target.dim)
    seen: list[tuple[int, float]] = []
    looks: list[list[float]] = []

    def listen(progress: boltzflow.Progress) -> None:
        if progress.phase == "train":
            seen.append((progress.step, progress.seconds))
            if progress.reverse_ess is not None:
                looks.append([progress.step, progress.seconds, progress.reverse_ess])
            if until.left < 0:
                raise common.Enough

    ended: Row = {}
    try:
        run = boltzflow.fit(target, seed=0, config=config, name=task.paper_name, on_progress=listen)
        ended = {"reverse_ess": float(run.report().estimates["reverse_ess"].value)}
    except common.Enough:
        pass
    looks = [look for look in looks if np.isfinite(look[-1])]
    pace = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(seen)]
    return {
        "steps": seen[-1][0],
        "published_steps": config.num_steps,
        "seconds": seen[-1][1],
        **({"step_seconds": statistics.median(pace)} if pace else {}),
        "looks": looks,
        **ended,
    }


def paper(store: Store, until: Time) -> None:
    store.measured(lambda: procedure(until), target=PAPER_TASK, method="paper")


# --- cells of the paper's tables --------------------------------------------------------------------------------------


def cell_row(cell: cells.Cell) -> Row:
    """One seed of a cell in the preset "quick"."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = cells.train(cell, cells.config_of(cell, "quick"), 0, lambda progress: None, Path(folder))
        found = cells.measure(run)
    metrics = {name: value for name, value in found["metrics"].items() if np.isfinite(value)}
    kept = {name: found[name] for name in ("train_seconds", "compile_seconds", "steps", "trusted")}
    exact = float(run.target.log_z)  # type: ignore[attr-defined]
    return {"total_seconds": time.perf_counter() - start, **kept, **metrics, "error": float(found["log_z"][0]) - exact}


def tables(store: Store, until: Time) -> None:
    """Several cells at a time, each in a process: most of their time is the compiler's."""
    wanted = [cell for name in ("table1", "table2") for cell in EXPERIMENTS[name].cells]
    # The continuity loss first: it is what the package is for.
    wanted.sort(key=lambda cell: cell.method == "reverse_kl_loss")
    jobs = max(1, min(4, (os.cpu_count() or 1) // 4))
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        there = {pool.submit(_in_time, cell, time.time() + until.left): cell for cell in wanted}
        for future in as_completed(there):
            cell = there[future]
            if future.exception() is None and future.result() is None:
                continue
            store.measured(future.result, target=f"{cell.table} {cell.name}", method="tables")


def _in_time(cell: cells.Cell, end: float) -> Row | None:
    """The row of a cell; None where the time is over."""
    return cell_row(cell) if time.time() < end else None


# --- the program ------------------------------------------------------------------------------------------------------


PARTS: dict[str, tuple[Callable[..., None], float]] = {
    "correctness": (lambda store, until: gpu_checks.correctness(store), 50),
    "steps": (steps, 100),
    "default": (default, 100),
    "paper": (paper, 125),
    "tables": (tables, 100),
}
"""Each part, and its share of the time."""


def main() -> None:
    options = common.arguments(
        __doc__,
        budget={"type": float, "default": 450.0, "help": "seconds of all parts together"},
        only={"nargs": "+", "choices": PARTS, "default": list(PARTS), "metavar": "PART", "help": ", ".join(PARTS)},
        sites={"type": int, "nargs": "+", "default": SITES, "help": "numbers of sites of the part steps"},
        anyway={"action": "store_true", "help": "measure the CPU where there is no card"},
        inside={"action": "store_true", "help": "measure in this process (for the program itself)"},
    )
    if options.inside:
        inside(options)
        return
    if options.fresh:
        (options.results / f"{NAME}.json").unlink(missing_ok=True)
    end = time.monotonic() + options.budget
    for part, seconds in shares(options.only, end):
        print(f"# {part}: at most {seconds:.0f} s", flush=True)
        status = in_own_process(part, seconds, options)
        if status == NO_CARD:
            sys.exit("no GPU here: `make gpu` is ready for a machine with one, and --anyway measures the CPU")
        if status:
            print(f"# {part} ended with status {status}; the rows above it are kept", flush=True)
    print(f"\n{render(NAME, options.results)}")


def shares(parts: list[str], end: float) -> Iterator[tuple[str, float]]:
    """Each part with its seconds: the share of what the parts before it have left."""
    for number, part in enumerate(parts):
        whole = sum(PARTS[name][1] for name in parts[number:])
        yield part, max(0.0, end - time.monotonic()) * PARTS[part][1] / whole


def in_own_process(part: str, seconds: float, options: Any) -> int:
    """Runs a part, and ends it with all of its processes after `seconds`. Returns its status."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--inside", "--only", part, "--budget", f"{seconds}"]
    command += ["--results", str(options.results), "--sites", *map(str, options.sites)]
    command += ["--anyway"] * options.anyway
    # Several processes share the card: none takes most of its memory at the start.
    env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    child = subprocess.Popen(command, env=env, process_group=0)
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def inside(options: Any) -> None:
    """One part in this process."""
    until = Time.of(options.budget)
    if jax.default_backend() == "cpu" and not options.anyway:
        sys.exit(NO_CARD)
    store = Store(NAME, options.results)
    (part,) = options.only
    measure, _ = PARTS[part]
    extra = {"sites": tuple(options.sites)} if part == "steps" else {}
    measure(store, until, **extra)


if __name__ == "__main__":
    main()
