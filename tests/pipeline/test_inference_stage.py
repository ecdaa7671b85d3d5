"""A bundle that cannot be scored gives a failed score, which is never evidence; one that cannot be read gives none."""

from __future__ import annotations

import math

import pytest

from mmdg_model.scorer import CropPlanes, LivenessScore, Modality, Purpose, ScoringError
from pipeline.bundle import read_header
from pipeline.inference_stage import score_bundle
from pipeline.messages import MessageError
from tests.pipeline.test_bundle import packed, with_header


class FixedScorer:
    """Answers every crop with one logit, or fails as told. The real scorer has tests of its own."""

    model_hash, purpose = "ab" * 32, Purpose.TEST

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def score(self, crops: list[CropPlanes]) -> list[LivenessScore]:
        if self.error is not None:
            raise self.error
        return [LivenessScore(logit=2.0, probability=1 / (1 + math.exp(-2.0)), uncertainty={Modality.RGB: 0.25},
                              modalities=crop.modalities, model_hash=self.model_hash) for crop in crops]


def test_a_score_carries_the_bundle_it_belongs_to_and_the_stamps_of_its_way() -> None:
    frames = packed()
    header, score = read_header(frames), score_bundle(FixedScorer(), frames, "worker", received_ns=77)
    assert (score.camera, score.source, score.epoch, score.sequence, score.track_id) == (
        header.camera, header.source, header.epoch, header.sequence, header.track_id)
    assert (score.logit, score.failed, score.modalities) == (2.0, None, ["rgb", "depth", "infrared"])
    assert score.stamps_ns["arrival"] == 6
    assert score.stamps_ns["received"] == 77
    assert score.stamps_ns["inference_start"] <= score.stamps_ns["inference_end"]


@pytest.mark.parametrize(("frames", "error", "why"), [
    ([*packed()[:-1], b"short"], None, "5 bytes"),
    (packed(), ScoringError("logit is nan"), "nan"),
    (packed(), ValueError("crop 0: colour is 16x16"), "16x16"),
])
def test_what_cannot_be_scored_is_a_failed_score(frames: list[bytes], error: Exception | None, why: str) -> None:
    score = score_bundle(FixedScorer(error), frames, "worker", received_ns=0)
    assert score.failed is not None
    assert why in score.failed
    assert score.modalities == []
    assert score.sequence == 9


@pytest.mark.parametrize("frames", [[], [b"noise"], with_header(schema=9), packed()[:2]])
def test_what_cannot_be_read_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        score_bundle(FixedScorer(), frames, "worker", received_ns=0)


def test_an_error_of_the_accelerator_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="CUDA"):
        score_bundle(FixedScorer(RuntimeError("CUDA error: an illegal memory access")), packed(), "worker", 0)
