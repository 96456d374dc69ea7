"""PyMC models as targets, and samples by the names of the variables.

Needs the extra `pymc`: pip install 'boltzflow[pymc]'.

In the coordinates "prior" each free variable is mapped from standard normals z by its prior given the variables before
it. One whose distribution has no such map here keeps PyMC's map from unconstrained numbers u, with its prior and the
Jacobian in the energy:

    energy(z, u) = |z|²/2 + dim(z)/2 log 2π - log p(x(u) | others) - log |∂x/∂u| - log p(observed, potentials | x)

In the coordinates "unconstrained" all variables are of the second kind. log Z is the same in both.
"""

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.gaussian import Gaussian
from boltzflow.errors import InputError, summary
from boltzflow.interop import optional_module
from boltzflow.interop.numpyro import Coordinates
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.validation import one_point, shown
from boltzflow.priors import (
    Beta,
    Cauchy,
    Dirichlet,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    LogNormal,
    Normal,
    StudentT,
    Uniform,
)
from boltzflow.priors.base import AbstractPrior, size_of

_LOG_2PI = float(np.log(2 * np.pi))
_IMPROPER = ("FlatRV", "HalfFlatRV")


class Posterior(AbstractDensity):
    """The posterior of a PyMC model: p(x) ∝ exp(-energy(x)), x the coordinates of all free variables in one vector.

    log Z is the log evidence log p(observed), with the potentials of the model as factors.

    Args:
        model: The `pymc.Model`, with the data that it holds now.
        coordinates: "prior" maps each variable from standard normals by its prior; "unconstrained" takes PyMC's maps.

    Raises:
        InputError: `model` is no model, has no free variable, or one that is discrete, has an improper prior or stands
            for missing data; its data hold NaN or are taken in batches; or PyMC cannot write it in JAX.
    """

    dim: int = eqx.field(static=True)
    site_shapes: Mapping[str, tuple[int, ...]] = eqx.field(static=True)  # of coordinates, in the order of the vector
    coordinates: Coordinates = eqx.field(static=True)
    written: "_Written" = eqx.field(static=True)
    prior_base: Gaussian | None  # of the coordinates, where they all are of priors

    def __init__(self, model: Any, coordinates: Coordinates = "prior"):
        if coordinates not in ("prior", "unconstrained"):
            raise InputError(f"coordinates must be 'prior' or 'unconstrained', got {coordinates!r}")
        if not isinstance(model, optional_module("pymc", "pymc").Model):
            raise InputError(f"model must be a pymc.Model, got {shown(model)}")
        _check(model)
        try:
            self.written = _Written(model, coordinates == "prior")
            self.site_shapes = self.written.shapes
            self.dim = sum(map(size_of, self.site_shapes.values()))
            self.coordinates = coordinates
            self.prior_base = Gaussian(np.zeros(self.dim), 1.0) if self.written.all_mapped else None
            jax.eval_shape(self.energy, jnp.zeros(self.dim))
            jax.eval_shape(self.constrain, jnp.zeros(self.dim))
        except InputError:
            raise
        except Exception as error:  # whatever PyMC raises of a user's model
            raise InputError(f"the model cannot be written in JAX: {summary(error)}") from error

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        x = one_point(x, self.dim)
        return jnp.asarray(self.written.energy(self._split(x)), x.dtype)

    def constrain(self, x: Float[Array, " dim"]) -> dict[str, Any]:
        """The free and the deterministic variables by name at one point `(dim,)`."""
        return self.written.variables(self._split(one_point(x, self.dim)))

    def values(self, x: Float[Array | np.ndarray, "num dim"]) -> dict[str, Float[np.ndarray, "num ..."]]:
        """The variables at points `(num, dim)`: for each name an array with a first axis of length `num`."""
        return map_points(self.constrain, x)

    def _split(self, x: Array) -> dict[str, Array]:
        """The coordinates of each variable."""
        ends = np.cumsum([size_of(shape) for shape in self.site_shapes.values()])[:-1]
        return {
            name: part.reshape(shape)
            for (name, shape), part in zip(self.site_shapes.items(), jnp.split(x, ends), strict=True)
        }


class _Family(NamedTuple):
    """A family of PyTensor as a prior of ours."""

    make: Callable[..., AbstractPrior]  # from PyTensor's parameters and the shape
    transform: str = ""  # PyMC's own map to its support


