"""The types of the public face as mypy sees them; nothing here runs. `make test` checks it to the letter."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import boltzflow


def energy(x: jax.Array) -> jax.Array:
    return jnp.sum(x**2)


def watch(row: boltzflow.Progress) -> None:
    assert_type(row.phase, str)
    assert_type(row.step, int)
    assert_type(row.share, float | None)
    assert_type(row.loss, float | None)


def of_runs(folder: Path) -> None:
    target = boltzflow.Energy(energy, dim=2)
    assert_type(target, boltzflow.Energy)
    run = boltzflow.fit(target, seed=0, progress=False, on_progress=watch)
    assert_type(run, boltzflow.Run)
    assert_type(boltzflow.fit_seeds(target, seeds=range(3)), list[boltzflow.Run])
    assert_type(boltzflow.load(folder, target), boltzflow.Run)
    assert_type(run.save(folder), None)
    assert_type(run.log_z(), boltzflow.Estimate)
    assert_type(run.expectation(lambda x: x), Any)  # the tree of the function
    assert_type(run.pilot, boltzflow.Pilot)
    assert_type(run.flow, boltzflow.Flow)
    assert_type(run.figures(), list[tuple[str, str, bytes]])


def of_reports(report: boltzflow.Report) -> None:
    assert_type(report.estimates, Mapping[str, boltzflow.Estimate])
    assert_type(report.verdict, boltzflow.Verdict)
    assert_type(report.verdict.trustworthy, bool)
    assert_type(report.verdict.warnings, Sequence[str])
    assert_type(report.verdict.headline, str)
    assert_type(report.cost, Mapping[str, float])
    assert_type(report.route, str)
    assert_type(report.estimates["log_z"].ok, bool)
    assert_type(report.estimates["log_z"].reason, str)


def of_samples(run: boltzflow.Run, key: jax.Array) -> None:
    samples = run.sample(key, 10)
    assert_type(samples, boltzflow.Samples)
    x: np.ndarray[Any, Any] = samples.x
    weight: np.ndarray[Any, Any] = samples.weight
    arrays: dict[str, np.ndarray[Any, Any]] = samples.to_numpy()
    assert_type(len(samples), int)
    del x, weight, arrays


def of_pictures(run: boltzflow.Run) -> None:
    assert_type(run.plot.path(), Figure)
    assert_type(run.plot.corner([0, 1]), Figure)
    assert_type(run.plot.energy(), Figure)


def of_own_loops(target: boltzflow.AbstractDensity, key: jax.Array) -> None:
    pilot = boltzflow.explore(target, key)
    assert_type(pilot, boltzflow.Pilot)
    transport = boltzflow.make_transport(target, pilot, key)
    assert_type(transport, boltzflow.Transport)
    times, points = boltzflow.draw_points(transport, pilot, key, 0.5)
    residual: jax.Array = boltzflow.continuity_residual(transport, times[0], points[0])
    assert_type(boltzflow.run_of(target, pilot, transport), boltzflow.Run)
    assert_type(boltzflow.Parts(penalty=jnp.abs, optimizer=optax.adam(1e-3)).names(), list[str])
    del residual
