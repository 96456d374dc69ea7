"""Centers of two groups of measurements: a NumPyro posterior with two modes of unequal mass.

    boltzflow run examples/two_groups.py:model --out runs/two-groups

A measurement belongs to the first group with probability 0.6. With the groups exchanged the data are nearly as likely:
this is a second mode, which a Markov chain in the first does not reach. In two dimensions a grid gives exact results.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SHARES = jnp.array([0.6, 0.4])
DATA = jnp.array([-2.3, -1.1, -1.9, -2.8, -1.4, 1.2, 2.6, 1.8, 2.1, -2.0, 1.5, -1.7])


# --8<-- [start:model]
def model(data=DATA):
    """Centers of two groups of unit width, each with a N(0, 3²) prior."""
    centers = numpyro.sample("centers", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with numpyro.plate("measurements", len(data)):
        group = dist.Normal(centers, 1.0)
        numpyro.sample("data", dist.MixtureSameFamily(dist.Categorical(SHARES), group), obs=data)


# --8<-- [end:model]


def exact():
    """The log evidence, and the probability that the first group lies left of the second, by a grid."""
    axis = np.linspace(-8, 8, 801)
    first, second = np.meshgrid(axis, axis, indexing="ij")

    def log_joint(centers):
        prior = dist.Normal(0.0, 3.0).log_prob(centers).sum()
        parts = jnp.log(SHARES) + dist.Normal(centers, 1.0).log_prob(DATA[:, None])
        return prior + jax.nn.logsumexp(parts, axis=1).sum()

    with jax.enable_x64(True):
        points = jnp.stack([jnp.asarray(first.ravel()), jnp.asarray(second.ravel())], axis=1)
        value = np.asarray(jax.jit(jax.vmap(log_joint))(points))
    weight = np.exp(value - value.max()).reshape(first.shape)
    log_z = value.max() + np.log(weight.sum() * (axis[1] - axis[0]) ** 2)
    return float(log_z), float(weight[first < second].sum() / weight.sum())
