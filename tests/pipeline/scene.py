"""Builders of what cameras and the inference worker say, for tests of the decision side. Stamps are values."""

from __future__ import annotations

from typing import Any

from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Purpose
from pipeline.messages import Observation, ObservedFace, Quality, Score
from pipeline.policy import Policy
from pipeline.session import SessionRequest
from pipeline.verdict import ModelInfo, Origin

MS = 1_000_000
PERIOD_MS = 33.0
CAMERA = "front"
EPOCH = 7
MODEL = ModelInfo(model_hash="c0ffee", purpose=Purpose.RELEASE)
#: Halves the logit and takes a nat off.
POINT = OperatingPoint(logit_scale=0.5, logit_offset=-1.0, frame_correlation=0.2, threshold=3.0, apcer=0.0, bpcer=0.1,
                       sessions=20, data="simulated", command="made up for tests")
TEST_MODEL = ModelInfo(model_hash="7e57", purpose=Purpose.TEST)
MODALITIES = ["rgb", "depth", "infrared"]
QUALITY = Quality(face_width_px=180.0, distance_m=0.5, sharpness=120.0, brightness=120.0, depth_fill=0.95,
                  infrared_brightness=0.4, infrared_saturation=0.0, yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0)
#: Frames of one kind of evidence count in full here, so that a few frames decide.
QUICK = Policy(name="quick", frame_correlation=0.0, min_frames=3, min_time_ms=0, uncertainty_weight=0.0)


def observation(sequence: int, stamp_ns: int, **changes: Any) -> Observation:
    tracks = changes.pop("tracks", [1])
    subject = changes.pop("subject", tracks[0] if len(tracks) == 1 else None)
    conditions = [] if len(tracks) == 1 else ["multiple_faces" if tracks else "no_face"]
    faces = [ObservedFace(track_id=t, x=200.0, y=100.0, width=180.0, height=220.0, score=0.9) for t in tracks]
    values: dict[str, Any] = {
        "camera": CAMERA, "source": "sim-1", "epoch": EPOCH, "sequence": sequence, "stamp_ns": stamp_ns,
        "frame_period_ms": PERIOD_MS,
        "faces": faces, "subject": subject, "track_broken": False, "conditions": conditions,
        "quality": QUALITY, "bundle_sent": True,
        "modalities": MODALITIES, "counters": {}}
    return Observation(**(values | changes))


def score(sequence: int, logit: float = 6.0, model: ModelInfo = MODEL, **changes: Any) -> Score:
    values: dict[str, Any] = {
        "camera": CAMERA, "source": "sim-1", "epoch": EPOCH, "sequence": sequence, "track_id": 1,
        "worker": "inference-1", "logit": logit,
        "probability": 0.5, "uncertainty": dict.fromkeys(MODALITIES, 0.1), "modalities": MODALITIES,
        "model_hash": model.model_hash, "purpose": model.purpose.value, "durations_ms": {},
        "stamps_ns": {}, "quality": QUALITY}
    return Score(**(values | changes))


def request(policy: Policy = QUICK, **changes: Any) -> SessionRequest:
    values: dict[str, Any] = {"session_id": "s1", "camera": CAMERA, "policy": policy, "origin": Origin.KIOSK,
                              "nonce": "00" * 16}
    return SessionRequest(**(values | changes))