_FAMILIES = {
    "NormalRV": _Family(Normal),
    "CauchyRV": _Family(Cauchy),
    "StudentTRV": _Family(StudentT),
    "HalfNormalRV": _Family(lambda _, scale, shape: HalfNormal(scale, shape), "LogTransform"),
    "HalfCauchyRV": _Family(HalfCauchy, "LogTransform"),
    "LogNormalRV": _Family(LogNormal, "LogTransform"),
    "ExponentialRV": _Family(lambda scale, shape: Exponential(1 / scale, shape), "LogTransform"),
    "GammaRV": _Family(lambda a, scale, shape: Gamma(a, 1 / scale, shape), "LogTransform"),
    "BetaRV": _Family(Beta, "LogOddsTransform"),
    "UniformRV": _Family(Uniform, "Interval"),
    "DirichletRV": _Family(lambda a, shape: Dirichlet(np.broadcast_to(a, shape)), "SimplexTransform"),
}


class _Written:
    """A model in JAX: its variables and its energy as functions of coordinates by name.

    Args:
        model: The model.
        by_priors: Whether variables are mapped by their priors where they can be.
    """

    def __init__(self, model: Any, by_priors: bool):
        mapped = [one for one in model.free_RVs if by_priors and _has_map(model, one)]
        self.all_mapped = len(mapped) == len(model.free_RVs)
        names = {one.name for one in mapped}
        order = [one.name for one in model.free_RVs]
        if mapped:  # a copy, in which the value of a mapped variable is the variable itself
            conditioning = optional_module("pymc.model.transform.conditioning", "pymc")
            model = conditioning.remove_value_transforms(model, mapped)
        self._values = {one.name: model.rvs_to_values[one] for one in model.free_RVs}  # each one after its parents
        self._priors = {one.name: _prior(model, one) for one in model.free_RVs if one.name in names}
        others = [one for one in [*model.basic_RVs, *model.potentials] if one.name not in names]
        self._log_density = _in_jax([model.logp(others, sum=True)], model.value_vars) if others else None
        self._names = [*order, *(one.name for one in model.deterministics)]
        variables = model.replace_rvs_by_values([model[name] for name in self._names])
        self._variables = _in_jax(variables, model.value_vars)
        own = _shapes(model)
        shapes: dict[str, tuple[int, ...]] = {}

        def plan(shift: Array) -> None:
            known: dict[str, Array] = {}
            for name, value in self._values.items():
                prior = self._priors[name](known) if name in names else None
                shapes[name] = own[value.name] if prior is None else tuple(prior.normal_shape)
                coordinates = jnp.zeros(shapes[name]) + shift  # a number that is not known, as in the energy
                known[value.name] = coordinates if prior is None else prior.from_normals(coordinates)

        jax.eval_shape(plan, jnp.zeros(()))
        self.shapes = {name: shapes[name] for name in order}

    def energy(self, coordinates: Mapping[str, Array]) -> Array:
        """The energy at the coordinates of each variable."""
        z = jnp.concatenate([jnp.zeros(0), *(coordinates[name].ravel() for name in self._priors)])
        prior = 0.5 * jnp.sum(z * z) + 0.5 * z.size * _LOG_2PI
        return prior if self._log_density is None else prior - self._log_density(self._known(coordinates))[0]

    def variables(self, coordinates: Mapping[str, Array]) -> dict[str, Array]:
        """The free and the deterministic variables by name."""
        return dict(zip(self._names, self._variables(self._known(coordinates)), strict=True))

    def _known(self, coordinates: Mapping[str, Array]) -> dict[str, Array]:
        """PyMC's values of the free variables: one that is mapped itself, another unconstrained."""
        known: dict[str, Array] = {}
        for name, value in self._values.items():
            at = coordinates[name]
            known[value.name] = self._priors[name](known).from_normals(at) if name in self._priors else at
        return known


def _has_map(model: Any, variable: Any) -> bool:
    """Whether a variable is of a family here, with the map to its support that PyMC takes by itself, or none."""
    family = _FAMILIES.get(type(variable.owner.op).__name__)
    transform = model.rvs_to_transforms[variable]
    if family is None or (transform is not None and type(transform).__name__ != family.transform):
        return False
    start = _parameters(variable)[0]
    return type(variable.owner.op).__name__ != "HalfNormalRV" or bool(np.all(getattr(start, "data", 1) == 0))


