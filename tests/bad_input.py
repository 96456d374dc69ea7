"""Bad inputs, each with a part of its message: for test_bad_input.py and for docs/errors.md.

`python tests/bad_input.py > docs/errors.md` writes the page.
"""

import contextlib
import io
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import boltzflow
from boltzflow.cli import main

ARGUMENTS = [
    ("run mixture-5", "did you mean 'mixture-"),
    ("run nothing-like-it", "the shipped ones are mixture-4"),
    ("run", "say which target"),
    ("ru mixture-2", "did you mean 'run'?"),
    ("", "run"),
    ("--verison", "did you mean '--version'?"),
    ("run mixture-2 --sed 1", "did you mean '--seed'?"),
    ("run mixture-2 --frobnicate", "no option --frobnicate"),
    ("run mixture-2 --num-step 9", "run has no option --num-step (did you mean '--num-steps'?)"),
    ("run mixture-2 --seed", "--seed: expected one argument"),
    ("run mixture-2 --seed --out a", "--seed: expected one argument"),
    ("run mixture-2 --overwrite=yes", "--overwrite: ignored explicit argument 'yes'"),
    ("run mixture-2 extra", "'extra'"),
    ("run mixture-2 --mass 2", "mixture-2 has no option 'mass'; it takes none"),
    ("run double-well --dim 3", "double-well has no option 'dim'; its options are num_sites, mass"),
    ("run double-well --mass -1", "mass must be one positive number"),
    ("run double-well --mass 0", "mass must be one positive number"),
    ("run double-well --mass nan", "mass must be finite"),
    ("run double-well --mass heavy", "--mass must be a number, got 'heavy'"),
    ("run double-well --coupling -1", "coupling must be one positive number"),
    ("run double-well --total-time 0", "total_time must be one positive number"),
    ("run double-well --num-sites 1", "num_sites must be a whole number of at least 2"),
    ("run double-well --num-sites 4.5", "--num-sites must be a whole number, got '4.5'"),
    ("run many-well --num-pairs 0", "num_pairs must be a whole number of at least 1"),
    ("run mixture-2 --base-std -1", "base_std must be above 0"),
    ("run mixture-2 --base-scale 0", "base_scale must be above 0"),
    ("run mixture-2 --preset quik", "did you mean 'quick'?"),
    ("run mixture-2 --seed -1", "seed must be a whole number from 0"),
    ("run mixture-2 --seed 1.5", "--seed must be a whole number, got '1.5'"),
    (
        "run mixture-2 --num-steps 1000000000000000000000000000000",
        "num_steps must be a whole number from 0 to 2147483647, got 1000",
    ),
    ("run mixture-2 --seed 1000000000000000000000000000000", "seed must be a whole number from 0 to 4294967295"),
    ("run mixture-2 --learning-rate 1e400", "learning_rate must be finite"),
    ("run double-well --num-sites 1000000000000000000000000000000", "num_sites must be a whole number from 2 to "),
    ("run mixture-2 --num-steps=-1", "num_steps must be a whole number of at least 0"),
    ("run mixture-2 --learning-rate -0.1", "learning_rate must be above 0"),
    ("run mixture-2 --learning-rate -1e-3", "learning_rate must be above 0, got -0.001"),
    ("run mixture-2 --pilot-fraction 2", "pilot_fraction must be from 0 to 1"),
    ("run mixture-2 --loss kl", "loss must be one of continuity, reverse-kl, got 'kl'"),
    ("run mixture-2 --jitter maybe", "--jitter must be true or false"),
    ("run mixture-2 --config none.toml", "none.toml cannot be read"),
    ("sample", "--num-samples and --out"),
    ("sample --num-samples 3 --out s.npz", "give the folder of a run"),
    ("sample none --num-samples 0 --out s.npz", "num-samples must be a whole number of at least 1"),
    ("sample none --num-samples 3 --out s.csv", "must end in .npz"),
    ("sample none --num-samples 3 --out none/s.npz", "no folder none"),
    ("sample none --num-samples 3 --out s.npz", "none holds no finished run"),
    ("report none", "none holds no finished run"),
    ("report", "give the folder of a run"),
    ("resume none", "none holds no run"),
    ("check", "say which target"),
    ("targets --all", "no option --all"),
    ("sample none --num-samples 3 --out s.npz --correct mcmc", "--correct must be one of importance, metropolis"),
    ("expect none", "say what to average"),
    ("expect none odd.py:two", "none holds no finished run"),
    ("expect none gone.py:f", "there is no file gone.py"),
    ("reproduce", "say what to reproduce: table1, table2"),
    ("reproduce table3", "there is nothing named 'table3'"),
    ("reproduce table1 --cells eq2/continuity_trainabel", "did you mean 'eq2/continuity_trainable'?"),
    ("reproduce table1 --seeds 0", "seeds must be a whole number from 1 to 1000"),
    ("reproduce table1 --jobs 0", "jobs must be a whole number from 1 to 64"),
    ("compare", "say which target to compare on"),
    ("compare mixture-2 --start-std 0", "--start-std must be above 0"),
    ("compare mixture-2 --start-std wide", "--start-std must be a number"),
    ("run mixture-2 --seeds 0", "seeds must be"),
    ("run mixture-2 --num-eval-samples 3", "num_eval_samples must be a whole number of at least 16"),
    ("run mixture-2 --interpolation diffusion", 'interpolation "diffusion" starts from a centered Gaussian'),
    ("run mixture-2 --base-std 1 --base-power 4", "belong to different bases"),
    ("run mixture-2 --base pilot --base-std 1", "base_std is of the base gaussian"),
]
"""Command lines."""

