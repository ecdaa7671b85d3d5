"""The kiosk contract on the wire: commands, replies, events and the decision, as JSON. See docs/kiosk-protocol.md.

Every server message is one JSON envelope frame. A decision has a second frame, the payload: its exact bytes are what
can be read again, and what a signature will cover in a frame of its own. Unknown fields of a command are ignored; a
field is only ever added within a contract version.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.policy import HARD_DEADLINE_MS
from pipeline.verdict import DecisionRecord

#: The versions that this build speaks, oldest and newest.
CONTRACT_MIN = 0
CONTRACT_MAX = 0

#: A longer command is answered `too_large`; beyond the socket's own limit the connection is dropped.
MAX_COMMAND_BYTES = 8 * 1024
#: Commands are flat; more brackets than this are refused before the JSON is parsed.
_MAX_BRACKETS = 32

HEALTH_TOPIC = "health"

Identifier = Annotated[str, Meta(min_length=1, max_length=128)]


class CommandError(ValueError):
    """An answer to a client: `code` is stable, the text is for people."""

    def __init__(self, code: str, message: str, request: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request = request


# --- commands -------------------------------------------------------------------------------------------------------
class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """contract: the version that the client speaks. request: echoed in the reply, to tell replies apart."""

    contract: int
    request: Annotated[str, Meta(max_length=64)] = ""


class Hello(Command, frozen=True, kw_only=True, tag="hello"):
    """First command of every connection. No common contract version: refused before any camera is used."""

    client: Identifier
    contract_min: int
    contract_max: int


class SessionBegin(Command, frozen=True, kw_only=True, tag="session.begin"):
    """nonce: fresh for every session, at least 128 bits in hex or base64. transaction_hash: echoed, same spelling."""

    camera: Identifier
    nonce: Annotated[str, Meta(max_length=128)]
    policy: Identifier = "default"
    deadline_ms: Annotated[int, Meta(ge=500, le=HARD_DEADLINE_MS)] | None = None
    transaction_hash: Annotated[str, Meta(max_length=128)] | None = None


class SessionKeepalive(Command, frozen=True, kw_only=True, tag="session.keepalive"):
    """The owner lives; at least each `keepalive_ms`."""

    session_id: Identifier


class SessionCancel(Command, frozen=True, kw_only=True, tag="session.cancel"):
    """End a session; its decision is `undecided`. Idempotent."""

    session_id: Identifier


class SessionStatus(Command, frozen=True, kw_only=True, tag="session.status"):
    """Ask whether a session is open, and its phase."""

    session_id: Identifier


class DecisionGet(Command, frozen=True, kw_only=True, tag="decision.get"):
    """Read a decision again, byte for byte, until it expires."""

    session_id: Identifier


class HealthGet(Command, frozen=True, kw_only=True, tag="health.get"):
    """Ask for the state of the engine now."""


AnyCommand = Hello | SessionBegin | SessionKeepalive | SessionCancel | SessionStatus | DecisionGet | HealthGet


class _Envelope(msgspec.Struct):
    type: str
    contract: int
    request: Annotated[str, Meta(max_length=64)] = ""


_ENVELOPE: msgspec.json.Decoder[_Envelope] = msgspec.json.Decoder(_Envelope)
_COMMAND: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
COMMANDS = frozenset(("hello", "session.begin", "session.keepalive", "session.cancel", "session.status", "decision.get",
                      "health.get"))


def read_command(frames: list[bytes]) -> AnyCommand:
    """Decode one command.

    Raises:
        CommandError: `malformed`, `too_large`, `unknown_command`, `unsupported_contract`.
    """
    if len(frames) != 1:
        raise CommandError("malformed", f"a command is one frame, got {len(frames)}")
    data = frames[0]
    if len(data) > MAX_COMMAND_BYTES:
        raise CommandError("too_large", f"{len(data)} bytes, a command may have {MAX_COMMAND_BYTES}")
    if data.count(b"{") + data.count(b"[") > _MAX_BRACKETS:
        raise CommandError("malformed", "nested too deeply; commands are flat objects")
    try:
        envelope = _ENVELOPE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError("malformed", f"not a command: {error}") from error
    if envelope.type not in COMMANDS:
        raise CommandError("unknown_command", f"{envelope.type[:64]!r} is no command; there are {sorted(COMMANDS)}",
                           envelope.request)
    if envelope.type != "hello" and not CONTRACT_MIN <= envelope.contract <= CONTRACT_MAX:
        raise CommandError("unsupported_contract", f"contract {envelope.contract}, this engine speaks "
                           f"{CONTRACT_MIN} to {CONTRACT_MAX}", envelope.request)
    try:
        command = _COMMAND.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError("malformed", f"{envelope.type}: {error}", envelope.request) from error
    if isinstance(command, Hello) and (command.contract_min > CONTRACT_MAX or command.contract_max < CONTRACT_MIN):
        raise CommandError("unsupported_contract", f"contracts {command.contract_min} to {command.contract_max}, this "
                           f"engine speaks {CONTRACT_MIN} to {CONTRACT_MAX}", command.request)
    if isinstance(command, SessionBegin):
        for field, text in (("nonce", command.nonce), ("transaction_hash", command.transaction_hash)):
            if text is not None and encoded_bits(text) < 128:
                raise CommandError("malformed", f"session.begin: {field} {text!r} must be at least 128 bits in hex or "
                                   "base64", command.request)
    return command


def request_of(frames: list[bytes]) -> str:
    """The request id of a command that is refused unread; empty when it shows none."""
    try:
        return _ENVELOPE.decode(frames[0]).request if len(frames[0]) <= MAX_COMMAND_BYTES else ""
    except (IndexError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def encoded_bits(text: str) -> int:
    """Bits that a hex or base64 (also URL-safe) text holds; 0 when it is neither."""
    try:
        return 8 * len(bytes.fromhex(text))
    except ValueError:
        pass
    try:
        standard = text.replace("-", "+").replace("_", "/")
        return 8 * len(base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True))
    except (binascii.Error, ValueError):
        return 0


# --- replies --------------------------------------------------------------------------------------------------------
class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """request: of the command that it answers; empty when that could not be read."""

    contract: int = CONTRACT_MAX
    request: str = ""


class ErrorReply(Reply, frozen=True, kw_only=True, tag="error"):
    """code: stable, see docs/kiosk-protocol.md. message: for people and logs."""

    code: str
    message: str


class HelloReply(Reply, frozen=True, kw_only=True, tag="hello.reply"):
    """What serves here. event_topic: subscribe to this prefix on `events_endpoint` for all sessions of this client."""

    contract_min: int
    contract_max: int
    build: str
    model_hash: str | None
    model_purpose: str | None
    cameras: list[str]
    policies: list[str]
    events_endpoint: str
    event_topic: str
    role: str
    max_command_bytes: int = MAX_COMMAND_BYTES


class SessionBeginReply(Reply, frozen=True, kw_only=True, tag="session.begin.reply"):
    """keepalive_ms: send `session.keepalive` at least this often; two missed end the session."""

    session_id: str
    event_topic: str
    deadline_ms: int
    keepalive_ms: int


class SessionStateReply(Reply, frozen=True, kw_only=True, tag="session.state.reply"):
    """Answer to keepalive, cancel and status. state: `open` or `ended`; phase: of an open session."""

    session_id: str
    state: str
    phase: str | None = None


class DecisionReply(Reply, frozen=True, kw_only=True, tag="decision.get.reply"):
    """The second frame is the decision's payload, byte for byte as it was first sent."""

    session_id: str


