"""NumPyro models as targets: the posterior on the unconstrained space, and samples by the names of the sites.

Needs the extra `numpyro`: pip install 'boltzflow[numpyro]'.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError, raised
from boltzflow.interop import optional_module
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.validation import one_point


class Posterior(AbstractDensity):
    """The posterior of a NumPyro model: p(z) ∝ exp(-energy(z)), z all unconstrained latent sites in one vector.

    energy(z) = -log p(observed, sites(z)) - log |∂ sites / ∂ z|

    log Z is the log evidence log p(observed) if every prior is proper.

    Args:
        model: The NumPyro model.
        *args: Arguments of the model.
        **kwargs: Keyword arguments of the model.

    Raises:
        InputError: The model fails, has a discrete latent site, or has no continuous one.
    """

    dim: int = eqx.field(static=True)
    site_shapes: Mapping[str, tuple[int, ...]] = eqx.field(static=True)  # unconstrained, in the order of the vector
    potential: Callable[[Any], Array] = eqx.field(static=True)
    unravel: Callable[[Array], Any] = eqx.field(static=True)
    to_sites: Callable[[Any], Any] = eqx.field(static=True)

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any):
        util = optional_module("numpyro.infer.util", "numpyro")
        try:
            found = util.initialize_model(jax.random.key(0), model, model_args=args, model_kwargs=kwargs)
        except Exception as error:  # whatever a user's model raises
            raise InputError(f"the model cannot be run: {raised(error)}") from error
        start = found.param_info.z
        if not start:
            raise InputError("the model has no continuous latent site: there is nothing to sample")
        vector, self.unravel = ravel_pytree(start)
        self.dim = int(vector.size)
        self.site_shapes = {name: tuple(start[name].shape) for name in sorted(start)}
        self.potential = found.potential_fn
        self.to_sites = found.postprocess_fn

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        return self.potential(self.unravel(one_point(x, self.dim)))

    def sites(self, x: Float[Array | np.ndarray, "num dim"]) -> dict[str, Float[Array, "num ..."]]:
        """Constrained samples for points `(num, dim)`, by the names of all sites, deterministic ones included."""
        return map_points(lambda point: self.to_sites(self.unravel(point)), jnp.asarray(x))


def is_model(function: Any) -> bool:
    """Whether a function without required arguments runs as a NumPyro model with sample sites.

    Raises:
        InputError: It fails after its first sample site. What fails before may be no model.
    """
    handlers = optional_module("numpyro.handlers", "numpyro")
    with handlers.seed(rng_seed=0), handlers.trace() as sites:
        failure = None
        try:
            function()
        except Exception as error:  # whatever a user's function raises
            failure = error
    found = any(site["type"] == "sample" for site in sites.values())
    if found and failure:
        raise InputError(f"the model cannot be run: {raised(failure)}") from failure
    return found
