"""The decision side in virtual time: the real engine, gateway, guards and client check, without sockets or clocks.

A case is a list of operations, each JSON: `[at_ms, kind, arguments]`. The world plays them in order, lets the timer
fire exactly when the engine asks for it, and asks the witness about all that comes out.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from calibration.operating_point_file import CalibratedModel, CalibrationSessions, EvidenceMap, OperatingPointFile
from mmdg_model.scorer import Modality, Purpose
from pipeline import kiosk_client, messages
from pipeline.audit_log import AuditLog
from pipeline.decision import Decided, DecisionEngine, Event
from pipeline.kiosk import Gateway
from pipeline.kiosk_client import KioskDecision, KioskError, KioskSession
from pipeline.lockout import LockoutFile, LockoutLimits
from pipeline.messages import CameraEnded, Observation, ObservedFace, ProcessEvent, Score
from pipeline.policy import Policy
from pipeline.security import Role
from pipeline.session_guards import Lockout, SessionGuards
from pipeline.signing import DecisionSigner
from tests.fuzz.witness import MS, CameraWitness, SessionWitness
from tests.pipeline.scene import QUALITY

MODALITIES = ["rgb", "depth", "infrared"]
MODEL_HASH = "ab" * 32
PERIOD_MS = 33.0
CAMERAS = ("front", "back")
KIND = "made-up-kind"

_GATE = Policy(name="gate", frame_correlation=0.3, min_frames=3, min_time_ms=60, uncertainty_weight=8.0,
               deadline_ms=1200, no_face_ms=400, max_score_age_ms=300, track_gap_ms=100, keepalive_ms=300,
               expires_in_ms=1000)
POLICIES = {"gate": _GATE,
            "two": msgspec.structs.replace(_GATE, name="two", required_modalities=(Modality.RGB, Modality.DEPTH)),
            "demo": msgspec.structs.replace(_GATE, name="demo", allowed_purposes=(Purpose.RELEASE, Purpose.SIMULATED)),
            "asked": msgspec.structs.replace(_GATE, name="asked", threshold_id="cd" * 32, deadline_ms=600,
                                             camera_kinds=("another-kind", KIND))}
LIMITS = LockoutLimits(attacks=3, window_s=600, lock_s=60, longest_s=240, sessions_per_minute=6)
ENGINE_KEY = DecisionSigner(bytes(range(32)))
FOREIGN_KEY = DecisionSigner(bytes(range(1, 33)))


def operating_points(model_hash: str) -> OperatingPointFile:
    """Two subsets on one kind of camera, in numbers that decide in a few frames."""
    def one(modalities: list[str], scale: float) -> EvidenceMap:
        return EvidenceMap(
            camera_kind=KIND, modalities=modalities, scale=scale, offset=0.0, frame_llr_clip=4.0, evidence_clip=8.0,
            frame_correlation=0.3, frame_correlation_low=0.0, frame_correlation_high=0.5, lasting_share=0.0,
            lasting_share_low=0.0, lasting_share_high=0.1, cllr_raw=1.0, cllr=0.5,
            cllr_min=0.4, cllr_held_out=None, sessions_bona_fide=2981, sessions_attack=2981, frames=40000)

    return OperatingPointFile(
        model=CalibratedModel(sha256=model_hash, purpose="release"), data="simulated", created="2026-11-23",
        command="made up for the fuzz run", species_weights="balanced",
        maps=[one(MODALITIES, 1.0), one(["rgb", "depth"], 0.8)],
        sessions=CalibrationSessions(total=5962, unscored=0, by_label={}, by_species={}, index_sha256=["00" * 32]))


CALIBRATIONS = {None: None, "own": operating_points(MODEL_HASH), "other": operating_points("ef" * 32)}


class Violation(AssertionError):  # noqa: N818 - it is what the run looks for
    """Something that must never happen. `rule`: a short stable name."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


