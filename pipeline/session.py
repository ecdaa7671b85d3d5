"""One session: observations and scores of one camera in, at most one decision out. Pure: time is an argument.

The order of the checks is the product: whatever is missing, late, repeated or unlike what the camera saw is counted and
left out; whatever breaks the identity of the face or the flow of frames ends the session `undecided`.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum

from calibration.operating_point_file import OperatingPointFile
from mmdg_model.scorer import Modality, Purpose
from pipeline import guidance, sequential_test
from pipeline.guidance import Guidance
from pipeline.messages import Observation, Score
from pipeline.policy import HARD_DEADLINE_MS, Policy
from pipeline.sequential_test import Bound, Evidence, EvidenceError
from pipeline.stream_integrity import reason_of
from pipeline.verdict import DecisionRecord, Facts, ModelInfo, Origin, Reason, Verdict, conclude, ended_as

_NS_PER_MS = 1_000_000
_PURPOSES = frozenset(purpose.value for purpose in Purpose)
_MODALITIES = frozenset(modality.value for modality in Modality)
#: Two missed keepalives abandon a session.
_KEEPALIVES_MISSED = 2


class Phase(StrEnum):
    """How far a session is."""

    SEARCHING = "searching"  # no single face yet
    ACQUIRING = "acquiring"  # a face, no evidence yet
    DECIDING = "deciding"  # evidence is being summed


@dataclass(frozen=True, kw_only=True)
class SessionRequest:
    """What opens a session. deadline_ms: None = the policy's. needs_keepalive: the owner must show life."""

    session_id: str
    camera: str
    policy: Policy
    origin: Origin
    deadline_ms: int | None = None
    nonce: str | None = None
    transaction_hash: str | None = None
    needs_keepalive: bool = False


@dataclass(frozen=True, kw_only=True)
class SessionStarted:
    """First event of a session."""

    request: SessionRequest


@dataclass(frozen=True, kw_only=True)
class PhaseChanged:
    """The session is in another phase, `searching` to begin with."""

    session_id: str
    phase: Phase


@dataclass(frozen=True, kw_only=True)
class GuidanceChanged:
    """What the person should be told has changed; code None = nothing to correct."""

    session_id: str
    code: str | None
    since_ns: int


@dataclass(frozen=True, kw_only=True)
class Decided:
    """The decision: exactly one a session."""

    record: DecisionRecord


@dataclass(frozen=True, kw_only=True)
class SessionEnded:
    """Follows the decision at once. reason: `verdict.ended_as`."""

    session_id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SecurityAlert:
    """Something that no honest camera or client does. code: stable; session_id: empty where it belongs to none."""

    code: str
    camera: str
    session_id: str
    detail: str


Event = SessionStarted | PhaseChanged | GuidanceChanged | Decided | SessionEnded | SecurityAlert


@dataclass(frozen=True)
class _Seen:
    """What is kept of an observation until its score comes."""

    stamp_ns: int
    track_id: int | None  # None: this frame is no evidence
    modalities: frozenset[str]


def calibration_id_of(calibration: OperatingPointFile | None, model: ModelInfo | None) -> str | None:
    """Of the file where there is one, else of the checkpoint's own operating point; None without either."""
    if calibration is not None:
        return calibration.calibration_id
    return model.operating_point.calibration_id if model is not None and model.operating_point is not None else None