TOML = [
    ("num_step = 3", "did you mean 'num_steps'?"),
    ("num_steps = -3", "num_steps must be"),
    ("learning_rate = 'fast'", "learning_rate must be a number"),
    ("preset = 'best'", "preset must be one of"),
    ("seed = -1", "seed must be"),
    ("= 3", "not valid TOML"),
    ("num_steps = 1000000000000000000000000000000", "num_steps must be a whole number from 0 to 2147483647, got 100"),
    ("seed = 1000000000000000000000000000000", "seed must be a whole number from 0 to 4294967295"),
]
"""Files of settings, for `run mixture-2 --config odd.toml`."""

FILES = {
    "fine.py": "def energy(x):\n    return (x**2).sum()\n",
    "vector.py": "def energy(x):\n    return x**2\n",
    "complex.py": "def energy(x):\n    return (x**2).sum() * 1j\n",
    "nan.py": "import jax.numpy as jnp\ndef energy(x):\n    return jnp.log(x[0])\n",
    "inf.py": "import jax.numpy as jnp\ndef energy(x):\n    return jnp.where(x[0] > 0, jnp.inf, x @ x)\n",
    "branch.py": "def energy(x):\n    return x[0] if x[0] > 0 else -x[0]\n",
    "nothing.py": "def energy(x):\n    x.sum()\n",
    "numpy_only.py": "import numpy as np\ndef energy(x):\n    return np.linalg.norm(np.asarray(x))\n",
    "raises.py": "def energy(x):\n    raise KeyError('lost')\n",
    "early.py": (
        "import numpyro\nimport numpyro.distributions as dist\ndata = {}\n"
        "def model(y=1.0):\n    numpyro.sample('mu', dist.Normal(data['mean'], 1.0))\n"
    ),
    "late.py": (
        "import numpyro\nimport numpyro.distributions as dist\ndef model(y=1.0):\n"
        "    mu = numpyro.sample('mu', dist.Normal(0.0, 1.0))\n    return {}['sigma']\n"
    ),
    "broken.py": "import jax\n\nvalue = 1 / 0\n",
    "syntax.py": "def energy(x)\n    return 0\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "needs.py": "import not_a_module\n",
    "beyond.py": "def energy(x):\n    return x @ x + x[5] ** 2\n",
    "level.py": "import jax.numpy as jnp\ndef energy(x):\n    return 1 - jnp.exp(-x @ x)\n",
    "unused.py": "def energy(x):\n    return x[0] ** 2\n",
    "sign.py": "def energy(x):\n    return -x @ x / 2\n",
    "period.py": (
        "import boltzflow\ndef square(x):\n    return x @ x\nenergy = boltzflow.Energy(square, 2, periodic=True)\n"
    ),
    "odd.py": (
        "import boltzflow\nnumber = 3.0\nclass Other:\n    pass\ndef two(x, y):\n    return x\n"
        "def failing():\n    raise ValueError('no data')\ndef wrong():\n    return 3\n"
        "def made():\n    return boltzflow.DoubleWell(4)\nready = boltzflow.mixture_2()\n"
        "from functools import partial\n_hidden = 1\n"
    ),
}
"""Modules of energies, most of them unusable."""

