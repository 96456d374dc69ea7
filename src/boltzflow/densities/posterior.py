"""A posterior from a log-likelihood and priors by name, in coordinates in which the prior is a standard normal.

Each variable θ is the image of standard normals z under its prior's quantile function, θ = F⁻¹(Φ(z)). So

    energy(z) = |z|²/2 + dim/2 log 2π - log L(θ(z)),

and log Z = log ∫ L(θ) p(θ) dθ is the log evidence. A prior may depend on variables before it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from boltzflow.densities.base import AbstractDensity
from boltzflow.densities.energy import hashable
from boltzflow.densities.gaussian import Gaussian
from boltzflow.densities.named import (
    Constants,
    argument_names,
    as_distribution,
    as_prior,
    check_likelihoods,
    check_names,
    check_prior,
    fixed_values,
    in_shape,
    takes_all,
    takes_dictionary,
)
from boltzflow.errors import InputError, summary
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import compiled
from boltzflow.numerics.constants import separate_precisions
from boltzflow.numerics.validation import did_you_mean, one_point, random_key, shown, whole_number
from boltzflow.priors.base import AbstractPrior, size_of

_NUM_DRAWS = 1000  # of the prior, at which the log-likelihood is checked
_NUM_MADE = 16  # draws at which the parameters of priors are checked
_LOG_2PI = float(np.log(2 * np.pi))

Values = dict[str, Any]


class Posterior(AbstractDensity):
    """The posterior p(θ) ∝ L(θ) p(θ) of named variables θ, as a density of z with prior N(0, I).

    log Z is the log evidence, log ∫ L(θ) p(θ) dθ.

    Args:
        log_likelihood: log L, a real number. It takes the variables as arguments of their names, those that it needs; a
            function of one argument that is no name of the prior takes all of them as one dictionary.
        prior: For each name a distribution, of `boltzflow.priors` or `numpyro.distributions`, or a function of names
            before it that returns one, as in `{"mu": Normal(), "x": lambda mu: Normal(mu, 1.0)}`.
        fix: Names with their values, for a nested model. The density of their prior is left out, and log Z is the
            evidence of the model with these values. Priors after them see the values.

    Raises:
        InputError: A prior is no distribution, its function takes a name that does not come before it, a parameter is
            not valid, the names of the log-likelihood and the prior do not match, a fixed value lies outside of its
            prior, or the log-likelihood fails, is NaN or +inf at draws of the prior, or is -inf at all of them.
    """

    dim: int = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    log_likelihood: Callable[..., Any]
    prior: dict[str, Any]
    fixed: Constants = eqx.field(static=True)
    layout: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = eqx.field(static=True)

    def __init__(
        self, log_likelihood: Callable[..., Any], prior: Mapping[str, Any], fix: Mapping[str, Any] | None = None
    ):
        if not callable(log_likelihood):
            raise InputError(f"log_likelihood must be a function of the variables, got {shown(log_likelihood)}")
        check_prior(prior)
        self.log_likelihood = jax.tree.map(hashable, log_likelihood)
        self.prior = {name: as_prior(name, one) for name, one in prior.items()}
        self.names = tuple(prior)
        check_names(log_likelihood, self.prior)
        self.fixed = fixed_values(fix or {}, self.names)
        self.layout = self._find_layout()
        self.dim = sum(size_of(normals) for _, normals, _ in self.layout)
        if not self.dim:
            raise InputError("every name of the prior is fixed: there is nothing to sample")
        self._check_draws()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each variable that is not fixed."""
        return {name: shape for name, _, shape in self.layout}

    @property
    def prior_base(self) -> Gaussian:
        """The prior of z."""
        return Gaussian(np.zeros(self.dim), 1.0)

    def energy(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """|z|²/2 + dim/2 log 2π - log L at one point z of shape `(dim,)`."""
        z = one_point(x, self.dim)
        log_likelihood = self._log_likelihood(self.constrain(z))
        return 0.5 * jnp.sum(z * z) + 0.5 * self.dim * _LOG_2PI - jnp.asarray(log_likelihood, z.dtype)

    def constrain(self, x: Float[Array, " dim"]) -> Values:
        """The variables by name at one point `(dim,)`, fixed ones included."""
        z = one_point(x, self.dim)
        parts = iter(jnp.split(z, np.cumsum([size_of(normals) for _, normals, _ in self.layout])[:-1]))
        values: Values = {}
        for name in self.names:
            if name in self.fixed:
                values[name] = jnp.asarray(self.fixed[name], z.dtype)
                continue
            prior = self._prior_of(name, values)
            values[name] = prior.from_normals(next(parts).reshape(prior.normal_shape))
        return values

    def values(self, x: Float[Array | np.ndarray, "num dim"]) -> Values:
        """The variables at points `(num, dim)`: for each name an array with a first axis of length `num`."""
        found = map_points(self.constrain, x)
        return {name: found[name] for name in self.names}

    def prior_predictive(self, key: PRNGKeyArray, num: int, fn: Callable[[Values], Any] | None = None) -> Any:
        """Independent draws of the prior: for each name an array with a first axis of length `num`.

        Args:
            key: A JAX random key.
            num: The number of draws.
            fn: A function of the variables of one draw, such as simulated data; its results are returned instead.
        """
        key = random_key(key)
        num = whole_number("num", num, at_least=1)
        if fn is not None and not callable(fn):
            raise InputError(f"fn must be a function of the variables by name, got {shown(fn)}")
        z = jax.random.normal(key, (num, self.dim))
        return map_points(self.constrain if fn is None else lambda point: fn(self.constrain(point)), z)

    def _prior_of(self, name: str, values: Values) -> AbstractPrior:
        """The prior of a name, given the variables before it."""
        prior = self.prior[name]
        if isinstance(prior, AbstractPrior):
            return prior
        # A fixed variable is a known number. One that is not is an array of JAX, outside of programs too.
        parents = {one: self.fixed.get(one, values[one]) for one in argument_names(prior) if one in values}
        try:
            return as_distribution(name, prior(**parents), is_constant=False)
        except InputError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise InputError(f"the prior of {name!r} fails: {summary(error)}") from error

    def _log_likelihood(self, values: Values) -> Any:
        if takes_dictionary(self.log_likelihood, self.names):
            return self.log_likelihood(values)
        if takes_all(self.log_likelihood):
            return self.log_likelihood(**values)
        return self.log_likelihood(**{n: values[n] for n in argument_names(self.log_likelihood) if n in values})

    def _find_layout(self) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]:
        """The name, the shape of the normals and the shape of the value of each variable that is not fixed."""
        layout = []

        def find() -> None:
            values: Values = {}
            for name in self.names:
                prior = self._prior_of(name, values)
                if name in self.fixed:
                    values[name] = self.fixed[name] = in_shape(name, self.fixed[name], tuple(prior.shape))
                    continue
                layout.append((name, tuple(prior.normal_shape), tuple(prior.shape)))
                values[name] = prior.from_normals(jnp.zeros(prior.normal_shape))

        _traced(find, "a prior")
        return tuple(layout)

    def _check_draws(self) -> None:
        """Raise `InputError` unless the variables and the log-likelihood can be used at draws of the prior."""
        separate_precisions()
        z = jax.random.normal(jax.random.key(0), (_NUM_DRAWS, self.dim))
        values = _traced(lambda: self.constrain(z[0]), "a prior")
        advice = ""
        if takes_dictionary(self.log_likelihood, self.names):
            argument = (argument_names(self.log_likelihood) or ("",))[0]
            near = did_you_mean(argument, self.names)
            advice = f"; its argument {argument!r} is no name of the prior{near}, and takes all in a dictionary"
        zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), values)
        _traced(lambda: self._checked_likelihood(zeros), "log_likelihood", advice)

        def at(x: Array) -> tuple[Values, Values, Array]:
            values = self.constrain(x)
            contained = {name: self._prior_of(name, values).contains(values[name]) for name in self.fixed}
            return values, contained, self._checked_likelihood(values)

        try:
            found, contained, log_likelihood = jax.tree.map(np.asarray, compiled(jax.vmap(at))(z))
        except Exception as error:  # whatever a user's functions raise in a batch
            raise InputError(f"log_likelihood or a prior fails in a batch: {summary(error)}") from error
        draws = {name: found[name] for name in self.names}
        self._check_parameters(draws)
        for name, value in draws.items():
            if bad := int((~np.isfinite(value).reshape(_NUM_DRAWS, -1).all(axis=1)).sum()):
                raise InputError(
                    f"the prior of {name!r} gives values that are not finite at {bad} of {_NUM_DRAWS} draws: check its "
                    "parameters"
                )
        for name, inside in contained.items():
            if not inside.any():
                raise InputError(
                    f"{name!r} is fixed at {shown(self.fixed[name].tolist())}, outside of the support of its prior"
                )
        check_likelihoods(log_likelihood, draws)

    def _check_parameters(self, draws: Mapping[str, np.ndarray]) -> None:
        """Make the priors that depend on other variables from known numbers, so that their parameters are checked."""
        for number in range(_NUM_MADE):
            values = {name: value[number] for name, value in draws.items()}
            for name, one in self.prior.items():
                if isinstance(one, AbstractPrior):
                    continue
                try:
                    self._prior_of(name, values)
                except InputError as error:
                    parents = {parent: values[parent] for parent in argument_names(one) if parent in values}
                    made = ", ".join(f"{parent} = {v:.4g}" for parent, v in parents.items() if not v.ndim)
                    raise InputError(f"the prior of {name!r}, {error}" + (f", at {made}" if made else "")) from error

    def _checked_likelihood(self, values: Values) -> Array:
        found = self._log_likelihood(values)
        value = jnp.asarray(np.nan if found is None else found)
        if found is None or value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            what = "nothing; is a return missing?" if found is None else f"{value.dtype} of shape {value.shape}"
            advice = "; sum over the data (jnp.sum)" if value.shape else ""
            raise InputError(f"log_likelihood must return one real number, got {what}{advice}")
        return value


def _traced(function: Callable[[], Any], what: str, advice: str = "") -> Any:
    """The shapes of what a function returns. Raises `InputError` where it fails."""
    try:
        return jax.eval_shape(function)
    except InputError:
        raise
    except Exception as error:  # whatever a user's function raises
        raise InputError(f"{what} fails: {summary(error)}{advice}") from error
