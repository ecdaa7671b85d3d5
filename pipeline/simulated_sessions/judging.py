"""Filmed and scored sessions through the real decision step, in recorded time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from calibration.operating_point_file import OperatingPointFile
from mmdg_model.scorer import Modality
from pipeline import messages, sequential_test
from pipeline.decision import DecisionEngine
from pipeline.messages import CameraEnded, Observation, Score
from pipeline.policy import Policy
from pipeline.session import Decided, Event, SessionRequest
from pipeline.simulated_sessions.film import CAMERA, FilmRecord, camera_kind_of
from pipeline.simulated_sessions.presentation import Truth
from pipeline.simulated_sessions.scoring import FrameScore
from pipeline.verdict import DecisionRecord, ModelInfo, Origin

#: More evidence than any session can gather, within the range of `Policy.min_accept_evidence`.
_NEVER = 1_000.0


@dataclass(frozen=True, kw_only=True)
class JudgedSession:
    """One session, its decision, and what it rests on.

    Attributes:
        frames: filmed. missed: of them, without a crop. logits: of the scored frames, raw, in order.
        applied: the policy with what made logits evidence here, of all modalities that were scored; None: nothing does,
            the calibration has no map for them.
    """

    truth: Truth
    decision: DecisionRecord
    frames: int
    missed: int
    logits: tuple[float, ...]
    applied: Policy | None

    @property
    def responded(self) -> bool:
        """At least one frame was scored."""
        return bool(self.logits)


def judge(record: FilmRecord, scores: Sequence[FrameScore], policy: Policy, model: ModelInfo,
          withheld: Sequence[Modality] = (), calibration: OperatingPointFile | None = None) -> JudgedSession:
    """The decision that a session opened with its first frame comes to; one that its film does not decide is
    undecided. calibration: instead of the model's own operating point."""
    events, _ = _run(record, scores, policy, model, withheld, calibration)
    decided = [event.record for event in events if isinstance(event, Decided)]
    assert len(decided) == 1, f"{record.truth.key}: {len(decided)} decisions, expected one"
    return JudgedSession(truth=record.truth, decision=decided[0], frames=len(record.observations),
                         missed=len(record.observations) - len(record.crop_sequences),
                         logits=tuple(score.logit for score in scores),
                         applied=_applied(record, scores, policy, model, calibration))


def applied_policies(policy: Policy, model: ModelInfo,
                     calibration: OperatingPointFile | None) -> tuple[Policy, ...]:
    """What may decide: the policy with each map that has the modalities which it requires, or with the model's own
    operating point."""
    if calibration is None:
        return (policy.calibrated(model.operating_point),)
    needed = {modality.value for modality in policy.required_modalities}
    return tuple(policy.mapped(one) for one in calibration.maps if needed <= set(one.modalities))


def _applied(record: FilmRecord, scores: Sequence[FrameScore], policy: Policy, model: ModelInfo,
             calibration: OperatingPointFile | None) -> Policy | None:
    if calibration is None:
        return policy.calibrated(model.operating_point)
    used = {modality.value for score in scores for modality in score.uncertainty}
    found = calibration.map_for(camera_kind_of(record), used)
    return None if found is None else policy.mapped(found)


def peak_evidence(record: FilmRecord, scores: Sequence[FrameScore], policy: Policy, model: ModelInfo,
                  calibration: OperatingPointFile | None = None) -> float:
    """The most that ever spoke for acceptance, in nats, before the session was rejected; -inf for nothing.

    A session is accepted exactly when this reaches the policy's upper bound.
    """
    never = msgspec.structs.replace(policy, min_accept_evidence=_NEVER)
    return _run(record, scores, never, model, (), calibration)[1]


def _run(record: FilmRecord, scores: Sequence[FrameScore], policy: Policy, model: ModelInfo,
         withheld: Sequence[Modality], calibration: OperatingPointFile | None = None) -> tuple[list[Event], float]:
    """All events, and the peak of the evidence for acceptance where a bound could have counted."""
    engine = DecisionEngine({policy.name: policy}, cameras=[CAMERA], model=model, calibration=calibration)
    first, by_sequence = record.observations[0], {score.sequence: score for score in scores}
    events = engine.begin(SessionRequest(session_id=record.truth.key, camera=CAMERA, policy=policy,
                                         origin=Origin.LOCAL), first.stamp_ns)
    peak, kind = -math.inf, camera_kind_of(record)
    for each in record.observations:
        observation = messages.replace(_lacking(each, withheld), camera_kind=kind)
        events += engine.observe(observation, observation.stamp_ns)
        if observation.sequence not in by_sequence:
            continue
        session = engine.session(record.truth.key)
        events += engine.score(_message(observation, by_sequence[observation.sequence], model), observation.stamp_ns)
        if session is not None and session.evidence.frames >= session.policy.min_frames and (
                session.evidence.last_ns - session.evidence.first_ns >= session.policy.min_time_ms * 1_000_000) and (
                sequential_test.crossed(session.evidence, session.policy) is not sequential_test.Bound.LOWER):
            peak = max(peak, sequential_test.for_acceptance(session.evidence, session.policy))
    last = record.observations[-1]
    events += engine.process_event(CameraEnded(
        camera=CAMERA, source=last.source, epoch=last.epoch, reason="end_of_stream", detail="", stamp_ns=last.stamp_ns,
        counters={}), last.stamp_ns)
    return events, peak


def _lacking(observation: Observation, withheld: Sequence[Modality]) -> Observation:
    if not withheld:
        return observation
    gone = {modality.value for modality in withheld}
    return messages.replace(observation, modalities=[name for name in observation.modalities if name not in gone])


def _message(observation: Observation, score: FrameScore, model: ModelInfo) -> Score:
    assert observation.quality is not None, "a frame with a crop has its quality"
    assert observation.subject is not None, "a frame with a crop has its subject"
    return Score(
        camera=CAMERA, source=observation.source, epoch=observation.epoch, sequence=observation.sequence,
        track_id=observation.subject, worker="film", logit=score.logit,
        probability=1 / (1 + math.exp(-max(-700.0, min(700.0, score.logit)))),
        uncertainty={modality.value: value for modality, value in score.uncertainty.items()},
        modalities=[modality.value for modality in score.uncertainty], model_hash=model.model_hash,
        purpose=model.purpose.value, durations_ms={}, stamps_ns={}, quality=observation.quality)
