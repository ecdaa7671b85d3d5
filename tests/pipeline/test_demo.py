"""The demonstration sums up what the processes said, and draws what the network was shown."""

from __future__ import annotations

from pathlib import Path

import cv2

from pipeline.demo import NO_WEIGHTS, draw_contact_sheet, outcome_of, shown_crop

SCORE = {"type": "score", "failed": None, "logit": 1.5, "stamps_ns": {"arrival": 2_000_000, "detected": 5_000_000}}
DECISION = {"type": "decision", "verdict": "undecided", "reason": "model_unverified"}
SUMMARY = {"type": "summary", "counters": {"hub": {"replaced": 3, "received": 9}}}


def test_an_outcome_has_scores_from_zero_latencies_and_drops() -> None:
    later = {**SCORE, "logit": -0.5, "stamps_ns": {"arrival": 102_000_000, "detected": 104_000_000}}
    outcome = outcome_of("print", [SCORE, later, DECISION, SUMMARY])
    assert outcome.scores == [(0.0, 1.5), (100.0, -0.5)]
    assert outcome.latencies_ms["detect"]["p50"] == 2.5
    assert outcome.drops == {"hub.replaced": 3}
    assert outcome.error is None


def test_a_failed_score_is_not_drawn_and_a_missing_decision_is_an_error() -> None:
    outcome = outcome_of("print", [{**SCORE, "failed": "not a number"}, SUMMARY])
    assert outcome.scores == []
    assert outcome.error is not None


def test_the_words_say_untrained_and_simulated() -> None:
    assert "untrained" in NO_WEIGHTS
    assert "simulated" in NO_WEIGHTS


def test_the_contact_sheet_is_a_picture_with_a_row_a_scene(tmp_path: Path) -> None:
    outcomes = [outcome_of(scene, [SCORE, DECISION, SUMMARY]) for scene in ("bona_fide", "nobody")]
    outcomes[0].crop = shown_crop("bona_fide", seed=0, frame=0)
    assert outcomes[0].crop is not None
    path = tmp_path / "folder" / "sheet.png"
    draw_contact_sheet(outcomes, path)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[0] > 500
    assert picture.std() > 20
