"""`DecisionEngine`: sessions of all cameras. Pure: no clock, no socket; the stage around it supplies both.

A camera that replays in lock-step brings its own clock, the stamps of its frames; every other input is judged with the
`now_ns` that the caller passes, host `CLOCK_MONOTONIC`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from calibration.operating_point_file import OperatingPointFile
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Purpose
from pipeline.messages import CameraEnded, Observation, ProcessEvent, Score
from pipeline.policy import Policy
from pipeline.session import (
    Decided,
    Event,
    GuidanceChanged,
    Phase,
    PhaseChanged,
    SecurityAlert,
    Session,
    SessionEnded,
    SessionRequest,
    SessionStarted,
    calibration_id_of,
)
from pipeline.verdict import DecisionRecord, ModelInfo, Origin, Reason, Verdict

__all__ = ["AuditFailed", "Busy", "CannotBegin", "Decided", "DecisionEngine", "DecisionRecord", "Event",
           "GuidanceChanged", "LockedOut", "ModelInfo", "NoCamera", "NotReady", "Phase", "PhaseChanged", "RateLimited",
           "SecurityAlert", "SessionEnded", "SessionRequest", "SessionStarted", "UnknownPolicy", "Verdict"]

#: Scores that overtook their observation are kept until it comes, at most this many a camera.
_EARLY_SCORES = 8

#: A camera that is wrong in each frame does not fill logs.
_ALERT_PERIOD_NS = 10_000_000_000

_CAMERA_ENDED = {"end_of_stream": Reason.STREAM_ENDED, "stopped": Reason.ENGINE_STOPPED}


class CannotBegin(RuntimeError):  # noqa: N818 - an answer to a client, not a fault
    """A session cannot be opened now; the message says why."""


class Busy(CannotBegin):
    """The camera has an open session."""


class NoCamera(CannotBegin):
    """No such camera, or it replays in lock-step."""


class NotReady(CannotBegin):
    """No network answers (no model announced, a process of the path lost), or the camera shows no frames yet."""


class UnknownPolicy(CannotBegin):
    """No policy of this name in the configuration."""


class LockedOut(CannotBegin):
    """The camera is locked after several attacks, or its lock-out state cannot be read."""


class RateLimited(CannotBegin):
    """More sessions a minute than the camera may have."""


class AuditFailed(NotReady):
    """The audit log cannot be written, so that no decision could be recorded."""


class DecisionEngine:
    """One open session a camera.

    Args:
        gate: called last before a kiosk's session begins; raises a `CannotBegin` to refuse it.
        policies: by name. cameras: names in the configuration; None = whichever cameras show up.
        model: the checkpoint; None until inference announces it.
        local_policy: with a policy, a local session opens for each new subject; None when a kiosk opens sessions.
        calibration: turns logits into evidence instead of the checkpoint's own operating point. With scores of another
            model than it was fitted to nothing begins.
    """

    def __init__(self, policies: Mapping[str, Policy], *, cameras: Iterable[str] | None = None,
                 model: ModelInfo | None = None, local_policy: Policy | None = None,
                 calibration: OperatingPointFile | None = None,
                 gate: Callable[[SessionRequest, int], None] | None = None) -> None:
        self.policies = dict(policies)
        self.calibration = calibration
        self.model = model
        self.counters: Counter[str] = Counter()
        self._cameras = None if cameras is None else frozenset(cameras)
        self._local_policy = local_policy
        self._sessions: dict[str, Session] = {}
        self._last: dict[str, Observation] = {}
        self._early: dict[str, list[Score]] = {}
        self._lost: set[str] = set()
        self._absent: set[str] = set()  # cameras that were reported lost and have shown no frame since
        self._judged: dict[str, tuple[int, int]] = {}  # camera -> (epoch, track) of the last local session
        self._local_sessions = 0
        self._gate = gate
        self._alerted: dict[tuple[str, str], int] = {}  # (camera, code) -> stamp of the frame of the last alert

    # --- clients ----------------------------------------------------------------------------------------------------
    def begin(self, request: SessionRequest, now_ns: int) -> list[Event]:
        """Open a session.

        Raises:
            NoCamera, NotReady, Busy: see there. LockedOut, RateLimited, AuditFailed: the gate refuses.
        """
        camera = request.camera
        if (self._cameras is not None and camera not in self._cameras) or (
                self._cameras is None and camera not in self._last):
            raise NoCamera(f"no camera {camera!r}; there are {sorted(self.cameras)}")
        if request.origin is Origin.KIOSK and camera in self._last and self._last[camera].lockstep:
            raise NoCamera(f"camera {camera!r} replays a recording in lock-step; a kiosk needs a camera in real time")
        if camera in self._sessions:
            raise Busy(f"camera {camera!r} has an open session; it ends within its deadline")
        if camera in self._absent:
            # A session would only run into its stall limit.
            raise NotReady(f"camera {camera!r} is being started and has not shown a frame yet; ask again")
        if not self.ready:
            lost = f", lost: {sorted(self._lost)}" if self._lost else ""
            if self.model is not None and not self._calibrated:
                raise NotReady(f"calibration {self.calibration_id} is of another model than the one that runs "
                               f"({self.model.model_hash[:12]}); an operator has to calibrate it")
            raise NotReady(f"inference has announced no model{lost}" if self.model is None else f"engine{lost}")
        if self._gate is not None:
            self._gate(request, now_ns)
        last = self._last.get(camera)
        session = Session(request, self.model, now_ns, self.calibration, last.frame_period_ms if last else 0.0)
        self._sessions[camera] = session
        return session.start()

    def policy(self, name: str) -> Policy:
        """Raises `UnknownPolicy`."""
        if name not in self.policies:
            raise UnknownPolicy(f"no policy {name!r}; there are {sorted(self.policies)}")
        return self.policies[name]

    def keepalive(self, session_id: str, now_ns: int) -> bool:
        """The owner lives. False when no such session is open."""
        session = self._open(session_id)
        if session is not None:
            session.keepalive(now_ns)
        return session is not None

    def cancel(self, session_id: str, now_ns: int) -> list[Event]:
        """End a session as cancelled; nothing when it is not open."""
        session = self._open(session_id)
        return [] if session is None else self._closing(session, session.end(Reason.CANCELLED, now_ns))

    # --- what the pipeline says -------------------------------------------------------------------------------------
    def observe(self, observation: Observation, now_ns: int) -> list[Event]:
        """One frame as the camera saw it."""
        camera = observation.camera
        if self._cameras is not None and camera not in self._cameras:
            self.counters["observation_of_unknown_camera"] += 1
            return []
        previous = self._last.get(camera)
        if previous is not None and previous.epoch == observation.epoch and observation.sequence <= previous.sequence:
            self.counters["repeated_observation"] += 1
            return []
        if observation.lockstep:
            now_ns = observation.stamp_ns
        self._last[camera] = observation
        self._absent.discard(camera)
        session = self._sessions.get(camera)
        events = self._alerts(observation, session)
        if session is not None and session.request.origin is Origin.LOCAL and self._replaced(session, observation):
            # Nobody waits on a local session: the next person has one of their own.
            reason = Reason.FACE_SWAPPED if session.evidence.frames else Reason.TRACK_LOST
            events += self._closing(session, session.end(reason, now_ns))
            session = None
        if session is None:
            session = self._open_local(observation, now_ns, events)
        if session is not None:
            events += self._closing(session, session.observe(observation, now_ns))
        for score in self._early.pop(camera, []):
            events += self.score(score, now_ns)
        return events

    def score(self, score: Score, now_ns: int) -> list[Event]:
        """One score, matched with what was observed."""
        last, session = self._last.get(score.camera), self._sessions.get(score.camera)
        if last is None or (last.epoch == score.epoch and score.sequence > last.sequence):
            early = self._early.setdefault(score.camera, [])
            early.append(score)
            if len(early) > _EARLY_SCORES:
                early.pop(0)
                self.counters["score_without_observation"] += 1
            return []
        if session is None:
            self.counters["score_without_session"] += 1
            return []
        return self._closing(session, session.score(score, last.stamp_ns if last.lockstep else now_ns))

    def process_event(self, event: ProcessEvent | CameraEnded, now_ns: int) -> list[Event]:
        """A process was lost or is ready, or a camera said its last word."""
        if isinstance(event, CameraEnded):
            return self._camera_ended(event, now_ns)
        if event.event == "ready":
            self._lost.discard(event.process)
            return self._announced(event, now_ns) if event.role == "inference" else []
        if event.event != "lost":
            self.counters["unknown_process_event"] += 1
            return []
        if event.role == "camera":
            named = event.detail.get("camera", event.process)
            self._absent.add(named)
            hit = [camera for camera in self._sessions if camera == named]
            # A camera that cannot be told by its name ends every session: rather one too many than one too few.
            return self._end(hit if named in self.cameras else list(self._sessions), Reason.DEVICE_LOST, now_ns)
        self._lost.add(event.process)
        return self._end(list(self._sessions), Reason.ENGINE_ERROR, now_ns)

    # --- time -------------------------------------------------------------------------------------------------------
    def tick(self, now_ns: int) -> list[Event]:
        """Everything that is due by the host's clock."""
        events: list[Event] = []
        for session in list(self._sessions.values()):
            events += self._closing(session, session.tick(now_ns))
        return events

    def next_deadline_ns(self) -> int | None:
        """When `tick` must be called at the latest, without any frame arriving; None when nothing is due."""
        due = [at for at in (session.next_deadline_ns() for session in self._sessions.values()) if at is not None]
        return min(due, default=None)

    def stop(self, now_ns: int) -> list[Event]:
        """End every session: the engine goes down."""
        return self._end(list(self._sessions), Reason.ENGINE_STOPPED, now_ns)

    def fail_camera(self, camera: str, now_ns: int) -> list[Event]:
        """The stage gave up waiting for something of this camera."""
        return self._end([camera] if camera in self._sessions else [], Reason.ENGINE_ERROR, now_ns)

    # --- state ------------------------------------------------------------------------------------------------------
    @property
    def cameras(self) -> frozenset[str]:
        """Names: the configured ones, or all that have shown up."""
        return frozenset(self._last) if self._cameras is None else self._cameras

    @property
    def ready(self) -> bool:
        """A model is announced, a calibration file is of that model, and no process of the path is lost."""
        return self.model is not None and self._calibrated and not self._lost

    @property
    def calibration_id(self) -> str | None:
        """Of the file, or of the announced checkpoint's own operating point; None without either."""
        return calibration_id_of(self.calibration, self.model)

    @property
    def busy_cameras(self) -> frozenset[str]:
        """With an open session."""
        return frozenset(self._sessions)

    @property
    def lost(self) -> frozenset[str]:
        """Processes of the path that are down; no session begins meanwhile."""
        return frozenset(self._lost)

    @property
    def absent(self) -> frozenset[str]:
        """Cameras that were reported lost and have shown no frame since."""
        return frozenset(self._absent)

    def session(self, session_id: str) -> Session | None:
        """The open session of this id."""
        return self._open(session_id)

    @property
    def _calibrated(self) -> bool:
        return self.calibration is None or self.model is None or (
            self.calibration.model.sha256 == self.model.model_hash)

    # --- inside -----------------------------------------------------------------------------------------------------
    def _alerts(self, observation: Observation, session: Session | None) -> list[Event]:
        """An alert for each integrity code, at most one of a kind and camera in `_ALERT_PERIOD_NS`."""
        alerts: list[Event] = []
        for code in observation.integrity:
            self.counters[f"integrity_{code}"] += 1
            last_ns = self._alerted.get((observation.camera, code))
            if last_ns is not None and 0 <= observation.stamp_ns - last_ns < _ALERT_PERIOD_NS:
                continue
            self._alerted[observation.camera, code] = observation.stamp_ns
            alerts.append(SecurityAlert(
                code=code, camera=observation.camera, session_id=session.request.session_id if session else "",
                detail=f"frame set {observation.sequence} of {observation.source}"))
        return alerts

    def _open(self, session_id: str) -> Session | None:
        return next((s for s in self._sessions.values() if s.request.session_id == session_id), None)

    def _closing(self, session: Session, events: list[Event]) -> list[Event]:
        if session.ended and self._sessions.get(session.request.camera) is session:
            del self._sessions[session.request.camera]
            self.counters.update({f"session_{cause}": n for cause, n in session.counters.items()})
        return events

    def _end(self, cameras: Iterable[str], reason: Reason, now_ns: int) -> list[Event]:
        events: list[Event] = []
        for camera in cameras:
            session = self._sessions[camera]
            at_ns = self._last[camera].stamp_ns if session.lockstep else now_ns
            events += self._closing(session, session.end(reason, at_ns))
        return events

    def _camera_ended(self, ended: CameraEnded, now_ns: int) -> list[Event]:
        session, last = self._sessions.get(ended.camera), self._last.get(ended.camera)
        if session is None:
            return []
        if last is not None and last.epoch != ended.epoch and last.stamp_ns >= ended.stamp_ns:
            self.counters["camera_ended_of_an_old_epoch"] += 1
            return []
        return self._end([ended.camera], _CAMERA_ENDED.get(ended.reason, Reason.DEVICE_LOST), now_ns)

    def _announced(self, event: ProcessEvent, now_ns: int) -> list[Event]:
        """Inference is ready. A model other than the announced one ends what is open: evidence does not mix."""
        try:
            text = event.detail.get("operating_point")
            point = None if text is None else OperatingPoint.from_dict(json.loads(text), place="announced")
            model = ModelInfo(model_hash=event.detail["model_hash"], purpose=Purpose(event.detail["purpose"]),
                              operating_point=point)
        except (KeyError, ValueError):
            if self.model is None:
                self.counters["model_not_announced"] += 1
            return []
        if self.model == model:
            return []
        changed, self.model = self.model is not None, model
        if not self._calibrated:
            self.counters["calibration_of_another_model"] += 1
        return self._end(list(self._sessions), Reason.MODEL_CHANGED, now_ns) if changed else []

    def _replaced(self, session: Session, observation: Observation) -> bool:
        known = session.track_id
        return observation.subject is not None and known is not None and observation.subject != known

    def _open_local(self, observation: Observation, now_ns: int, events: list[Event]) -> Session | None:
        """A local session for a subject that had none yet."""
        subject, policy = observation.subject, self._local_policy
        if policy is None or subject is None or not self.ready:
            return None
        if self._judged.get(observation.camera) == (observation.epoch, subject):
            return None
        self._judged[observation.camera] = (observation.epoch, subject)
        self._local_sessions += 1
        request = SessionRequest(session_id=f"local-{observation.camera}-{self._local_sessions}",
                                 camera=observation.camera, policy=policy, origin=Origin.LOCAL)
        # Its clock starts with the frame that opens it, so that this frame belongs to it.
        session = Session(request, self.model, observation.stamp_ns, self.calibration)
        self._sessions[observation.camera] = session
        events += session.start()
        return session
