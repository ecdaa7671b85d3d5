"""The stored simulated session gives, through the real processes, what it gave when it was stored."""

from __future__ import annotations

import json

import pytest

from tests.pipeline.golden_replay import EXPECTED, SESSION, differences, replay

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


def test_the_golden_session_replays_as_stored() -> None:
    expected = json.loads(EXPECTED.read_text())
    assert sum(line["type"] == "score" for line in expected) == 14
    assert differences(expected, replay(f"replay:{SESSION}")) == []


@pytest.mark.parametrize(("expected", "actual", "found"), [
    ({"logit": 1.0}, {"logit": 1.00001}, 0),
    ({"logit": 1.0}, {"logit": 1.001}, 1),
    ({"logit": 1.0}, {}, 1),
    ([{"type": "score"}], [], 1),
    ({"reason": "deadline"}, {"reason": "model_unverified"}, 1),
    ({"counters": {"scored": 3}}, {"counters": {"scored": 4}}, 1),
])
def test_the_comparison_can_fail(expected: object, actual: object, found: int) -> None:
    assert len(differences(expected, actual)) == found
