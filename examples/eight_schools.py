"""Eight schools (Rubin 1981; Gelman et al., Bayesian Data Analysis, §5.5), non-centered: a NumPyro model as a target.

    boltzflow run examples/eight_schools.py:model --out runs/eight-schools

log Z is the log evidence. In Python, samples by the names of the sites:

    posterior = boltzflow.interop.numpyro.Posterior(model)
    run = boltzflow.fit(posterior)
    schools = posterior.sites(run.correct(key, 10_000).x)["theta"]
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

EFFECT = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def model(effect=EFFECT, error=ERROR):
    """Effects θ_j = μ + τ z_j of coaching in eight schools, each measured once."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)
