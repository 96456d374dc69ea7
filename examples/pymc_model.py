"""Two rates of counts and whether they differ: a PyMC model as a target.

    python examples/pymc_model.py

log Z is the log evidence. Each variable is mapped from standard normals by its prior, and samples come by its name.
With gamma priors of Poisson rates the evidence and the posterior are known.
"""

import numpy as np
import pymc as pm
from scipy import special, stats

import boltzflow
from boltzflow.interop.pymc import Posterior

COUNTS = np.array([[3, 5, 2, 4, 6, 3], [5, 7, 4, 8, 6, 9]])  # of two sites, on six days
SHAPE, RATE = 2.0, 0.5

# --8<-- [start:model]
with pm.Model(coords={"site": ["north", "south"]}) as model:
    mean = pm.Gamma("mean", SHAPE, RATE, dims="site")
    pm.Deterministic("ratio", mean[1] / mean[0])
    pm.Poisson("count", mean[:, None], observed=COUNTS)

target = Posterior(model)
# --8<-- [end:model]


def exact():
    """The log evidence, and the posterior mean of the ratio."""
    shape, rate = SHAPE + COUNTS.sum(axis=1), RATE + COUNTS.shape[1]
    of_prior = SHAPE * np.log(RATE) - special.gammaln(SHAPE)
    of_posterior = special.gammaln(shape) - shape * np.log(rate)
    log_z = 2 * of_prior + of_posterior.sum() - special.gammaln(COUNTS + 1).sum()
    means = stats.gamma(shape[1], scale=1 / rate).mean(), rate / (shape[0] - 1)  # E[1/x] of a gamma variable
    return float(log_z), float(means[0] * means[1])


if __name__ == "__main__":
    run = boltzflow.fit(target, name="counts")
    print(run.report())
    ratio = run.expectation(lambda values: values["ratio"])
    print(f"ratio of the rates {ratio.value:.4f} ± {ratio.stderr:.4f}; exact: log Z, ratio = {exact()}")
