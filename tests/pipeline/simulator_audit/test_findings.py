import pytest

from pipeline.simulator_audit.areas import Area
from pipeline.simulator_audit.findings import Status, at_chance, at_most


def found(value, low, high, low_wide, live=40, attacks=40):
    return Area(value=value, low=low, high=high, low_wide=low_wide, live=live, attacks=attacks, clusters=20)


@pytest.mark.parametrize(("area", "expected"), [
    (found(0.50, 0.45, 0.55, 0.43), Status.PASSED),
    (found(0.45, 0.40, 0.49, 0.38), Status.PASSED),      # below chance is no leak
    (found(0.55, 0.45, 0.65, 0.41), Status.UNRESOLVED),  # too few to exclude a leak
    (found(0.56, 0.53, 0.59, 0.51), Status.FAILED),      # small, and certain
    (None, Status.UNRESOLVED),
])
def test_chance_must_be_shown_not_assumed(area, expected):
    assert at_chance("1", "probe", "all", area).status is expected


@pytest.mark.parametrize(("area", "expected"), [
    (found(0.58, 0.52, 0.64, 0.51), Status.PASSED),
    (found(0.70, 0.55, 0.85, 0.48), Status.UNRESOLVED),
    (found(0.70, 0.60, 0.80, 0.55), Status.FAILED),
    (found(0.30, 0.20, 0.40, 0.15, attacks=3), Status.UNRESOLVED),  # three recordings prove nothing
    (None, Status.UNRESOLVED),
])
def test_a_bound_is_failed_on_evidence_and_passed_on_enough_recordings(area, expected):
    line = at_most("2", "probe", "all", area, 0.60)
    assert line.status is expected
    assert line.value == (None if area is None else area.value)
