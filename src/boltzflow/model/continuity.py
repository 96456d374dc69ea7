"""The continuity equation ∂_t f_t + <∇f_t, V_t> - ∇·V_t + C_t = 0, and the triplet (f, V, C) of its unknowns.

Lemma 1 of the paper: any triplet that satisfies it has C_t = d/dt log Z_t. Along the flow of any V,
d/dt log(exp(-f_t) / q_t) = C_t - r_t with r the residual: training and importance weights use the same quantity.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from boltzflow.densities.base import AbstractFixed
from boltzflow.model.fields import AbstractVectorField
from boltzflow.model.interpolations import AbstractInterpolation
from boltzflow.model.networks import MLP, Point, Scalar


class LogZRate(eqx.Module):
    """C_t: a function of time alone, a single MLP (paper, §4); zero before training."""

    mlp: MLP

    def __init__(self, *, width: int, depth: int, key: PRNGKeyArray):
        self.mlp = MLP(0, 1, width=width, depth=depth, key=key)

    def __call__(self, t: Scalar) -> Scalar:
        return self.mlp(t, jnp.zeros((0,), jnp.result_type(t, float)))[0]


class Transport(eqx.Module):
    """The triplet that is trained: the field V, the path f and the rate C.

    Attributes:
        field: The velocity field V_t.
        interpolation: The path of energies f_t.
        log_z_rate: C_t = d/dt log Z_t, a function of t.
    """

    field: AbstractVectorField
    interpolation: AbstractInterpolation
    log_z_rate: Callable[[Scalar], Scalar]


def continuity_residual(transport: Transport, t: Scalar, x: Point) -> Scalar:
    """r = ∂_t f_t + ⟨∇f_t, V_t⟩ - ∇·V_t + C_t at one point (Eq. 14), in units of kT per unit of t.

    Args:
        transport: The field V, the path f and the rate C.
        t: The time, from 0 to 1.
        x: The point, `(dim,)`.
    """
    df_dt, grad_f = transport.interpolation.derivatives(t, x)
    velocity, divergence = transport.field.velocity_and_divergence(t, x)
    return df_dt + grad_f @ velocity - divergence + transport.log_z_rate(t)


def trainable(tree: PyTree) -> PyTree[bool]:
    """True at the arrays that training may change, False at others and at all inside an `AbstractFixed`.

    Args:
        tree: A pytree, such as a `Transport`.

    Returns:
        The same tree with a bool for each leaf, as `equinox.partition` takes it.
    """

    def mask(node: Any) -> Any:
        if isinstance(node, AbstractFixed):
            return jax.tree.map(lambda _: False, node)
        return isinstance(node, jax.Array) and jnp.issubdtype(node.dtype, jnp.inexact)

    return jax.tree.map(mask, tree, is_leaf=lambda node: isinstance(node, AbstractFixed))
