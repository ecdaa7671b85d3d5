"""The kiosk gateway: commands in, replies and events out. Pure; `pipeline.decision_stage` owns the sockets.

Each session's events have a topic of their own and a sequence without gaps. The decision goes to the subscribers and,
since a subscriber that reads slowly loses events, to the owner on the command socket; it can be read again, byte for
byte, until it expires. Whoever subscribes while a session is open is told how it stands.
"""

from __future__ import annotations

import base64
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, cast

import msgspec

from pipeline import kiosk_messages as wire
from pipeline import signing
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
from pipeline.kiosk_decision import decision_payload, policy_id_of
from pipeline.kiosk_messages import CommandError
from pipeline.kiosk_watch import EngineWatch, KioskMetrics
from pipeline.policy import Policy
from pipeline.security import Role
from pipeline.signing import DecisionSigner
from pipeline.verdict import Origin

_NS_PER_MS = 1_000_000
#: A client may send this many commands at once, and this many a second after that.
BURST = 20
RATE_PER_S = 20.0
MAX_CLIENTS = 64
#: Sessions that have ended are remembered so that their decision can be read again, or is said to have expired.
MAX_ENDED = 256
#: `session.state` of one session is sent at most this often, however many subscribe.
STATE_PERIOD_NS = 100_000_000

_CANNOT_BEGIN = {Busy: "busy", NoCamera: "no_camera", NotReady: "not_ready", UnknownPolicy: "unknown_policy",
                 LockedOut: "locked_out", RateLimited: "rate_limited"}  # any other: not_ready
_WORDS: dict[Role, Literal["monitor", "kiosk", "operator"]] = {
    Role.MONITOR: "monitor", Role.KIOSK: "kiosk", Role.OPERATOR: "operator"}
#: Error codes that an operator should hear of, as what.
_ALERTS = {"rate_limited": "command_flood", "malformed": "malformed_commands", "too_large": "malformed_commands"}


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
    camera: str
    policy: Policy
    nonce: str
    sequence: int = 0
    phase: wire.Phase = "searching"
    code: str | None = None
    since_ms: float | None = None
    state_wanted: bool = False
    state_ns: int | None = None  # when the last `session.state` was sent
    decision: list[bytes] = field(default_factory=list)  # payload and signature, once there is one
    evidence_nats: float | None = None
    expires_ns: int = 0
    ended: bool = False


