"""The one place where a session's facts become a verdict, and the record of it.

`conclude` is the only function in the project that can return `Verdict.BONA_FIDE`. It is kept small on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Modality, Purpose
from pipeline.policy import Policy
from pipeline.sequential_test import Bound


class Verdict(StrEnum):
    """ISO/IEC 30107-3 words. Only `BONA_FIDE` may open anything."""

    BONA_FIDE = "bona_fide"
    ATTACK = "attack"
    UNDECIDED = "undecided"


class Origin(StrEnum):
    """Who opened the session."""

    KIOSK = "kiosk"
    LOCAL = "local"  # opened by nobody who could check a nonce: never opens anything


class Reason(StrEnum):
    """Why a session ended. Public contract: reasons are added, never renamed.

    `MODALITY_MISSING` is completed with the modality: `modality_missing:infrared`.
    """

    LLR_UPPER = "llr_upper"
    LLR_LOWER = "llr_lower"
    DEADLINE = "deadline"
    NO_FACE = "no_face"
    TRACK_LOST = "track_lost"
    QUALITY_INSUFFICIENT = "quality_insufficient"
    MODALITY_MISSING = "modality_missing"
    CALIBRATION_MISSING = "calibration_missing"
    FACE_SWAPPED = "face_swapped"
    STREAM_STALE = "stream_stale"
    STREAM_ENDED = "stream_ended"
    CLOCK_JUMP = "clock_jump"
    DEVICE_LOST = "device_lost"
    MODEL_UNVERIFIED = "model_unverified"
    MODEL_CHANGED = "model_changed"
    ENGINE_ERROR = "engine_error"
    ENGINE_STOPPED = "engine_stopped"
    STREAM_REPEATED = "stream_repeated"
    CAMERA_CHANGED = "camera_changed"
    AUDIT_FAILED = "audit_failed"
    LOCKED_OUT = "locked_out"  # no session begins: for the audit log, never of a decision
    RATE_LIMITED = "rate_limited"  # likewise
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


#: `session.ended` in the words of the contract, by reason; everything else is `decided`.
_ENDED = {
    Reason.DEADLINE: "timeout", Reason.NO_FACE: "timeout", Reason.QUALITY_INSUFFICIENT: "timeout",
    Reason.MODALITY_MISSING: "timeout", Reason.CALIBRATION_MISSING: "timeout", Reason.CANCELLED: "cancelled",
    Reason.ABANDONED: "abandoned",
    Reason.STREAM_STALE: "device_lost", Reason.STREAM_ENDED: "device_lost", Reason.DEVICE_LOST: "device_lost",
    Reason.CLOCK_JUMP: "device_lost", Reason.ENGINE_ERROR: "engine_error", Reason.ENGINE_STOPPED: "engine_error",
    Reason.MODEL_CHANGED: "engine_error", Reason.AUDIT_FAILED: "engine_error",
    Reason.STREAM_REPEATED: "device_lost", Reason.CAMERA_CHANGED: "device_lost",
}


def ended_as(reason: Reason) -> str:
    """decided, timeout, cancelled, abandoned, device_lost or engine_error."""
    return _ENDED.get(reason, "decided")


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The checkpoint that the inference process announced once its self-test had passed.

    Attributes:
        operating_point: of its scores, None where nobody has measured one. The hash covers it, so it is not compared.
    """

    model_hash: str
    purpose: Purpose
    operating_point: OperatingPoint | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a verdict is made of.

    Attributes:
        bound: crossed by the evidence of the subject's unbroken track. frames: counted since the last reset.
        modalities: used by every one of these frames. models: of these frames.
        announced: by the inference process; None = nobody vouches for the scores.
        simulated_camera: every observation of the session came from a simulated camera, or a recording of one.
    """

    bound: Bound
    frames: int
    modalities: frozenset[Modality]
    models: frozenset[ModelInfo]
    announced: ModelInfo | None
    simulated_camera: bool = False


def conclude(facts: Facts, policy: Policy, ended_by: Reason | None) -> tuple[Verdict, Reason]:
    """The verdict. `ended_by`: what ended the session before a bound was crossed; None when a bound ended it.

    Any doubt is `undecided`: a session that something else ended, no counted frame, a required modality that one
    counted frame lacks, a score of a model that nobody announced, a model whose purpose may not decide. No policy lets
    a model that was trained on simulated data judge a real camera: nothing shows that it knows a real face.
    """
    if ended_by is not None and ended_by is not Reason.DEADLINE:
        return Verdict.UNDECIDED, ended_by
    if facts.frames < policy.min_frames:
        return Verdict.UNDECIDED, Reason.DEADLINE
    if facts.announced is None or facts.announced.purpose not in policy.allowed_purposes:
        return Verdict.UNDECIDED, Reason.MODEL_UNVERIFIED
    if facts.announced.purpose is Purpose.SIMULATED and not facts.simulated_camera:
        return Verdict.UNDECIDED, Reason.MODEL_UNVERIFIED
    if facts.models != {facts.announced}:
        return Verdict.UNDECIDED, Reason.MODEL_CHANGED
    if not facts.modalities.issuperset(policy.required_modalities):
        return Verdict.UNDECIDED, Reason.MODALITY_MISSING
    if ended_by is None and facts.bound is Bound.UPPER:
        return Verdict.BONA_FIDE, Reason.LLR_UPPER
    if ended_by is None and facts.bound is Bound.LOWER:
        return Verdict.ATTACK, Reason.LLR_LOWER
    return Verdict.UNDECIDED, Reason.DEADLINE


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """What a session came to. Internal: `kiosk_messages` shows kiosks a part of it.

    Attributes:
        examined: the face of a person was examined at all: at least one score was counted.
        reason: `Reason`, with `:<modality>` after `modality_missing`.
        frames_used, effective_frames: N and n_eff of the evidence. evidence: in nats, for operators only.
        time_to_decision_ms: since the session began, on the session's clock.
        counters: what was left out, by cause.
        would_decide: what the evidence alone would have said; None unless the policy exposes it.
        calibration_id: of the operating-point file that made logits evidence, or of the checkpoint's own operating
            point; None = nobody has calibrated them.
    """

    session_id: str
    origin: Origin
    camera: str
    verdict: Verdict
    reason: str
    examined: bool
    frames_used: int
    effective_frames: float
    modalities_used: tuple[Modality, ...]
    time_to_decision_ms: float
    policy: str
    model: ModelInfo | None
    simulated: bool
    nonce: str | None
    transaction_hash: str | None
    expires_in_ms: int
    evidence: float
    counters: dict[str, int]
    would_decide: Verdict | None
    calibration_id: str | None = None
