"""Samples for ArviZ: a DataTree (`arviz-base`), and the mixing of Metropolis chains (`arviz-stats`).

Needs the extra `arviz`: pip install 'boltzflow[arviz]'.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.errors import InputError
from boltzflow.sampling.corrections import Corrected

if TYPE_CHECKING:
    from boltzflow.run import Run


def to_datatree(run: "Run", key: PRNGKeyArray, num_samples: int = 4000, correct: str = "metropolis") -> Any:
    """Samples of a run as an `xarray.DataTree` with groups `posterior` (`x`) and `sample_stats` (`lp` = -energy).

    Attributes of the root hold log Z and the verdict of `run.report()`.

    Args:
        run: A trained run.
        key: The key of the samples.
        num_samples: How many samples.
        correct: A correction of `Run.correct`, whose samples have equal weights: "metropolis" gives four chains, the
            others one chain of independent samples. If empty, the flow's own samples, which need their weights:
            `sample_stats` then holds `log_weight` and `log_q`.
    """
    from_dict = _import("arviz_base").from_dict
    if correct:
        samples = run.correct(key, num_samples, correct)
        x = samples.x
        stats = {"lp": -samples.energy}
        chain = np.zeros(num_samples, int) if samples.chain is None else samples.chain
    else:
        own = run.sample(key, num_samples)
        x = own.x
        stats = {"lp": -own.energy, "log_q": own.log_prob, "log_weight": own.log_weight}
        chain = np.zeros(num_samples, int)
    report = run.report()
    log_z = report.estimates["log_z"]
    root = {
        "inference_library": "boltzflow",
        "inference_library_version": version("boltzflow"),
        "target": run.name,
        "log_z": float(log_z.value),
        "log_z_stderr": float(log_z.stderr),
        "trustworthy": int(report.verdict.trustworthy),
        "warnings": " ".join(report.verdict.warnings),
    }
    sample_stats = {name: _by_chain(value, chain) for name, value in stats.items()}
    groups = {"posterior": {"x": _by_chain(x, chain)}, "sample_stats": sample_stats}
    return from_dict(groups, dims={"x": ["x_dim"]}, attrs={"/": root})


def mixing(samples: Corrected) -> dict[str, Float[np.ndarray, " dim"]]:
    """Rank-normalized split R-hat (`r_hat`) and bulk effective sample size (`ess`) of each coordinate, `(dim,)` each.

    Args:
        samples: Metropolis chains, from `run.correct(key, num_samples, "metropolis")`.

    Raises:
        InputError: The samples are independent and not chains.
    """
    if samples.chain is None:
        raise InputError("these samples are independent: only those corrected by metropolis are chains")
    stats = _import("arviz_stats.base").array_stats
    x = _by_chain(samples.x, samples.chain)
    return {
        "r_hat": np.asarray(stats.rhat(x, chain_axis=0, draw_axis=1)),
        "ess": np.asarray(stats.ess(x, chain_axis=0, draw_axis=1)),
    }


def _by_chain(values: Any, chain: np.ndarray) -> np.ndarray:
    """`(num, ...)` as `(num_chains, length, ...)`, each chain cut to the length of the shortest."""
    length = int(np.bincount(chain).min())
    return np.stack([np.asarray(values)[chain == number][:length] for number in range(chain.max() + 1)])


def _import(name: str) -> Any:
    """The module of that name. Raises `InputError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"this needs {name.split('.')[0]}: pip install 'boltzflow[arviz]'") from error