class FuzzLog(AuditLog):
    """The real log on a disk that can be full: half of a line is written then."""

    full = False
    missed = False  # the last record was lost

    def _append(self, kind: str, content: dict) -> int:
        self.missed = self.full
        if self.full and self._file is not None:
            with contextlib.suppress(OSError):
                os.write(self._file, b'{"sequence":')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super()._append(kind, content)


@dataclass
class Opened:
    """A session as its kiosk holds it."""

    kiosk: int
    camera: str
    session: KioskSession
    witness: SessionWitness
    plan: dict
    topic: bytes = b""
    decision: list[bytes] = field(default_factory=list)
    decided: int = 0
    ended: int = 0
    opened: int = 0
    sequence: int = 0
    record: object = None
    verdict: str = ""
    decided_ns: int = 0


class World:
    """One engine and its kiosks. `opens`: sessions whose decision opened, by number of their `begin`."""

    def __init__(self, config: dict, log: FuzzLog | None, folder: Path | None = None) -> None:
        self.config, self.log, self.folder = config, log, folder
        self.timer, self.timer_since_ns = True, 0
        self.now_ns = 0
        self.sessions: dict[int, Opened] = {}
        self.by_id: dict[str, Opened] = {}
        self.by_topic: dict[bytes, Opened] = {}
        self.nonces: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.accepts: list[str] = []  # session ids told as bona fide
        self.ids = 0
        self.attacks: dict[str, list[int]] = {name: [] for name in CAMERAS}
        self.locks: dict[str, tuple[int, int]] = {}  # camera -> (locked until, number of locks)
        self.starts: dict[str, list[int]] = {name: [] for name in CAMERAS}
        if log is not None:
            log.full = log.missed = False
        self._start()

    def _start(self) -> None:
        config = self.config
        file = None
        if config.get("lockout_file") and self.folder is not None:
            file = LockoutFile(self.folder / f"lockout-{config['lockout_file']}.json", boot_id="boot")
        self.guards = SessionGuards(self.log, Lockout(LIMITS, file))
        self.engine = DecisionEngine(POLICIES, cameras=CAMERAS, gate=self.guards.gate,
                                     calibration=CALIBRATIONS[config.get("calibration")])
        self.gateway = Gateway(self.engine, events_endpoint="ipc:///nowhere", build="fuzz", signer=ENGINE_KEY,
                               new_id=self._new_id, label=lambda: "2026-11-23T00:00:00.000Z", now_ns=self.now_ns)
        self.cameras = {name: CameraWitness() for name in CAMERAS}
        self.announced: tuple[str, str] | None = None
        self.lost: set[str] = set()
        self.absent: set[str] = set()

    def _new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:032x}"

    # --- playing ----------------------------------------------------------------------------------------------------
    def play(self, operations: list[list]) -> None:
        """Everything in order, then time until no session is open."""
        for at_ms, kind, arguments in operations:
            at_ns = max(self.now_ns, round(at_ms * MS))
            self._pass(at_ns)
            self.now_ns = at_ns
            getattr(self, f"do_{kind}")(**arguments)
        self.do_timer(True)
        self._pass(self.now_ns + 60_000 * MS)
        for number, opened in self.sessions.items():
            if opened.decided != 1 and not opened.plan.get("orphaned"):
                raise Violation("one_decision", f"session {number} ended with {opened.decided} decisions")

    def _pass(self, until_ns: int) -> None:
        """Let the timer fire at exactly the times that the engine asks for."""
        while self.timer and (due_ns := self.engine.next_deadline_ns()) is not None and due_ns <= until_ns:
            self.now_ns = max(self.now_ns, due_ns)
            before = len(self.engine.busy_cameras)
            self._tell(self.engine.tick(self.now_ns))
            if len(self.engine.busy_cameras) == before:
                raise Violation("timer", f"a timer asked for {due_ns} and then had nothing to say")

    # --- operations -------------------------------------------------------------------------------------------------
    def do_hello(self, kiosk: int) -> None:
        self._command(kiosk, "hello", client=f"kiosk-{kiosk}", contract_min=1, contract_max=1)

    def do_begin(self, number: int, kiosk: int, camera: str, nonce: str, policy: str = "gate",
                 deadline_ms: int | None = None, transaction: str | None = None, role: str = "KIOSK", **plan) -> None:
        began_ns, failing = self.now_ns, self.log is not None and self.log.full and self.log.missed
        reply = self._command(kiosk, "session.begin", camera=camera, nonce=nonce, policy=policy, role=role,
                              deadline_ms=deadline_ms, transaction_hash=transaction)
        if reply.get("type") == "error":
            self.refused[reply["code"]] += 1
            return
        self._check_begin(camera, nonce, role, reply, failing)
        self.nonces.add(nonce)
        session = KioskSession(
            session_id=reply["session_id"], nonce=nonce, transaction_hash=transaction, began_ns=began_ns,
            deadline_ms=reply["deadline_ms"], keepalive_ms=reply["keepalive_ms"], event_topic=reply["event_topic"],
            signing_keys={ENGINE_KEY.key_id: ENGINE_KEY.public_key_raw})
        opened = self.by_id[reply["session_id"]]
        opened.kiosk, opened.session, opened.plan = kiosk, session, plan
        self.sessions[number] = opened

    def _check_begin(self, camera: str, nonce: str, role: str, reply: dict, failing: bool) -> None:
        wrong = []
        if nonce in self.nonces:
            wrong.append("its nonce was used before")
        if role == "MONITOR":
            wrong.append("a monitor began it")
        if self.announced is None or self.lost or camera in self.absent:
            wrong.append("nothing could judge it")
        until_ns, _ = self.locks.get(camera, (0, 0))
        if self.now_ns < until_ns:
            wrong.append("its camera is locked out")
        minute = [at for at in self.starts[camera] if self.now_ns - at < 60_000 * MS]
        if len(minute) >= LIMITS.sessions_per_minute:
            wrong.append(f"{len(minute)} sessions in this minute")
        self.starts[camera].append(self.now_ns)
        calibration = CALIBRATIONS[self.config.get("calibration")]
        if calibration is not None and self.announced and calibration.model.sha256 != self.announced[0]:
            wrong.append("the calibration is of another model")
        if failing:
            wrong.append("nothing could be recorded")
        current = self.by_id[reply["session_id"]]
        for other in self.by_id.values():
            if other is not current and other.camera == camera and not other.decided and not other.plan.get("orphaned"):
                wrong.append("its camera had an open session")
        if wrong:
            raise Violation("begin", f"a session began although {'; '.join(wrong)}")

    def do_observe(self, camera: str, sequence: int, lag_ms: float = 4.0, tracks: list[int] | None = None,
                   **changes) -> None:
        tracks = [1] if tracks is None else tracks
        changes.setdefault("subject", tracks[0] if len(tracks) == 1 else None)
        conditions = [] if len(tracks) == 1 else ["multiple_faces" if tracks else "no_face"]
        faces = [ObservedFace(track_id=t, x=200.0, y=100.0, width=180.0, height=220.0, score=0.9) for t in tracks]
        seen = messages.decode(messages.encode(Observation(**({
            "camera": camera, "source": f"serial-{camera}", "epoch": 1, "sequence": sequence,
            "stamp_ns": self.now_ns - round(lag_ms * MS), "frame_period_ms": PERIOD_MS, "faces": faces,
            "track_broken": False, "conditions": conditions, "quality": None, "bundle_sent": True,
            "modalities": MODALITIES, "counters": {}, "camera_kind": KIND} | changes))), Observation)
        if camera in self.cameras:
            self.cameras[camera].observe(seen, self.now_ns)
            self.absent.discard(camera)
        self._tell(self.engine.observe(seen, self.now_ns))

    def do_score(self, camera: str, sequence: int, logit: float = 8.0, **changes) -> None:
        score = messages.decode(messages.encode(Score(**({
            "camera": camera, "source": f"serial-{camera}", "epoch": 1, "sequence": sequence, "track_id": 1,
            "worker": "inference-1", "logit": logit, "probability": 0.5,
            "uncertainty": {"rgb": 0.1, "depth": 0.1, "infrared": 0.1}, "modalities": MODALITIES,
            "model_hash": MODEL_HASH, "purpose": "release", "durations_ms": {}, "stamps_ns": {},
            "quality": QUALITY} | changes))), Score)
        if camera in self.cameras:
            self.cameras[camera].score(score, self.now_ns)
        self._tell(self.engine.score(score, self.now_ns))

    def do_process(self, role: str, event: str, process: str = "", **detail) -> None:
        process = process or f"{role}-1"
        if event == "lost" and role == "camera":
            self.absent.add(detail.get("camera", process))
            self._close("device lost", detail.get("camera"))
        elif event == "lost":
            self.lost.add(process)
            self._close(f"{role} lost")
        elif event == "ready":
            self.lost.discard(process)
            if role == "inference" and "model_hash" in detail and "purpose" in detail:
                model = (detail["model_hash"], detail["purpose"])
                if self.announced not in (None, model):
                    self._close("another model")
                self.announced = model
        told = ProcessEvent(process=process, role=role, event=event, stamp_ns=self.now_ns, detail=detail)
        self.guards.heard(told)
        self._tell(self.engine.process_event(told, self.now_ns))

    def do_camera_ended(self, camera: str, reason: str = "device_lost", epoch: int = 1) -> None:
        if self.cameras[camera].session is not None and (self.cameras[camera].last or (epoch, 0))[0] == epoch:
            self._close("camera ended", camera)
        self._tell(self.engine.process_event(CameraEnded(
            camera=camera, source=f"serial-{camera}", epoch=epoch, reason=reason, detail="", stamp_ns=self.now_ns,
            counters={}), self.now_ns))

    def _close(self, reason: str, camera: str | None = None) -> None:
        for name, one in self.cameras.items():
            if one.session is not None and camera in (None, name):
                one.session.close(reason)

    def do_keepalive(self, number: int) -> None:
        opened = self.sessions.get(number)
        if opened is not None:
            if not opened.decided:
                opened.witness.alive_ns = self.now_ns
            self._command(opened.kiosk, "session.keepalive", session_id=opened.session.session_id)

    def do_cancel(self, number: int, kiosk: int | None = None) -> None:
        opened = self.sessions.get(number)
        if opened is None:
            return
        own = kiosk is None or kiosk == opened.kiosk
        if own:
            opened.witness.close("cancelled")
        before = opened.decided
        reply = self._command(opened.kiosk if kiosk is None else kiosk, "session.cancel",
                              session_id=opened.session.session_id)
        if not own and (reply.get("type") != "error" or opened.decided != before):
            raise Violation("foreign_session", f"a kiosk cancelled another's session: {reply}")

    def do_get(self, number: int, kiosk: int | None = None) -> None:
        """`decision.get`: the very same bytes to the owner until they expire, nothing to anybody else."""
        opened = self.sessions.get(number)
        if opened is None:
            return
        asker = opened.kiosk if kiosk is None else kiosk
        reply, more = self._command_frames(asker, "decision.get", session_id=opened.session.session_id)
        told = reply.get("type") == "decision.get.reply"
        if told and asker != opened.kiosk:
            raise Violation("foreign_session", "a kiosk read the decision of another's session")
        if told and (not opened.decided or more != opened.decision):
            raise Violation("decision_bytes", f"decision.get of session {number} gave other bytes than were sent")
        if told and opened.decided_ns + opened.record.expires_in_ms * MS <= self.now_ns:
            raise Violation("expired_get", f"decision.get of session {number} gave a decision that has expired")

    def do_status(self, number: int) -> None:
        opened = self.sessions.get(number)
        if opened is not None:
            reply = self._command(opened.kiosk, "session.status", session_id=opened.session.session_id)
            if reply.get("type") == "session.state.reply" and (reply["state"] == "ended") != bool(opened.decided):
                raise Violation("status", f"session {number}: {reply}")

    def do_disk(self, full: bool) -> None:
        if self.log is not None:
            self.log.full = full

    def do_timer(self, on: bool) -> None:
        self.timer, self.timer_since_ns = on, self.now_ns

    def do_restart(self) -> None:
        """The process is another one: it knows no session, no client and, without a file, no lock."""
        for opened in self.by_id.values():
            if not opened.decided:
                opened.plan["orphaned"] = True
        self.do_timer(True)
        if not self.config.get("lockout_file"):
            self.locks, self.attacks = {}, {name: [] for name in CAMERAS}
        self.starts = {name: [] for name in CAMERAS}
        self.nonces = set()
        self._start()

    def do_present(self, number: int, of: int | None = None, change: dict | None = None, signature: str = "own",
                   must_not: bool = True) -> None:
        """A kiosk is handed a decision by whoever stands between: altered, of another session, late, unsigned."""
        opened, source = self.sessions.get(number), self.sessions.get(number if of is None else of)
        if opened is None or source is None or not source.decision:
            return
        payload, signed = source.decision
        if change is not None:
            payload = json.dumps(json.loads(payload) | change).encode()
        signed = {"own": signed, "none": b"", "short": signed[:-1], "engine": ENGINE_KEY.sign(payload),
                  "foreign": FOREIGN_KEY.sign(payload), "flipped": bytes([signed[0] ^ 1]) + signed[1:]}[signature]
        try:
            decision = KioskDecision(payload, signed)
        except KioskError:
            return
        if self._is_open(opened, decision) and must_not:
            raise Violation("is_open", f"session {number} opened with a decision of session {of}, changed {change}, "
                            f"signature {signature}")

    # --- what comes out ---------------------------------------------------------------------------------------------
    def _is_open(self, opened: Opened, decision: KioskDecision) -> bool:
        opens = kiosk_client.is_open(decision, opened.session, now_ns=self.now_ns)
        if not opens:
            return False
        opened.opened += 1
        if opened.opened > 1:
            raise Violation("single_use", "a session opened twice")
        late_ns = self.now_ns - opened.decided_ns - opened.witness.policy.expires_in_ms * MS
        if late_ns > MS:
            raise Violation("expiry", f"opened {late_ns / MS} ms after its decision had expired")
        if opened.verdict != "bona_fide":
            raise Violation("is_open", f"opened on {opened.verdict}")
        return True

    def _command(self, kiosk: int, kind: str, role: str = "KIOSK", **fields) -> dict:
        return self._command_frames(kiosk, kind, role, **fields)[0]

    def _command_frames(self, kiosk: int, kind: str, role: str = "KIOSK", **fields) -> tuple[dict, list[bytes]]:
        identity = b"kiosk-%d" % kiosk
        command = json.dumps({"type": kind, "contract": 1, "request": "r", **fields}).encode()
        output = self.gateway.handle(identity, Role[role], [command], self.now_ns)
        self.guards.keep(output.events, self.now_ns)
        answer: tuple[dict, list[bytes]] | None = None
        for to, frames in output.replies:
            envelope = kiosk_client.read_json(frames[0])
            if to == identity and envelope.get("request") == "r":
                answer = envelope, frames[1:]
        if answer is None:
            raise Violation("no_answer", f"{kind} was not answered")
        self._read(output.published, output.replies, output.events)
        return answer

    def _tell(self, events: list[Event]) -> None:
        """As the decision stage does: recorded first, told then."""
        if events:
            kept = self.guards.keep(events, self.now_ns)
            output = self.gateway.publish(kept, self.now_ns)
            self._read(output.published, output.replies, kept)

    def _read(self, published: list[list[bytes]], replies: list, events: list[Event]) -> None:
        records = [event.record for event in events if isinstance(event, Decided)]
        for topic, data, *more in published:
            event = kiosk_client.read_json(data)
            if "session_id" not in event:
                continue
            opened = self._opened(topic, event)
            if event["sequence"] != opened.sequence + 1:
                raise Violation("sequence", f"event {event['sequence']} after {opened.sequence}")
            opened.sequence = event["sequence"]
            if opened.ended or (opened.decided and event["type"] != "session.ended"):
                raise Violation("after_end", f"{event['type']} after the decision")
            if event["type"] == "session.decision":
                record = next(r for r in records if r.session_id == event["session_id"])
                self._decided(opened, more, record, replies)
            elif event["type"] == "session.ended":
                opened.ended += 1
                if opened.decided != 1:
                    raise Violation("one_decision", f"ended with {opened.decided} decisions")

    def _opened(self, topic: bytes, event: dict) -> Opened:
        opened = self.by_topic.get(topic)
        if opened is None:
            if event["type"] != "session.started":
                raise Violation("sequence", f"the first event is {event['type']}")
            session = self.engine.session(event["session_id"])
            policy = POLICIES[event["policy"]]
            asked = session.request.deadline_ms if session is not None else None
            deadline_ms = policy.deadline_ms if asked is None else asked
            if policy.threshold_id is not None:
                deadline_ms = min(deadline_ms, policy.deadline_ms)
            witness = SessionWitness(policy=policy, began_ns=self.now_ns, deadline_ms=deadline_ms,
                                     model=self.announced,
                                     calibration=CALIBRATIONS[self.config.get("calibration")])
            opened = Opened(kiosk=-1, camera=event["camera"], session=None, witness=witness, plan={}, topic=topic)
            self.by_topic[topic] = self.by_id[event["session_id"]] = opened
            self.cameras[event["camera"]].session = witness
        return opened

    def _decided(self, opened: Opened, frames: list[bytes], record, replies: list) -> None:
        opened.decided += 1
        if opened.decided > 1:
            raise Violation("one_decision", "a second decision")
        if not any(sent[1:] == frames for _, sent in replies):
            raise Violation("decision_bytes", "the owner was not sent the decision that was published")
        opened.decision, opened.record, opened.decided_ns = frames, record, self.now_ns
        self.cameras[opened.camera].session = None
        fields = kiosk_client.read_json(frames[0])
        verdict, reason = fields["verdict"], fields["reason"]
        opened.verdict = verdict
        self.verdicts[verdict] += 1
        self.reasons[reason] += 1
        against = opened.witness.against(verdict)
        if against:
            raise Violation("evidence", f"{verdict} on camera {opened.camera}: {'; '.join(against)}")
        if verdict == "bona_fide":
            self.accepts.append(fields["session_id"])
            if self.log is not None and self.log.full:
                raise Violation("unrecorded", "bona fide, and nothing could be recorded")
        limits = opened.witness.limits()
        exact = self.timer and min(limits.values()) >= self.timer_since_ns
        if exact and self.now_ns > min(limits.values()) + 1:
            raise Violation("late", f"decided {(self.now_ns - min(limits.values())) / MS} ms after {limits}")
        if exact and reason in limits and self.now_ns != limits[reason] + 1 and opened.witness.over is None:
            raise Violation("late", f"{reason} at {self.now_ns}, its limit was {limits[reason]}")
        if verdict == "attack" and record.examined:
            self._charge(opened.camera)
        if opened.session is not None and not opened.plan.get("hold"):
            decision = KioskDecision(*frames)
            self._is_open(opened, decision)
            self._is_open(opened, decision)

    def _charge(self, camera: str) -> None:
        kept = [at for at in self.attacks[camera] if self.now_ns - at <= LIMITS.window_s * 1000 * MS]
        self.attacks[camera] = [*kept, self.now_ns]
        if len(self.attacks[camera]) >= LIMITS.attacks:
            _, locks = self.locks.get(camera, (0, 0))
            lasts_s = min(LIMITS.lock_s * 2**locks, LIMITS.longest_s)
            self.locks[camera] = (self.now_ns + lasts_s * 1000 * MS, locks + 1)
            self.attacks[camera] = []