def _parameters(variable: Any) -> list[Any]:
    return list(variable.owner.op.dist_params(variable.owner))


def _prior(model: Any, variable: Any) -> Callable[[Mapping[str, Array]], AbstractPrior]:
    """The prior of a variable, given the values before it."""
    make = _FAMILIES[type(variable.owner.op).__name__].make
    shape = _shapes(model)[model.rvs_to_values[variable].name]
    graphs = model.replace_rvs_by_values(_parameters(variable))
    inputs_of = optional_module("pymc.pytensorf", "pymc").inputvars
    varying = [graph for graph in graphs if inputs_of([graph])]
    inputs = inputs_of(varying)
    function = _in_jax(varying, [value for value in model.value_vars if value in inputs])
    with jax.enable_x64(True):
        fixed = {
            number: np.asarray(_in_jax([graph], [])({})[0])
            for number, graph in enumerate(graphs)
            if graph not in varying
        }

    def prior(known: Mapping[str, Array]) -> AbstractPrior:
        found = iter(function(known))
        try:
            return make(*(fixed[i] if i in fixed else next(found) for i in range(len(graphs))), shape=shape)
        except InputError as error:
            raise InputError(f"the prior of the variable {variable.name!r}: {error}") from error

    return prior


def _in_jax(graphs: list[Any], inputs: list[Any]) -> Callable[[Mapping[str, Array]], Any]:
    """Graphs of PyTensor as a function of the values of their inputs by name."""
    if not graphs:
        return lambda known: ()
    write = _writer()
    written = {}
    for double in (False, True):  # constants are in the precision of the writing
        with jax.enable_x64(double), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written[double] = write(inputs=list(inputs), outputs=list(graphs))

    def function(known: Mapping[str, Array]) -> Any:
        double = jax.dtypes.canonicalize_dtype(float) == np.float64
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of double precision that is asked for in single
            return written[double](*(known[one.name] for one in inputs))

    return function


def _writer() -> Callable[..., Any]:
    """PyMC's writer of graphs in JAX. Its first import turns double precision on for all of JAX; this is undone."""
    with ThreadPoolExecutor(1) as thread:  # which sees the setting for all, and not that of a context here
        before = thread.submit(lambda: jax.config.values["jax_enable_x64"]).result()
    write = optional_module("pymc.sampling.jax", "pymc").get_jaxified_graph
    jax.config.update("jax_enable_x64", before)
    return write


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each value by name. Lengths that may change take those of now."""
    shapes = {value.name: value.type.shape for value in model.value_vars}
    if any(None in shape for shape in shapes.values()):
        shapes = {name: np.shape(value) for name, value in model.initial_point(random_seed=0).items()}
    return {name: tuple(shape) for name, shape in shapes.items()}


def _check(model: Any) -> None:
    """Refuse what has no energy, naming the variable."""
    names = {one.name for one in model.basic_RVs}
    for one in model.free_RVs:
        kind = type(one.owner.op).__name__
        if not np.issubdtype(one.type.dtype, np.floating):
            raise InputError(
                f"the free variable {one.name!r} is discrete ({kind.removesuffix('RV')}), and a flow samples "
                "continuous variables alone: marginalize it, that is, sum over its values in the model, as "
                "pymc.Mixture does"
            )
        if kind in _IMPROPER:
            raise InputError(
                f"the free variable {one.name!r} has an improper prior ({kind.removesuffix('RV')}), and log Z depends "
                "on its scale: give it a prior that is a distribution"
            )
        missing = one.name.removesuffix("_unobserved")
        if missing != one.name and f"{missing}_observed" in names:
            raise InputError(f"the data of {missing!r} hold NaN or are masked: leave those entries out")
    for one in model.observed_RVs:
        if type(one.owner.op).__name__ == "MinibatchRandomVariable":
            raise InputError(
                f"the data of {one.name!r} are taken in batches, and a flow needs the energy of all: leave out "
                "pymc.Minibatch and total_size"
            )
        data = model.rvs_to_values[one]
        data = data.get_value() if hasattr(data, "get_value") else getattr(data, "data", 0.0)
        if np.issubdtype(np.asarray(data).dtype, np.floating) and np.isnan(data).any():
            raise InputError(f"the data of {one.name!r} hold NaN: leave those entries out")
    if not model.free_RVs:
        raise InputError("the model has no free variable: there is nothing to sample")
