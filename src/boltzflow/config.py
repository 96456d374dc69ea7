"""Everything that determines a run besides its target and seed, and the three settings of it that we stand behind."""

import dataclasses
import math
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from boltzflow.errors import InputError
from boltzflow.numerics.validation import MOST, did_you_mean, shown


def _setting(default: Any, help: str, **bounds: float) -> Any:
    """A field of `Config`: its default, what it does, and the bounds `at_least`, `at_most` or `above` of its value."""
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


@dataclasses.dataclass(frozen=True)
class Config:
    """How to train and sample; the defaults are the preset "default", our best, made for the continuity loss.

    The reverse KL trains well with others: `boltzflow.config.with_changes(Config(), {"loss": "reverse-kl"})`.
    """

    preset: str = _setting("default", "Which preset this configuration started from.")
    loss: Literal["continuity", "reverse-kl"] = _setting(
        "continuity",
        "What is minimized: the continuity loss (16), or the reverse KL divergence (1) as the paper's baseline.",
    )
    penalty: Literal["abs", "square", "abs+square", "log1p"] = _setting(
        "abs+square", "The function L of the residual: |r|, r², |r| + r² (the paper's) or log(1 + |r|)."
    )
    interpolation: Literal["trainable", "linear", "trigonometric", "diffusion"] = _setting(
        "trainable",
        "The path of energies: Eq. (20), Eq. (17), its trigonometric form, or Eq. (19) for Gaussian mixtures.",
    )
    base: Literal["pilot", "gaussian", "generalized-gaussian"] = _setting(
        "pilot",
        "The base: a Gaussian fitted to the pilot's points, a centered isotropic Gaussian, or exp(-|x/scale|^power).",
    )
    base_std: float = _setting(1.0, 'Standard deviation of the base "gaussian", in units of x.', above=0)
    base_scale: float = _setting(1.0, 'The scale of the base "generalized-gaussian", in units of x.', above=0)
    base_power: float = _setting(4.0, 'The power p of the base "generalized-gaussian".', above=0)
    clock: bool = _setting(True, "Walk the path at the even pace that the pilot found, instead of linearly in t.")
    field: Literal["auto", "time-mixture", "lattice"] = _setting(
        "auto",
        "The networks of field and path: MLPs of the whitened point, or, for a target on a periodic lattice, "
        "networks that act alike at every site. Auto tries both for a few steps where both exist.",
    )
    num_networks: int = _setting(4, "How many MLPs the time kernels mix, in the field and in the path.", at_least=1)
    width: int = _setting(64, "Units in each hidden layer; at each site of a lattice a quarter of them.", at_least=1)
    depth: int = _setting(
        2,
        "Hidden layers in each MLP; the divergence is exact with any, and costs no more than the value with "
        "one or two.",
        at_least=1,
    )
    optimizer: Literal["muon", "adam"] = _setting(
        "muon", "Muon on the matrices (Adam on the biases), or Adam on everything."
    )
    learning_rate: float = _setting(0.02, "The initial learning rate, annealed to 0 by a cosine.", above=0)
    clip_norm: float = _setting(0.0, "Clip the gradient at this norm; 0 does not clip.", at_least=0)
    num_steps: int = _setting(
        0, "Optimizer steps; 0 takes as many as the target needs by the pilot's measure of its path.", at_least=0
    )
    batch_size: int = _setting(256, "Trajectories of the flow in each step.", at_least=1)
    num_intervals: int = _setting(
        16, "Time steps of a training trajectory; the residual is taken at each of them.", at_least=1
    )
    jitter: bool = _setting(
        True, "Shift the training times by a random fraction of a step, so that a coarse grid sees every time."
    )
    points_per_step: int = _setting(
        1024,
        "At how many points each step takes the residual, drawn from trajectories and pilot; 0 takes every point.",
        at_least=0,
    )
    pilot_fraction: float = _setting(
        0.25, "The share of these points that comes from the pilot.", at_least=0, at_most=1
    )
    warmup_fraction: float = _setting(
        0.25,
        "The first share of the steps, in which all points come from the pilot; over as many steps after it the "
        "trajectories come in.",
        at_least=0,
        at_most=1,
    )
    train_solver: Literal["euler", "heun", "rk4", "tsit5", "dopri8"] = _setting(
        "heun", "The Runge–Kutta method of the training trajectories."
    )
    sample_solver: Literal["euler", "heun", "rk4", "tsit5", "dopri8"] = _setting(
        "rk4", "The Runge–Kutta method of the final sampler."
    )
    sample_steps: int = _setting(
        0, "Steps of the final sampler; 0 takes the fewest that its solver's error, measured, allows.", at_least=0
    )
    precision: Literal["auto", "double", "single"] = _setting(
        "auto",
        "The precision of answers: energies, samples, weights. Auto is double on a CPU and single on an accelerator. "
        "Training is in single precision unless the energy, measured, needs double.",
    )
    route: Literal["auto", "flow"] = _setting(
        "auto",
        "Where answers come from. Auto is the flow where the verdict trusts it, else a mixture fitted to the pilot's "
        "points, else sequential Monte Carlo without a flow.",
    )
    num_eval_samples: int = _setting(100_000, "Samples behind the report's estimates.", at_least=16)
    log_z_error: float = _setting(
        0.0,
        "The standard error of log Z that is wanted, in nats: as many samples are drawn as give it (2²⁰ at "
        'most of a flow), and with the base "pilot" and `num_steps` 0 nothing is trained where weighted '
        "samples (2²⁴ at most) of a mixture fitted to the pilot's points are enough. 0 trains, and draws "
        "`num_eval_samples`.",
        at_least=0,
    )


