"""Samples for ArviZ: a DataTree (`arviz-base`), and the mixing of Metropolis chains (`arviz-stats`).

Needs the extra `arviz`: pip install 'boltzflow[arviz]'.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from boltzflow.errors import InputError
from boltzflow.interop import optional_module
from boltzflow.sampling.corrections import Corrected
from boltzflow.storage.versions import own_version

if TYPE_CHECKING:
    from boltzflow.run import Run


def to_datatree(run: "Run", key: PRNGKeyArray, num_samples: int = 4000, correct: str = "metropolis") -> Any:
    """Samples of a run as an `xarray.DataTree` with groups `posterior` and `sample_stats` (`lp` = -energy).

    The group `posterior` has the variables of a posterior by name, and else `x`.

    Attributes of the root hold log Z and the verdict of `run.report()`.

    Args:
        run: A trained run.
        key: The key of the samples.
        num_samples: How many samples.
        correct: A correction of `Run.correct`, whose samples have equal weights: "metropolis" gives four chains, the
            others one chain of independent samples. If empty, the flow's own samples, which need their weights:
            `sample_stats` then holds `log_weight` and `log_q`.
    """
    from_dict = optional_module("arviz_base", "arviz").from_dict
    samples: Any = run.correct(key, num_samples, correct) if correct else run.sample(key, num_samples)
    stats = {"lp": -samples.energy}
    if not correct:
        stats |= {"log_q": samples.log_prob, "log_weight": samples.log_weight}
    chain = samples.chain if correct else None
    chain = np.zeros(num_samples, int) if chain is None else chain
    report = run.report()
    log_z = report.estimates["log_z"]
    root = {
        "inference_library": "boltzflow",
        "inference_library_version": own_version(),
        "target": run.name,
        "log_z": float(log_z.value),
        "log_z_stderr": float(log_z.stderr),
        "trustworthy": int(report.verdict.trustworthy),
        "warnings": " ".join(report.verdict.warnings),
    }
    sample_stats = {name: _by_chain(value, chain) for name, value in stats.items()}
    by_name = getattr(run.target, "values", None)
    values = by_name(samples.x) if by_name else {"x": samples.x}
    posterior = {name: _by_chain(value, chain) for name, value in values.items()}
    dims = {} if by_name else {"x": ["x_dim"]}
    return from_dict({"posterior": posterior, "sample_stats": sample_stats}, dims=dims, attrs={"/": root})


def mixing(samples: Corrected) -> dict[str, Float[np.ndarray, " dim"]]:
    """Rank-normalized split R-hat (`r_hat`) and bulk effective sample size (`ess`) of each coordinate, `(dim,)` each.

    Args:
        samples: Metropolis chains, from `run.correct(key, num_samples, "metropolis")`; others raise `InputError`.
    """
    if samples.chain is None:
        raise InputError("these samples are independent: only those corrected by metropolis are chains")
    stats = optional_module("arviz_stats.base", "arviz").array_stats
    x = _by_chain(samples.x, samples.chain)
    both = {"r_hat": stats.rhat, "ess": stats.ess}
    return {name: np.asarray(statistic(x, chain_axis=0, draw_axis=1)) for name, statistic in both.items()}


def _by_chain(values: Any, chain: np.ndarray) -> np.ndarray:
    """`(num, ...)` as `(num_chains, length, ...)`, each chain cut to the length of the shortest."""
    length = int(np.bincount(chain).min())
    return np.stack([np.asarray(values)[chain == number][:length] for number in range(chain.max() + 1)])
