"""Networks with the symmetry of a periodic lattice: equivariant velocities and invariant potentials.

P splits a whitened point z into bands of wave vectors, and a small network m of the bands acts at each of S sites:

    V_z = S^(-1/2) Pᵀ m(t, P z) + λ(t) z,    tr ∂V_z/∂z = S^(-1/2) Σ_y tr[g J(y)] + Σ_k λ_k(t)

with J(y) the Jacobian of m and g the diagonal of (P_b P_cᵀ)_yy = δ_bc g_c; see `Bands`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from boltzflow.model.lattice.bands import Bands
from boltzflow.model.networks import Point, Scalar, mixed, time_kernels

Sites = Float[Array, "sites width"]


class SiteNetwork(eqx.Module):
    """p ↦ W_{l+1} σ(W_l ... σ(W_1 p) ...) at every site, W and b mixtures Σ_j w_j(t) W_j by the time kernels.

    σ is tanh(u + b), or where `odd` its odd part [tanh(u + b) + tanh(u - b)]/2. The last layer starts at zero.
    """

    # Each W_j is an array of its own, so that Muon treats it as a matrix.
    weights: list[list[Float[Array, "fan_out fan_in"]]]
    biases: list[list[Float[Array, " fan_out"]]]
    odd: bool = eqx.field(static=True)

    def __init__(
        self, in_size: int, out_size: int, odd: bool, key: PRNGKeyArray, *, num_networks: int, width: int, depth: int
    ):
        if min(num_networks, width, depth) < 1:
            raise ValueError(f"num_networks, width, depth must be at least 1, got {num_networks}, {width}, {depth}.")
        weight_key, bias_key = jax.random.split(key)
        sizes = [in_size, *[width] * depth]
        hidden = zip(jax.random.split(weight_key, (depth, num_networks)), sizes[:-1], sizes[1:], strict=True)
        self.weights = [[jax.random.normal(k, (b, a)) / a**0.5 for k in layer] for layer, a, b in hidden]
        self.weights.append([jnp.zeros((out_size, width)) for _ in range(num_networks)])
        # At b = 0 the odd part has no gradient in b.
        self.biases = [list(layer) for layer in jax.random.normal(bias_key, (depth, num_networks, width))]
        self.odd = odd

    def even(self, t: Scalar, p: Float[Array, "sites in_size"]) -> Float[Array, "sites out_size"]:
        """The network with v tanh(v), v = u ± b, in place of the last tanh: even in p where the network is odd."""
        with jax.default_matmul_precision("highest"):
            weights, _, pre, bias = self._before_last(t, p)
            up = pre + bias
            down = pre - bias
            even = up * jnp.tanh(up) + (down * jnp.tanh(down) if self.odd else 0)
            return even @ weights[-1].T

    def value_and_trace(
        self, t: Scalar, p: Float[Array, "sites in_size"], metric: Float[Array, " in_size"]
    ) -> tuple[Float[Array, "sites out_size"], Float[Array, ""]]:
        """The network at each site, and the sum over sites of tr[metric J], J its Jacobian."""
        with jax.default_matmul_precision("highest"):
            weights, slopes, pre, bias = self._before_last(t, p)
            a, slope = self._activate(pre, bias)
            return a @ weights[-1].T, _trace(weights, [*slopes, slope], metric)

    def _activate(self, u: Sites, bias: Float[Array, " width"]) -> tuple[Sites, Sites]:
        """σ(u) and its slope."""
        up = jnp.tanh(u + bias)
        if not self.odd:
            return up, 1 - up**2
        down = jnp.tanh(u - bias)
        return (up + down) / 2, 1 - (up**2 + down**2) / 2

    def _before_last(
        self, t: Scalar, p: Float[Array, "sites in_size"]
    ) -> tuple[list[Array], list[Array], Sites, Float[Array, " width"]]:
        """The matrices at time t, the slopes of every σ but the last, and the argument and the bias of the last σ."""
        # Weights are cast before they are multiplied: points in double precision then have a divergence that is exact.
        shares = jnp.asarray(time_kernels(t, len(self.weights[0])), p.dtype)
        weights = [mixed(shares, layer) for layer in self.weights]
        biases = [mixed(shares, layer) for layer in self.biases]
        slopes = []
        pre = p @ weights[0].T
        for weight, bias in zip(weights[1:-1], biases[:-1], strict=True):
            a, slope = self._activate(pre, bias)
            slopes.append(slope)
            pre = a @ weight.T
        return weights, slopes, pre, biases[-1]


def _trace(weights: list[Array], slopes: list[Array], metric: Float[Array, " in_size"]) -> Float[Array, ""]:
    """Σ_y tr[W_{l+1} D_l(y) ... D_1(y) W_1 metric], D the diagonal slopes `(sites, width)`; see `networks.MLP`."""
    first = weights[0] * metric
    last = weights[-1]
    if len(slopes) == 1:
        return jnp.sum(slopes[0] @ jnp.sum(first * last.T, axis=1))
    if len(slopes) == 2:
        return jnp.sum((slopes[0] @ (weights[1].T * (first @ last))) * slopes[1])
    tangents = slopes[0][:, :, None] * first
    for weight, slope in zip(weights[1:-1], slopes[1:], strict=True):
        tangents = slope[:, :, None] * (weight @ tangents)
    return jnp.sum(last.T * jnp.sum(tangents, axis=0))


class _AbstractLatticeNetwork(eqx.Module):
    """The common part of velocities and potentials."""

    bands: Bands
    sites: SiteNetwork
    rates: Float[Array, "num_networks 1 modes"]  # three axes: Muon would mix the wave vectors of a matrix

    def __init__(self, bands: Bands, num_outputs: int, *, sign_symmetric: bool, key: PRNGKeyArray, **sizes: int):
        self.bands = bands
        self.sites = SiteNetwork(bands.num_bands, num_outputs, sign_symmetric, key, **sizes)
        self.rates = jnp.zeros((len(self.sites.weights[0]), 1, bands.scale.size))

    def _split(self, z: Complex[Array, "*half"]) -> Sites:
        """P z in the precision of the weights: after training in single precision that is enough for a network."""
        own = self.sites.weights[0][0].dtype
        return self.bands.split(z.astype(jnp.result_type(own, jnp.complex64)))

    def _rates_at(self, t: Scalar, dtype: Any) -> Float[Array, "*half"]:
        """The number of each wave vector at time t."""
        shares = jnp.asarray(time_kernels(t, len(self.rates)), dtype)
        rates = jnp.asarray(self.rates[:, 0], dtype)
        return jnp.matmul(shares, rates, precision="highest").reshape(self.bands.scale.shape)


class LatticeVelocity(_AbstractLatticeNetwork):
    """(t, x) ↦ L [S^(-1/2) Pᵀ m(t, P z) + λ(t) z], a velocity on the lattice that is zero at first."""

    def __init__(self, bands: Bands, **options: Any):
        super().__init__(bands, bands.num_bands, **options)

    def value_and_divergence(self, t: Scalar, x: Point) -> tuple[Point, Scalar]:
        """The value and the exact trace of its Jacobian in x."""
        z = self.bands.whiten(x)
        rates = self._rates_at(t, x.dtype)
        p = self._split(z)
        m, trace = self.sites.value_and_trace(t, p, jnp.asarray(self.bands.variances, p.dtype))
        joined = self.bands.join(m).astype(z.dtype)
        velocity = self.bands.push(self.bands.num_sites**0.5 * joined + rates * z)
        return velocity, trace.astype(x.dtype) / self.bands.num_sites**0.5 + self.bands.total(rates)


class LatticePotential(_AbstractLatticeNetwork):
    """(t, x) ↦ S^(-1/2) Σ_y h(t, P z) + Σ_k q_k(t) |z_k|² as an array `(1,)`, zero at first, h = `SiteNetwork.even`."""

    def __init__(self, bands: Bands, **options: Any):
        super().__init__(bands, 1, **options)

    def __call__(self, t: Scalar, x: Point) -> Float[Array, " 1"]:
        z = self.bands.whiten(x)
        quadratic = self.bands.total(self._rates_at(t, x.dtype) * (z.real**2 + z.imag**2))
        values = self.sites.even(t, self._split(z)).astype(x.dtype)
        return jnp.sum(values, axis=0) / self.bands.num_sites**0.5 + quadratic
