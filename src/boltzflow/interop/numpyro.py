"""NumPyro models as targets, and samples by the names of the sites.

Needs the extra `numpyro`: pip install 'boltzflow[numpyro]'.

In the coordinates "prior" each latent site is mapped from standard normals z by its prior given the sites before it,
so that the prior is N(0, I) and a hierarchy is non-centered. A site s whose prior has no such map here keeps NumPyro's
map to its support from unconstrained numbers u, with its prior and the Jacobian in the energy:

    energy(z, u) = |z|²/2 + dim(z)/2 log 2π - log p(s(u) | others) - log |∂s/∂u| - log p(observed | sites)

In the coordinates "unconstrained" all sites are of the second kind. log Z is the same in both.
"""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError, summary
from boltzflow.interop import optional_module
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.validation import is_numpyro_model, one_point
from boltzflow.priors.base import size_of
from boltzflow.priors.translated import from_numpyro

_LOG_2PI = float(np.log(2 * np.pi))
Coordinates = Literal["prior", "unconstrained"]


class Posterior(AbstractDensity):
    """The posterior of a NumPyro model: p(x) ∝ exp(-energy(x)), x the coordinates of all latent sites in one vector.

    log Z is the log evidence log p(observed) if every prior is proper. Sites of an improper prior are in
    `improper_sites`; log Z then depends on the scale of their density, which is 1.

    Args:
        model: The NumPyro model.
        *args: Arguments of the model.
        coordinates: "prior" maps each site from standard normals by its prior; "unconstrained" takes NumPyro's maps
            from unconstrained numbers to the supports.
        **kwargs: Keyword arguments of the model.

    Raises:
        InputError: The model fails, has a discrete latent site or a plate of subsamples, or has no continuous one.
    """

    dim: int = eqx.field(static=True)
    site_shapes: Mapping[str, tuple[int, ...]] = eqx.field(static=True)  # of coordinates, in the order of the vector
    coordinates: Coordinates = eqx.field(static=True)
    potential: Callable[[Any], Array] = eqx.field(static=True)
    unravel: Callable[[Array], Any] = eqx.field(static=True)
    to_sites: Callable[[Any], Any] = eqx.field(static=True)
    improper_sites: tuple[str, ...] = eqx.field(static=True)
    prior_base: Gaussian | None  # of the coordinates, where they all are of priors

    def __init__(self, model: Callable[..., Any], *args: Any, coordinates: Coordinates = "prior", **kwargs: Any):
        if coordinates not in ("prior", "unconstrained"):
            raise InputError(f"coordinates must be 'prior' or 'unconstrained', got {coordinates!r}")
        util = optional_module("numpyro.infer.util", "numpyro")
        try:
            trace = _trace(model, args, kwargs)
            sites = _latent(trace)
            _check_continuous(sites)
            _check_plates(trace)
            found = util.initialize_model(jax.random.key(0), model, model_args=args, model_kwargs=kwargs)
        except InputError:
            raise
        except Exception as error:  # whatever a user's model raises
            raise InputError(f"the model cannot be run: {summary(error)}") from error
        self.improper_sites = tuple(name for name, site in sites.items() if _is_improper(site))
        start = found.param_info.z
        if not start:
            raise InputError("the model has no continuous latent site: there is nothing to sample")
        self.potential = found.potential_fn
        self.to_sites = found.postprocess_fn
        # With parameters that are optimized, or sites that are summed over, NumPyro's own energy is needed.
        self.coordinates = coordinates if set(start) == set(sites) else "unconstrained"
        self.prior_base = None
        if self.coordinates == "prior":
            mapped = _Mapped(model, args, kwargs, start)
            start = mapped.start
            self.potential = mapped.energy
            self.to_sites = mapped.sites
        vector, self.unravel = ravel_pytree(start)
        self.dim = int(vector.size)
        if self.coordinates == "prior" and mapped.all_mapped:
            self.prior_base = Gaussian(np.zeros(self.dim), 1.0)
        self.site_shapes = {name: tuple(start[name].shape) for name in sorted(start)}

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        x = one_point(x, self.dim)
        return jnp.asarray(self.potential(self.unravel(x)), x.dtype)

    def constrain(self, x: Float[Array, " dim"]) -> dict[str, Any]:
        """The values of all sites by name at one point `(dim,)`, deterministic ones included."""
        return self.to_sites(self.unravel(one_point(x, self.dim)))

    def sites(self, x: Float[Array | np.ndarray, "num dim"]) -> dict[str, Float[np.ndarray, "num ..."]]:
        """Constrained samples for points `(num, dim)`, by the names of all sites, deterministic ones included."""
        return map_points(self.constrain, x)

    def values(self, x: Float[Array | np.ndarray, "num dim"]) -> dict[str, Float[np.ndarray, "num ..."]]:
        """The same as `sites`, by the name that `boltzflow.Posterior` has for it."""
        return self.sites(x)


class _Site(NamedTuple):
    """How a latent site is made from its coordinates."""

    is_mapped: bool  # from standard normals by its prior
    is_constant: bool  # the prior does not depend on other sites


