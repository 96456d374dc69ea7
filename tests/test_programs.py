"""Compiled programs and the data behind them: an energy whose data changed is traced anew, and a run of it refuses."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import boltzflow as bf
from boltzflow.densities.catalog import SHIPPED, make_target
from boltzflow.densities.precision import energy_fingerprint, programs_of
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.programs import fingerprint

X = np.array([[0.5, -1.0], [2.0, 0.25], [0.0, 1.5]])
QUICK = {"preset": "quick", "num_steps": 20, "num_eval_samples": 256, "width": 8, "sample_steps": 4}

# Each makes an energy a·|x|²/2 from a starting value a, and a function that changes a where the energy reads it.


def _dict(a):
    data = {"a": a}
    return lambda x: data["a"] * (x @ x) / 2, lambda value: data.update(a=value)


def _attribute(a):
    model = SimpleNamespace(a=a)
    return lambda x: model.a * (x @ x) / 2, lambda value: setattr(model, "a", value)


def _method(a):
    class Model:
        def energy(self, x):
            return self.a * (x @ x) / 2

    model = Model()
    model.a = a
    return model.energy, lambda value: setattr(model, "a", value)


def _array_in_place(a):
    data = np.array([a, a])
    return lambda x: (data * x**2).sum() / 2, lambda value: data.__setitem__(slice(None), value)


def _jax_array_in_a_list(a):
    data = [jnp.asarray([a, a])]
    return lambda x: (data[0] * x**2).sum() / 2, lambda value: data.__setitem__(0, jnp.asarray([value, value]))


def _own_jit(a):
    data = {"a": a}
    inner = jax.jit(lambda x: data["a"] * (x @ x) / 2)
    return lambda x: inner(x), lambda value: data.update(a=value)


def _nested_jits(a):
    data = {"a": a}
    innermost = jax.jit(lambda x: data["a"] * x)
    inner = jax.jit(lambda x: innermost(x) @ x / 2)
    return inner, lambda value: data.update(a=value)


def _scan_body(a):
    data = {"a": a}

    def body(total, x_i):
        return total + data["a"] * x_i**2 / 2, None

    return lambda x: jax.lax.scan(body, jnp.zeros((), x.dtype), x)[0], lambda value: data.update(a=value)


def _branch(a):
    data = {"a": a}

    def half(x):
        return data["a"] * (x @ x) / 2

    return lambda x: jax.lax.cond(x[0] > 0, half, half, x), lambda value: data.update(a=value)


def _loop(a):
    data = {"a": a}

    def body(i, total):
        return total + data["a"] / 2

    return lambda x: (x @ x) * jax.lax.fori_loop(0, 1, body, jnp.zeros((), x.dtype)), lambda v: data.update(a=v)


def _checkpointed(a):
    data = {"a": a}
    inner = jax.checkpoint(lambda x: data["a"] * (x @ x) / 2)
    return lambda x: inner(x), lambda value: data.update(a=value)


KINDS = (
    _dict,
    _attribute,
    _method,
    _array_in_place,
    _jax_array_in_a_list,
    _own_jit,
    _nested_jits,
    _scan_body,
    _branch,
    _loop,
    _checkpointed,
)


def answers(target):
    """Energies and gradients at the points X, by the programs of the target as it is now."""
    with programs_of(target).answering():
        return np.asarray(map_points(target.energy, X)), np.asarray(map_points(jax.grad(target.energy), X))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_changed_data_change_the_answer(kind):
    fn, change = kind(1.0)
    target = bf.Energy(fn, 2)
    for a in (1.0, 3.0, 1.0, 0.25):
        change(a)
        energies, gradients = answers(target)
        np.testing.assert_allclose(energies, a * (X**2).sum(axis=1) / 2, rtol=1e-14)
        np.testing.assert_allclose(gradients, a * X, rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))
def test_the_fingerprint_is_that_of_the_data(kind):
    fn, change = kind(1.0)
    target = bf.Energy(fn, 2)
    first = energy_fingerprint(target, double=True)
    change(1.0 + (2.0**-20 if kind is _jax_array_in_a_list else 2.0**-52))  # a JAX array made outside is in single
    assert energy_fingerprint(target, double=True) != first
    change(1.0)
    assert energy_fingerprint(target, double=True) == first
    assert energy_fingerprint(bf.Energy(kind(1.0)[0], 2), double=True) == first  # another function, the same program


def test_a_changed_rule_of_differentiation_changes_the_gradient():
    data = {"a": 1.0}

    @jax.custom_jvp
    def energy(x):
        return (x @ x) / 2

    @energy.defjvp
    def rule(primals, tangents):
        return energy(primals[0]), data["a"] * (primals[0] @ tangents[0])

    target = bf.Energy(energy, 2)
    for a in (1.0, 3.0, 0.5):
        data["a"] = a
        energies, gradients = answers(target)
        np.testing.assert_allclose(energies, (X**2).sum(axis=1) / 2, rtol=1e-14)
        np.testing.assert_allclose(gradients, a * X, rtol=1e-14)


def test_a_changed_reverse_rule_changes_the_gradient():
    data = {"a": 1.0}

    @jax.custom_vjp
    def energy(x):
        return (x @ x) / 2

    energy.defvjp(lambda x: (energy(x), x), lambda x, g: (data["a"] * g * x,))
    target = bf.Energy(energy, 2)
    for a in (1.0, 3.0, 0.5):
        data["a"] = a
        np.testing.assert_allclose(answers(target)[1], a * X, rtol=1e-14)


def test_what_a_callback_reads_is_no_part_of_the_program():
    data = {"a": 1.0}

    def outside(x):
        return np.asarray(data["a"] * (x @ x) / 2, x.dtype)

    def fn(x):
        return jax.pure_callback(outside, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method="sequential")

    first = fingerprint(fn, jax.ShapeDtypeStruct((2,), np.float32))
    data["a"] = 2.0
    assert fingerprint(fn, jax.ShapeDtypeStruct((2,), np.float32)) == first


def test_a_function_that_cannot_be_traced_has_a_fingerprint_of_its_own():
    def fn(x):
        raise KeyError("lost")

    shape = jax.ShapeDtypeStruct((2,), np.float32)
    assert fingerprint(fn, shape) != fingerprint(fn, shape)


def test_targets_that_differ_in_arrays_alone_share_programs():
    traces = []

    def energy(x, a):
        traces.append(a)
        return a * (x @ x) / 2

    def at(a):
        return bf.Energy(jax.tree_util.Partial(energy, a=np.float64(a)), 2)

    one, other = (programs_of(at(a)) for a in (1.0, 3.0))
    assert one.shared == other.shared and one.fingerprint != other.fingerprint
    numbers = []
    for a, programs in ((1.0, one), (3.0, other)):
        before = len(traces)
        with programs.answering():
            np.testing.assert_allclose(map_points(at(a).energy, X), a * (X**2).sum(axis=1) / 2, rtol=1e-14)
        numbers.append(len(traces) - before)
    assert numbers == [1, 0]
    closures = [programs_of(bf.Energy(lambda x, a=a: a * (x @ x) / 2, 2)) for a in (1.0, 3.0)]
    assert closures[0].shared != closures[1].shared


def test_programs_are_not_shared_where_an_array_has_another_shape():
    def energy(x, data):
        return x @ x + (data**2).sum()

    targets = [bf.Energy(jax.tree_util.Partial(energy, data=np.ones(num)), 2) for num in (3, 4)]
    assert programs_of(targets[0]).shared != programs_of(targets[1]).shared


# --- shipped targets --------------------------------------------------------------------------------------------------


def shipped():
    """The fingerprint of each shipped target, with its default options."""
    return {name: energy_fingerprint(make_target(name), double=True) for name in SHIPPED}


def test_fingerprints_of_shipped_targets_are_stable():
    found = shipped()
    assert found == shipped()
    assert len(set(found.values())) == len(found)


def test_fingerprints_are_those_of_another_process():
    program = "import test_programs; print(*test_programs.shipped().values())"
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(shipped().values())


def test_precisions_and_options_have_fingerprints_of_their_own():
    target = bf.DoubleWell(2, 1.5)
    assert energy_fingerprint(target, double=True) != energy_fingerprint(target, double=False)
    assert energy_fingerprint(target, True) != energy_fingerprint(bf.DoubleWell(2, 1.25), True)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    data = {"a": 1.0}
    target = bf.Energy(lambda x: data["a"] * (x @ x) / 2, 2)
    run = bf.fit(target, config=QUICK)
    return data, target, run


@pytest.fixture
def changed(trained):
    """A run whose energy reads other data since, without anything that it has already drawn."""
    data, target, run = trained
    data["a"] = 2.0
    yield bf.run.Run(target, run.config, run.seed, run.trained, run.name, run.options, run.parts, run.programs)
    data["a"] = 1.0


ASKED = {
    "flow": lambda run, folder: run.flow,
    "samples": lambda run, folder: run.samples,
    "log_weights": lambda run, folder: run.log_weights,
    "sample": lambda run, folder: run.sample(jax.random.key(1), 10),
    "correct": lambda run, folder: run.correct(jax.random.key(1), 10),
    "expectation": lambda run, folder: run.expectation(lambda x: x[0]),
    "log_z": lambda run, folder: run.log_z(),
    "report": lambda run, folder: run.report(),
    "figures": lambda run, folder: run.figures(),
    "save": lambda run, folder: run.save(folder),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_run_refuses_after_its_data_changed(changed, tmp_path, asked):
    with pytest.raises(bf.InputError, match="data that it reads have changed"):
        ASKED[asked](changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_answers_again_when_its_data_are_back(trained):
    data, _, run = trained
    before = run.sample(jax.random.key(1), 10)
    data["a"] = 2.0
    with pytest.raises(bf.InputError):
        run.sample(jax.random.key(1), 10)
    data["a"] = 1.0
    for name, value in vars(run.sample(jax.random.key(1), 10)).items():
        np.testing.assert_array_equal(value, getattr(before, name))


def test_a_fit_after_a_change_is_a_fit_of_new_data(trained):
    data, target, run = trained
    x = run.samples.x
    data["a"] = 4.0
    try:
        again = bf.fit(target, config=QUICK)
        assert again.programs.fingerprint != run.programs.fingerprint
        np.testing.assert_allclose(again.samples.energy, 4.0 * (again.samples.x**2).sum(axis=1) / 2, rtol=1e-13)
    finally:
        data["a"] = 1.0
    np.testing.assert_allclose(run.samples.energy, (x**2).sum(axis=1) / 2, rtol=1e-13)


def test_two_fits_of_an_unchanged_target_share_their_programs(trained):
    """What a second fit compiles are functions made in it, the checks of the energy."""
    data, target, run = trained
    compilations = []

    def listen(event, start_time, end_time, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    found = []
    jax.monitoring.register_event_time_span_listener(listen)
    data["a"] = 0.75
    try:
        for _ in range(2):
            compilations.clear()
            found.append((bf.fit(target, config=QUICK).programs, len(compilations)))
    finally:
        data["a"] = 1.0
        jax.monitoring.unregister_event_time_span_listener(listen)
    [(first, num_first), (second, num_second)] = found
    assert first == second
    assert first != run.programs
    assert num_second < num_first / 4


def test_an_observable_is_that_of_its_present_data(trained):
    _, _, run = trained
    data = {"scale": 1.0}
    inner = jax.jit(lambda x: data["scale"] * x[0] ** 2)
    found = {}
    for scale in (1.0, 2.0, 1.0):
        data["scale"] = scale
        for name, fn in {"plain": lambda x: data["scale"] * x[0] ** 2, "own jit": lambda x: inner(x)}.items():
            found[name, scale] = run.expectation(fn).value
    assert found["plain", 1.0] > 0
    for name in ("plain", "own jit"):
        np.testing.assert_allclose(found[name, 2.0], 2 * found[name, 1.0], rtol=1e-13)