class CameraHealth(msgspec.Struct, frozen=True, kw_only=True):
    """age_ms: since the last observation, None = none yet."""

    name: str
    age_ms: float | None
    sequence: int | None
    open_session: bool


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """ready: a session could begin. lost: processes that are down. counters: messages dropped, by cause."""

    ready: bool
    model_hash: str | None
    model_purpose: str | None
    lost: list[str]
    cameras: list[CameraHealth]
    counters: dict[str, int]


class HealthReply(Reply, frozen=True, kw_only=True, tag="health.get.reply"):
    """The state of the engine now."""

    health: Health


# --- events ---------------------------------------------------------------------------------------------------------
class Envelope(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """sequence: from 1, without gaps, within one topic; a gap tells a subscriber that it lost events."""

    contract: int = CONTRACT_MAX
    sequence: int


class SessionEvent(Envelope, frozen=True, kw_only=True):
    """An event of one session; its topic ends with the session id."""

    session_id: str


class SessionStartedEvent(SessionEvent, frozen=True, kw_only=True, tag="session.started"):
    """First event of a session."""

    camera: str
    policy: str


class SessionPhaseEvent(SessionEvent, frozen=True, kw_only=True, tag="session.phase"):
    """phase: searching, acquiring, deciding."""

    phase: str


class GuidanceEvent(SessionEvent, frozen=True, kw_only=True, tag="guidance"):
    """code: None = nothing to correct. since_ms: when it was first shown, after the session began."""

    code: str | None
    since_ms: float


class SessionDecisionEvent(SessionEvent, frozen=True, kw_only=True, tag="session.decision"):
    """The second frame is the decision's payload."""


class SessionEndedEvent(SessionEvent, frozen=True, kw_only=True, tag="session.ended"):
    """reason: decided, timeout, cancelled, abandoned, device_lost, engine_error."""

    reason: str


class HealthEvent(Envelope, frozen=True, kw_only=True, tag="health"):
    """Each second, topic `health`."""

    health: Health


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """The payload. Only `verdict` = `bona_fide` may open anything, and only after the client's own checks.

    Attributes:
        verdict: `bona_fide`, `attack`, `undecided` (ISO/IEC 30107-3). reason: see docs/kiosk-protocol.md.
        examined: a face was examined at all. frames_used, effective_frames: N and the independent frames it amounts to.
        time_to_decision_ms: since the engine took `session.begin`. expires_in_ms: after that, do not act on it.
        model_purpose: what the checkpoint was made for. simulated: the camera was a simulation.
        issued_at: wall clock, a label; never compare it. sequence: of its event. origin: `kiosk` or `local`.
    """

    contract: int
    session_id: str
    sequence: int
    origin: str
    camera: str
    verdict: str
    reason: str
    examined: bool
    frames_used: int
    effective_frames: float
    modalities_used: list[str]
    time_to_decision_ms: float
    policy: str
    model_hash: str | None
    model_purpose: str | None
    simulated: bool
    nonce: str | None
    transaction_hash: str | None
    issued_at: str
    expires_in_ms: int


def decision_payload(record: DecisionRecord, sequence: int, issued_at: str) -> bytes:
    """What a kiosk may know of a record. Scores, evidence and `would_decide` stay inside: a number that a client can
    read is something to climb by trial."""
    return msgspec.json.encode(Decision(
        contract=CONTRACT_MAX, session_id=record.session_id, sequence=sequence, origin=record.origin.value,
        camera=record.camera, verdict=record.verdict.value, reason=record.reason, examined=record.examined,
        frames_used=record.frames_used, effective_frames=round(record.effective_frames, 2),
        modalities_used=[m.value for m in record.modalities_used],
        time_to_decision_ms=round(record.time_to_decision_ms, 3), policy=record.policy,
        model_hash=record.model.model_hash if record.model else None,
        model_purpose=record.model.purpose.value if record.model else None, simulated=record.simulated,
        nonce=record.nonce, transaction_hash=record.transaction_hash, issued_at=issued_at,
        expires_in_ms=record.expires_in_ms))


def to_json(message: Reply | Envelope) -> bytes:
    """The envelope frame."""
    return msgspec.json.encode(message)


def json_schema() -> dict[str, Any]:
    """JSON Schema of commands, replies, events and the decision."""
    kinds = (*AnyCommand.__args__, ErrorReply, HelloReply, SessionBeginReply, SessionStateReply, DecisionReply,
             HealthReply, SessionStartedEvent, SessionPhaseEvent, GuidanceEvent, SessionDecisionEvent,
             SessionEndedEvent, HealthEvent, Decision)
    _, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": components}