IN_FILES = [
    ("gone.py:energy --dim 2", "there is no file gone.py"),
    ("fine.py", "say which name"),
    ("fine.py:", "fine.py has no name ''"),
    ("fine.py:energi --dim 2", "did you mean 'energy'?"),
    ("fine.py:zzz --dim 2", "it has energy"),
    ("fine.py:energy", "give it with --dim"),
    ("fine.py:energy --dim 0", "dim must be a whole number of at least 1, got 0"),
    ("fine.py:energy --dim -2", "dim must be a whole number of at least 1, got -2"),
    ("fine.py:energy --dim two", "--dim must be a whole number"),
    ("fine.py:energy --dim 2 --mass 1", "takes dim, lower, upper, periodic"),
    ("broken.py:energy --dim 2", ("broken.py, line 3,", "ZeroDivisionError")),
    ("syntax.py:energy --dim 2", ("syntax.py, line 1,", "SyntaxError")),
    ("exits.py:energy --dim 2", ("exits.py, line 2,", "SystemExit")),
    ("needs.py:energy --dim 2", ("needs.py, line 1,", "not_a_module")),
    ("odd.py:number --dim 2", "must be a function x -> energy or an AbstractDensity, got float"),
    ("odd.py:Other --dim 2", "is a class that is not an AbstractDensity"),
    ("odd.py:two --dim 2", "needs 2 arguments"),
    ("odd.py:failing", ("odd.py:failing() failed: ValueError: no data", "odd.py, line 8")),
    ("early.py:model", ("early.py:model: the model cannot be run: KeyError: 'mean'", "early.py, line 5")),
    ("late.py:model", ("the model cannot be run: KeyError: 'sigma'", "late.py, line 5")),
    ("odd.py:wrong", "got int"),
    ("odd.py:made --dim 3", "has dimension 4, not 3"),
    ("odd.py:ready --dim 3", "has dimension 2, not 3"),
    ("fine.py:energy --dim 2 --lower 1 --upper 0", "lower must be below upper, got 1 and 0 for x[0]"),
    ("fine.py:energy --dim 2 --lower 1 --upper 1", "lower must be below upper, got 1 and 1 for x[0]"),
    ("fine.py:energy --dim 2 --upper nan", "upper must be numbers, or infinite where there is no bound, got nan"),
    ("fine.py:energy --dim 2 --periodic 0", "periodic must be True or a positive number, got 0.0 for x[0]"),
    ("fine.py:energy --dim 2 --periodic 1 --lower 0", "x[0] has both a period and bounds"),
    ("odd.py:ready --lower 0", "whose bounds stand in the file; leave out --lower"),
    ("odd.py:ready --periodic 1", "whose periods stand in the file; leave out --periodic"),
]
"""Targets in these files, refused by `run` and `check` alike."""

ENERGIES = [
    ("vector", "must return one number, got an array of shape (2,)"),
    ("complex", "complex"),
    ("nan", "the energy is not finite"),
    ("inf", ("the energy is not finite", "give its bounds, boltzflow.Energy(fn, dim, lower=..., upper=...)")),
    ("branch", "does not trace under JAX"),
    ("nothing", "is a return missing?"),
    ("numpy_only", "does not trace under JAX"),
    ("raises", ("KeyError", "'lost' (raises.py, line 2)")),
    ("beyond", "uses index 5 of an axis with 2 entries"),
    ("level", "the energy grows by less than dim·log|x|"),
    ("unused", "the energy does not grow towards x[1]"),
    ("sign", "is it the log-density? Then change its sign"),
    ("period", "x[0] has the declared period 6.28319, but a shift by it changes the energy at 8 of 8 points"),
]
"""Files of which `check NAME.py:energy --dim 2` refuses the energy."""