class _Mapped:
    """A model with its sites in the coordinates of their priors.

    Args:
        model: The model.
        args: Its arguments.
        kwargs: Its keyword arguments.
        unconstrained: An unconstrained value of each latent site.
    """

    def __init__(self, model: Callable[..., Any], args: Any, kwargs: Any, unconstrained: Mapping[str, Any]):
        self._call = model, args, kwargs
        self._plan: dict[str, _Site] = {}
        self.start: dict[str, Any] = {}

        def plan(shift: Array) -> None:
            def value_of(name: str, site: Mapping[str, Any]) -> Array:
                prior = site["fn"]
                is_constant = not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(prior))
                found = None
                if not _is_weighted(site):
                    try:
                        found = from_numpyro(prior, is_constant)
                    except InputError as error:
                        raise InputError(f"the prior of the site {name!r}: {error}") from error
                self._plan[name] = _Site(found is not None, is_constant)
                shape = np.shape(unconstrained[name]) if found is None else found.normal_shape
                self.start[name] = np.zeros(shape)
                coordinates = jnp.zeros(shape) + shift  # a number that is not known, as in the energy
                return _unconstrained(site, coordinates)[0] if found is None else found.from_normals(coordinates)

            self._run(value_of)

        try:
            jax.eval_shape(plan, jnp.zeros(()))
        except InputError:
            raise
        except Exception as error:  # whatever a user's model raises
            raise InputError(f"the model cannot be run: {summary(error)}") from error
        self.start = {name: jnp.asarray(value, float) for name, value in self.start.items()}

    @property
    def all_mapped(self) -> bool:
        """Whether each latent site is made from standard normals."""
        return all(site.is_mapped for site in self._plan.values())

    def energy(self, coordinates: Mapping[str, Array]) -> Array:
        """The energy at the coordinates of each site."""
        return self._at(coordinates)[1]

    def sites(self, coordinates: Mapping[str, Array]) -> dict[str, Array]:
        """The values of all sites that are not observed, by name."""
        trace, _ = self._at(coordinates)
        return {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] == "deterministic" or (site["type"] == "sample" and not site["is_observed"])
        }

    def _at(self, coordinates: Mapping[str, Array]) -> tuple[Mapping[str, Mapping[str, Any]], Array]:
        parts: list[Array] = []

        def value_of(name: str, site: Mapping[str, Any]) -> Array:
            z = coordinates[name]
            how = self._plan[name]
            if not how.is_mapped:
                value, log_jacobian = _unconstrained(site, z)
                parts.append(-_log_density(site, value) - log_jacobian)
                return value
            prior = from_numpyro(site["fn"], how.is_constant)
            if prior is None:
                raise InputError(f"the prior of the site {name!r} changes its kind from point to point")
            parts.append(0.5 * jnp.sum(z * z) + 0.5 * size_of(z.shape) * _LOG_2PI)
            return prior.from_normals(z)

        trace = self._run(value_of)
        observed = [-_log_density(s, s["value"]) for s in trace.values() if s["type"] == "sample" and s["is_observed"]]
        return trace, sum([*parts, *observed], jnp.zeros(()))

    def _run(self, value_of: Callable[[str, Mapping[str, Any]], Array]) -> Mapping[str, Mapping[str, Any]]:
        """All sites of one run of the model, each latent one with the value that `value_of` gives to it, in order."""
        handlers = optional_module("numpyro.handlers", "numpyro")
        model, args, kwargs = self._call

        def substitute(site: Mapping[str, Any]) -> Array | None:
            is_latent = site["type"] == "sample" and not site["is_observed"]
            return value_of(site["name"], site) if is_latent else None

        seeded = handlers.seed(model, jax.random.key(0))
        return handlers.trace(handlers.substitute(seeded, substitute_fn=substitute)).get_trace(*args, **kwargs)


def _is_weighted(site: Mapping[str, Any]) -> bool:
    """Whether the density of a site counts with a power or in part: its prior is then no distribution of its value."""
    return site.get("scale") is not None or "Masked" in type(site["fn"]).__name__


def _unconstrained(site: Mapping[str, Any], u: Array) -> tuple[Array, Array]:
    """NumPyro's map from unconstrained numbers to the support of a site, and the logarithm of its Jacobian."""
    biject_to = optional_module("numpyro.distributions", "numpyro").biject_to
    transform = biject_to(site["fn"].support)
    value = transform(u)
    return value, jnp.sum(transform.log_abs_det_jacobian(u, value))


def _log_density(site: Mapping[str, Any], value: Array) -> Array:
    """The log-density of a site's value, with the scale that handlers have given to it."""
    log_density = site["fn"].log_prob(value)
    scale = site.get("scale")
    return jnp.sum(log_density if scale is None else scale * log_density)


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


def _latent(trace: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
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


def _check_plates(trace: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a plate that takes a random part of the data: the energy would be that of this part."""
    for name, site in trace.items():
        if site["type"] == "plate" and site["args"][1] is not None and site["args"][1] < site["args"][0]:
            raise InputError(
                f"the plate {name!r} takes {site['args'][1]} of {site['args'][0]} data at random, and a flow needs the "
                "energy of all: leave out subsample_size"
            )


def _is_improper(site: Mapping[str, Any]) -> bool:
    prior = site["fn"]
    while hasattr(prior, "base_dist"):
        prior = prior.base_dist
    return type(prior).__name__ == "ImproperUniform"
