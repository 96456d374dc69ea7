"""The default preset at its full size reaches what is promised."""

import pytest

import boltzflow as bf

FULL_PILOT = True


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixture-2", "mixture-4", "chain"])
def test_default_preset_reaches_what_is_promised(name):
    target = {"mixture-2": bf.mixture_2, "mixture-4": bf.mixture_4, "chain": bf.DoubleWell}[name]()
    report = bf.fit(target, seed=0).report()
    assert report.verdict.trustworthy, report.verdict.warnings
    assert report.estimates["reverse_ess"].value >= 0.98
    assert report.estimates["forward_ess"].value >= 0.98
    log_z = report.estimates["log_z"]
    assert abs(log_z.value - float(target.log_z)) < min(0.005, 4 * log_z.stderr)
