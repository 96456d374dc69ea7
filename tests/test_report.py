"""The report: what is written is read back, nothing unknown is invented, nothing of the user's reaches the page raw."""

import dataclasses
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from boltzflow.errors import InputError
from boltzflow.report.checks import at_least, at_most
from boltzflow.report.console import render_console
from boltzflow.report.formatting import format_duration, format_error, format_value
from boltzflow.report.html import html_page
from boltzflow.report.report import Report, Verdict
from boltzflow.statistics.estimates import Estimate, exact

COST = {
    "train_seconds": 31.2,
    "compile_seconds": 8.4,
    "total_seconds": 201.2,
    "steps": 400,
    "energy_evaluations": 10**6,
}
GOOD = Report(
    target={
        "name": "double-well",
        "num_sites": np.int64(16),
        "mass": np.float32(1.5),
        "modes": np.eye(2),
        "none": None,
    },
    seed=0,
    preset="default",
    versions={"boltzflow": "0.1.0", "jax": "0.10.2"},
    estimates={
        "log_z": Estimate(1.0507, 0.0011, 20_000, "importance weights"),
        "log_z_rate": Estimate(1.0570, 0.0030, 20_000, "integral of C_t"),
        "reverse_ess": Estimate(0.99, 0.001, 20_000, "x ~ q"),
        "energy": Estimate(np.array([1.0, 2.0]), np.array([0.1, 0.2]), 500),
    },
    verdict=Verdict(True, [], ["Neither the reverse ESS nor the reverse KL sees a missing mode."]),
    cost=COST,
    exact={"log_z": exact(1.0509, "transfer matrix")},
)
BAD = Report(
    target={"name": "<script>alert('x')</script> [bold]&"},
    seed=1,
    preset="quick",
    versions={},
    estimates={
        "reverse_kl": Estimate(math.inf, math.inf, 10, ok=False, reason="3 of 10 log-weights are infinite."),
        "reverse_ess": Estimate(math.nan, 0.1, 10),
    },
    verdict=Verdict(False, ["A mode is missing: <b>train longer</b>."]),
    cost={"total_seconds": 9000.0},
)


def on_console(report, **options):
    stream = io.StringIO()
    render_console(report, Console(file=stream, width=80, **options))
    return stream.getvalue()


def no_constants(token):
    raise AssertionError(f"{token} is not JSON")


def test_json_has_the_promised_schema():
    content = json.loads(GOOD.to_json(), parse_constant=no_constants)
    assert list(content) == ["target", "seed", "preset", "versions", "estimates", "verdict", "cost", "route"]
    assert content["target"] == {"name": "double-well", "num_sites": 16, "mass": 1.5, "modes": [[1, 0], [0, 1]]}
    assert content["estimates"]["log_z"] == {
        "value": 1.0507,
        "stderr": 0.0011,
        "n": 20_000,
        "method": "importance weights",
        "ok": True,
        "reason": "",
    }
    assert content["estimates"]["log_z_exact"]["value"] == 1.0509
    assert "forward_ess" not in content["estimates"]
    assert content["verdict"]["warnings"] == []
    assert set(json.loads(BAD.to_json())["verdict"]) == {"trustworthy", "warnings"}
    assert content["cost"] == COST


def test_report_without_a_route_is_of_the_flow():
    content = json.loads(GOOD.to_json())
    del content["route"]
    assert Report.from_json(json.dumps(content)).to_json() == GOOD.to_json()


@pytest.mark.parametrize("report", [GOOD, BAD], ids=["good", "bad"])
def test_json_is_read_back_as_it_was(report):
    again = Report.from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert set(again.estimates) == set(report.estimates)
    assert set(again.exact) == set(report.exact)
    assert on_console(again) == on_console(report)


def test_a_number_that_is_not_finite_is_a_string_and_never_ok():
    estimates = json.loads(BAD.to_json(), parse_constant=no_constants)["estimates"]
    assert estimates["reverse_kl"]["value"] == "Infinity"
    assert estimates["reverse_ess"] == {
        "value": "NaN",
        "stderr": 0.1,
        "n": 10,
        "method": "",
        "ok": False,
        "reason": "The estimate is not finite.",
    }
    assert math.isnan(Report.from_json(BAD.to_json()).estimates["reverse_ess"].value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"estimates": {"log_z": 3}}', "{"])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(InputError, match=r"expected a report\.json"):
        Report.from_json(text)


