"""What people are told: the verdict, that it is simulated, and why."""

from __future__ import annotations

import pytest

from pipeline.report_lines import REASONS, render
from pipeline.verdict import Reason

DECISION = {"type": "decision", "camera": "door", "verdict": "undecided", "reason": "model_unverified",
            "simulated": True, "frames_used": 12, "time_to_decision_ms": 1234.0}


def test_every_reason_has_words() -> None:
    assert {reason.value for reason in Reason} - {Reason.MODALITY_MISSING.value} == set(REASONS)


def test_a_decision_says_that_it_is_simulated_and_why() -> None:
    text = render(DECISION, scores=False)
    assert text is not None
    assert "UNDECIDED [simulated] (model_unverified)" in text
    assert "12 frames in 1.2 s" in text
    assert "[simulated]" not in (render({**DECISION, "simulated": False}, scores=False) or "")


def test_a_missing_modality_is_named() -> None:
    assert "the infrared plane is missing" in (render({**DECISION, "reason": "modality_missing:infrared"},
                                                      scores=False) or "")


@pytest.mark.parametrize(("line", "expected"), [
    ({"type": "guidance", "code": "move_closer"}, "  guidance: move_closer"),
    ({"type": "guidance", "code": None}, "  guidance: fine"),
    ({"type": "session.phase", "phase": "searching"}, "  searching"),
    ({"type": "health"}, None),
])
def test_other_lines(line: dict[str, object], expected: str | None) -> None:
    assert render(line, scores=False) == expected


def test_scores_are_shown_only_when_asked_for() -> None:
    line = {"type": "score", "sequence": 3, "logit": 0.5, "uncertainty": {"rgb": 0.1}, "failed": None}
    assert render(line, scores=False) is None
    assert "logit +0.500" in (render(line, scores=True) or "")
