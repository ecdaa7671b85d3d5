"""An independent witness: what a verdict may rest on, written from docs/decisions.md and not from the code.

It hears the same inputs as the engine and keeps its own books. It never decides; asked about a verdict, it names what
speaks against it. It shares no code with the engine but message types and the policy's plain numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

MS = 1_000_000
ALL = frozenset(("rgb", "depth", "infrared"))
TOLERANCE = 1e-9


@lru_cache(maxsize=4096)
def independent(frames: int, rho: float) -> float:
    """n_eff of an AR(1)."""
    return frames / (1 + 2 * sum((1 - k / frames) * rho**k for k in range(1, frames)))


@dataclass
class Numbers:
    """What turns logits into evidence."""

    scale: float
    offset: float
    rho: float
    clip: float
    total: float | None


@dataclass
class SessionWitness:
    """One session that a kiosk opened. over: why nothing may open any more."""

    policy: object
    began_ns: int
    deadline_ms: int
    model: tuple[str, str] | None
    calibration: object = None
    over: str | None = None
    last: object = None
    received_ns: int = 0
    face_ns: int = 0
    alive_ns: int = 0
    stall_ns: int = 0
    subject: int | None = None
    subject_ns: int | None = None
    examined: bool = False
    frames: dict = field(default_factory=dict)  # sequence -> (stamp, subject, modalities), of frames that may count
    scored: int | None = None
    used: frozenset | None = None
    counted: list = field(default_factory=list)  # (llr, uncertainty, stamp)
    debt: float = 0.0
    numbers: Numbers | None = None
    simulated: set = field(default_factory=set)

    def __post_init__(self):
        self.received_ns = self.face_ns = self.alive_ns = self.began_ns
        self.stall_ns = round(self.policy.stall_min_ms * MS)

    # --- time -------------------------------------------------------------------------------------------------------
    def limits(self) -> dict[str, int]:
        """The last moment at which the session may still be open, by reason."""
        return {"stream_stale": self.received_ns + self.stall_ns,
                "deadline": self.began_ns + self.deadline_ms * MS,
                "no_face": self.face_ns + self.policy.no_face_ms * MS,
                "abandoned": self.alive_ns + 2 * self.policy.keepalive_ms * MS}

    def time(self, now_ns: int) -> None:
        for reason, at_ns in self.limits().items():
            if now_ns > at_ns:
                self.close(reason)

    def close(self, reason: str) -> None:
        self.over = self.over or reason

    # --- inputs -----------------------------------------------------------------------------------------------------
    def observe(self, seen, now_ns: int) -> None:
        last = self.last
        if self.over or (last is None and seen.stamp_ns < self.began_ns):
            return
        if seen.integrity:
            self.close("integrity")
            return
        if seen.lockstep:
            self.close("a recording's clock")
            return
        if last is not None and (seen.source != last.source or (seen.epoch != last.epoch and self.examined)):
            self.close("another camera or process")
            return
        if seen.stamp_ns > now_ns or (last is not None and seen.stamp_ns <= last.stamp_ns):
            self.close("clock")
            return
        stall_ns = round(max(self.policy.stall_min_ms, min(self.policy.stall_frame_periods * seen.frame_period_ms,
                                                           self.policy.no_face_ms)) * MS)
        if seen.stamp_ns - (last.stamp_ns if last else self.began_ns) > max(self.stall_ns, stall_ns):
            self.close("gap between stamps")
            return
        self.stall_ns, self.received_ns, self.last = stall_ns, now_ns, seen
        self.simulated.add(seen.simulated)
        if last is not None and seen.epoch != last.epoch:
            self.forget()
            self.scored = self.subject = None
        if seen.faces:
            self.face_ns = seen.stamp_ns
        if seen.subject is None:
            if len(seen.faces) > 1:
                self.forget()
        else:
            self._subject(seen)
            if self.over:
                return
        gated = set(seen.conditions) & set(self.policy.gating_conditions)
        if seen.subject is not None and not gated:
            self.frames[seen.sequence] = (seen.stamp_ns, seen.subject, frozenset(seen.modalities))
        self.time(now_ns)

    def _subject(self, seen) -> None:
        if self.subject is not None and seen.subject != self.subject:
            if self.examined:
                self.close("another face")
                return
            self.forget()
        elif (self.subject_ns is not None and seen.stamp_ns - self.subject_ns > self.policy.track_gap_ms * MS) or (
                seen.track_broken and self.subject is not None):
            self.forget()
        self.subject, self.subject_ns = seen.subject, seen.stamp_ns
        if self.used is not None and not self.used <= set(seen.modalities):
            self.forget()

    def score(self, score, now_ns: int) -> None:
        if self.over:
            return
        self.time(now_ns)
        last = self.last
        if self.over or last is None or (score.epoch, score.source) != (last.epoch, last.source):
            return
        if self.scored is not None and score.sequence <= self.scored:
            return
        if score.sequence not in self.frames:
            return
        self.scored = score.sequence
        stamp_ns, subject, there = self.frames[score.sequence]
        used = frozenset(score.modalities)
        fit = (score.track_id == subject == self.subject and score.failed is None
               and now_ns - stamp_ns <= self.policy.max_score_age_ms * MS and math.isfinite(score.logit)
               and used and used <= ALL and {str(m) for m in self.policy.required_modalities} <= used & there
               and self.model == (score.model_hash, score.purpose))
        numbers = self._numbers(used, last.camera_kind) if fit else None
        if numbers is None:
            return
        told = [score.uncertainty.get(m, 1.0) for m in score.modalities]
        if not all(0 <= value <= 1 for value in told):
            return
        if self.used is not None and used != self.used:
            self.forget()
        self.numbers, self.used, self.examined = numbers, used, True
        llr = max(-numbers.clip, min(numbers.clip, numbers.scale * score.logit + numbers.offset))
        self.counted.append((llr, sum(told) / len(told), stamp_ns))

    def _numbers(self, used: frozenset, kind: str) -> Numbers | None:
        policy = self.policy
        if policy.camera_kinds and kind not in policy.camera_kinds:
            return None
        if self.calibration is None:
            rho = 0.95 if policy.frame_correlation is None else policy.frame_correlation
            return Numbers(policy.logit_scale or 1.0, -(policy.training_log_odds or 0.0), rho, policy.llr_clip,
                           policy.evidence_clip) if used == ALL else None
        for one in self.calibration.maps:
            if one.camera_kind == kind and frozenset(one.modalities) == used:
                return Numbers(one.scale, one.offset, max(policy.frame_correlation or 0.0, one.frame_correlation),
                               min(policy.llr_clip, one.frame_llr_clip),
                               min(one.evidence_clip, policy.evidence_clip or one.evidence_clip))
        return None

    # --- books ------------------------------------------------------------------------------------------------------
    def forget(self) -> None:
        """A reset: what spoke against the face stays as a debt."""
        if self.counted:
            self.debt += min(0.0, self.evidence() - self.debt)
        self.counted, self.used, self.frames = [], None, {}

    def evidence(self) -> float:
        if not self.counted:
            return self.debt
        total = sum(llr for llr, _, _ in self.counted) * independent(len(self.counted), self.numbers.rho) / len(
            self.counted)
        if self.numbers.total is not None:
            total = max(-self.numbers.total, min(self.numbers.total, total))
        return total + self.debt

    def against(self, verdict: str) -> list[str]:
        """What speaks against this verdict, now; nothing for `undecided`."""
        if verdict == "undecided":
            return []
        found = [f"the session was over: {self.over}"] if self.over else []
        if len(self.counted) < self.policy.min_frames:
            return [*found, f"{len(self.counted)} frames of evidence, {self.policy.min_frames} are needed"]
        span_ns = self.counted[-1][2] - self.counted[0][2]
        if span_ns < self.policy.min_time_ms * MS:
            found.append(f"evidence spans {span_ns / MS} ms")
        purpose = self.model[1] if self.model else None
        if purpose not in {str(p) for p in self.policy.allowed_purposes}:
            found.append(f"a checkpoint of purpose {purpose} decided")
        if purpose == "simulated" and self.simulated != {True}:
            found.append("weights of simulated data judged a camera that is not simulated")
        policy, evidence = self.policy, self.evidence()
        if verdict == "attack":
            if evidence > math.log(policy.bpcer_max / (1 - policy.apcer_max)) + TOLERANCE:
                found.append(f"attack at {evidence:.3f} nats")
            return found
        accept = max(math.log((1 - policy.bpcer_max) / policy.apcer_max), policy.min_accept_evidence)
        doubt = policy.uncertainty_weight * sum(u for _, u, _ in self.counted) / len(self.counted)
        if evidence - doubt < accept - TOLERANCE:
            found.append(f"{evidence:.3f} nats less {doubt:.3f} of doubt, {accept:.3f} are needed")
        return found


@dataclass
class CameraWitness:
    """One camera: which observations are new, and which scores wait for theirs."""

    last: tuple[int, int] | None = None  # epoch, sequence
    early: list = field(default_factory=list)
    session: SessionWitness | None = None

    def observe(self, seen, now_ns: int) -> None:
        if self.last is not None and self.last[0] == seen.epoch and seen.sequence <= self.last[1]:
            return
        self.last = (seen.epoch, seen.sequence)
        if self.session is not None:
            self.session.observe(seen, now_ns)
        waiting, self.early = self.early, []
        for score in waiting:
            self.score(score, now_ns)

    def score(self, score, now_ns: int) -> None:
        if self.last is None or (self.last[0] == score.epoch and score.sequence > self.last[1]):
            self.early = [*self.early, score][-8:]
        elif self.session is not None:
            self.session.score(score, now_ns)