def test_console_shows_exact_values_pulls_cost_and_verdict_and_fits_a_pipe():
    text = on_console(GOOD)
    assert re.search(r"log Z +1\.0507 +± 0\.0011 +1\.0509 +-0\.2 σ", text)
    assert re.search(r"log Z, rate C_t +1\.0570 +± 0\.0030 +1\.0509 +\+2\.0 σ", text)
    assert re.search(r"energy\[1\] +2\.00 +± 0\.20", text)
    assert "Trusted: every check passed." in text
    assert "training 31.2 s" in text
    assert "total 3 min 21 s" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" in on_console(GOOD, force_terminal=True)


def test_trust_says_in_the_same_breath_what_was_not_checked():
    report = dataclasses.replace(GOOD, verdict=Verdict(True, [], [], "modes narrower than 0.5 of the target"))
    text = " ".join(on_console(report).split())
    assert "Trusted: every check passed. Not checked: modes narrower than 0.5 of the target." in text
    assert "Not checked: modes narrower" in html_page(report, [])
    assert Report.from_json(report.to_json()).verdict.unchecked == "modes narrower than 0.5 of the target"


def test_route_that_answers_is_shown_once():
    log_z = GOOD.estimates["log_z"]
    estimates = {**GOOD.estimates, "log_z_importance": log_z, "log_z_annealed": dataclasses.replace(log_z, stderr=0.1)}
    shown = on_console(dataclasses.replace(GOOD, estimates=estimates))
    assert "answered by importance weights" in " ".join(shown.split()) and "log Z, importance weights" not in shown
    assert "log Z, annealed along the path" in shown
    assert "answered by" not in on_console(GOOD)


def test_checks_are_kept_and_shown_with_their_numbers():
    checks = (at_most("drift", 2.5, 6.0, "It drifts."), at_least("effective <samples>", math.nan, 500, "Too few."))
    report = dataclasses.replace(GOOD, verdict=Verdict(False, ["Too few."], checks=checks))
    again = Report.from_json(report.to_json()).verdict.checks
    assert again[0] == checks[0] and math.isnan(again[1].found) and not again[1].passed and again[1].least
    page = html_page(report, [])
    assert '<th scope="row">drift</th><td data-label="found">2.5</td><td data-label="limit">at most 6</td>' in page
    assert "effective &lt;samples&gt;" in page and "at least 500" in page and ">failed<" in page
    assert "Checks" not in html_page(GOOD, [])


def test_console_says_what_is_wrong():
    text = on_console(BAD)
    assert "Do not rely on this result.\n- A mode is missing: <b>train longer</b>." in text
    assert "! reverse KL − log Z: 3 of 10 log-weights are infinite." in text
    assert "[bold]&" in text
    assert "exact" not in text


class Page(HTMLParser):
    """The tags of a page and what they point to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("report", [GOOD, BAD], ids=["good", "bad"])
def test_the_page_stands_alone_and_escapes_everything(report):
    evil = "<img src=x onerror=1>"
    text = html_page(report, [(evil, evil, b"\x89PNG")], f"boltzflow run {evil}", f"name = '{evil}'")
    parsed = Page(text)
    assert not parsed.open
    assert "script" not in parsed.tags
    assert parsed.tags.count("img") == 1
    assert all(link.startswith("data:") for link in parsed.links)
    assert "http" not in text.replace("http-equiv", "")
    assert text.index("banner") < text.index("Key numbers") < text.index("Estimates") < text.index("To repeat it")


def test_the_page_tells_good_from_bad():
    good, bad = (html_page(report, []) for report in (GOOD, BAD))
    assert 'class="banner good"' in good
    assert "off by -0.2 σ" in good
    assert "Figures" not in good
    assert 'class="banner bad"' in bad
    assert "&lt;b&gt;train longer&lt;/b&gt;" in bad
    assert "3 of 10 log-weights are infinite." in bad


def test_numbers_in_words():
    assert format_value(1.05073, 0.00112) == "1.0507"
    assert format_value(123456.7, 250.0) == "123457"
    assert format_value(1.0509, 0.0) == "1.0509"
    assert format_value(math.nan, 0.1) == "nan"
    assert (format_error(0.0), format_error(0.00112), format_error(250.0)) == ("", "± 0.0011", "± 250")
    assert (format_duration(3.14159), format_duration(201.2), format_duration(9000)) == (
        "3.1 s",
        "3 min 21 s",
        "2 h 30 min",
    )


@pytest.mark.parametrize("trustworthy", [True, False])
def test_log_z_of_a_distrusted_report_has_its_line(trustworthy):
    """As `Run.log_z`, which is not ok where the verdict distrusts the run."""
    report = dataclasses.replace(GOOD, verdict=Verdict(trustworthy, [] if trustworthy else ["A mode is missing."]))
    out = io.StringIO()
    render_console(report, Console(file=out, width=200))
    assert ("! log Z: Not to be relied on" in out.getvalue()) != trustworthy
