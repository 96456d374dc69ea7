"""Random command lines, files and arguments give a sentence and an exit status, and no traceback."""

import contextlib
import dataclasses
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from boltzflow.cli import main
from boltzflow.cli.parser import parse
from boltzflow.config import FIELD_TYPES, Config, checked_config, with_changes
from boltzflow.densities.energy import Energy
from boltzflow.densities.energy_checks import check_energy
from boltzflow.errors import InputError
from boltzflow.report.report import Report
from boltzflow.statistics.estimates import log_z_importance, pareto_k, reverse_ess
from boltzflow.storage import files, run_folder

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=300)

_WORDS = """
run sample report resume check targets expect compare reproduce mixture-2 double-well
--seed --seeds --out --preset --config --num-steps --dim --num-sites --mass --loss
--overwrite --base-std --help -- -1 0 1e9 nan true quick file.py:energy none
"""
WORDS = st.sampled_from(_WORDS.split())
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SCALARS = st.one_of(st.integers(), st.floats(), st.booleans(), TEXT)


@MANY
@given(st.lists(st.one_of(WORDS, TEXT), max_size=7))
def test_any_command_line_is_parsed_or_refused(argv):
    """The command is parsed and not run."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            assert callable(parse(argv))
        except InputError as error:
            assert str(error).strip()
        except SystemExit as end:
            assert not end.code  # help


@MANY
@given(st.dictionaries(st.one_of(st.sampled_from(sorted(FIELD_TYPES)), TEXT), SCALARS, max_size=4))
def test_any_settings_are_valid_or_refused(changes):
    try:
        config = with_changes(Config(), changes)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert checked_config(dataclasses.asdict(config)) == config


def _toml(value):
    return json.dumps(value) if isinstance(value, str) else str(value).lower()


@FEW
@given(
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.sampled_from([*FIELD_TYPES, "seed", "target", "options"]), SCALARS, max_size=4).map(
            lambda table: "".join(f"{name} = {_toml(value)}\n" for name, value in table.items()).encode()
        ),
    )
)
def test_any_settings_file_is_read_or_refused(tmp_path, content):
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    try:
        given_settings = run_folder.read_settings(path)
        with_changes(Config(), given_settings.settings)
    except InputError as error:
        assert "\n" not in str(error).strip()


@FEW
@given(content=st.binary(max_size=300))
def test_any_config_file_ends_in_at_most_one_line(asked, tmp_path, content):
    (tmp_path / "odd.toml").write_bytes(content)
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        status = main(["run", "mixture-2", "--config", "odd.toml", "--out", "a", "--overwrite"])
    assert status in (0, 2) and error.getvalue().count("\n") == (status != 0)


ARRAYS = {"a": np.arange(50.0), "b": np.float32([[1, 2], [3, 4]])}
RECORD = {"format": 3, "config": {"width": 4}}


@MANY
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.integers(0, 10**6),
    st.binary(max_size=20),
)
def test_damaged_bytes_are_never_misread(tmp_path, changes, length, tail):
    """A file with bytes changed, cut off or appended gives the written content, or is refused."""
    path = tmp_path / "run.npz"
    files.write(path, ARRAYS, RECORD)
    content = bytearray(path.read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    path.write_bytes(bytes(content[: length % (2 * len(content))]) + tail)
    try:
        arrays, record = files.read(path)
    except InputError as error:
        assert "damaged" in str(error)
    else:
        assert record == RECORD and arrays.keys() == ARRAYS.keys()
        assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


@FEW
@given(st.one_of(st.binary(max_size=200), st.recursive(SCALARS, lambda s: st.dictionaries(TEXT, s), max_leaves=5)))
def test_any_text_is_a_report_or_refused(content):
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else json.dumps(content)
    with contextlib.suppress(InputError):
        Report.from_json(text)


TERMS = [
    lambda x: 0.5 * jnp.sum(x**2),
    lambda x: jnp.log(x[0]),
    lambda x: 1 / jnp.sum(x),
    lambda x: jnp.sqrt(x @ x),
    lambda x: jnp.exp(x[0] ** 2),
    lambda x: jnp.where(x[0] > 1, jnp.nan, 0.0),
    lambda x: jnp.where(x[1] > 1, jnp.inf, 0.0),
    lambda x: jnp.abs(x).sum(),
    lambda x: 1e38 * x[0] ** 4,
    lambda x: jnp.zeros(()),
    lambda x: jnp.round(x[0]),
]


@settings(FEW, max_examples=25)
@given(st.lists(st.sampled_from(range(len(TERMS))), min_size=1, max_size=3))
def test_any_energy_is_usable_or_refused(terms):
    points = jnp.asarray(np.random.default_rng(0).normal(size=(64, 2)), jnp.float32)
    target = Energy(lambda x: sum(TERMS[i](x) for i in terms), 2)
    try:
        check_energy(target, points)
    except InputError as error:
        assert str(error).strip()


@MANY
@given(st.lists(st.floats(allow_nan=False, max_value=1e300), min_size=2, max_size=200))
def test_any_weights_give_an_estimate_or_a_doubt(log_weight):
    """For weights of any size; an estimate that is not reliable has a reason."""
    for estimator in (log_z_importance, reverse_ess, pareto_k):
        try:
            estimate = estimator(np.array(log_weight))
        except InputError as error:
            assert str(error).strip()
        else:
            assert estimate.ok or estimate.reason
            assert not (estimate.ok and not np.isfinite(estimate.value))
