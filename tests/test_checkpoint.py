"""Checkpoints, without training: what comes back is what was saved, or a sentence says why nothing does."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.gaussian_mixture import SubspaceMixture
from boltzflow.densities.student_t import StudentTMixture
from boltzflow.model.interpolations import Clock
from boltzflow.numerics.linalg import Circulant
from boltzflow.numerics.validation import random_key
from boltzflow.sampling.pilot import Pilot
from boltzflow.sampling.pilot_arrays import check_target, energies
from boltzflow.storage import files
from boltzflow.testing.model import randomize
from boltzflow.training import checkpoint
from boltzflow.training.build import NO_PARTS, build_transport, make_transport
from boltzflow.training.loop import Trained
from boltzflow.training.snapshots import Snapshots

DIM = 12
CONFIG = dataclasses.replace(default_preset(), width=8, num_networks=2)
RECORD = {"config": dataclasses.asdict(CONFIG), "parts": [], "history": [], "cost": {}}
TARGET = bf.DoubleWell(DIM, 1.5)
BASES = {
    "matrix": Gaussian(np.arange(DIM), np.eye(DIM) + 0.3),
    "circulant": Gaussian(np.zeros(DIM), scale_tril=Circulant(2 + np.cos(2 * np.pi * np.arange(DIM) / DIM))),
}

BASES["mixture"] = SubspaceMixture(
    BASES["circulant"],
    bf.GaussianMixture([1 / 3, 2 / 3], [[-1.0, 0.2], [0.5, 0.1]], [[0.1, 0.3], [0.5, 0.2]]),
    np.linalg.qr(np.random.default_rng(1).normal(size=(DIM, 2)))[0],
)
BASES["heavy mixture"] = SubspaceMixture(
    BASES["matrix"],
    StudentTMixture([1 / 3, 2 / 3], [[-1.0, 0.2], [0.5, 0.1]], 4.5, scales=[[0.1, 0.3], [0.5, 0.2]]),
    BASES["mixture"].subspace,
)


def trained(base, directions):
    points = np.random.default_rng(0).normal(size=(50, DIM))
    pilot = Pilot(
        base=base,
        clock=Clock(3.7),
        active_subspace=directions,
        points=points,
        wide_points=2 * points,
        minima=points[:3],
        path_times=np.linspace(0, 1, 3),
        path_points=np.stack([points] * 3),
        log_z=1.5,
        log_z_stderr=0.01,
        acceptance=0.7,
        num_gradients=1000,
        num_particles=50,
        nonfinite_share=0.001,
        complaints=("one",),
    )
    transport = build_transport(CONFIG, NO_PARTS, base, TARGET, pilot.clock, jax.random.key(1), directions)
    return Trained(randomize(transport, jax.random.key(2)), pilot)


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("name", BASES)
def test_what_comes_back_is_what_was_saved_to_the_last_bit(name, size, tmp_path):
    directions = None if size is None else np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, size)))[0]
    one = trained(BASES[name], directions)
    checkpoint.save(tmp_path, one, RECORD)
    loaded, _ = checkpoint.load(tmp_path, TARGET)
    assert jax.tree.structure(loaded.transport) == jax.tree.structure(one.transport)
    assert eqx.tree_equal(loaded.transport, one.transport)  # the whitening, the clock, the networks
    assert (loaded.pilot.active_subspace is None) == (size is None) and loaded.pilot.clock.rate == 3.7
    for field in ("log_z", "log_z_stderr", "acceptance", "num_gradients", "nonfinite_share", "complaints"):
        assert getattr(loaded.pilot, field) == getattr(one.pilot, field)
    np.testing.assert_array_equal(loaded.pilot.wide_points, one.pilot.wide_points)
    if size is not None:
        np.testing.assert_array_equal(loaded.pilot.active_subspace, directions)


def test_a_base_that_is_enough_comes_back_with_no_flow(tmp_path):
    one = trained(BASES["mixture"], None)
    one.pilot = dataclasses.replace(one.pilot, enough=True)
    one.transport = make_transport(CONFIG, NO_PARTS, TARGET, one.pilot, jax.random.key(1))
    checkpoint.save(tmp_path, one, RECORD)
    loaded, _ = checkpoint.load(tmp_path, TARGET)
    assert eqx.tree_equal(loaded.transport, one.transport) and loaded.pilot.enough


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_target_is_recognized_by_differences_of_its_energies(tmp_path, offset, double):
    """Neither an offset nor one large energy hides another target; both precisions are compared with their own."""
    points = np.random.default_rng(0).normal(size=(64, DIM)).astype(np.float32).astype(np.float64)
    points[0] = 1e6
    pilot = dataclasses.replace(trained(BASES["matrix"], None).pilot, points=points)

    def target(tilt):
        return bf.Energy(lambda x: offset + jnp.sum(x**2) / 2 + tilt * x[0], DIM)

    with jax.enable_x64(double):
        kept = energies(target(0.0), pilot)
    assert kept.dtype == (np.float64 if double else np.float32)
    for now in (False, True):
        with jax.enable_x64(now):
            check_target(tmp_path, target(0.0), pilot, kept)
            for tilt in (3.0, 0.01) if double or not offset else (3.0,):
                with pytest.raises(bf.InputError, match="of another target"):
                    check_target(tmp_path, target(tilt), pilot, kept)


def rewritten(folder, change_arrays=lambda arrays: arrays, **changes):
    """The checkpoint with other contents, and a digest that fits them."""
    arrays, record = files.read(folder / checkpoint.FILE)
    files.write(folder / checkpoint.FILE, change_arrays(arrays), record | changes)


def test_a_checkpoint_of_another_format_is_refused_with_a_sentence(tmp_path):
    checkpoint.save(tmp_path, trained(BASES["matrix"], None), RECORD)
    assert checkpoint.read_record(tmp_path)["format"] == files.FORMAT
    rewritten(tmp_path, format=files.FORMAT - 1)
    with pytest.raises(bf.InputError, match=f"is not a checkpoint of format {files.FORMAT}, the one"):
        checkpoint.load(tmp_path, TARGET)


def test_the_two_files_of_an_older_version_are_refused_with_a_sentence(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "record.json").write_text("{}")
    with pytest.raises(bf.InputError, match="older boltzflow: train again"):
        checkpoint.load(tmp_path / "checkpoint", TARGET)


def test_a_checkpoint_without_its_directions_is_damaged(tmp_path):
    checkpoint.save(tmp_path, trained(BASES["matrix"], np.eye(DIM)[:, :8]), RECORD)
    rewritten(tmp_path, lambda arrays: {k: v for k, v in arrays.items() if k != "pilot.directions"})
    with pytest.raises(bf.InputError, match=r"has an array of shape \(8, 9\) where \(8, 13\) is expected"):
        checkpoint.load(tmp_path, TARGET)


def test_an_interrupted_run_is_told_to_resume(tmp_path):
    folder = tmp_path / "a" / "checkpoint"
    folder.mkdir(parents=True)
    with pytest.raises(bf.InputError, match=r"holds no finished run: .*run.npz is missing\.$"):
        checkpoint.load(folder, TARGET)
    Snapshots(folder, TARGET, CONFIG, 0).write_pilot(trained(BASES["matrix"], None).pilot)
    with pytest.raises(bf.InputError, match=r"interrupted: go on with boltzflow resume .*/a\)") as raised:
        checkpoint.load(folder, TARGET)
    assert "older" not in str(raised.value)


# --- arguments of a run -----------------------------------------------------------------------------------------------

KEY = jax.random.key(0)


@pytest.mark.parametrize("num_samples", [-1, 0, 1.5, "3", None, True, 10**30, float("nan")])
@pytest.mark.parametrize("method", ["sample", "correct", "expectation"])
def test_a_number_of_samples_that_is_none(unchecked, method, num_samples):
    if method == "expectation" and num_samples == 0:
        return  # the samples of the report
    run = bf.Run(TARGET, CONFIG, 0, trained(BASES["matrix"], None))
    first = (lambda x: x[0]) if method == "expectation" else KEY
    with pytest.raises(bf.InputError, match="num_samples must be a whole number") as raised:
        getattr(run, method)(first, num_samples)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", [0, None, "key", jnp.zeros(2), jnp.zeros(3, jnp.uint32), jax.random.split(KEY)])
@pytest.mark.parametrize("method", ["sample", "correct"])
def test_a_key_that_is_none(unchecked, method, key):
    with pytest.raises(bf.InputError, match=r"one of JAX's random keys, as jax.random.key\(0\)"):
        getattr(bf.Run(TARGET, CONFIG, 0, trained(BASES["matrix"], None)), method)(key, 10)


def test_keys_of_both_kinds_are_the_same():
    old, new = random_key(jax.random.PRNGKey(5)), random_key(jax.random.key(5))
    assert np.array_equal(jax.random.key_data(old), jax.random.key_data(new))


def test_other_arguments_of_a_run(unchecked, tmp_path):
    run = bf.Run(TARGET, CONFIG, 0, trained(BASES["matrix"], None))
    (tmp_path / "file").write_text("")
    for call, says in (
        (lambda: run.correct(KEY, 10, "mcmc"), "a correction is one of importance"),
        (lambda: run.correct(KEY, 10, None), "a correction is one of importance"),
        (lambda: run.correct(KEY, 10, ["importance"]), "a correction is one of importance"),
        (lambda: run.expectation(3), "must be a function of one point, got 3"),
        (lambda: run.expectation(None), "must be a function of one point, got None"),
        (lambda: run.save(3), "the folder must be a path, got 3"),
        (lambda: run.save(None), "the folder must be a path, got None"),
        (lambda: run.save(tmp_path / "file"), "file cannot be written"),
        (lambda: run.save(tmp_path / "file" / "below"), "cannot be written"),
        (lambda: bf.load(3), "the folder must be a path, got 3"),
        (lambda: bf.load(tmp_path / "none"), "holds no finished run"),
        (lambda: bf.load(tmp_path / "file"), "holds no finished run"),
    ):
        with pytest.raises(bf.InputError, match=says):
            call()
