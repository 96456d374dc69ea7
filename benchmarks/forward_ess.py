"""The forward ESS of the default preset over different numbers of exact samples.

The forward ESS averages (q/p)² over exact samples (25). A flow has a few samples in 10⁴ between separate modes, where p
is nearly 0, so that one exact sample there decides the average. A row has the forward ESS of one flow over each of 64
sets of 4096 exact samples, the paper's number, and over all of them. These samples differ from the 20,000 of the
report, which are the same for all flows of a seed and so repeat their result for a second training.
"""

import functools

import jax
import numpy as np

import boltzflow
from benchmarks import common
from benchmarks.common import TASKS, Task
from benchmarks.store import Row, Store
from boltzflow.densities.base import sample_batch
from boltzflow.numerics.batching import map_points
from boltzflow.numerics.compiling import use_compilation_cache
from boltzflow.statistics import estimates

NAME = "forward_ess"
TARGETS = ("mixture-4", "mixture-2", "double-well N=16 m=4.5", "double-well N=16 m=6")
SET_SIZE = 4096
_KEY = 25  # random key of the exact samples, folded with the seed


def main() -> None:
    use_compilation_cache()
    options = common.arguments(
        __doc__,
        TARGETS,
        seeds=common.SEEDS,
        sets={"type": int, "default": 64, "help": f"sets of {SET_SIZE} exact samples"},
    )
    store = Store(NAME, options.results, options.fresh)
    for name in options.targets:
        for seed in range(options.seeds):
            measure = functools.partial(sets_of, TASKS[name], seed, options.sets)
            store.measured(measure, target=name, seed=seed, sets=options.sets)


def sets_of(task: Task, seed: int, num_sets: int) -> Row:
    """The forward ESS of one flow over each set, over the report's samples and over all sets; the largest q/p."""
    target = task.make()
    run = boltzflow.fit(target, seed=seed)
    x, log_prob = sample_batch(target, jax.random.fold_in(jax.random.key(_KEY), seed), num_sets * SET_SIZE)
    log_weight = np.asarray(log_prob + float(target.log_z) - map_points(run.flow.log_prob, x), np.float64)
    log_weight = np.where(np.isnan(log_weight), np.inf, log_weight)  # q = 0
    reported = run.report().estimates
    return {
        "reverse_ess": float(reported["reverse_ess"].value),
        "reported": float(reported["forward_ess"].value),
        "all": float(estimates.forward_ess(log_weight).value),
        "sets": [round(float(estimates.forward_ess(one).value), 5) for one in np.split(log_weight, num_sets)],
        "largest_ratio": float(np.exp(float(target.log_z) - log_weight.min())),
        "trusted": bool(run.report().verdict.trustworthy),
    }


if __name__ == "__main__":
    main()
