"""The kiosk gateway: commands in, replies and events out. Pure; `pipeline.decision_stage` owns the sockets.

Each session's events have a topic of their own and a sequence without gaps. The decision goes to the subscribers and,
since a subscriber that reads slowly loses events, to the owner on the command socket; it can be read again, byte for
byte, until it expires.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline import kiosk_messages as wire
from pipeline.decision import (
    Busy,
    CannotBegin,
    Decided,
    DecisionEngine,
    Event,
    GuidanceChanged,
    LockedOut,
    NoCamera,
    NotReady,
    PhaseChanged,
    RateLimited,
    SecurityAlert,
    SessionEnded,
    SessionRequest,
    SessionStarted,
    UnknownPolicy,
)
from pipeline.kiosk_messages import CommandError
from pipeline.security import Role
from pipeline.verdict import Origin

_NS_PER_MS = 1_000_000
HEALTH_PERIOD_NS = 1_000_000_000
#: A client may send this many commands at once, and this many a second after that.
BURST = 20
RATE_PER_S = 20.0
MAX_CLIENTS = 64
#: Sessions that have ended are remembered so that their decision can be read again, or is said to have expired.
MAX_ENDED = 256

_CANNOT_BEGIN = {Busy: "busy", NoCamera: "no_camera", NotReady: "not_ready", UnknownPolicy: "unknown_policy",
                 LockedOut: "locked_out", RateLimited: "rate_limited"}  # any other: not_ready


def wall_clock_label() -> str:
    """UTC in ISO 8601. A label for people; nothing compares it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class _Client:
    tokens: float
    refilled_ns: int
    topic: str | None = None  # given by hello


@dataclass
class _Session:
    owner: bytes
    topic: str
    began_ns: int
    sequence: int = 0
    payload: bytes | None = None  # the decision, once there is one
    expires_ns: int = 0
    ended: bool = False