PRIORS = [
    ("Posterior(lambda a: -a, {})", "prior is empty"),
    ("Posterior(lambda a: -a, 3.0)", "prior must be a dictionary of distributions by name"),
    ("Posterior(3.0, {'a': Normal()})", "log_likelihood must be a function of the variables, got 3.0"),
    ("Posterior(lambda a: -a, {'a': 3.0})", "the prior of 'a' must be a distribution"),
    ("Posterior(lambda a: -a, {'a': Normal})", "the prior of 'a' is the class Normal: give an instance"),
    ("Posterior(lambda a, b: -a, {'a': Normal(), 'b': lambda a: 3.0})", "the prior of 'b' must be a distribution"),
    ("Posterior(lambda a: -a, {'a b': Normal()})", "must be one that Python takes as an argument, got 'a b'"),
    ("Posterior(lambda a: -a, {'a': Normal(0.0, -1.0)})", "scale of Normal must be positive, got -1"),
    ("Posterior(lambda a: -a, {'a': Uniform(1.0, 0.0)})", "low of Uniform must be below high, got 1 and 0"),
    ("Posterior(lambda a: -a, {'a': Normal(nan)})", "loc of Normal must be finite, got nan"),
    (
        "Posterior(lambda a, b: -a, {'a': Normal(), 'b': lambda a: Normal(0.0, a)})",
        "the prior of 'b', scale of Normal must be positive, got -0.433594, at a = -0.4336",
    ),
    (
        "Posterior(lambda a, sigm: -a, {'a': Normal(), 'sigma': Normal()})",
        "takes 'sigm', which is no name of the prior",
    ),
    ("Posterior(lambda a: -a, {'a': Normal(), 'b': Normal()})", "which neither log_likelihood nor a later prior takes"),
    ("Posterior(lambda mu: -mu, {'nu': Normal()})", "its argument 'mu' is no name of the prior"),
    ("Posterior(lambda a, b: -a, {'a': lambda b: Normal(b), 'b': lambda a: Normal(a)})", "which comes after it"),
    ("Posterior(lambda a, b: -a, {'a': Normal(), 'b': lambda b: Normal(b)})", "takes 'b' itself"),
    (
        "Posterior(lambda a, b: -a, {'a': Normal(), 'b': lambda c: Normal(c)})",
        "takes 'c', which is no name of the prior",
    ),
    ("Posterior(lambda a: -inf * (a < 9), {'a': Normal()})", "is -inf at all of 1000 draws of the prior (100 %)"),
    ("Posterior(lambda a: -((nan - a) ** 2), {'a': Normal()})", "are there NaN among the data?"),
    ("Posterior(lambda a: (a - 2) ** 0.5, {'a': Normal()})", "log_likelihood is NaN at"),
    (
        "Posterior(lambda a: -((data - a) ** 2), {'a': Normal()})",
        "must return one real number, got float32 of shape (3,)",
    ),
    ("Posterior(lambda a: None, {'a': Normal()})", "got nothing; is a return missing?"),
    ("Posterior(lambda a: -a, {'a': Normal()}, fix={'b': 1.0})", "fix has 'b', which is no name of the prior"),
    ("Posterior(lambda a, b: -a, {'a': Uniform(), 'b': Normal()}, fix={'a': 2.0})", "outside of the support"),
    ("Posterior(lambda a, b: -a, {'a': Normal(), 'b': Normal()}, fix={'a': [1.0, 2.0]})", "must have shape ()"),
    ("Posterior(lambda a: -a, {'a': Normal()}, fix={'a': 1.0})", "every name of the prior is fixed"),
    ("Energy(lambda x: x @ x, 2, lower=[0.0, 2.0], upper=1.0)", "lower must be below upper, got 2 and 1 for x[1]"),
    ("Energy(lambda x: x @ x, 2, lower=[0.0, 0.0, 0.0])", "lower must be one number or 2 of them"),
    ("Energy(lambda x: x @ x, 2, upper='one')", "upper must be one number or 2 of them, got 'one'"),
    ("Energy(lambda x: x @ x, 2, lower=0.0, sign_symmetric=True)", "break the declared sign_symmetric"),
    ("Energy(lambda x: x @ x, 2, (2,), lower=[0.0, -1.0])", "break the declared lattice_shape"),
    ("Energy(lambda x: x @ x, 2, periodic=-1.0)", "periodic must be True or a positive number, got -1.0 for x[0]"),
    ("Energy(lambda x: x @ x, 2, periodic=[True, inf])", "got inf for x[1]"),
    ("Energy(lambda x: x @ x, 2, periodic='turn')", "got 'turn' for x[0]"),
    ("Energy(lambda x: x @ x, 2, periodic=[True])", "one entry for each of 2 coordinates, got 1"),
    ("Energy(lambda x: x @ x, 2, lower=[0.0, -inf], periodic=True)", "x[0] has both a period and bounds"),
    ("Energy(lambda x: x @ x, 2, (2,), periodic=True)", "lattice_shape cannot be declared where x has periods"),
    ("Energy(lambda x: x @ x, 2, None, True, periodic=True)", "sign_symmetric cannot be declared where x has periods"),
]
"""Calls in Python, where the names of `boltzflow` and `boltzflow.priors` are imported."""

PYMC = [
    (
        "pm.Poisson('k', 2.0)",
        "the free variable 'k' is discrete (Poisson), and a flow samples continuous variables alone: marginalize it, "
        "that is, sum over its values in the model, as pymc.Mixture does",
    ),
    (
        "pm.Flat('f')",
        "the free variable 'f' has an improper prior (Flat), and log Z depends on its scale: give it a prior that is a "
        "distribution",
    ),
    (
        "pm.Normal('y', a, observed=[1.0, np.nan])",
        "the data of 'y' hold NaN or are masked: leave those entries out",
    ),
    (
        "pm.Normal('y', a, observed=pm.Minibatch(np.arange(9.0), batch_size=3), total_size=9)",
        "the data of 'y' are taken in batches, and a flow needs the energy of all: leave out pymc.Minibatch and "
        "total_size",
    ),
    ("pm.Normal('b', a, -1.0)", "the prior of the variable 'b': scale of Normal must be positive, got -1"),
]
"""Variables of a PyMC model with a normal variable a, and their messages. `tests/test_pymc.py` has PyMC raise them."""

