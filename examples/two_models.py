"""Is there a slope? A line and a constant as nested models of the same data, and their Bayes factor.

    python examples/two_models.py

With normal priors and noise both evidences are Gaussian integrals, so that the answer is known.
"""

import jax
import jax.numpy as jnp
import numpy as np

import boltzflow
from boltzflow.priors import Normal

TIME = np.linspace(-1.0, 1.0, 12)
DATA = np.array([-0.9, -0.2, -0.5, 0.3, -0.1, 0.6, 0.1, 0.9, 0.4, 1.2, 0.7, 1.1])
NOISE = 0.4
# --8<-- [start:models]
PRIOR = {"offset": Normal(0.0, 1.0), "slope": Normal(0.0, 2.0)}


def log_likelihood(offset, slope):
    """Independent normal noise around offset + slope · time."""
    return jnp.sum(jax.scipy.stats.norm.logpdf(DATA, offset + slope * TIME, NOISE))


line = boltzflow.Posterior(log_likelihood, PRIOR)
constant = boltzflow.Posterior(log_likelihood, PRIOR, fix={"slope": 0.0})
# --8<-- [end:models]


def exact():
    """The log Bayes factor of the line against the constant."""
    covariance = NOISE**2 * np.eye(len(DATA)) + 1.0
    log_z = []
    for total in (covariance + 4.0 * np.outer(TIME, TIME), covariance):
        _, log_det = np.linalg.slogdet(2 * np.pi * total)
        log_z.append(-(DATA @ np.linalg.solve(total, DATA) + log_det) / 2)
    return log_z[0] - log_z[1]


if __name__ == "__main__":
    found = boltzflow.fit(line, name="line").log_bayes_factor(boltzflow.fit(constant, name="constant"))
    print(f"log Bayes factor {found.value:.4f} ± {found.stderr:.4f}, exact {exact():.4f}, ok: {found.ok}")