def default_preset() -> Config:
    """Our best."""
    return Config()


def paper_preset(target_name: str = "", dim: int = 2) -> Config:
    """The paper's procedure (§4 "Implementation and training details") for the shipped target named.

    Targets that the paper does not have are treated as `mixture-4`.
    """
    config = Config(
        preset="paper",
        base="gaussian",
        clock=False,
        field="time-mixture",
        optimizer="adam",
        learning_rate=3e-3,
        num_steps=10_000,
        num_intervals=50,
        jitter=False,
        points_per_step=0,
        pilot_fraction=0.0,
        warmup_fraction=0.0,
        train_solver="rk4",
        sample_solver="rk4",
        sample_steps=50,
        route="flow",
        num_eval_samples=4096,
    )
    if target_name == "mixture-2":
        return dataclasses.replace(config, base_std=2.0)
    if target_name == "double-well":
        num_steps = {32: 100_000, 64: 250_000}.get(dim, 10_000)
        return dataclasses.replace(config, base="generalized-gaussian", width=128, depth=3, num_steps=num_steps)
    return config


PRESETS = ("quick", "default", "paper")


def make_preset(name: str, target_name: str = "", dim: int = 2) -> Config:
    """The preset of that name, for the shipped target named. Raises `InputError` for a name not in `PRESETS`."""
    _check_choice("preset", name, PRESETS)
    if name == "quick":  # a first answer in well under a minute
        return Config(preset="quick", num_steps=400, num_eval_samples=20_000)
    return paper_preset(target_name, dim) if name == "paper" else default_preset()


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
FIELD_TYPES: dict[str, Any] = typing.get_type_hints(Config)

_BASE_OF = {"base_std": "gaussian", "base_scale": "generalized-gaussian", "base_power": "generalized-gaussian"}


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with `changes`, validated; the parameter of a base implies that base, the reverse KL its own defaults.

    Raises `InputError` for an unknown field, a wrong value, or a parameter of a base beside another base.
    """
    for name in changes:
        if name not in FIELD_TYPES:
            raise InputError(f"there is no setting {name!r}{did_you_mean(name, FIELD_TYPES)}")
    if changes.get("loss") == "reverse-kl" and config.preset != "paper":
        # Its gradient goes through the solver, whose error it exploits: hence the high order and the small steps.
        config = dataclasses.replace(config, optimizer="muon", learning_rate=0.01, clip_norm=1.0, num_steps=1000)
        config = dataclasses.replace(config, train_solver="rk4", num_intervals=8)
    implied = {name: base for name, base in _BASE_OF.items() if name in changes}
    if "base" not in changes and implied:
        if len(set(implied.values())) > 1:
            raise InputError(f"{' and '.join(implied)} belong to different bases; give one of them, or the base")
        changes = {**changes, "base": next(iter(implied.values()))}
    for name, base in implied.items():
        if changes["base"] != base and len(implied) < len(_BASE_OF):  # the record of a run names them all
            raise InputError(f"{name} is of the base {base}, and does nothing with the base {changes['base']!r}")
    return checked_config({**dataclasses.asdict(config), **changes})


def checked_config(settings: Mapping[str, Any]) -> Config:
    """The configuration with these settings and defaults for the others; `InputError` for the first that is wrong.

    Whole numbers in float fields become floats.
    """
    values = {
        name: _checked(name, kind, settings.get(name, FIELDS[name].default)) for name, kind in FIELD_TYPES.items()
    }
    _check_choice("preset", values["preset"], PRESETS)
    if values["interpolation"] == "diffusion" and values["base"] != "gaussian":
        raise InputError(
            'interpolation "diffusion" starts from a centered Gaussian: it needs base "gaussian", got '
            f"{values['base']!r}"
        )
    return Config(**values)


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(
            f"{name} must be one of {', '.join(choices)}, got {shown(value)}{did_you_mean(value, choices)}"
        )


def _checked(name: str, kind: Any, value: Any) -> Any:
    if choices := typing.get_args(kind):
        _check_choice(name, value, choices)
    if kind is bool and not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {shown(value)}")
    if kind not in (int, float):
        return value
    what = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise InputError(f"{name} must be {what}, got {shown(value)}")
    if not abs(value) <= sys.float_info.max:  # NaN, infinity, and integers beyond all floats
        raise InputError(f"{name} must be finite, got {shown(value)}")
    bounds = FIELDS[name].metadata
    if "above" in bounds and not value > bounds["above"]:
        raise InputError(f"{name} must be above {bounds['above']}, got {shown(value)}")
    low = bounds.get("at_least", -math.inf)
    high = bounds.get("at_most", MOST if kind is int else math.inf)
    if not low <= value <= high:
        within = f"from {low} to {high}" if kind is float else f"{what} from {low} to {high}"
        wanted = within if "at_most" in bounds or value > high else f"{what} of at least {low}"
        raise InputError(f"{name} must be {wanted}, got {shown(value)}")
    return kind(value)
