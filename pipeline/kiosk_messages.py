"""The kiosk contract on the wire: commands, replies and events, as JSON. See docs/kiosk-protocol.md.

Every server message begins with one JSON envelope frame. A decision (`pipeline.kiosk_decision`) has two more: the
payload, whose exact bytes are what can be read again, and the signature over them. Unknown fields of a command are
ignored; a field is only ever added within a contract version.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline.policy import HARD_DEADLINE_MS

#: The versions that this build speaks, oldest and newest.
CONTRACT_MIN = 1
CONTRACT_MAX = 1

#: A longer command is answered `too_large`; beyond the socket's own limit the connection is dropped.
MAX_COMMAND_BYTES = 8 * 1024
#: Commands are flat; more brackets than this are refused before the JSON is parsed.
_MAX_BRACKETS = 32

#: Topics that are not of one session.
HEALTH_TOPIC = "health"
DEVICE_TOPIC = "device"
SECURITY_TOPIC = "security"

Identifier = Annotated[str, Meta(min_length=1, max_length=128)]
Phase = Literal["searching", "acquiring", "deciding"]

#: Error codes: added, never renamed. The text is for documentation.
ERROR_CODES = {
    "malformed": "the command cannot be read; the message says where",
    "too_large": "longer than `max_command_bytes`",
    "unknown_command": "no command of this name",
    "unsupported_contract": "no common contract version; nothing was done",
    "hello_required": "say hello first; after a restart of the engine again",
    "forbidden": "not with this role",
    "rate_limited": "too many commands, or too many connections",
    "busy": "the camera has an open session",
    "no_camera": "no such camera, or it replays a recording in lock-step",
    "unknown_policy": "no policy of this name in the engine's configuration",
    "not_ready": "no model is announced, a process is down, or the camera shows no frames yet",
    "locked_out": "the camera is locked after several attacks",
    "nonce_reused": "this nonce opened a session before; draw a fresh one for every session",
    "unknown_session": "not a session of this connection",
    "no_decision": "the session is still open",
    "decision_expired": "too late: the decision may not be acted on any more",
}


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


class MetricsGet(Command, frozen=True, kw_only=True, tag="metrics.get"):
    """Counts and times since the engine started. Not for kiosks: monitors and operators."""


class SelftestRun(Command, frozen=True, kw_only=True, tag="selftest.run"):
    """Have the engine check itself now. Not for kiosks: monitors and operators. Opens no session."""


class ConfigGet(Command, frozen=True, kw_only=True, tag="config.get"):
    """What the engine was configured with, without secrets. Operators only; nothing can be changed over this socket."""


AnyCommand = (Hello | SessionBegin | SessionKeepalive | SessionCancel | SessionStatus | DecisionGet | HealthGet
              | MetricsGet | SelftestRun | ConfigGet)
SessionCommand = SessionKeepalive | SessionCancel | SessionStatus | DecisionGet


class _Envelope(msgspec.Struct):
    type: str
    contract: int
    request: Annotated[str, Meta(max_length=64)] = ""


_ENVELOPE: msgspec.json.Decoder[_Envelope] = msgspec.json.Decoder(_Envelope)
_COMMAND: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
COMMANDS = frozenset(str(kind.__struct_config__.tag) for kind in AnyCommand.__args__)


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


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """An Ed25519 public key that signs decisions. public_key: its 32 raw bytes in base64."""

    key_id: str
    public_key: str


class HelloReply(Reply, frozen=True, kw_only=True, tag="hello.reply"):
    """What serves here. `contract` is the highest common version: speak it.

    Attributes:
        event_topic: subscribe to this prefix on `events_endpoint` for all sessions of this connection.
        keepalive_ms: the shortest interval of all policies; `session.begin.reply` tells the one that holds.
        calibration_id: of the scores; null = they are not calibrated.
        signing_keys: for a first look. A kiosk in production compares decisions with keys that it was installed with.
        signing_key_ephemeral: the engine was started without a signing key and made one that dies with it.
        simulated: this engine has no camera: what it decides is made up, for integrators.
    """

    contract_min: int
    contract_max: int
    build: str
    model_hash: str | None
    model_purpose: str | None
    calibration_id: str | None
    cameras: list[str]
    policies: list[str]
    events_endpoint: str
    event_topic: str
    keepalive_ms: int
    role: Literal["monitor", "kiosk", "operator"]
    signing_keys: list[SigningKey]
    signing_key_ephemeral: bool
    simulated: bool
    max_command_bytes: int = MAX_COMMAND_BYTES


class SessionBeginReply(Reply, frozen=True, kw_only=True, tag="session.begin.reply"):
    """keepalive_ms: send `session.keepalive` at least this often; two missed end the session."""

    session_id: str
    event_topic: str
    deadline_ms: int
    keepalive_ms: int


class SessionStateReply(Reply, frozen=True, kw_only=True, tag="session.state.reply"):
    """Answer to keepalive, cancel and status.

    Attributes:
        phase, code, since_ms: of an open session: its phase, and the guidance shown (null = nothing to correct).
        last_sequence: of the session's last event; whoever has seen a smaller one has lost events.
        evidence_nats: of a decided session, for operators only; null for everyone else.
    """

    session_id: str
    state: Literal["open", "ended"]
    phase: Phase | None = None
    code: str | None = None
    since_ms: float | None = None
    last_sequence: int
    evidence_nats: float | None = None


class DecisionReply(Reply, frozen=True, kw_only=True, tag="decision.get.reply"):
    """Payload and signature follow in frames of their own, byte for byte as they were first sent."""

    session_id: str


class CameraHealth(msgspec.Struct, frozen=True, kw_only=True):
    """age_ms: since the last observation, null = none yet. status: `lost` = its process is down or starting."""

    name: str
    status: Literal["serving", "silent", "unseen", "lost"]
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


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Since the engine started. commands: answered, by type. errors: by code. verdicts, reasons: of decided sessions.

    time_to_decision_ms: p50, p99 and max of the last 1,000 decided sessions, empty before the first.
    """

    uptime_s: float
    clients: int
    open_sessions: int
    sessions: int
    commands: dict[str, int]
    errors: dict[str, int]
    verdicts: dict[str, int]
    reasons: dict[str, int]
    events_published: int
    time_to_decision_ms: dict[str, float]


