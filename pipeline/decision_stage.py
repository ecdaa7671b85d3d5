"""The decision process: sockets and clock around `DecisionEngine` and `Gateway`. No pixels come here.

In lock-step each observation is acknowledged once it, and its score where a bundle was sent, are accounted for; that
lets the camera send the next. When the score cannot come any more (a process of the path is lost, or the wall-clock
limit has passed) the session ends undecided and the observation is acknowledged all the same.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from calibration.operating_point_file import OperatingPointFile
from pipeline import messages
from pipeline.audit_log import AuditError
from pipeline.audit_records import policy_hash
from pipeline.channels import PULL, ROUTER, ChannelError, Endpoints, Poller, drain, send_now
from pipeline.decision import (
    Decided,
    DecisionEngine,
    Event,
    GuidanceChanged,
    PhaseChanged,
    SecurityAlert,
    SessionEnded,
    SessionStarted,
)
from pipeline.ed25519_files import KeyFileError
from pipeline.kiosk import Gateway, Output
from pipeline.kiosk_messages import SigningKey
from pipeline.kiosk_sockets import KioskSockets, TransportSettings
from pipeline.lockout import LockoutFileError, LockoutLimits
from pipeline.messages import CameraEnded, Message, MessageError, Observation, ObservationAck, ProcessEvent, Score
from pipeline.policy import Policy
from pipeline.security import RoleMap, SecurityError
from pipeline.session_guards import AuditSettings, open_guards
from pipeline.stage_context import PROGRESS_PERIOD_NS, StageContext
from pipeline.verdict import ModelInfo

#: Time for the last decisions and reports to leave when the process stops.
_LAST_WORDS_MS = 300


def _build() -> str:
    try:
        return f"mmdg-live {importlib.metadata.version('mmdg-live')}"
    except importlib.metadata.PackageNotFoundError:
        return "mmdg-live (not installed)"


@dataclass(frozen=True, kw_only=True)
class DecisionStageSettings:
    """What the process is started with.

    Attributes:
        policies: by name; `local_policy` names the one for local sessions.
        cameras: names in the configuration; None = whichever show up.
        model: the checkpoint; None = wait until the supervisor passes on what inference announces.
        kiosk_endpoint: of the command socket (`pipeline.kiosk_endpoint`); None = local sessions. roles: who may
            connect on ipc. transport: keys and limits.
        report_scores: a report line for each score, and the evidence in decision lines. For people at this machine.
        synthetic: no camera is behind this engine (`mmdg kiosk simulate`); clients are told.
        lockstep_limit_s: wall-clock limit for the score of one recorded frame.
        calibration: the operating-point file; None = as the checkpoint's own operating point says.
        audit: the audit log; None = none. lockout: None = none; lockout_path: None = no memory across restarts.
        release: what the audit log tells of this start beside build and policies.
    """

    policies: Mapping[str, Policy] = field(default_factory=lambda: {"default": Policy()})
    local_policy: str = "default"
    cameras: tuple[str, ...] | None = None
    model: ModelInfo | None = None
    kiosk_endpoint: str | None = None
    roles: RoleMap = field(default_factory=RoleMap.own_user)
    transport: TransportSettings = field(default_factory=TransportSettings)
    report_scores: bool = False
    synthetic: bool = False
    lockstep_limit_s: float = 30.0
    calibration: OperatingPointFile | None = None
    audit: AuditSettings | None = None
    lockout: LockoutLimits | None = None
    lockout_path: Path | None = None
    release: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kiosk_endpoint is None and self.local_policy not in self.policies:
            raise ValueError(f"local_policy: no policy {self.local_policy!r}; there are {sorted(self.policies)}")
        for name, policy in self.policies.items():
            policy.check(f"policies.{name}")
            if self.calibration is not None:
                policy.check_calibration(self.calibration, f"policies.{name}")


@dataclass(frozen=True)
class _Unacknowledged:
    identity: bytes
    camera: str
    since_ns: int


class DecisionStage:
    """One run of the process. `serve` until the context asks to stop."""

    def __init__(self, context: StageContext, settings: DecisionStageSettings) -> None:
        self.context = context
        self.settings = settings
        self.counters: Counter[str] = Counter()
        self.decisions = 0
        local = settings.policies[settings.local_policy] if settings.kiosk_endpoint is None else None
        self.guards = open_guards(settings.audit, settings.lockout, settings.lockout_path)
        self.engine = DecisionEngine(settings.policies, cameras=settings.cameras, model=settings.model,
                                     local_policy=local, calibration=settings.calibration, gate=self.guards.gate)
        self._unacknowledged: dict[tuple[str, int, int], _Unacknowledged] = {}
        self._scored_early: deque[tuple[str, int, int]] = deque(maxlen=16)  # scores that overtook their observation
        sockets, endpoints = context.sockets, context.endpoints
        self._kiosk: KioskSockets | None = None
        self._gateway: Gateway | None = None
        if settings.kiosk_endpoint is not None:
            self._kiosk = KioskSockets(sockets, settings.kiosk_endpoint, settings.roles, settings.transport)
            context.log.info("start-up self-test of the kiosk sockets: %s", self._kiosk.proof)
            self._gateway = Gateway(self.engine, events_endpoint=self._kiosk.endpoint.events_told, build=_build(),
                                    signer=self._kiosk.signer, verification_keys=[
                                        SigningKey(key_id=key.key_id, public_key=key.public_key)
                                        for key in self._kiosk.verification_keys], transport=self._kiosk.proof,
                                    simulated=settings.synthetic, now_ns=time.monotonic_ns())
        self._observations = sockets.open(ROUTER, endpoints.observations, bind=True)
        self._scores = sockets.open(PULL, endpoints.scores, bind=True)
        self._control = sockets.open(PULL, endpoints.control, bind=True)
        self._poller = self._make_poller()
        self.guards.started({
            "build": _build(), "cameras": list(settings.cameras or ()), "kiosk": settings.kiosk_endpoint,
            "policies": {name: policy_hash(policy) for name, policy in settings.policies.items()},
            **settings.release}, time.monotonic_ns())

    def _make_poller(self) -> Poller:
        return Poller(self._observations, self._scores, self._control,
                      *(self._kiosk.open_sockets if self._kiosk is not None else ()))

    def serve(self) -> None:
        """Until asked to stop; then every open session ends undecided."""
        self.context.progress("ready", 0)
        while not self.context.stop_requested:
            self._poller.wait(self._wait_ms())
            self.step()
            self.context.progress("running", self.decisions, self.counters + self.engine.counters)
        self._tell(self.engine.stop(time.monotonic_ns()))
        self.guards.stopped({"decisions": self.decisions})
        self.context.progress("ended", self.decisions, self.counters + self.engine.counters)

    def step(self) -> None:
        """Everything that waits on the sockets, then the timer: a stall is judged only after the queues are empty."""
        for identity, *frames in drain(self._observations):
            self._observed(identity, frames)
        for frames in drain(self._scores):
            self._scored(frames)
        for frames in drain(self._control):
            self._controlled(frames)
        if self._gateway is not None and self._kiosk is not None:
            if self._kiosk.refresh(time.monotonic_ns()):
                self._poller = self._make_poller()
            self._kiosk.admission.answer()
            for identity, role, frames in self._kiosk.receive():
                answer = self._gateway.handle(identity, role, frames, time.monotonic_ns())
                self.guards.keep(answer.events, time.monotonic_ns())  # a command opens or cancels, it never accepts
                self._send(answer)
            if subscribed := self._kiosk.subscriptions():
                self._gateway.subscribed(subscribed)
            for alert in self._kiosk.take_alerts():
                self.counters[f"alert_{alert.code}"] += 1
                self._gateway.watch.alert(alert.code, alert.detail)
                self.context.log.warning("%s: %s", alert.code, alert.detail)
            self._send(self._gateway.due(time.monotonic_ns()))
        self._tell(self.engine.tick(time.monotonic_ns()))
        self._give_up_waiting()

    def _wait_ms(self) -> float:
        now_ns = time.monotonic_ns()
        due_ns = now_ns + PROGRESS_PERIOD_NS
        if self.engine.next_deadline_ns() is not None:
            due_ns = min(due_ns, self.engine.next_deadline_ns() or due_ns)
        if self._gateway is not None:
            due_ns = min(due_ns, self._gateway.next_due_ns(now_ns))
        return (due_ns - now_ns) / 1e6 + 1  # the poller cuts to whole milliseconds: never wake just before

    # --- in ---------------------------------------------------------------------------------------------------------
    def _observed(self, identity: bytes, frames: list[bytes]) -> None:
        message = self._decode(frames, "observation")
        now_ns = time.monotonic_ns()  # after the receipt: no stamp of this host lies behind it
        if isinstance(message, CameraEnded):
            self._tell(self.engine.process_event(message, now_ns))
        elif isinstance(message, Observation):
            self._tell(self.engine.observe(message, now_ns))
            if self._gateway is not None:
                self._gateway.observed(message.camera, message.sequence, now_ns)
            if message.lockstep:
                key = (message.camera, message.epoch, message.sequence)
                self._unacknowledged[key] = _Unacknowledged(identity, message.camera, now_ns)
                if not message.bundle_sent or self.engine.lost or key in self._scored_early:
                    self._acknowledge(key)
        elif message is not None:
            self.counters["unexpected_observation"] += 1

    def _scored(self, frames: list[bytes]) -> None:
        message = self._decode(frames, "score")
        if not isinstance(message, Score):
            self.counters["unexpected_score"] += message is not None
            return
        if self.settings.report_scores:
            self._report({"type": "score", "camera": message.camera, "sequence": message.sequence,
                          "track_id": message.track_id, "modalities": message.modalities, "logit": message.logit,
                          "probability": message.probability, "uncertainty": message.uncertainty,
                          "durations_ms": message.durations_ms, "stamps_ns": message.stamps_ns,
                          "model_purpose": message.purpose, "failed": message.failed})
        self._tell(self.engine.score(message, time.monotonic_ns()))
        key = (message.camera, message.epoch, message.sequence)
        if key in self._unacknowledged:
            self._acknowledge(key)
        else:
            self._scored_early.append(key)

    def _controlled(self, frames: list[bytes]) -> None:
        message = self._decode(frames, "control")
        if not isinstance(message, ProcessEvent):
            self.counters["unexpected_control"] += message is not None
            return
        self.guards.heard(message)
        self._tell(self.engine.process_event(message, time.monotonic_ns()))
        if self.engine.lost:  # the scores that cameras wait for will not come
            for key in list(self._unacknowledged):
                self._acknowledge(key)

    def _decode(self, frames: list[bytes], kind: str) -> Message | None:
        """One message, or None after counting what is not one."""
        try:
            if len(frames) != 1:
                raise MessageError(f"expected one frame, got {len(frames)}")
            return messages.decode(frames[0], Message)
        except MessageError as error:
            self.counters[f"malformed_{kind}"] += 1
            self.context.log.warning("%s dropped: %s", kind, error)
            return None

    # --- lock-step --------------------------------------------------------------------------------------------------
    def _acknowledge(self, key: tuple[str, int, int]) -> None:
        waiting = self._unacknowledged.pop(key, None)
        if waiting is not None:
            send_now(self._observations, [waiting.identity, messages.encode(
                ObservationAck(epoch=key[1], sequence=key[2]))])

    def _give_up_waiting(self) -> None:
        now_ns = time.monotonic_ns()
        for key, waiting in list(self._unacknowledged.items()):
            if now_ns - waiting.since_ns > self.settings.lockstep_limit_s * 1e9:
                self.counters["lockstep_limit"] += 1
                self._tell(self.engine.fail_camera(waiting.camera, now_ns))
                self._acknowledge(key)

    # --- out --------------------------------------------------------------------------------------------------------
    def _tell(self, events: list[Event]) -> None:
        """Recorded first, told then: what could not be recorded is never a verdict that opens."""
        events = self.guards.keep(events, time.monotonic_ns())
        if events and self._gateway is not None:
            self._send(self._gateway.publish(events, time.monotonic_ns()))
        else:
            self._report_events(events)

    def _send(self, output: Output) -> None:
        if self._kiosk is not None:
            for identity, frames in output.replies:
                if not self._kiosk.may_hear(identity):
                    self.counters["kiosk_revoked"] += 1
                elif not send_now(self._kiosk.commands, [identity, *frames]):
                    self.counters["kiosk_unreachable"] += 1
            for published in output.published:
                self._kiosk.publish(published)
        self._report_events(output.events)

    def _report_events(self, events: list[Event]) -> None:
        for event in events:
            self.decisions += isinstance(event, Decided)
            self._report(report_of(event, with_evidence=self.settings.report_scores))

    def _report(self, line: dict[str, object]) -> None:
        self.context.report(msgspec.json.encode(line).decode())


def report_of(event: Event, *, with_evidence: bool) -> dict[str, object]:
    """The report line of an event. `would_decide` is there only when the policy exposes it."""
    match event:
        case SessionStarted(request=request):
            return {"type": "session.started", "session_id": request.session_id, "camera": request.camera,
                    "origin": request.origin.value, "policy": request.policy.name}
        case PhaseChanged(session_id=session_id, phase=phase):
            return {"type": "session.phase", "session_id": session_id, "phase": phase.value}
        case GuidanceChanged(session_id=session_id, code=code):
            return {"type": "guidance", "session_id": session_id, "code": code}
        case SecurityAlert(code=code, camera=camera, session_id=session_id, detail=detail):
            return {"type": "security.alert", "code": code, "camera": camera, "session_id": session_id,
                    "detail": detail}
        case SessionEnded(session_id=session_id, reason=reason):
            return {"type": "session.ended", "session_id": session_id, "reason": reason}
        case Decided(record=record):
            line: dict[str, object] = {
                "type": "decision", "session_id": record.session_id, "camera": record.camera,
                "origin": record.origin.value, "verdict": record.verdict.value, "reason": record.reason,
                "examined": record.examined, "frames_used": record.frames_used,
                "effective_frames": round(record.effective_frames, 2),
                "modalities_used": [m.value for m in record.modalities_used],
                "time_to_decision_ms": round(record.time_to_decision_ms, 1), "policy": record.policy,
                "model_hash": record.model.model_hash if record.model else None,
                "model_purpose": record.model.purpose.value if record.model else None,
                "calibration_id": record.calibration_id, "simulated": record.simulated, "counters": record.counters}
            if with_evidence:
                line["evidence"] = round(record.evidence, 3)
            if record.would_decide is not None:
                line["would_decide"] = record.would_decide.value
            return line


def run(name: str, endpoints: Endpoints, settings: DecisionStageSettings) -> None:
    """Serve until asked to stop. A kiosk socket that cannot be served safely ends the process as failed."""
    context = StageContext(name, endpoints)
    try:
        context.progress("starting", 0)
        try:
            stage = DecisionStage(context, settings)
        except (AuditError, KeyFileError, LockoutFileError) as error:
            context.log.error("%s", error)
            context.progress("failed", 0, detail={"error": str(error), "fatal": "audit_refused"})
            return
        except (ChannelError, SecurityError) as error:
            context.log.error("%s", error)
            context.progress("failed", 0, detail={"error": str(error), "fatal": "sockets_refused"})
            return
        stage.serve()
    finally:
        context.close(_LAST_WORDS_MS)
