"""`Policy`: what a verdict costs and how long it may take. Loaded from the configuration file, never over a socket."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from calibration.operating_point_file import EvidenceMap, OperatingPointFile
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Modality, Purpose
from pipeline.guidance import GUIDANCE_CODES

#: No session, whatever a policy or a kiosk asks for, lasts longer.
HARD_DEADLINE_MS = 10_000
#: A decision may not be acted on later than this after it was made.
MAX_EXPIRY_MS = 5_000

#: ρ of successive scored frames where nobody has measured it: cautious, thirty frames count as one or two.
ASSUMED_FRAME_CORRELATION = 0.95

#: Conditions under which a frame is no evidence. A frame that is gated out never raises a score, it is left out.
DEFAULT_GATES = ("no_face", "multiple_faces", "move_closer", "move_back", "look_at_camera", "remove_mask",
                 "remove_sunglasses", "face_changed", "too_dark", "too_bright", "ir_saturated", "depth_holes",
                 "clean_lens")


class PolicyError(ValueError):
    """A policy cannot be used; the message names the YAML path, the value and the allowed range."""


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below  # NaN fails both

    def __str__(self) -> str:
        return f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


#: α and β below one half keep the accept bound above zero and the reject bound below it.
_RANGES = {
    "apcer_max": _Range(0, 0.5, open_low=True, open_high=True),
    "bpcer_max": _Range(0, 0.5, open_low=True, open_high=True),
    "deadline_ms": _Range(500, HARD_DEADLINE_MS),
    "no_face_ms": _Range(100, HARD_DEADLINE_MS),
    "stall_min_ms": _Range(50, 1_000),
    "stall_frame_periods": _Range(1.5, 30),
    "max_score_age_ms": _Range(10, 5_000),
    "track_gap_ms": _Range(0, 1_000),
    "min_frames": _Range(2, 1_000),
    "min_time_ms": _Range(0, HARD_DEADLINE_MS),
    "frame_correlation": _Range(0, 1, open_high=True),
    "lasting_share": _Range(0, 1, open_high=True),
    "llr_clip": _Range(0, 20, open_low=True),
    "evidence_clip": _Range(0, 1_000, open_low=True),
    "logit_scale": _Range(0, 100, open_low=True),
    "training_log_odds": _Range(-20, 20),
    "min_accept_evidence": _Range(0, 1_000),
    "uncertainty_weight": _Range(0, 20),
    "keepalive_ms": _Range(100, 5_000),
    "expires_in_ms": _Range(100, MAX_EXPIRY_MS),
}


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How evidence becomes a verdict.

    Attributes:
        name: what a kiosk asks for; it is echoed in the decision.
        apcer_max: α, the wanted share of attack sessions accepted, for the sequential test's model of the scores.
        bpcer_max: β, the wanted share of bona fide sessions refused, likewise. Neither is a guarantee: see
            docs/decisions.md.
        deadline_ms: total time of a session; a kiosk may ask for another within `HARD_DEADLINE_MS`.
        no_face_ms: this long without any face ends the session.
        stall_min_ms, stall_frame_periods: a session ends when no observation arrived for the larger of the two.
        max_score_age_ms: a score of an older frame is no evidence.
        track_gap_ms: the subject unseen for longer breaks its track: positive evidence is forgotten.
        min_frames, min_time_ms: no bound counts before this many frames, spanning this much time.
        llr_clip: bound of the evidence of one frame, in nats; a calibration file may lower it.
        evidence_clip: bound of the evidence of one track, likewise. None: as a calibration file says; without one none.
        logit_scale, training_log_odds: a frame's evidence is scale · logit - log odds. None: as the checkpoint's
            operating point says; without one 1, and 0 for ln(bona fide / attack) in the training data.
        frame_correlation: ρ of successive scored frames (AR(1)), see `sequential_test.effective_frames`. None: as the
            checkpoint's operating point says; without one `ASSUMED_FRAME_CORRELATION`.
        lasting_share: of a score's variance, what is the session's own level and repeats in every frame, see
            `sequential_test.effective_frames`; a calibration file may raise it.
        min_accept_evidence: accepting takes at least this many nats, also where Wald's bound is lower. An operating
            point raises it to its threshold.
        uncertainty_weight: nats taken off the evidence for acceptance, per unit of mean class-token uncertainty.
        required_modalities: a score without one of these is no evidence.
        gating_conditions: observations with one of these are no evidence.
        camera_kinds: `CameraDescription.camera_kind`s whose scores are evidence; empty: all. A compiled policy has
            those of the sessions that its threshold rests on.
        allowed_purposes: checkpoints made for anything else never lead to `bona_fide` or `attack`. One trained on
            simulated data decides on simulated cameras alone, whatever stands here (`verdict.conclude`).
        keepalive_ms: interval in which a kiosk must show life; two missed end the session as abandoned.
        expires_in_ms: how long a decision may be acted on.
        threshold_id: of the compiled policy that this one comes from (`pipeline.policy_compiler`). With it a kiosk
            cannot ask for more time than `deadline_ms`. Never written by hand.
        expose_would_decide: FOR TESTS AND DEMONSTRATIONS: report what the evidence alone would have said. It never
            changes a verdict and never leaves by the kiosk socket.
    """

    name: str = "default"
    apcer_max: float = 0.01
    bpcer_max: float = 0.05
    deadline_ms: int = 5_000
    no_face_ms: int = 2_000
    stall_min_ms: float = 150.0
    stall_frame_periods: float = 4.5
    max_score_age_ms: int = 1_000
    track_gap_ms: int = 250
    min_frames: int = 5
    min_time_ms: int = 300
    llr_clip: float = 4.0
    evidence_clip: float | None = None
    logit_scale: float | None = None
    training_log_odds: float | None = None
    frame_correlation: float | None = None
    lasting_share: float = 0.0
    min_accept_evidence: float = 0.0
    uncertainty_weight: float = 1.0
    required_modalities: tuple[Modality, ...] = (Modality.RGB, Modality.DEPTH, Modality.INFRARED)
    gating_conditions: tuple[str, ...] = DEFAULT_GATES
    camera_kinds: tuple[str, ...] = ()
    allowed_purposes: tuple[Purpose, ...] = (Purpose.RELEASE,)
    keepalive_ms: int = 1_000
    expires_in_ms: int = 5_000
    threshold_id: str | None = None
    expose_would_decide: bool = False

    @property
    def upper_bound(self) -> float:
        """Evidence at or above it accepts: Wald's A = ln((1 - β) / α), or `min_accept_evidence` where that is more."""
        return max(math.log((1 - self.bpcer_max) / self.apcer_max), self.min_accept_evidence)

    @property
    def lower_bound(self) -> float:
        """Wald's B = ln(β / (1 - α)): evidence at or below it rejects."""
        return math.log(self.bpcer_max / (1 - self.apcer_max))

    @property
    def correlation(self) -> float:
        """ρ to reckon with."""
        return ASSUMED_FRAME_CORRELATION if self.frame_correlation is None else self.frame_correlation

    def frame_llr(self, logit: float) -> float:
        """Evidence of one frame in nats, clipped."""
        scale = 1.0 if self.logit_scale is None else self.logit_scale
        return max(-self.llr_clip, min(self.llr_clip, scale * logit - (self.training_log_odds or 0.0)))

    def bounded(self, evidence: float) -> float:
        """Evidence of a whole track in nats, within what the calibration's sessions support."""
        return evidence if self.evidence_clip is None else max(-self.evidence_clip, min(self.evidence_clip, evidence))

    def mapped(self, one: EvidenceMap) -> Policy:
        """This policy for scores of one subset of modalities on one kind of camera, as an operating-point file has it.

        What the policy states may only make it more cautious: the larger correlation and lasting share, and the smaller
        clips count.
        """
        return msgspec.structs.replace(
            self, logit_scale=one.scale, training_log_odds=-one.offset,
            frame_correlation=max(self.frame_correlation or 0.0, one.frame_correlation),
            lasting_share=max(self.lasting_share, one.lasting_share),
            llr_clip=min(self.llr_clip, one.frame_llr_clip),
            evidence_clip=min(one.evidence_clip, self.evidence_clip or one.evidence_clip))

    @property
    def most_evidence(self) -> float:
        """Nats that no session of any length exceeds: every frame at the clip; infinite where nothing bounds it."""
        lasting = self.llr_clip / self.lasting_share if self.lasting_share else math.inf
        return self.bounded(lasting)

    def check_calibration(self, file: OperatingPointFile, path: str = "policies") -> None:
        """Whether this policy can be served with that file at all. `path`: where the policy stands.

        Raises:
            PolicyError: it states a map of its own, no map has the modalities that it requires, or no such map supports
                the evidence that accepting takes; then it says how many sessions would.
        """
        for field in ("logit_scale", "training_log_odds"):
            if getattr(self, field) is not None:
                raise PolicyError(f"{path}.{field}: {getattr(self, field)!r} contradicts calibration "
                                  f"{file.calibration_id}, which maps logits itself; leave it out")
        needed = {modality.value for modality in self.required_modalities}
        fit = [one for one in file.maps if needed <= set(one.modalities)]
        if not fit:
            there = sorted({f"{one.camera_kind} {'+'.join(one.modalities)}" for one in file.maps})
            raise PolicyError(f"{path}.required_modalities: {sorted(needed)}: calibration {file.calibration_id} has no "
                              f"map with them, only {', '.join(there)}; calibrate them, or require fewer")
        supported = max(self.mapped(one).evidence_clip or 0.0 for one in fit)
        lasting = min(fit, key=lambda one: one.lasting_share)
        reach = max(self.mapped(one).most_evidence for one in fit)
        if supported < self.upper_bound:
            remedy = "state a smaller min_accept_evidence, or allow more errors"
            if self.upper_bound <= 20:
                remedy = (f"calibrate with at least {math.ceil(math.exp(self.upper_bound))} sessions of each class on "
                          "one kind of camera, or allow more errors")
            raise PolicyError(f"{path}.apcer_max: accepting takes {self.upper_bound:.2f} nats, calibration "
                              f"{file.calibration_id} supports {supported:.2f}: nothing could be accepted; {remedy}")
        if reach < self.upper_bound:
            raise PolicyError(f"{path}.apcer_max: accepting takes {self.upper_bound:.2f} nats, but frames of one "
                              f"session never gather more than {reach:.2f}, however long it lasts: calibration "
                              f"{file.calibration_id} found that a share of {lasting.lasting_share:.2f} of the scores' "
                              "variance is the session's own. Allow more errors, state a larger llr_clip, or use a "
                              "network whose sessions differ less")

    def calibrated(self, point: OperatingPoint | None) -> Policy:
        """This policy for a checkpoint with that operating point. What the policy itself states stands.

        The threshold only ever raises the bound of acceptance; nothing here makes a verdict easier than Wald's bounds.
        """
        if point is None:
            return self

        def stated(own: float | None, measured: float) -> float:
            return measured if own is None else own

        return msgspec.structs.replace(
            self, logit_scale=stated(self.logit_scale, point.logit_scale),
            training_log_odds=stated(self.training_log_odds, -point.logit_offset),
            frame_correlation=stated(self.frame_correlation, point.frame_correlation),
            min_accept_evidence=max(self.min_accept_evidence, point.threshold))

    def stall_limit_ms(self, frame_period_ms: float) -> float:
        """Longest time without an observation. A period that is no positive number counts as unknown."""
        period_ms = frame_period_ms if math.isfinite(frame_period_ms) and frame_period_ms > 0 else 0.0
        return max(self.stall_min_ms, min(self.stall_frame_periods * period_ms, self.no_face_ms))

    def check(self, path: str = "policies") -> Policy:
        """Return self, or say what is wrong. `path` is where this policy stands in the configuration file.

        Raises:
            PolicyError: a value out of range, an unknown gate, an empty list; names path and value.
        """
        if not self.name or len(self.name) > 64:
            raise PolicyError(f"{path}.name: {self.name!r} must have 1 to 64 characters")
        for field, allowed in _RANGES.items():
            value = getattr(self, field)
            if value is not None and not allowed.holds(value):
                raise PolicyError(f"{path}.{field}: {value!r} is out of range, allowed is {allowed}")
        if self.min_time_ms >= self.deadline_ms:
            raise PolicyError(f"{path}.min_time_ms: {self.min_time_ms} is not below deadline_ms {self.deadline_ms}; "
                              "no session could be decided")
        if Modality.RGB not in self.required_modalities:
            raise PolicyError(f"{path}.required_modalities: {[m.value for m in self.required_modalities]} must name "
                              "rgb: the face is found there and the network always reads it")
        if not self.allowed_purposes:
            raise PolicyError(f"{path}.allowed_purposes: [] allows no model; name at least one of "
                              f"{[p.value for p in Purpose]}")
        for index, code in enumerate(self.gating_conditions):
            if code not in GUIDANCE_CODES:
                raise PolicyError(f"{path}.gating_conditions[{index}]: {code!r} is no condition; known are "
                                  f"{sorted(GUIDANCE_CODES)}")
        return self


def parse_policy(values: dict[str, Any], path: str = "policies") -> Policy:
    """Build a policy from configuration values.

    Raises:
        PolicyError: an unknown key, a wrong type, a value out of range; names the YAML path.
    """
    try:
        policy = msgspec.convert(values, Policy)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: a lone surrogate
        text, _, where = str(error).partition(" - at `$")
        raise PolicyError(f"{path}{where.rstrip('`')}: {text}") from error
    return policy.check(path)


#: For simulated cameras: the default policy, but a checkpoint trained on simulated data may decide, too, and α is what
#: such weights are calibrated to. Every verdict of a simulated camera is marked `simulated`, and on any other camera
#: such a checkpoint decides nothing.
SIMULATED_POLICY = Policy(name="simulated", apcer_max=0.05, allowed_purposes=(Purpose.RELEASE, Purpose.SIMULATED))