@dataclass
class Output:
    """What the shell must do. replies: (identity, frames) for the command socket; published: [topic, frames...]."""

    replies: list[tuple[bytes, list[bytes]]] = field(default_factory=list)
    published: list[list[bytes]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def extend(self, other: Output) -> None:
        """Append what another output holds."""
        self.replies += other.replies
        self.published += other.published
        self.events += other.events


class Gateway:
    """One command socket's clients and sessions.

    Args:
        engine: which it drives for its clients. events_endpoint: told to clients. build: version text.
        signer: of decisions; None = a key that lives as long as this object, which clients are told.
        verification_keys: further ones that clients may trust, such as the next and the last; told in hello.
        transport: what the start-up self-test of the sockets showed, for `selftest.run`.
        simulated: no camera is behind this engine at all; told in hello.
        now_ns: when it starts. new_id, label: where session ids, topics and wall clock labels come from.
    """

    def __init__(self, engine: DecisionEngine, *, events_endpoint: str, build: str,
                 signer: DecisionSigner | None = None, verification_keys: Iterable[wire.SigningKey] = (),
                 transport: str = "not tested", simulated: bool = False,
                 now_ns: int = 0, new_id: Callable[[], str] = lambda: secrets.token_hex(16),
                 label: Callable[[], str] = wall_clock_label) -> None:
        self.engine = engine
        self.signer = signer if signer is not None else DecisionSigner.generate()
        self.counters: Counter[str] = Counter()
        self.watch = EngineWatch(engine)
        self.metrics = KioskMetrics(now_ns)
        self._ephemeral = signer is None
        own = wire.SigningKey(key_id=self.signer.key_id,
                              public_key=base64.b64encode(self.signer.public_key_raw).decode())
        self._signing_keys = [own, *(key for key in verification_keys if key.key_id != own.key_id)]
        self._events_endpoint = events_endpoint
        self._build = build
        self._transport = transport
        self._simulated = simulated
        self._new_id = new_id
        self._label = label
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

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
            self.metrics.commands[str(command.__struct_config__.tag)] += 1
            if isinstance(command, wire.Hello):
                output.replies.append((identity, [wire.to_json(self._hello(client, command, role))]))
            elif client.topic is None:
                raise CommandError("hello_required", "the first command of a connection is hello", command.request)
            else:
                self._dispatch(identity, client, role, command, now_ns, output)
        except CommandError as error:
            self.counters[error.code] += 1
            self.metrics.errors[error.code] += 1
            if error.code in _ALERTS:
                self.watch.alert(_ALERTS[error.code], str(error))
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
            client.topic = f"kiosk/{self._new_id()}/"
        model, engine = self.engine.model, self.engine
        return wire.HelloReply(
            request=command.request, contract=min(command.contract_max, wire.CONTRACT_MAX),
            contract_min=wire.CONTRACT_MIN, contract_max=wire.CONTRACT_MAX, build=self._build,
            model_hash=model.model_hash if model else None, model_purpose=model.purpose.value if model else None,
            calibration_id=engine.calibration_id,
            cameras=sorted(engine.cameras), policies=sorted(engine.policies),
            events_endpoint=self._events_endpoint, event_topic=client.topic,
            keepalive_ms=min(policy.keepalive_ms for policy in engine.policies.values()), role=_WORDS[role],
            signing_keys=self._signing_keys, signing_key_ephemeral=self._ephemeral, simulated=self._simulated)

    def _dispatch(self, identity: bytes, client: _Client, role: Role, command: wire.AnyCommand, now_ns: int,
                  output: Output) -> None:
        def reply(message: wire.Reply, *more: bytes) -> None:
            output.replies.append((identity, [wire.to_json(message), *more]))

        if isinstance(command, wire.HealthGet | wire.MetricsGet | wire.SelftestRun | wire.ConfigGet):
            reply(self._about(command, role, now_ns))
            return
        if role < Role.KIOSK:
            raise CommandError("forbidden", f"the role {_WORDS[role]} may only watch", command.request)
        if isinstance(command, wire.SessionBegin):
            begun = self._begin(identity, client, command, now_ns)
            policy = self.engine.policy(command.policy)
            session_id = next(e.request.session_id for e in begun if isinstance(e, SessionStarted))
            reply(wire.SessionBeginReply(
                request=command.request, session_id=session_id, event_topic=self._sessions[session_id].topic,
                deadline_ms=_deadline_ms(command, policy), keepalive_ms=policy.keepalive_ms))
            self._publish(begun, now_ns, output)
            return
        assert isinstance(command, wire.SessionCommand)
        session = self._sessions.get(command.session_id)
        if session is None or (session.owner != identity and role < Role.OPERATOR):
            raise CommandError("unknown_session", f"no session {command.session_id!r} of this client", command.request)
        if isinstance(command, wire.DecisionGet):
            if not session.decision:
                raise CommandError("no_decision", f"session {command.session_id} is still open", command.request)
            if now_ns >= session.expires_ns:
                raise CommandError("decision_expired", f"the decision of {command.session_id} has expired",
                                   command.request)
            reply(wire.DecisionReply(request=command.request, session_id=command.session_id), *session.decision)
            return
        events: list[Event] = []
        if isinstance(command, wire.SessionKeepalive):
            self.engine.keepalive(command.session_id, now_ns)
        elif isinstance(command, wire.SessionCancel):
            events = self.engine.cancel(command.session_id, now_ns)
        told = Output()
        self._publish(events, now_ns, told)
        reply(wire.SessionStateReply(
            request=command.request, session_id=command.session_id, last_sequence=session.sequence,
            state="ended" if session.ended else "open", phase=None if session.ended else session.phase,
            code=None if session.ended else session.code, since_ms=None if session.ended else session.since_ms,
            evidence_nats=session.evidence_nats if role >= Role.OPERATOR else None))
        output.extend(told)

    def _about(self, command: wire.HealthGet | wire.MetricsGet | wire.SelftestRun | wire.ConfigGet, role: Role,
               now_ns: int) -> wire.Reply:
        """Replies about the engine. Kiosks are told its health; what helps to probe it is not for them."""
        request = command.request
        if isinstance(command, wire.HealthGet):
            return wire.HealthReply(request=request, health=self.watch.health(now_ns, self.counters))
        if role is Role.KIOSK or (isinstance(command, wire.ConfigGet) and role is not Role.OPERATOR):
            raise CommandError("forbidden", f"{command.__struct_config__.tag} is not for a {_WORDS[role]}", request)
        if isinstance(command, wire.MetricsGet):
            opened = sum(not session.ended for session in self._sessions.values())
            return wire.MetricsReply(request=request, metrics=self.metrics.told(
                now_ns, clients=len(self._clients), open_sessions=opened))
        if isinstance(command, wire.SelftestRun):
            checks = self._selftest(now_ns)
            return wire.SelftestReply(request=request, passed=all(check.passed for check in checks), checks=checks)
        policies = dict(sorted(self.engine.policies.items()))
        return wire.ConfigReply(
            request=request, policies={name: msgspec.to_builtins(policy) for name, policy in policies.items()},
            policy_ids={name: policy_id_of(policy) for name, policy in policies.items()},
            cameras=sorted(self.engine.cameras), limits={
                "burst_commands": BURST, "commands_per_s": RATE_PER_S, "clients": MAX_CLIENTS,
                "max_command_bytes": wire.MAX_COMMAND_BYTES})

    def _selftest(self, now_ns: int) -> list[wire.SelftestCheck]:
        """Harmless at any time: no session, no camera is touched."""
        public, probe = self.signer.public_key_raw, secrets.token_bytes(32)
        signature = self.signer.sign(probe)
        signs = signing.verify(public, probe, signature) and not signing.verify(public, probe + b"x", signature)
        engine, model = self.engine, self.engine.model
        checks = [
            ("signature", signs, f"key {self.signer.key_id}"),
            ("transport", self._transport != "not tested", self._transport),
            ("model", model is not None, f"purpose {model.purpose.value}" if model else "none is announced"),
            ("processes", not engine.lost, f"lost: {sorted(engine.lost)}" if engine.lost else "none is lost")]
        for camera in sorted(engine.cameras):
            status = self.watch.status(camera, now_ns)
            checks.append((f"camera {camera}", status == "serving", status))
        return [wire.SelftestCheck(name=name, passed=passed, detail=detail) for name, passed, detail in checks]

    def _begin(self, identity: bytes, client: _Client, command: wire.SessionBegin, now_ns: int) -> list[Event]:
        if any(session.nonce == command.nonce for session in self._sessions.values()):
            raise CommandError("nonce_reused", "this nonce opened a session before; draw a fresh one for every session",
                               command.request)
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
        self.metrics.sessions += 1
        self._sessions[session_id] = _Session(owner=identity, topic=client.topic + session_id, began_ns=now_ns,
                                              camera=command.camera, policy=request.policy, nonce=command.nonce)
        return events

    # --- events -----------------------------------------------------------------------------------------------------
    def observed(self, camera: str, sequence: int, now_ns: int) -> None:
        """A camera lives; shown in health."""
        self.watch.observed(camera, sequence, now_ns)

    def subscribed(self, topics: set[bytes]) -> None:
        """Somebody follows these prefixes from now on; `due` tells them how things stand."""
        for session in self._sessions.values():
            session.state_wanted |= not session.ended and any(session.topic.encode().startswith(t) for t in topics)
        if any(wire.HEALTH_TOPIC.encode().startswith(topic) for topic in topics):
            self.watch.want_health()

    def publish(self, events: list[Event], now_ns: int) -> Output:
        """What the engine's events mean for clients. Events of sessions that no kiosk opened go nowhere."""
        output = Output()
        self._publish(events, now_ns, output)
        return output

    def next_due_ns(self, now_ns: int) -> int:
        """When `due` has something to say at the latest."""
        wanted = [(session.state_ns or now_ns - STATE_PERIOD_NS) + STATE_PERIOD_NS
                  for session in self._sessions.values() if session.state_wanted]
        return min([self.watch.next_due_ns(now_ns), *wanted])

    def due(self, now_ns: int) -> Output:
        """Health, cameras, alerts, and the state of sessions for those who have just subscribed."""
        output = Output()
        for topic, event in self.watch.due(now_ns, self.counters):
            output.published.append([topic.encode(), wire.to_json(event)])
        for session_id, session in self._sessions.items():
            if not session.state_wanted or (session.state_ns is not None
                                            and now_ns - session.state_ns < STATE_PERIOD_NS):
                continue
            session.state_wanted, session.state_ns = False, now_ns
            output.published.append([session.topic.encode(), wire.to_json(wire.SessionStateEvent(
                sequence=session.sequence, session_id=session_id, camera=session.camera, policy=session.policy.name,
                phase=session.phase, code=session.code, since_ms=session.since_ms))])
        self.metrics.events_published += len(output.published)
        return output

    def _publish(self, events: list[Event], now_ns: int, output: Output) -> None:
        output.events += events
        for event in events:
            if isinstance(event, SecurityAlert):
                self.watch.alert(event.code, f"{event.camera}: {event.detail}")
            session_id = _session_of(event)
            session = self._sessions.get(session_id)
            if session is None:
                continue
            session.sequence += 1
            common: dict[str, Any] = {"sequence": session.sequence, "session_id": session_id}
            decision: list[bytes] = []
            message: wire.Envelope
            match event:
                case SessionStarted(request=request):
                    message = wire.SessionStartedEvent(**common, camera=request.camera, policy=request.policy.name)
                case PhaseChanged(phase=phase):
                    session.phase = phase.value
                    message = wire.SessionPhaseEvent(**common, phase=phase.value)
                case GuidanceChanged(code=code, since_ns=since_ns):
                    session.code = code
                    session.since_ms = round((since_ns - session.began_ns) / _NS_PER_MS, 1)
                    message = wire.GuidanceEvent(**common, code=code, since_ms=session.since_ms)
                case Decided(record=record):
                    message = wire.SessionDecisionEvent(**common)
                    payload = decision_payload(record, session.sequence, self._label(), policy=session.policy,
                                               key_id=self.signer.key_id)
                    decision = session.decision = [payload, self.signer.sign(payload)]
                    session.expires_ns = now_ns + record.expires_in_ms * _NS_PER_MS
                    session.evidence_nats = round(record.evidence, 3)
                    self.metrics.decided(record)
                case SessionEnded(reason=reason):
                    message = wire.SessionEndedEvent(**common, reason=cast(Any, reason))
                    session.ended, session.state_wanted = True, False
            frames = [wire.to_json(message), *decision]
            output.published.append([session.topic.encode(), *frames])
            self.metrics.events_published += 1
            if decision:
                output.replies.append((session.owner, frames))


def _deadline_ms(command: wire.SessionBegin, policy: Policy) -> int:
    """What holds: the kiosk's wish, but no longer than the sessions that a compiled policy has its evidence from."""
    if command.deadline_ms is None:
        return policy.deadline_ms
    return min(command.deadline_ms, policy.deadline_ms) if policy.threshold_id is not None else command.deadline_ms


def _session_of(event: Event) -> str:
    if isinstance(event, SessionStarted):
        return event.request.session_id
    if isinstance(event, Decided):
        return event.record.session_id
    return "" if isinstance(event, SecurityAlert) else event.session_id
