"""A penalty, a loss, an optimizer and a whole training loop of the user's own."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import boltzflow as bf
from boltzflow.training.build import Objective
from boltzflow.training.trainer import Trainer

TARGET = bf.mixture_2()
SMALL = bf.Config(
    width=8, num_networks=1, depth=1, points_per_step=64, batch_size=64, num_eval_samples=256, sample_steps=4
)
KEYS = jax.random.split(jax.random.key(0), 3)
NUM_STEPS = 40


@pytest.fixture(scope="module")
def pilot():
    return bf.explore(TARGET, KEYS[0], config=SMALL)


@pytest.fixture(scope="module")
def transport(pilot):
    return bf.make_transport(TARGET, pilot, KEYS[1], config=SMALL)


def after_two_steps(transport, pilot, objective=None, **changes):
    """The mean loss of two steps, and the parameters after them."""
    config = dataclasses.replace(SMALL, **changes)
    given = [] if objective is None else [objective]
    trainer = Trainer(transport, pilot, config, NUM_STEPS, KEYS[2], KEYS[2], *given)
    loss = trainer.take_steps(2)
    return loss, trainer.state.params


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), one[1], other[1])


def test_a_penalty_and_a_loss_of_ones_own_are_minimized(transport, pilot):
    named = after_two_steps(transport, pilot, penalty="square")
    assert_same(after_two_steps(transport, pilot, Objective(penalty=jnp.square), penalty="abs"), named)

    def loss(transport, times, points, key):
        assert times.shape == (64,) and points.shape == (64, 2) and key.shape == ()
        return jnp.mean(jax.vmap(bf.continuity_residual, (None, 0, 0))(transport, times, points) ** 2)

    assert_same(after_two_steps(transport, pilot, Objective(loss=loss), penalty="abs"), named)


def test_an_optimizer_of_ones_own_has_its_own_rate(transport, pilot):
    def rate(step):
        return 0.01 * (1 + jnp.cos(jnp.pi * step / NUM_STEPS)) / 2

    own = Objective(optimizer=optax.adam(rate))
    named = after_two_steps(transport, pilot, optimizer="adam", learning_rate=0.01, clip_norm=0.0)
    assert_same(after_two_steps(transport, pilot, own, learning_rate=0.5), named)


@pytest.mark.parametrize(
    ("parts", "config", "sentence"),
    [
        (bf.Parts(penalty=jnp.abs, loss=lambda *given: 0.0), {}, "a penalty or a loss of your own, not both"),
        (bf.Parts(penalty=jnp.abs), {"loss": "reverse-kl"}, "leave out reverse-kl"),
    ],
)
def test_parts_that_exclude_each_other_are_refused(parts, config, sentence):
    with pytest.raises(bf.InputError, match=sentence):
        bf.fit(TARGET, config=config, parts=parts)


def test_values_that_are_no_loss_are_refused(transport, pilot, unchecked):
    for objective, sentence in [
        (Objective(loss=lambda transport, times, points, key: times), r"one real number, got float32 of shape \(64,\)"),
        (Objective(loss=lambda transport, times, points, key: 1), "one real number, got int32"),
        (Objective(penalty=jnp.mean), r"for each residual, got shape \(\)"),
    ]:
        with pytest.raises(bf.InputError, match=sentence):
            after_two_steps(transport, pilot, objective)


def test_a_loop_of_ones_own_trains_and_its_run_answers(transport, pilot, tmp_path):
    params, frozen = eqx.partition(transport, bf.trainable(transport))
    optimizer = optax.adam(1e-2)

    def loss(params, times, x):
        residual = jax.vmap(bf.continuity_residual, (None, 0, 0))(eqx.combine(params, frozen), times, x)
        return jnp.mean(bf.penalties["abs"](residual))

    @jax.jit
    def step(params, state, i):
        whole = eqx.combine(params, frozen)
        times, x = bf.draw_points(whole, pilot, jax.random.fold_in(KEYS[2], i), 0.0, config=SMALL)  # of the pilot alone
        value, gradient = jax.value_and_grad(loss)(params, times, x)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    history = []
    for i in range(200):
        params, state, value = step(params, state, i)
        history.append({"step": i + 1, "seconds": 0.1 * i, "loss": float(value)})
    points = bf.draw_points(transport, pilot, KEYS[0], 0.0, config=SMALL)
    before, after = (
        loss(eqx.filter(each, bf.trainable(each)), *points) for each in (transport, eqx.combine(params, frozen))
    )
    assert after < 0.8 * before
    parts = bf.Parts(penalty=bf.penalties["abs"])
    run = bf.run_of(TARGET, pilot, eqx.combine(params, frozen), config=SMALL, parts=parts, history=history, name="mine")
    assert "mine, dim 2, seed 0" in repr(run) and "200 steps" in repr(run)
    assert np.isfinite(run.log_weights).all() and len(run.log_weights) == 256
    assert run.trained.cost["gradient_evaluations"] == pilot.num_gradients
    run.save(tmp_path / "mine")
    again = bf.load(tmp_path / "mine", TARGET)  # a penalty is no part of what was trained
    np.testing.assert_array_equal(again.log_weights, run.log_weights)
