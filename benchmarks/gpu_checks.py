"""Whether a card computes what the CPU computes: weights, residuals and energies, in single and double precision."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from benchmarks.products import num_loose, products
from benchmarks.store import Row, Store
from boltzflow.densities.gaussian import Gaussian
from boltzflow.model.continuity import Transport, trainable
from boltzflow.model.flow import Flow
from boltzflow.model.interpolations import Clock
from boltzflow.model.losses import continuity_loss
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import compiled
from boltzflow.training.build import NO_PARTS, build_transport, make_flow
from boltzflow.training.step import PilotPath, initial_state, quick_look, train_chunk

SITES = 16
_DEFAULT = boltzflow.Config()
_PRECISION = jax.default_matmul_precision
_LAST_LAYER = 0.05  # standard deviation of the weights that start at zero


def correctness(store: Store, num_points: int = 4096, size: int = 256, config: boltzflow.Config = _DEFAULT) -> None:
    """All rows of this part."""
    rows: dict[str, Callable[[], Row]] = {
        f"log-weights of a flow, N={SITES}": lambda: weights(num_points, config),
        f"gradient of the loss, N={SITES}": lambda: gradients(num_points, config),
        f"energy ½ xᵀAx, {size} x {size}": lambda: matrix_energy(num_points, size),
        "products below full precision": lambda: loose(config),
    }
    for target, measure in rows.items():
        store.measured(measure, target=target, method="correctness")


def random_transport(config: boltzflow.Config, sites: int = SITES) -> tuple[boltzflow.DoubleWell, Transport]:
    """The chain, and a transport that moves points: every array that training changes is random."""
    target = boltzflow.DoubleWell(sites, 1.5)
    sites_apart = np.arange(sites)[:, None] - np.arange(sites)
    scale = np.linalg.cholesky(np.asarray(target.correlator)[sites_apart % sites])  # a dense one, for its products
    base = Gaussian.from_scale_tril(np.zeros(sites), scale)
    transport = build_transport(config, NO_PARTS, base, target, Clock(1.0), jax.random.key(0), np.eye(sites))
    params, frozen = eqx.partition(transport, trainable(transport))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + _LAST_LAYER * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return target, eqx.combine(jax.tree.unflatten(tree, moved), frozen)


def variants(compute: Callable[[Any], Any]) -> dict[str, np.ndarray]:
    """What `compute(dtype)` gives on the CPU and on the card: in double, single, and with the networks in TF32."""

    def on(device: jax.Device, dtype: Any, precision: str = "highest") -> np.ndarray:
        loosened = mock.patch.object(jax, "default_matmul_precision", lambda _: _PRECISION(precision))
        double = jax.enable_x64(True) if dtype == np.float64 else contextlib.nullcontext()
        with jax.default_device(device), double, loosened:
            return np.asarray(compute(dtype), np.float64)

    card, cpu = jax.devices()[0], jax.devices("cpu")[0]
    return {
        "exact": on(cpu, np.float64),
        "cpu": on(cpu, np.float32),
        "card": on(card, np.float32),
        "card_double": on(card, np.float64),
        "card_tf32": on(card, np.float32, "tensorfloat32"),
    }


def weights(num_points: int, config: boltzflow.Config) -> Row:
    """The root mean square and the largest difference of log-weights from the CPU's in double precision, in nats."""
    target, transport = random_transport(config)
    flow = make_flow(config, transport)
    points = np.asarray(jax.vmap(target.sample_and_log_prob)(jax.random.split(jax.random.key(2), num_points))[0])

    def compute(dtype: Any) -> Any:
        def log_weight(flow: Flow, x: jax.Array) -> jax.Array:
            return -target.energy(x) - flow.log_prob(x)

        return jax.jit(jax.vmap(lambda x: log_weight(_in_type(flow, dtype), x)))(jnp.asarray(points, dtype))

    found = variants(compute)
    exact = found.pop("exact")
    differences = {name: value - exact for name, value in found.items()}
    rms = {f"{name}_rms": float(np.sqrt(np.mean(value**2))) for name, value in differences.items()}
    largest = {f"{name}_largest": float(np.abs(value).max()) for name, value in differences.items()}
    return {**rms, **largest, "spread": float(np.std(exact)), "points": num_points}


def gradients(num_points: int, config: boltzflow.Config) -> Row:
    """The relative error of the gradient of the continuity loss at fixed points, in the norm of all parameters."""
    target, transport = random_transport(config)
    points = np.asarray(jax.vmap(target.sample_and_log_prob)(jax.random.split(jax.random.key(3), num_points))[0])
    times = (np.arange(num_points) + 0.5) / num_points

    def compute(dtype: Any) -> Any:
        params, frozen = eqx.partition(_in_type(transport, dtype), trainable(transport))

        def loss(params: Transport, times: jax.Array, x: jax.Array) -> jax.Array:
            return continuity_loss(eqx.combine(params, frozen), times, x, "abs+square")

        gradient = jax.jit(jax.grad(loss))(params, jnp.asarray(times, dtype), jnp.asarray(points, dtype))
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    return {**_relative(variants(compute)), "points": num_points}


def matrix_energy(num_points: int, size: int) -> Row:
    """The relative error of a user's energy ½ xᵀAx: as it is under `jax.jit`, and in the package."""
    generator = np.random.default_rng(0)
    factor = generator.normal(size=(size, size)) / size**0.5
    a = (factor @ factor.T + np.eye(size)).astype(np.float32).astype(float)
    x = generator.normal(size=(num_points, size)).astype(np.float32).astype(float)
    exact = 0.5 * np.sum((x @ a) * x, axis=1)

    def energy(x: jax.Array) -> jax.Array:
        return 0.5 * x @ jnp.asarray(a, x.dtype) @ x

    single = jnp.asarray(x, jnp.float32)
    bare = np.asarray(jax.jit(jax.vmap(energy))(single), np.float64)
    ours = np.asarray(map_points(energy, single), np.float64)
    found = {"exact": exact, "bare": bare, "package": ours}
    return {**_relative(found), "bare_nats": float(np.abs(bare - exact).max()), "points": num_points}


def loose(config: boltzflow.Config) -> Row:
    """The number of matrix products in a step, in samples and in an energy with its gradient, and of those in TF32."""
    target, transport = random_transport(config)
    params, frozen = eqx.partition(transport, trainable(transport))
    path = PilotPath(jnp.linspace(0, 1, 8), jnp.zeros((8, 64, target.dim)))
    state = initial_state(params, config, 1000, jax.random.key(0))
    step = products(train_chunk, state, frozen, path, config=config, length=1)
    sample = products(quick_look, params, frozen, jax.random.key(0), config=config)
    mover = boltzflow.Energy(lambda x: x @ jnp.eye(3) @ x, 3)
    energy = products(compiled(jax.vmap(jax.value_and_grad(mover.energy))), jnp.zeros((4, 3)))
    every = [*step, *sample, *energy]
    return {"products": len(every), "loose": num_loose(every)}


def _in_type(tree: Any, dtype: Any) -> Any:
    """The tree with its arrays of JAX in another type, on the default device."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf), dtype) if isinstance(leaf, jax.Array) else leaf, tree
    )


def _relative(found: dict[str, np.ndarray]) -> dict[str, float]:
    exact = found["exact"]
    norms = {name: np.linalg.norm(value - exact) for name, value in found.items() if name != "exact"}
    return {name: float(norm / np.linalg.norm(exact)) for name, norm in norms.items()}