class Session:
    """Feed it with `observe`, `score`, `tick`, `end`; each returns the events it led to. After the end: nothing.

    Args:
        frame_period_ms: of the camera before the session, for the limit up to the first frame; 0 = not known.
    """

    def __init__(self, request: SessionRequest, model: ModelInfo | None, now_ns: int,
                 calibration: OperatingPointFile | None = None, frame_period_ms: float = 0.0) -> None:
        self.request = request
        self.calibration = calibration
        # With a file the map is that of the subset of modalities that scores use, and follows with the first of them.
        point = model.operating_point if model is not None and calibration is None else None
        self.policy = request.policy.calibrated(point)
        self.model = model
        self.began_ns = now_ns
        self.ended = False
        self.lockstep = False
        self.phase = Phase.SEARCHING
        self.track_id: int | None = None
        self.evidence = Evidence()
        self.counters: Counter[str] = Counter()
        asked_ms = request.deadline_ms if request.deadline_ms is not None else self.policy.deadline_ms
        if self.policy.threshold_id is not None:
            # An attacker must not have longer than in the sessions of the evidence.
            asked_ms = min(asked_ms, self.policy.deadline_ms)
        self._deadline_ns = now_ns + min(asked_ms, HARD_DEADLINE_MS) * _NS_PER_MS
        self._keepalive_ns = now_ns
        self._received_ns = now_ns  # of the last observation
        self._face_ns = now_ns  # a face was last seen, or the session began
        self._subject_ns: int | None = None  # the session's own track was last seen
        # A slow camera has 4.5 of its own frame periods to its first frame, too.
        self._stall_ns = round(self.policy.stall_limit_ms(frame_period_ms) * _NS_PER_MS)
        self._last: Observation | None = None
        self._seen: dict[int, _Seen] = {}
        self._last_scored: int | None = None
        self._examined = False
        self._simulated = False  # one observation was
        self._all_simulated = True  # no observation was of anything else
        self._used: frozenset[Modality] | None = None  # by every counted frame since the last reset
        self._models: frozenset[ModelInfo] = frozenset()
        self._uncalibrated: tuple[Reason, str] | None = None  # what the last score without a map lacked
        self._guidance = Guidance()

    # --- inputs -----------------------------------------------------------------------------------------------------
    def start(self) -> list[Event]:
        """The events that open the session."""
        return [SessionStarted(request=self.request),
                PhaseChanged(session_id=self.request.session_id, phase=self.phase)]

    def observe(self, observation: Observation, now_ns: int) -> list[Event]:
        """What the camera saw in one frame, each once and in order: the engine drops repeats.

        `now_ns` is the time of receipt; in lock-step the frame's own stamp.
        """
        if self.ended:
            return []
        last = self._last
        if last is None and observation.stamp_ns < self.began_ns:
            self.counters["observation_before_session"] += 1
            return []
        if observation.integrity:
            return self.end(reason_of(observation.integrity), now_ns)
        if last is not None and last.source != observation.source:
            return self.end(Reason.CAMERA_CHANGED, now_ns)
        if observation.lockstep and self.request.origin is Origin.KIOSK:
            # On a recording's clock no timer would end it.
            return self.end(Reason.CAMERA_CHANGED, max(now_ns, self._received_ns))
        if observation.stamp_ns > now_ns or (last is not None and observation.stamp_ns <= last.stamp_ns):
            return self.end(Reason.CLOCK_JUMP, now_ns)
        if last is not None and last.epoch != observation.epoch and self._examined:
            # The camera process is another one now: nothing shows that the face is still the same.
            return self.end(Reason.DEVICE_LOST, now_ns)
        # The gap between stamps is judged with the limit of the stream as it was known before this frame.
        reference_ns = last.stamp_ns if last is not None else self.began_ns
        if observation.stamp_ns - reference_ns > max(self._stall_ns, self._stall_of(observation)):
            return self.end(Reason.STREAM_STALE, now_ns)
        self.lockstep = observation.lockstep
        self._simulated |= observation.simulated
        self._all_simulated &= observation.simulated
        self._received_ns, self._stall_ns = now_ns, self._stall_of(observation)
        if last is not None and last.epoch != observation.epoch:
            self._seen.clear()
            self._last_scored, self.track_id = None, None
        self._last = observation
        swapped = self._follow_subject(observation)
        if swapped:
            return self.end(Reason.FACE_SWAPPED, now_ns)
        self._remember(observation)
        return self._expired(now_ns) or self._show(observation, now_ns)

    def score(self, score: Score, now_ns: int) -> list[Event]:
        """One score. It counts only if it belongs to a frame of this session in which the subject was fit to judge."""
        if self.ended:
            return []
        expired = self._expired(now_ns)
        if expired:
            return expired
        cause = self._misplaced(score) or self._refusal(score, now_ns)
        if cause is not None:
            self.counters[cause] += 1
            return []
        seen = self._seen[score.sequence]
        used = frozenset(Modality(name) for name in score.modalities)
        if self._used is not None and used != self._used:
            # Evidence of one subset is not evidence on another's scale: no sum mixes maps.
            self._forget("modalities_changed")
        self.policy = self._policy_for(score) or self.policy
        try:
            counted = sequential_test.count(self.evidence, score.logit, score.uncertainty, tuple(score.modalities),
                                            seen.stamp_ns, self.policy)
        except EvidenceError:
            self.counters["score_not_a_number"] += 1
            return []
        self.evidence = counted
        self._examined = True
        self._used = used
        self._models |= {ModelInfo(model_hash=score.model_hash, purpose=Purpose(score.purpose))}
        events = self._enter(Phase.DECIDING)
        bound = sequential_test.crossed(self.evidence, self.policy)
        if bound is not Bound.NONE:
            events += self.end(None, now_ns, bound)
        return events

    def keepalive(self, now_ns: int) -> None:
        """The owner lives."""
        self._keepalive_ns = now_ns

    def tick(self, now_ns: int) -> list[Event]:
        """The timer. A session on a recording's clock is judged on its frames' stamps instead."""
        return [] if self.ended or self.lockstep else self._expired(now_ns)

    def next_deadline_ns(self) -> int | None:
        """When `tick` has something to say at the latest, None when never."""
        if self.ended or self.lockstep:
            return None
        return min(at_ns for at_ns, _ in self._limits()) + 1

    def end(self, reason: Reason | None, now_ns: int, bound: Bound = Bound.NONE) -> list[Event]:
        """Close with a decision. `reason` None: the evidence crossed `bound`. A second call says nothing."""
        if self.ended:
            return []
        self.ended = True
        facts = Facts(bound=bound, frames=self.evidence.frames, modalities=self._used or frozenset(),
                      models=self._models, announced=self.model,
                      simulated_camera=self._simulated and self._all_simulated)
        verdict, why = conclude(facts, self.policy, reason)
        text = why.value
        if why in (Reason.DEADLINE, Reason.MODALITY_MISSING):
            why, text = self._explain_deadline()
        would = None
        if self.policy.expose_would_decide:
            would = {Bound.UPPER: Verdict.BONA_FIDE, Bound.LOWER: Verdict.ATTACK}.get(bound, Verdict.UNDECIDED)
        record = DecisionRecord(
            session_id=self.request.session_id, origin=self.request.origin, camera=self.request.camera,
            verdict=verdict, reason=text, examined=self._examined, frames_used=self.evidence.frames,
            effective_frames=sequential_test.effective(self.evidence.frames, self.policy),
            modalities_used=tuple(m for m in Modality if m in (self._used or ())),
            time_to_decision_ms=(now_ns - self.began_ns) / _NS_PER_MS, policy=self.policy.name, model=self.model,
            simulated=self._simulated, nonce=self.request.nonce, transaction_hash=self.request.transaction_hash,
            expires_in_ms=self.policy.expires_in_ms, evidence=sequential_test.tempered(self.evidence, self.policy),
            counters=dict(self.counters), would_decide=would, calibration_id=self.calibration_id)
        return [Decided(record=record), SessionEnded(session_id=record.session_id, reason=ended_as(why))]

    @property
    def calibration_id(self) -> str | None:
        """Of what makes logits evidence here; None = nobody has calibrated them."""
        return calibration_id_of(self.calibration, self.model)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _stall_of(self, observation: Observation) -> int:
        return round(self.policy.stall_limit_ms(observation.frame_period_ms) * _NS_PER_MS)

    def _follow_subject(self, observation: Observation) -> bool:
        """Keep to one track; True when another face took its place after evidence was counted."""
        stamp_ns, subject = observation.stamp_ns, observation.subject
        if observation.faces:
            self._face_ns = stamp_ns
        if subject is None:
            if len(observation.faces) > 1:
                self._forget("multiple_faces")
            return False
        if self.track_id is not None and subject != self.track_id:
            if self._examined:
                return True
            self._forget("track_changed")
        elif self._subject_ns is not None and stamp_ns - self._subject_ns > self.policy.track_gap_ms * _NS_PER_MS:
            self._forget("track_gap")
        elif observation.track_broken and self.track_id is not None:
            self._forget("track_broken")
        self.track_id, self._subject_ns = subject, stamp_ns
        if self._used is not None and not self._used <= frozenset(observation.modalities):
            self._forget("modality_lost")
        return False

    def _forget(self, cause: str) -> None:
        """Positive evidence ends here, and no score of an earlier frame counts any more."""
        if self.evidence.frames:
            self.counters[f"reset_{cause}"] += 1
        self.evidence = sequential_test.reset(self.evidence, self.policy)
        self._used, self._models = None, frozenset()
        self._seen = {sequence: replace(seen, track_id=None) for sequence, seen in self._seen.items()}

    def _remember(self, observation: Observation) -> None:
        oldest_ns = observation.stamp_ns - self.policy.max_score_age_ms * _NS_PER_MS
        self._seen = {sequence: seen for sequence, seen in self._seen.items() if seen.stamp_ns >= oldest_ns}
        gated = [code for code in observation.conditions if code in self.policy.gating_conditions]
        if gated:
            self.counters[f"gated_{gated[0]}"] += 1
        fit = observation.subject is not None and not gated
        self._seen[observation.sequence] = _Seen(observation.stamp_ns, observation.subject if fit else None,
                                                 frozenset(observation.modalities))

    def _misplaced(self, score: Score) -> str | None:
        """Why a score belongs to no frame of this session, None when it does; each frame is answered once."""
        if self._last is None or score.epoch != self._last.epoch or score.source != self._last.source:
            return "score_of_another_epoch"
        if self._last_scored is not None and score.sequence <= self._last_scored:
            return "score_repeated"
        if score.sequence not in self._seen:
            return "score_without_observation"
        self._last_scored = score.sequence
        return None

    def _refusal(self, score: Score, now_ns: int) -> str | None:
        """Why the score of a frame of this session is no evidence, None when it is."""
        seen = self._seen[score.sequence]
        if seen.track_id is None:
            return "score_gated"
        if score.track_id != seen.track_id or score.track_id != self.track_id:
            return "score_of_another_track"
        if score.failed is not None:
            return "score_failed"
        if now_ns - seen.stamp_ns > self.policy.max_score_age_ms * _NS_PER_MS:
            return "score_too_old"
        if not math.isfinite(score.logit):
            return "score_not_a_number"
        if score.purpose not in _PURPOSES or not _MODALITIES.issuperset(score.modalities):
            return "score_unknown_word"
        if any(m not in score.modalities or m not in seen.modalities for m in self.policy.required_modalities):
            return "score_lacks_modality"
        if self.model is None or score.model_hash != self.model.model_hash or score.purpose != self.model.purpose:
            return "score_of_another_model"
        if self._policy_for(score) is None:
            self._uncalibrated = self._lacking_calibration(frozenset(score.modalities))
            return "score_without_calibration"
        return None

    def _policy_for(self, score: Score) -> Policy | None:
        """The policy with the map of the score's modalities on this kind of camera; None: nobody has calibrated it, or
        the policy's threshold was measured on other kinds.

        A checkpoint's own operating point is of all three modalities, and so are the numbers that a policy states.
        """
        if not self._kind_was_measured():
            return None
        if self.calibration is None:
            return self.policy if frozenset(score.modalities) == _MODALITIES else None
        found = self.calibration.map_for(self._camera_kind, score.modalities)
        if found is None or self.calibration.model.sha256 != score.model_hash:
            return None
        return self.request.policy.mapped(found)

    @property
    def _camera_kind(self) -> str:
        """Of the last observation; "", for which nothing is calibrated, before the first."""
        return self._last.camera_kind if self._last is not None else ""

    def _kind_was_measured(self) -> bool:
        """Whether the policy's threshold holds for this kind of camera."""
        return not self.policy.camera_kinds or self._camera_kind in self.policy.camera_kinds

    def _lacking_calibration(self, used: frozenset[str]) -> tuple[Reason, str]:
        """Which modality the least calibrated subset has beyond the used ones; none where no such subset exists."""
        if not self._kind_was_measured():
            return Reason.CALIBRATION_MISSING, Reason.CALIBRATION_MISSING.value
        subsets = [_MODALITIES] if self.calibration is None else [
            frozenset[str](one.modalities) for one in self.calibration.maps if one.camera_kind == self._camera_kind]
        wider = sorted((subset for subset in subsets if used < subset), key=len)
        if not wider:
            return Reason.CALIBRATION_MISSING, Reason.CALIBRATION_MISSING.value
        missing = next(modality.value for modality in Modality if modality.value in wider[0] - used)
        return Reason.MODALITY_MISSING, f"{Reason.MODALITY_MISSING.value}:{missing}"

    def _limits(self) -> list[tuple[int, Reason]]:
        limits = [(self._received_ns + self._stall_ns, Reason.STREAM_STALE), (self._deadline_ns, Reason.DEADLINE),
                  (self._face_ns + self.policy.no_face_ms * _NS_PER_MS, Reason.NO_FACE)]
        if self.request.needs_keepalive:
            limits.append((self._keepalive_ns + _KEEPALIVES_MISSED * self.policy.keepalive_ms * _NS_PER_MS,
                           Reason.ABANDONED))
        return limits

    def _expired(self, now_ns: int) -> list[Event]:
        at_ns, reason = min(self._limits(), key=lambda limit: limit[0])
        return self.end(reason, now_ns) if now_ns > at_ns else []

    def _explain_deadline(self) -> tuple[Reason, str]:
        """Why time ran out: an absent sensor, frames not fit to judge, or merely not enough evidence."""
        if self._last is not None:
            for modality in self.policy.required_modalities:
                if modality not in self._last.modalities:
                    return Reason.MODALITY_MISSING, f"{Reason.MODALITY_MISSING.value}:{modality.value}"
        if self._uncalibrated is not None and self.counters["score_without_calibration"] > self.evidence.frames:
            return self._uncalibrated
        gated = sum(n for cause, n in self.counters.items() if cause.startswith("gated_"))
        if gated > self.evidence.frames:
            return Reason.QUALITY_INSUFFICIENT, Reason.QUALITY_INSUFFICIENT.value
        return Reason.DEADLINE, Reason.DEADLINE.value

    def _enter(self, phase: Phase) -> list[Event]:
        if phase is self.phase:
            return []
        self.phase = phase
        return [PhaseChanged(session_id=self.request.session_id, phase=phase)]

    def _show(self, observation: Observation, now_ns: int) -> list[Event]:
        if observation.subject is None:
            events = self._enter(Phase.SEARCHING)
        else:
            events = self._enter(Phase.DECIDING if self.evidence.frames else Phase.ACQUIRING)
        shown = guidance.step(self._guidance, observation.conditions, now_ns)
        if shown is not self._guidance:
            self._guidance = shown
            events.append(GuidanceChanged(session_id=self.request.session_id, code=shown.code, since_ns=now_ns))
        return events