STARTS = [
    ("fit(target, start=3)", "start must be a run, as boltzflow.fit or boltzflow.load returns it, got 3"),
    (
        "fit(Energy(free, 3), start=run)",
        "a run starts from one of the same dimension: it is 4 of start, 3 here",
    ),
    (
        "fit(Energy(free, 4, sign_symmetric=True), start=run)",
        "a run starts from one of the same lattice shape: it is (4,) of start, None here",
    ),
    (
        "fit(Energy(free, 4, (4,)), start=run)",
        "a run starts from one of the same sign symmetry: it is True of start, False here",
    ),
    (
        "fit(target, start=run, config={'width': 8})",
        "a run starts from one of the same width: it is 16 of start, 8 here",
    ),
    (
        "fit(target, start=run, config={'base': 'gaussian'})",
        "a run starts from one of the same base: it is 'pilot' of start, 'gaussian' here",
    ),
    (
        "fit(target, start=run, parts=Parts(penalty=penalties['square']))",
        "a run starts from one with the same parts: start has none, this one ['penalty']",
    ),
]
"""Starts from a run on four sites of a ring, with the symmetry of signs. `tests/test_start.py` has `fit` raise them."""

_HEAD = """\
# Bad inputs and their messages

Bad input gives one line on standard error and exit status 2; nothing is written. `python tests/bad_input.py` writes
this page, and a test compares it with the messages of the command line."""


def write_files(folder: Path) -> None:
    """The modules of energies."""
    for name, text in FILES.items():
        (folder / name).write_text(text)


def page(folder: Path) -> str:
    """The page, from the messages of the command line in `folder`."""
    write_files(folder)
    (folder / "s.npz").unlink(missing_ok=True)
    parts = [_HEAD, "## Commands", _table("command", _said(argv for argv, _ in ARGUMENTS))]
    settings = []
    for text, _ in TOML:
        (folder / "odd.toml").write_text(text)
        settings += [(text, message) for _, message in _said(["run mixture-2 --config odd.toml"])]
    parts += ["## Settings in `odd.toml`, for `boltzflow run mixture-2 --config odd.toml`", _table("setting", settings)]
    parts += ["## Targets in a file", _table("command", _said(f"run {argv}" for argv, _ in IN_FILES))]
    energies = []
    for name, _ in ENERGIES:
        lines = FILES[f"{name}.py"].strip().splitlines()
        [(_, message)] = _said([f"check {name}.py:energy --dim 2"])
        energies.append(("; ".join(line.strip() for line in lines), message))
    parts += ["## Energies, in `boltzflow check energies.py:energy --dim 2`", _table("energy", energies)]
    parts += [
        "## Posteriors, bounds and periods in Python: an `InputError`",
        _table("call", [(code, refusal(code)) for code, _ in PRIORS]),
    ]
    parts += ["## Starts from the run of another target, `boltzflow.fit(target, start=run)`", _table("call", STARTS)]
    parts += ["## Variables of a PyMC model, in `boltzflow.interop.pymc.Posterior(model)`", _table("variable", PYMC)]
    return "\n\n".join(parts) + "\n"


def refusal(code: str) -> str:
    """The message of the `InputError` that a line of Python raises."""
    names = {**vars(boltzflow), **vars(boltzflow.priors), "nan": math.nan, "inf": math.inf, "data": np.arange(3.0)}
    try:
        eval(code, names)
    except boltzflow.InputError as error:
        return str(error)
    return ""


def _said(commands: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each command with the line it puts on standard error."""
    for command in commands:
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            status = main(command.split())
        message = error.getvalue()
        assert status == 2 and message.count("\n") == 1, (command, status, message)
        yield f"boltzflow {command}".strip(), message.removeprefix("boltzflow: ").strip()


def _table(header: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {header} | message |", "| --- | --- |"]
    return "\n".join(lines + [f"| `{given}` | {message.replace('|', chr(92) + '|')} |" for given, message in rows])


if __name__ == "__main__":
    os.environ["BOLTZFLOW_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        sys.stdout.write(page(Path(name)))
