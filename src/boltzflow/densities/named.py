"""The arguments of a `Posterior`: priors, functions and fixed values by name, matched with each other and checked."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from boltzflow.densities.energy import hashable
from boltzflow.errors import InputError
from boltzflow.numerics.validation import did_you_mean, real_array, shown
from boltzflow.priors.base import AbstractPrior
from boltzflow.priors.translated import from_numpyro, is_numpyro

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Constants(dict[str, np.ndarray]):
    """Arrays by name that are part of the program: JAX takes them by their identity, and traces none of them."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__


def check_prior(prior: Any) -> None:
    """Refuse a prior that is no dictionary of distributions and functions by name, in an order that can be followed."""
    if not isinstance(prior, Mapping):
        raise InputError(f"prior must be a dictionary of distributions by name, got {shown(prior)}")
    if not prior:
        raise InputError("prior is empty: give a distribution for each name")
    for name in prior:
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(f"a name of the prior must be one that Python takes as an argument, got {shown(name)}")
    earlier: list[str] = []
    for name, one in prior.items():
        if not _is_distribution(one) and callable(one) and not isinstance(one, type):
            for parent in _required(one):
                if parent == name:
                    raise InputError(f"the prior of {name!r} takes {name!r} itself: it may take names before it")
                if parent in prior and parent not in earlier:
                    raise InputError(
                        f"the prior of {name!r} takes {parent!r}, which comes after it: put {parent!r} first; of two "
                        "that take each other, only one can"
                    )
                if parent not in earlier:
                    raise InputError(
                        f"the prior of {name!r} takes {parent!r}, which is no name of the prior"
                        f"{did_you_mean(parent, earlier)}"
                    )
        earlier.append(name)


def _is_distribution(value: Any) -> bool:
    return isinstance(value, AbstractPrior) or (is_numpyro(value) and not isinstance(value, type))


def as_prior(name: str, given: Any) -> Any:
    """A prior, or a function that returns one."""
    if callable(given) and not isinstance(given, type) and not _is_distribution(given):
        return jax.tree.map(hashable, given)
    return as_distribution(name, given, is_constant=True)


def as_distribution(name: str, given: Any, is_constant: bool) -> AbstractPrior:
    if isinstance(given, AbstractPrior):
        return given
    if isinstance(given, type):
        raise InputError(f"the prior of {name!r} is the class {given.__name__}: give an instance, with its parameters")
    if not is_numpyro(given):
        raise InputError(
            f"the prior of {name!r} must be a distribution, as boltzflow.priors.Normal(0.0, 1.0), got {shown(given)}"
        )
    if getattr(given.support, "is_discrete", False):
        raise InputError(
            f"the prior of {name!r} is discrete ({type(given).__name__}), and a flow samples continuous variables "
            "alone: sum over its values in the log-likelihood"
        )
    found = from_numpyro(given, is_constant)
    if found is None:
        raise InputError(
            f"the prior of {name!r}, {type(given).__name__}, has no quantile function: give one of boltzflow.priors, "
            "or the model to boltzflow.interop.numpyro.Posterior"
        )
    return found


def check_names(log_likelihood: Callable[..., Any], prior: Mapping[str, Any]) -> None:
    """Refuse a log-likelihood that needs a name that is not there, and a name that nothing takes."""
    names = argument_names(log_likelihood)
    if takes_dictionary(log_likelihood, tuple(prior)):
        return
    for one in _required(log_likelihood):
        if one not in prior:
            advice = did_you_mean(one, prior) or f"; it has {', '.join(prior)}"
            raise InputError(f"log_likelihood takes {one!r}, which is no name of the prior{advice}")
    taken = {*names, *(parent for one in prior.values() if not _is_distribution(one) for parent in _required(one))}
    for one in prior:
        if one not in taken and not takes_all(log_likelihood):
            raise InputError(
                f"the prior has {one!r}, which neither log_likelihood nor a later prior takes"
                f"{did_you_mean(one, names)}; leave it out, or take all names with **names"
            )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The parameters of a function; None where it has no signature."""
    try:
        return list(inspect.signature(getattr(function, "fn", function)).parameters.values())
    except (TypeError, ValueError):
        return None


def argument_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments of a function; none where it has no signature."""
    return tuple(p.name for p in _parameters(function) or () if p.kind in _NAMED)


def _required(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the arguments that have no default."""
    return tuple(p.name for p in _parameters(function) or () if p.kind in _NAMED and p.default is p.empty)


def takes_all(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _parameters(function) or ())


def takes_dictionary(function: Callable[..., Any], names: tuple[str, ...]) -> bool:
    """Whether a function takes all variables as one dictionary: its one required argument is no name of the prior."""
    parameters = _parameters(function)
    if parameters is None:
        return True
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    is_positional = len(needed) == 1 and needed[0].kind is not inspect.Parameter.KEYWORD_ONLY
    return is_positional and not takes_all(function) and not any(p.name in names for p in parameters)


def fixed_values(fix: Any, names: tuple[str, ...]) -> Constants:
    if not isinstance(fix, Mapping):
        raise InputError(f"fix must be a dictionary of values by name, got {shown(fix)}")
    for name in fix:
        if name not in names:
            raise InputError(f"fix has {shown(name)}, which is no name of the prior{did_you_mean(name, names)}")
    return Constants({name: real_array(f"the fixed value of {name!r}", value) for name, value in fix.items()})


def in_shape(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if value.shape not in ((), shape):
        raise InputError(f"the fixed value of {name!r} must have shape {shape}, got {value.shape}")
    return np.broadcast_to(value, shape)


def check_likelihoods(found: np.ndarray, draws: Mapping[str, np.ndarray]) -> None:
    """Refuse log-likelihoods at draws of the prior that are NaN or +inf, or all -inf."""

    def first(bad: np.ndarray) -> str:
        number = int(np.argmax(bad))
        shown_draws = (f"{n} = {np.array2string(v[number], precision=4, threshold=4)}" for n, v in draws.items())
        return ", ".join(shown_draws)

    num = len(found)
    if np.isneginf(found).all():
        raise InputError(
            f"log_likelihood is -inf at all of {num} draws of the prior (100 %), at one with {first(found < 0)}: no "
            "value that the prior allows explains the data"
        )
    for bad, word in ((np.isnan(found), "NaN"), (np.isposinf(found), "+inf")):
        if bad.any():
            advice = "; are there NaN among the data?" if bad.all() and word == "NaN" else ""
            raise InputError(
                f"log_likelihood is {word} at {bad.sum()} of {num} draws of the prior ({100 * bad.mean():.3g} %), at "
                f"the first with {first(bad)}{advice}"
            )