class MetricsReply(Reply, frozen=True, kw_only=True, tag="metrics.get.reply"):
    """Counts and times."""

    metrics: Metrics


class SelftestCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check; detail says what was found."""

    name: str
    passed: bool
    detail: str


class SelftestReply(Reply, frozen=True, kw_only=True, tag="selftest.run.reply"):
    """passed: every check has."""

    passed: bool
    checks: list[SelftestCheck]


class ConfigReply(Reply, frozen=True, kw_only=True, tag="config.get.reply"):
    """policies: as configured, by name. limits: of this socket. No key, no path, nobody's name."""

    policies: dict[str, dict[str, Any]]
    policy_ids: dict[str, str]
    cameras: list[str]
    limits: dict[str, float]


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
    """How far the session is."""

    phase: Phase


class GuidanceEvent(SessionEvent, frozen=True, kw_only=True, tag="guidance"):
    """code: null = nothing to correct. since_ms: when it was first shown, after the session began."""

    code: str | None
    since_ms: float


class SessionStateEvent(SessionEvent, frozen=True, kw_only=True, tag="session.state"):
    """How an open session stands, sent when somebody subscribes: whoever comes late has lost nothing that still holds.

    It repeats and does not count: `sequence` is that of the session's last event.
    """

    camera: str
    policy: str
    phase: Phase
    code: str | None
    since_ms: float | None


class SessionDecisionEvent(SessionEvent, frozen=True, kw_only=True, tag="session.decision"):
    """Payload and signature follow in frames of their own."""


class SessionEndedEvent(SessionEvent, frozen=True, kw_only=True, tag="session.ended"):
    """Follows the decision at once."""

    reason: Literal["decided", "timeout", "cancelled", "abandoned", "device_lost", "engine_error"]


class HealthEvent(Envelope, frozen=True, kw_only=True, tag="health"):
    """Each second and on change, topic `health`."""

    health: Health


class DeviceStatusEvent(Envelope, frozen=True, kw_only=True, tag="device.status"):
    """A camera's status has changed, topic `device`. status: as in health."""

    camera: str
    status: Literal["serving", "silent", "unseen", "lost"]


class SecurityAlertEvent(Envelope, frozen=True, kw_only=True, tag="security.alert"):
    """Something that an operator should look at, topic `security`; each code at most once a second.

    code: `command_flood`, `malformed_commands`, `peers_refused`, and what the engine's own checks report; codes are
    added. count: how often since the last alert of this code. detail: for people; names no person.
    """

    code: str
    count: int
    detail: str


def to_json(message: Reply | Envelope) -> bytes:
    """The envelope frame."""
    return msgspec.json.encode(message)
