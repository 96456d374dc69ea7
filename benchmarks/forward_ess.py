"""How the forward ESS of the default preset depends on how many exact samples it is taken over.

It averages (q/p)² over exact samples (25). A flow leaves a few samples in 10⁴ between separate modes, where p is next
to nothing, so that one exact sample that lies there decides. A row has the forward ESS of one flow over each of 64 sets
of 4096 exact samples, as many as the paper takes, and over all of them together. None of them is among the 20,000 of
the report, which are the same for all flows of a seed, and so show the same again where a flow is trained once more.
"""

import functools

import jax
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.store import Row, Store, flow_source
from benchmarks.targets import TASKS, Task
from boltzflow.densities.base import sample_batch
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import use_compilation_cache
from boltzflow.statistics import estimates as estimators

NAME = "forward_ess"
TARGETS = ("mixture-4", "mixture-2", "double-well N=16 m=4.5", "double-well N=16 m=6")
SET_SIZE = 4096
_KEY = 25  # of the exact samples, folded with the seed


def main() -> None:
    use_compilation_cache()
    options = common.arguments(
        __doc__ or "", TARGETS,
        seeds=common.SEEDS,
        sets={"type": int, "default": 64, "help": f"sets of {SET_SIZE} exact samples"},
    )  # fmt: skip
    store, source = Store(NAME, folder=options.results, fresh=options.fresh), flow_source(NAME)
    for name in options.targets:
        for seed in range(options.seeds):
            measure = functools.partial(ask, TASKS[name], seed, options.sets)
            common.measured(store, source, measure, target=name, seed=seed, sets=options.sets)


def ask(task: Task, seed: int, num_sets: int) -> Row:
    """One flow: the forward ESS over each set, over the report's own samples and over all sets; the largest q/p."""
    target = task.make()
    run = boltzflow.fit(target, seed=seed)
    x, log_prob = sample_batch(target, jax.random.fold_in(jax.random.key(_KEY), seed), num_sets * SET_SIZE)
    log_weight = np.asarray(log_prob + float(target.log_z) - map_points(run.flow.log_prob, x), np.float64)
    log_weight = np.where(np.isnan(log_weight), np.inf, log_weight)  # q = 0
    estimates = run.report().estimates
    return {
        "reverse_ess": float(estimates["reverse_ess"].value),
        "reported": float(estimates["forward_ess"].value),
        "all": float(estimators.forward_ess(log_weight).value),
        "sets": [round(float(estimators.forward_ess(one).value), 5) for one in np.split(log_weight, num_sets)],
        "largest_ratio": float(np.exp(float(target.log_z) - log_weight.min())),
        "trusted": bool(run.report().verdict.trustworthy),
    }


if __name__ == "__main__":
    main()
