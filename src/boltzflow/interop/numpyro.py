"""NumPyro models as targets: the posterior on the unconstrained space, and samples by the names of the sites.

Needs the extra `numpyro`: pip install 'boltzflow[numpyro]'.
"""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.errors import InputError, summary
from boltzflow.interop import optional_module
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.validation import is_numpyro_model, one_point


class Posterior(AbstractDensity):
    """The posterior of a NumPyro model: p(z) ∝ exp(-energy(z)), z all unconstrained latent sites in one vector.

    energy(z) = -log p(observed, sites(z)) - log |∂ sites / ∂ z|

    log Z is the log evidence log p(observed) if every prior is proper. Sites of an improper prior are in
    `improper_sites`; log Z then depends on the scale of their density, which is 1.

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
    improper_sites: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any):
        util = optional_module("numpyro.infer.util", "numpyro")
        try:
            sites = _latent_sites(model, args, kwargs)
            _check_continuous(sites)
            found = util.initialize_model(jax.random.key(0), model, model_args=args, model_kwargs=kwargs)
        except InputError:
            raise
        except Exception as error:  # whatever a user's model raises
            raise InputError(f"the model cannot be run: {summary(error)}") from error
        self.improper_sites = tuple(name for name, site in sites.items() if _is_improper(site))
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
        InputError: The function names a primitive of NumPyro and fails.
    """
    try:
        trace = _trace(function, (), {})
    except Exception as error:  # not a model, or one with a mistake, or no NumPyro
        if is_numpyro_model(function) and not isinstance(error, InputError):
            raise InputError(f"the model cannot be run: {summary(error)}") from error
        return False
    return any(site["type"] == "sample" for site in trace.values())


def _trace(model: Callable[..., Any], args: Any, kwargs: Any) -> Mapping[str, Mapping[str, Any]]:
    """All sites of one run of a model. An improper prior, which cannot be sampled, takes a value of its support."""
    handlers = optional_module("numpyro.handlers", "numpyro")
    start = optional_module("numpyro.infer", "numpyro").init_to_uniform
    seeded = handlers.substitute(handlers.seed(model, jax.random.key(0)), substitute_fn=start)
    return handlers.trace(seeded).get_trace(*args, **kwargs)


def _latent_sites(model: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Mapping[str, Any]]:
    trace = _trace(model, args, kwargs)
    return {name: s for name, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}


def _check_continuous(sites: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a discrete latent site, unless NumPyro sums over it."""
    summed = importlib.util.find_spec("funsor") is not None
    for name, site in sites.items():
        if site["fn"].support.is_discrete and not (summed and site["infer"].get("enumerate") == "parallel"):
            raise InputError(
                f"the latent site {name!r} is discrete ({type(site['fn']).__name__}), and a flow samples continuous "
                "variables alone: marginalize it, that is, sum over its values in the model, as "
                "numpyro.distributions.MixtureSameFamily does for the components of a mixture"
            )


def _is_improper(site: Mapping[str, Any]) -> bool:
    prior = site["fn"]
    while hasattr(prior, "base_dist"):
        prior = prior.base_dist
    return type(prior).__name__ == "ImproperUniform"
