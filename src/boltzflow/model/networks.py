"""The networks of fields, paths and rates: a mixture of multilayer perceptrons with time kernels as weights.

Paper, §4 "Architectures": V_t and f_t are "a weighted average of 4 MLPs", weighted by "evenly spaced RBF time-kernels,
one for each model", with swish between the linear layers; C_t is a single MLP. Every MLP also takes t as an input.
Matrix products have the precision of their arguments: TF32, a GPU's default, would drown a small residual.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractFixed
from boltzflow.numerics import linalg
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.validation import frozen, real_array

Scalar = Float[Array, ""]
Point = Float[Array, " dim"]


class Whitening(AbstractFixed):
    """The fixed affine change of variables y = Rᵀ L⁻¹(x - mean) between x and the coordinates of a network.

    L is a `linalg.Scale` or a number; R, the `subspace`, has orthonormal columns `(dim, size)`, and None keeps all.
    """

    # In double precision: an L⁻¹ that inverts L to single precision only would make divergences wrong by as much.
    mean: Float[np.ndarray, " dim"]
    encode: Any
    decode: Any
    size: int = eqx.field(static=True)

    def __init__(self, mean: Any, scale: Any, subspace: Any = None):
        self.mean = real_array("mean", mean)
        self.size = self.mean.size
        self.decode = linalg.check_scale("scale", scale, self.size)
        self.encode = linalg.inverse(self.decode)
        if subspace is not None:
            subspace = linalg.check_orthonormal(subspace, self.size)
            self.size = subspace.shape[1]
            self.decode = frozen(linalg.dense(self.decode) @ subspace)
            self.encode = frozen(subspace.T @ linalg.dense(self.encode))

    @classmethod
    def identity(cls, dim: int) -> "Whitening":
        """y = x."""
        return cls(np.zeros(dim), 1.0)

    def whiten(self, x: Point) -> Float[Array, " size"]:
        """y = Rᵀ L⁻¹(x - mean)."""
        return linalg.apply(self.encode, x - jnp.asarray(self.mean, x.dtype))

    def push(self, v: Float[Array, " size"]) -> Point:
        """L R v: a velocity of y as a velocity of x. The divergence is the same in both coordinates."""
        return linalg.apply(self.decode, v)


def time_kernels(t: Scalar, num: int) -> Float[Array, " num"]:
    """`num` evenly spaced Gaussian kernels on [0, 1] at time t, which sum to one."""
    centers = jnp.linspace(0, 1, num, dtype=jnp.result_type(t, float))
    return jax.nn.softmax(-0.5 * ((t - centers) * (num - 1)) ** 2)


class MLP(eqx.Module):
    """(t, x) ↦ W_{L+1} σ(W_L ... σ(W_1 (x, t) + b_1) ...) + b_{L+1} with σ(u) = u sigmoid(u), "swish".

    Hidden weights start with variance 1 / fan-in, the last layer at zero; `in_size = 0` makes a function of t alone.
    """

    weights: list[Float[Array, "fan_out fan_in"]]
    biases: list[Float[Array, " fan_out"]]
    in_size: int = eqx.field(static=True)

    def __init__(self, in_size: int, out_size: int, *, width: int, depth: int, key: PRNGKeyArray):
        if min(width, depth, out_size) < 1 or in_size < 0:
            raise ValueError(f"width, depth and out_size must be at least 1, got {width}, {depth} and {out_size}.")
        self.weights, self.biases = _start((in_size + 1, *[width] * depth, out_size), key)
        self.in_size = in_size

    def __call__(self, t: Scalar, x: Float[Array, " in_size"]) -> Float[Array, " out_size"]:
        with jax.default_matmul_precision("highest"):
            return self.weights[-1] @ self._hidden(t, x)[-1][0] + self.biases[-1]

    def value_and_divergence(self, t: Scalar, x: Float[Array, " in_size"]) -> tuple[Float[Array, " in_size"], Scalar]:
        """The value and, where the output lives in the space of x, the exact trace of its Jacobian in x.

        With D_l the diagonal of slopes d_l, it is Σ_j d1_j (W1 W2)_jj for one hidden layer, d2ᵀ (W2 ∘ (W1 W3)ᵀ) d1 for
        two, and Σ_b d2_b Σ_i (W4 D3 W3)_ib (W2 D1 W1)_bi for three; deeper networks push in_size tangents forward.
        """
        with jax.default_matmul_precision("highest"):
            layers = self._hidden(t, x)
            slopes = [slope for _, slope in layers]
            # Weights are cast before they are multiplied: in double precision the divergence is then exact.
            w_in = jnp.asarray(self.weights[0][:, : self.in_size], x.dtype)
            w_out = jnp.asarray(self.weights[-1], x.dtype)
            if len(slopes) == 1:
                trace = jnp.sum(w_in * w_out.T, axis=1) @ slopes[0]
            elif len(slopes) == 2:
                trace = slopes[1] @ ((self.weights[1] * (w_in @ w_out).T) @ slopes[0])
            elif len(slopes) == 3:
                # The slopes of a point times a matrix that all points share: no tangent is stored for each point.
                columns = slopes[0] @ _in_each_direction(self.weights[1].T, w_in)
                rows = slopes[2] @ _in_each_direction(self.weights[2], w_out.T)
                trace = jnp.sum((columns * rows).reshape(x.size, -1), axis=0) @ slopes[1]
            else:
                tangents = slopes[0][:, None] * w_in
                for weight, slope in zip(self.weights[1:-1], slopes[1:], strict=True):
                    tangents = slope[:, None] * (weight @ tangents)
                trace = jnp.sum(w_out.T * tangents)
            return w_out @ layers[-1][0] + self.biases[-1], trace

    def _hidden(self, t: Scalar, x: Float[Array, " in_size"]) -> list[tuple[Array, Array]]:
        """The activations and their slopes, layer by layer: [(a, a'), ...], each of shape `(width,)`."""
        a = jnp.concatenate([x, jnp.asarray(t, x.dtype)[None]])
        layers = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            pre = weight @ a + bias
            s = jax.nn.sigmoid(pre)
            a = pre * s
            layers.append((a, s + a * (1 - s)))
        return layers


@compiled
def _start(sizes: tuple[int, ...], key: PRNGKeyArray) -> tuple[list[Array], list[Array]]:
    """The weights and biases of layers of these sizes: a program, and not one for each layer."""
    *inner, last, end = sizes
    keys = jax.random.split(key, len(inner))
    hidden = zip(keys, inner, [*inner[1:], last], strict=True)
    weights = [jax.random.normal(k, (b, a)) / a**0.5 for k, a, b in hidden] + [jnp.zeros((end, last))]
    return weights, [jnp.zeros(w.shape[0]) for w in weights]


def _in_each_direction(
    weight: Float[Array, "fan_in fan_out"], ends: Float[Array, "fan_in directions"]
) -> Float[Array, "fan_in columns"]:
    """diag(ends_i) weight for each column i of `ends`, side by side: `(fan_in, directions * fan_out)`."""
    return (ends[:, :, None] * weight[:, None, :]).reshape(ends.shape[0], -1)


class TimeMixtureMLP(eqx.Module):
    """(t, x) ↦ Σ_k w_k(t) MLP_k(t, x), computed in the precision of the weights, in the type of x.

    After training in single precision a flow in double precision takes half the time that it would in double
    throughout: its networks are functions in single precision of a whitened point.
    """

    networks: list[MLP]

    def __init__(
        self, in_size: int, out_size: int, *, num_networks: int = 4, width: int = 64, depth: int = 2, key: PRNGKeyArray
    ):
        if num_networks < 1:
            raise ValueError(f"num_networks must be at least 1, got {num_networks}.")
        keys = jax.random.split(key, num_networks)
        self.networks = [MLP(in_size, out_size, width=width, depth=depth, key=k) for k in keys]

    def __call__(self, t: Scalar, x: Float[Array, " in_size"]) -> Float[Array, " out_size"]:
        own_t, own_x = self._in_own_precision(t, x)
        value = mixed(time_kernels(own_t, len(self.networks)), [mlp(own_t, own_x) for mlp in self.networks])
        return value.astype(x.dtype)

    def value_and_divergence(self, t: Scalar, x: Float[Array, " in_size"]) -> tuple[Float[Array, " in_size"], Scalar]:
        own_t, own_x = self._in_own_precision(t, x)
        weights = time_kernels(own_t, len(self.networks))
        values, divergences = zip(*(mlp.value_and_divergence(own_t, own_x) for mlp in self.networks), strict=True)
        return mixed(weights, values).astype(x.dtype), mixed(weights, divergences).astype(x.dtype)

    def _in_own_precision(self, t: Scalar, x: Float[Array, " in_size"]) -> tuple[Scalar, Float[Array, " in_size"]]:
        dtype = self.networks[0].weights[0].dtype
        return jnp.asarray(t, dtype), x.astype(dtype)


def mixed(weights: Float[Array, " num"], terms: Sequence[Float[Array, "*shape"]]) -> Float[Array, "*shape"]:
    """Σ_k weights_k terms_k."""
    first, *rest = (w * term for w, term in zip(weights, terms, strict=True))
    return sum(rest, first)
