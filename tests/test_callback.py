"""Energies of other libraries: functions outside JAX that return energies and gradients."""

import platform
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.config import default_preset, with_changes
from boltzflow.densities.energy_checks import check_energy
from boltzflow.interop.callback import Callback

PRECISION = np.array([[2.0, 0.3], [0.3, 0.5]])
LOG_Z = float(np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1])


def gaussian(x):
    return 0.5 * np.einsum("ni,ij,nj->n", x, PRECISION, x), x @ PRECISION


def test_callback_returns_energy_and_gradient_in_one_call():
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return gaussian(x)

    target = Callback(counted, 2)
    x = jax.random.normal(jax.random.key(0), (7, 2))
    sizes.clear()
    energy, gradient = jax.block_until_ready(jax.jit(jax.vmap(jax.value_and_grad(target.energy)))(x))
    assert sizes == [7]
    np.testing.assert_allclose(energy, gaussian(np.asarray(x))[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, gaussian(np.asarray(x))[1], rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.vmap(target.energy))(x[None]), energy[None], rtol=1e-6)
    check_energy(target, x)


def test_callback_trains_to_exact_log_z():
    config = with_changes(default_preset(), {"num_steps": 100, "width": 8, "num_eval_samples": 4096})
    run = bf.fit(Callback(gaussian, 2), config=config)
    assert run.report().verdict.trustworthy
    assert abs(run.log_z().value - LOG_Z) < 5 * run.log_z().stderr


def fails(x):
    raise RuntimeError("no such\nmolecule")


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: (gaussian(x)[0], 2 * gaussian(x)[1]), "the gradient is not that of the energy: at x = "),
        (lambda x: (gaussian(x)[0], -gaussian(x)[1]), "the gradient gives"),
        (lambda x: gaussian(x)[0], "energies and gradients"),
        (lambda x: (gaussian(x)[0][:, None], gaussian(x)[1]), r"got \(4, 1\) and \(4, 2\)"),
        (lambda x: (np.full(len(x), np.nan), x), "give check_at"),
        (fails, "RuntimeError: no such molecule"),
    ],
)
def test_invalid_callback_is_refused(fn, words):
    with pytest.raises(bf.InputError, match=words):
        Callback(fn, 2)


def test_callback_stops_at_time_limit():
    started = time.perf_counter()
    with pytest.raises(bf.InputError, match=r"more than 0.1 s for 4 points"):
        Callback(lambda x: time.sleep(30), 2, time_limit=0.1)
    assert time.perf_counter() - started < 5


def test_callback_works_after_timeout_or_error():
    moods = iter(["ok"] * 6 + ["slow", "ok", "fails", "ok"])  # the gradient check makes the first five calls

    def moody(x):
        mood = next(moods)
        if mood == "fails":
            raise RuntimeError("no such molecule")
        time.sleep(5 if mood == "slow" else 0)
        return gaussian(x)

    target = Callback(moody, 2, time_limit=0.5)
    assert target.energy(jnp.ones(2)) == pytest.approx(gaussian(np.ones((1, 2)))[0][0])
    for _ in range(2):
        with pytest.raises(Exception, match=r"more than 0.5 s|no such molecule"):
            jax.block_until_ready(target.energy(jnp.ones(2)))
        assert target.energy(jnp.ones(2)) == pytest.approx(gaussian(np.ones((1, 2)))[0][0])


def test_system_exit_in_callback_is_an_error():
    with pytest.raises(bf.InputError, match="SystemExit: 3"):
        Callback(lambda x: sys.exit(3), 2)


def test_interop_modules_load_on_access():
    program = "import boltzflow; print([boltzflow.interop.callback.Callback, boltzflow.interop.arviz.to_datatree])"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'stan'"):
        bf.interop.stan  # noqa: B018


def test_callback_may_modify_its_points():
    def greedy(x):
        result = gaussian(x)
        if len(x) == 7:  # not in the gradient check
            x[:] = np.nan
        return result

    target = Callback(greedy, 2)
    for double in (False, True):
        with jax.enable_x64(double):
            x = jax.random.normal(jax.random.key(0), (7, 2))
            energy, same = jax.jit(lambda x: (jax.vmap(target.energy)(x), x + 0))(x)
            np.testing.assert_array_equal(same, x)
            np.testing.assert_allclose(energy, gaussian(np.asarray(x))[0], rtol=1e-5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are not changed")
def test_callback_keeps_freed_memory():
    import resource

    faults = []

    def hungry(x):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for _ in range(4):
            _ = [np.ones(2**18) for _ in range(4)]  # 512 pages each, 8192 in all if mapped anew
        faults.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
        return gaussian(x)

    target = Callback(hungry, 2)
    faults.clear()
    for _ in range(5):
        jax.block_until_ready(target.energy(jnp.ones(2)))
    assert sorted(faults)[2] < 100