@dataclass
class Output:
    """What the shell must do. replies: (identity, frames) for the command socket; published: [topic, frames...]."""

    replies: list[tuple[bytes, list[bytes]]] = field(default_factory=list)
    published: list[list[bytes]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Gateway:
    """One command socket's clients and sessions.

    Args:
        engine: which it drives for its clients. events_endpoint: told to clients. build: version text.
        new_id, label: where session ids and wall clock labels come from.
    """

    def __init__(self, engine: DecisionEngine, *, events_endpoint: str, build: str,
                 new_id: Callable[[], str] = lambda: secrets.token_hex(16),
                 label: Callable[[], str] = wall_clock_label) -> None:
        self.engine = engine
        self.counters: Counter[str] = Counter()
        self._events_endpoint = events_endpoint
        self._build = build
        self._new_id = new_id
        self._label = label
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._health_sequence = 0
        self._health_ns: int | None = None
        self._observed: dict[str, tuple[int, int]] = {}  # camera -> (receipt, sequence)

    # --- commands ---------------------------------------------------------------------------------------------------
    def handle(self, identity: bytes, role: Role | None, frames: list[bytes], now_ns: int) -> Output:
        """One message of one client. Every message gets an answer, but for those of peers without a role."""
        output = Output()
        if role is None:
            self.counters["no_role"] += 1  # the admission refuses such peers before this
            return output
        try:
            client = self._charge(identity, frames, now_ns)
            command = wire.read_command(frames)
            if isinstance(command, wire.Hello):
                output.replies.append((identity, [wire.to_json(self._hello(client, command, role))]))
            elif client.topic is None:
                raise CommandError("hello_required", "the first command of a connection is hello", command.request)
            else:
                self._dispatch(identity, client, role, command, now_ns, output)
        except CommandError as error:
            self.counters[error.code] += 1
            output.replies.append((identity, [wire.to_json(wire.ErrorReply(
                request=error.request, code=error.code, message=str(error)))]))
        return output

    def _charge(self, identity: bytes, frames: list[bytes], now_ns: int) -> _Client:
        """The client of this connection, with one command taken from its allowance."""
        client = self._clients.get(identity)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS:
                self._evict()
            client = self._clients[identity] = _Client(tokens=BURST, refilled_ns=now_ns)
        self._clients.move_to_end(identity)
        client.tokens = min(BURST, client.tokens + (now_ns - client.refilled_ns) * 1e-9 * RATE_PER_S)
        client.refilled_ns = now_ns
        if client.tokens < 1:
            raise CommandError("rate_limited", f"more than {RATE_PER_S:g} commands a second",
                               wire.request_of(frames))
        client.tokens -= 1
        return client

    def _evict(self) -> None:
        """Forget the client that was silent longest and owns no open session."""
        owners = {session.owner for session in self._sessions.values() if not session.ended}
        for identity in self._clients:
            if identity not in owners:
                del self._clients[identity]
                return
        raise CommandError("rate_limited", f"{MAX_CLIENTS} clients with open sessions")

    def _hello(self, client: _Client, command: wire.Hello, role: Role) -> wire.HelloReply:
        if client.topic is None:
            client.topic = f"kiosk/{secrets.token_hex(8)}/"
        model = self.engine.model
        return wire.HelloReply(
            request=command.request, contract_min=wire.CONTRACT_MIN, contract_max=wire.CONTRACT_MAX, build=self._build,
            model_hash=model.model_hash if model else None, model_purpose=model.purpose.value if model else None,
            cameras=sorted(self.engine.cameras), policies=sorted(self.engine.policies),
            events_endpoint=self._events_endpoint, event_topic=client.topic, role=role.name.lower())

    def _dispatch(self, identity: bytes, client: _Client, role: Role, command: wire.AnyCommand, now_ns: int,
                  output: Output) -> None:
        def reply(message: wire.Reply, *more: bytes) -> None:
            output.replies.append((identity, [wire.to_json(message), *more]))

        if isinstance(command, wire.HealthGet):
            reply(wire.HealthReply(request=command.request, health=self._health(now_ns)))
            return
        if role < Role.KIOSK:
            raise CommandError("forbidden", f"the role {role.name.lower()} may only watch", command.request)
        if isinstance(command, wire.SessionBegin):
            begun = self._begin(identity, client, command, now_ns)
            policy = self.engine.policy(command.policy)
            session_id = next(e.request.session_id for e in begun if isinstance(e, SessionStarted))
            reply(wire.SessionBeginReply(
                request=command.request, session_id=session_id, event_topic=self._sessions[session_id].topic,
                deadline_ms=command.deadline_ms or policy.deadline_ms, keepalive_ms=policy.keepalive_ms))
            self._publish(begun, now_ns, output)
            return
        assert not isinstance(command, wire.Hello)
        session = self._sessions.get(command.session_id)
        if session is None or (session.owner != identity and role < Role.OPERATOR):
            raise CommandError("unknown_session", f"no session {command.session_id!r} of this client", command.request)
        if isinstance(command, wire.DecisionGet):
            if session.payload is None:
                raise CommandError("no_decision", f"session {command.session_id} is still open", command.request)
            if now_ns >= session.expires_ns:
                raise CommandError("decision_expired", f"the decision of {command.session_id} has expired",
                                   command.request)
            reply(wire.DecisionReply(request=command.request, session_id=command.session_id), session.payload)
            return
        events: list[Event] = []
        if isinstance(command, wire.SessionKeepalive):
            self.engine.keepalive(command.session_id, now_ns)
        elif isinstance(command, wire.SessionCancel):
            events = self.engine.cancel(command.session_id, now_ns)
        running = self.engine.session(command.session_id)
        reply(wire.SessionStateReply(request=command.request, session_id=command.session_id,
                                     state="ended" if running is None else "open",
                                     phase=None if running is None else running.phase.value))
        self._publish(events, now_ns, output)

    def _begin(self, identity: bytes, client: _Client, command: wire.SessionBegin, now_ns: int) -> list[Event]:
        session_id = self._new_id()
        try:
            request = SessionRequest(
                session_id=session_id, camera=command.camera, policy=self.engine.policy(command.policy),
                origin=Origin.KIOSK, deadline_ms=command.deadline_ms, nonce=command.nonce,
                transaction_hash=command.transaction_hash, needs_keepalive=True)
            events = self.engine.begin(request, now_ns)
        except CannotBegin as error:
            raise CommandError(_CANNOT_BEGIN.get(type(error), "not_ready"), str(error), command.request) from error
        for old in [i for i, s in self._sessions.items() if s.ended][:max(0, len(self._sessions) - MAX_ENDED)]:
            del self._sessions[old]
        assert client.topic is not None
        self._sessions[session_id] = _Session(owner=identity, topic=client.topic + session_id, began_ns=now_ns)
        return events

    # --- events -----------------------------------------------------------------------------------------------------
    def observed(self, camera: str, sequence: int, now_ns: int) -> None:
        """A camera lives; shown in health."""
        self._observed[camera] = (now_ns, sequence)

    def publish(self, events: list[Event], now_ns: int) -> Output:
        """What the engine's events mean for clients. Events of sessions that no kiosk opened go nowhere."""
        output = Output()
        self._publish(events, now_ns, output)
        return output

    def _publish(self, events: list[Event], now_ns: int, output: Output) -> None:
        output.events += events
        for event in events:
            session_id = _session_of(event)
            session = self._sessions.get(session_id)
            if session is None:
                continue
            session.sequence += 1
            common: dict[str, Any] = {"sequence": session.sequence, "session_id": session_id}
            payload: list[bytes] = []
            message: wire.Envelope
            match event:
                case SessionStarted(request=request):
                    message = wire.SessionStartedEvent(**common, camera=request.camera, policy=request.policy.name)
                case PhaseChanged(phase=phase):
                    message = wire.SessionPhaseEvent(**common, phase=phase.value)
                case GuidanceChanged(code=code, since_ns=since_ns):
                    message = wire.GuidanceEvent(**common, code=code,
                                                 since_ms=round((since_ns - session.began_ns) / _NS_PER_MS, 1))
                case Decided(record=record):
                    message = wire.SessionDecisionEvent(**common)
                    session.payload = wire.decision_payload(record, session.sequence, self._label())
                    session.expires_ns = now_ns + record.expires_in_ms * _NS_PER_MS
                    payload = [session.payload]
                case SessionEnded(reason=reason):
                    message = wire.SessionEndedEvent(**common, reason=reason)
                    session.ended = True
            frames = [wire.to_json(message), *payload]
            output.published.append([session.topic.encode(), *frames])
            if payload:
                output.replies.append((session.owner, frames))

    # --- health -----------------------------------------------------------------------------------------------------
    def next_health_ns(self, now_ns: int) -> int:
        """When `health` is due again."""
        return now_ns if self._health_ns is None else self._health_ns + HEALTH_PERIOD_NS

    def health_due(self, now_ns: int) -> Output:
        """The health event, each second."""
        output = Output()
        if now_ns < self.next_health_ns(now_ns):
            return output
        self._health_ns = now_ns
        self._health_sequence += 1
        event = wire.HealthEvent(sequence=self._health_sequence, health=self._health(now_ns))
        output.published.append([wire.HEALTH_TOPIC.encode(), wire.to_json(event)])
        return output

    def _health(self, now_ns: int) -> wire.Health:
        model = self.engine.model
        busy = self.engine.busy_cameras
        cameras = []
        for name in sorted(self.engine.cameras):
            received_ns, sequence = self._observed.get(name, (None, None))
            age_ms = None if received_ns is None else round((now_ns - received_ns) / _NS_PER_MS, 1)
            cameras.append(wire.CameraHealth(name=name, age_ms=age_ms, sequence=sequence, open_session=name in busy))
        return wire.Health(ready=self.engine.ready, model_hash=model.model_hash if model else None,
                           model_purpose=model.purpose.value if model else None, lost=sorted(self.engine.lost),
                           cameras=cameras, counters=dict(self.counters + self.engine.counters))


def _session_of(event: Event) -> str:
    if isinstance(event, SessionStarted):
        return event.request.session_id
    if isinstance(event, Decided):
        return event.record.session_id
    return "" if isinstance(event, SecurityAlert) else event.session_id
