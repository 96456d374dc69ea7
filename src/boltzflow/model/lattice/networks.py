"""Networks with the symmetry of a periodic lattice: equivariant velocities and invariant potentials.

A point, whitened alike at every site, is split into bands of wave vectors: z ↦ P z, with p_c(y) the part of z in band c
at site y of a lattice that may be coarser. A small network m of the bands acts at each site, and Pᵀ joins the parts
again. With S sites,

    V_z = S^(-1/2) Pᵀ m(t, P z) + λ(t) z,    tr ∂V_z/∂z = S^(-1/2) Σ_y tr[g J(y)] + Σ_k λ_k(t)

with J(y) the Jacobian of m and g the diagonal of (P_b P_cᵀ)_yy = δ_bc g_c. As in `networks.MLP`, the exact divergence
costs no more than the value. The potential is S^(-1/2) Σ_y h(t, P z) + Σ_k q_k(t) |z_k|².
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from boltzflow.model.lattice.bands import Bands
from boltzflow.model.networks import time_kernels


class SiteNetwork(eqx.Module):
    """p ↦ W_{l+1} σ(W_l ... σ(W_1 p) ...) at every site, each W a mixture Σ_j w_j(t) W_j by the time kernels.

    σ is tanh(u + b), or where `odd` its odd part [tanh(u + b) + tanh(u - b)]/2; the bias b of a unit is mixed in the
    same way. An odd network cannot take t as an input; its matrices depend on t instead, at the cost of one network.
    Each W_j is an array of its own, so that Muon treats it as a matrix. The last layer starts at zero.
    """

    weights: list[list[Float[Array, "fan_out fan_in"]]]
    biases: list[list[Float[Array, " fan_out"]]]
    odd: bool = eqx.field(static=True)

    def __init__(
        self, in_size: int, out_size: int, *, odd: bool, num_networks: int, width: int, depth: int, key: PRNGKeyArray
    ):
        """`depth` hidden layers of `width`. Raises `ValueError` for a size below 1."""
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

    def value(self, t: Float[Array, ""], p: Float[Array, "sites in_size"]) -> Float[Array, "sites out_size"]:
        """The network at each site."""
        with jax.default_matmul_precision("highest"):
            weights, _, pre, bias = self._before_last(t, p)
            return self._activate(pre, bias)[0] @ weights[-1].T

    def even(self, t: Float[Array, ""], p: Float[Array, "sites in_size"]) -> Float[Array, "sites out_size"]:
        """The network with v tanh(v), v = u ± b, in place of the last tanh: even in p where the network is odd."""
        with jax.default_matmul_precision("highest"):
            weights, _, pre, bias = self._before_last(t, p)
            up = pre + bias
            down = pre - bias
            even = up * jnp.tanh(up) + (down * jnp.tanh(down) if self.odd else 0)
            return even @ weights[-1].T

    def value_and_trace(
        self, t: Float[Array, ""], p: Float[Array, "sites in_size"], metric: Float[Array, " in_size"]
    ) -> tuple[Float[Array, "sites out_size"], Float[Array, ""]]:
        """The network at each site, and the sum over sites of tr[metric J], J its Jacobian."""
        with jax.default_matmul_precision("highest"):
            weights, slopes, pre, bias = self._before_last(t, p)
            a, slope = self._activate(pre, bias)
            return a @ weights[-1].T, _trace(weights, [*slopes, slope], metric)

    def _activate(
        self, u: Float[Array, "sites width"], bias: Float[Array, " width"]
    ) -> tuple[Float[Array, "sites width"], Float[Array, "sites width"]]:
        """σ(u) and its slope."""
        up = jnp.tanh(u + bias)
        if not self.odd:
            return up, 1 - up**2
        down = jnp.tanh(u - bias)
        return (up + down) / 2, 1 - (up**2 + down**2) / 2

    def _before_last(
        self, t: Float[Array, ""], p: Float[Array, "sites in_size"]
    ) -> tuple[list[Array], list[Array], Float[Array, "sites width"], Float[Array, " width"]]:
        """The matrices at time t, the slopes of every σ but the last, and the argument and the bias of the last σ."""
        # Weights are cast before they are multiplied: points in double precision then have a divergence that is exact.
        shares = jnp.asarray(time_kernels(t, len(self.weights[0])), p.dtype)

        def mix(arrays):
            terms = (share * jnp.asarray(a, p.dtype) for share, a in zip(shares, arrays, strict=True))
            return sum(terms, jnp.zeros((), p.dtype))

        weights = [mix(layer) for layer in self.weights]
        biases = [mix(layer) for layer in self.biases]
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
    """The common part of velocities and potentials: bands, a network for each site, a number for each wave vector."""

    bands: Bands
    sites: SiteNetwork
    rates: Float[Array, "num_networks 1 modes"]

    def _rates_at(self, t: Float[Array, ""], dtype: Any) -> Float[Array, "*half"]:
        """The number of each wave vector at time t."""
        shares = jnp.asarray(time_kernels(t, len(self.rates)), dtype)
        rates = jnp.asarray(self.rates[:, 0], dtype)
        return jnp.matmul(shares, rates, precision="highest").reshape(self.bands.scale.shape)


def _zero_rates(bands: Bands, sites: SiteNetwork) -> Float[Array, "num_networks 1 modes"]:
    """Zeros with three axes: Muon would take an array with two for a matrix, and mix the wave vectors."""
    return jnp.zeros((len(sites.weights[0]), 1, bands.scale.size))


class LatticeVelocity(_AbstractLatticeNetwork):
    """(t, x) ↦ L [S^(-1/2) Pᵀ m(t, P z) + λ(t) z], a velocity on the lattice that is zero at first."""

    def __init__(self, bands: Bands, *, sign_symmetric: bool, key: PRNGKeyArray, **sizes: int):
        """`sizes` are the `num_networks`, `width` and `depth` of `SiteNetwork`."""
        self.bands = bands
        self.sites = SiteNetwork(bands.num_bands, bands.num_bands, odd=sign_symmetric, key=key, **sizes)
        self.rates = _zero_rates(bands, self.sites)

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        z = self.bands.whiten(x)
        m = self.sites.value(t, self.bands.split(z))
        return self._velocity(m, self._rates_at(t, x.dtype), z)

    def value_and_divergence(
        self, t: Float[Array, ""], x: Float[Array, " dim"]
    ) -> tuple[Float[Array, " dim"], Float[Array, ""]]:
        """The value and the exact trace of its Jacobian in x."""
        z = self.bands.whiten(x)
        rates = self._rates_at(t, x.dtype)
        metric = jnp.asarray(self.bands.variances, x.dtype)
        m, trace = self.sites.value_and_trace(t, self.bands.split(z), metric)
        return self._velocity(m, rates, z), trace / self.bands.num_sites**0.5 + self.bands.total(rates)

    def _velocity(
        self, m: Float[Array, "sites bands"], rates: Float[Array, "*half"], z: Complex[Array, "*half"]
    ) -> Float[Array, " dim"]:
        return self.bands.push(self.bands.num_sites**0.5 * self.bands.join(m) + rates * z)


class LatticePotential(_AbstractLatticeNetwork):
    """(t, x) ↦ S^(-1/2) Σ_y h(t, P z) + Σ_k q_k(t) |z_k|² as an array `(1,)`, invariant under shifts, zero at first.

    h is a `SiteNetwork` with an even last activation: where the network is odd, mean - x and mean + x have the same
    potential.
    """

    def __init__(self, bands: Bands, *, sign_symmetric: bool, key: PRNGKeyArray, **sizes: int):
        """`sizes` are the `num_networks`, `width` and `depth` of `SiteNetwork`."""
        self.bands = bands
        self.sites = SiteNetwork(bands.num_bands, 1, odd=sign_symmetric, key=key, **sizes)
        self.rates = _zero_rates(bands, self.sites)

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " 1"]:
        z = self.bands.whiten(x)
        quadratic = self.bands.total(self._rates_at(t, x.dtype) * (z.real**2 + z.imag**2))
        values = self.sites.even(t, self.bands.split(z))
        return jnp.sum(values, axis=0) / self.bands.num_sites**0.5 + quadratic
