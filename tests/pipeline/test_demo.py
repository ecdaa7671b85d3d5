"""The demonstration sums up what the processes said, and draws what the network was shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import pytest
from typer.testing import CliRunner

import pipeline.demo
from pipeline.commands import app
from pipeline.demo import (
    NO_WEIGHTS,
    POLICY,
    SIMULATED_WEIGHTS,
    SceneOutcome,
    draw_contact_sheet,
    outcome_of,
    shown_crop,
)
from pipeline.policy import SIMULATED_POLICY

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
    assert "nothing about real people" in SIMULATED_WEIGHTS


def decided(scene: str, verdict: str, purpose: str = "simulated") -> SceneOutcome:
    return outcome_of(scene, [SCORE, DECISION | {"verdict": verdict, "model_purpose": purpose}, SUMMARY])


@pytest.mark.parametrize(("scene", "verdict", "purpose", "judgement"), [
    ("bona_fide", "bona_fide", "simulated", "right"),
    ("bona_fide", "attack", "simulated", "wrong"),
    ("bona_fide", "undecided", "simulated", "wrong"),  # a person is refused: nothing opens
    ("print", "attack", "simulated", "right"),
    ("mask", "bona_fide", "simulated", "wrong"),
    ("screen", "undecided", "simulated", "open"),  # not accepted, but not found out either
    ("bona_fide", "undecided", "test", "open"),  # untrained weights may say nothing else
    ("nobody", "undecided", "simulated", "open"),
])
def test_a_verdict_is_compared_with_the_truth(scene: str, verdict: str, purpose: str, judgement: str) -> None:
    assert decided(scene, verdict, purpose).judgement == judgement


def test_a_scene_without_a_decision_is_judged_by_nobody() -> None:
    assert outcome_of("print", [SUMMARY]).judgement == "open"


def test_the_demonstration_runs_with_the_policy_for_simulated_cameras() -> None:
    assert msgspec.structs.replace(POLICY, name="simulated") == SIMULATED_POLICY
    assert POLICY.check() == POLICY


@pytest.mark.parametrize(("verdicts", "code"), [
    ({"bona_fide": "bona_fide", "print": "attack", "screen": "attack", "mask": "attack"}, 0),
    ({"bona_fide": "bona_fide", "print": "attack", "screen": "undecided", "mask": "attack"}, 0),
    ({"bona_fide": "attack", "print": "attack", "screen": "attack", "mask": "attack"}, 1),
    ({"bona_fide": "bona_fide", "print": "bona_fide", "screen": "attack", "mask": "attack"}, 1),
])
def test_the_command_fails_on_a_wrong_verdict_and_marks_every_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  verdicts: dict[str, str], code: int) -> None:
    """The scenes' events are given here; `test_live` runs the processes that make them."""
    about = {"time_to_decision_ms": 900.0, "frames_used": 8, "simulated": True}

    def events(seed: int, model: Path | None) -> Iterator[SceneOutcome]:
        for scene, verdict in verdicts.items():
            outcome = decided(scene, verdict)
            outcome.decision = (outcome.decision or {}) | about
            yield outcome

    monkeypatch.setattr(pipeline.demo, "demonstrate", events)
    answer = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)], env={"COLUMNS": "160"})
    assert answer.exit_code == code, answer.output
    assert answer.stdout.count("[simulated]") == 1 + len(verdicts)  # the introduction, and each verdict
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["expected"] for row in report] == ["bona_fide", "attack", "attack", "attack"]
    assert all(row["simulated"] for row in report)
    assert ("wrong" in [row["judgement"] for row in report]) is (code == 1)
    assert ("is right" in answer.stderr) is (code == 1)


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
