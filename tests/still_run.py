"""Runs whose flow moves nothing, and targets of which nothing is known but the energy."""

import equinox as eqx
import jax

import boltzflow as bf
from boltzflow.config import Config
from boltzflow.model.continuity import LogZRate, Transport
from boltzflow.model.fields import TimeMixture
from boltzflow.model.interpolations import Linear
from boltzflow.run import Run
from boltzflow.sampling.pilot import run_pilot
from boltzflow.training.loop import Trained


def still_run(target, base, num_eval_samples=8192, pilot_base=None, **changes):
    """A run whose flow is its base: the field is zero, as a flow that collapsed onto what `base` covers."""
    config = Config(base="gaussian", num_eval_samples=num_eval_samples, sample_steps=2, **changes)
    pilot = run_pilot(target, jax.random.key(0), base=pilot_base)
    rate = LogZRate(width=4, depth=1, key=jax.random.key(0))
    field = TimeMixture(target.dim, num_networks=1, width=4, depth=1, key=jax.random.key(0))
    cost = {"train_seconds": 1.0, "compile_seconds": 1.0, "steps": 1.0, "gradient_evaluations": 1.0}
    return Run(target, config, 0, Trained(Transport(field, Linear(base, target), rate), pilot, [], cost), "still")


class Hidden(bf.AbstractDensity):
    """A density stripped of everything that is known exactly: what a user's own energy is."""

    inner: bf.AbstractDensity
    dim: int = eqx.field(static=True)

    def energy(self, x):
        return self.inner.energy(x)
