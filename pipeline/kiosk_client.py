"""The reference client of the kiosk contract, version 1. Stands alone: it needs this file, pyzmq and cryptography.

    with KioskClient("ipc:///run/mmdg/kiosk", signing_keys=["<base64 of the engine's public key>"]) as client:
        client.hello()
        session = client.begin("front")
        decision = client.wait_decision(session)
        if is_open(decision, session):
            ...

`is_open` is the only thing to act on. Whatever it does not know, cannot read, verify or match keeps closed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeGuard

import zmq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CONTRACT = 1
#: Signed before each payload: ASCII and a closing zero byte.
SIGNATURE_DOMAIN = b"mmdg-decision-v1\0"
_MAX_MESSAGE_BYTES = 64 * 1024
#: No decision of this contract takes longer or may be acted on later.
_MAX_SESSION_MS = 11_000
_MAX_EXPIRY_MS = 5_000
#: Between the engine's deadline and giving up on an answer.
_GRACE_S = 2.0
_EVENTS_AT_ONCE = 200
#: Answers to a keepalive that mean that the engine knows nothing of the session, after a restart for instance.
_SESSION_GONE = frozenset(("unknown_session", "hello_required"))


class KioskError(RuntimeError):
    """The engine refused a command, or gave no answer. `code`: of the contract, or `no_answer`, `bad_answer`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class CurveKeys:
    """For tcp endpoints: the engine's public key and this client's own pair, each 40 characters of Z85."""

    server_public: str
    client_public: str
    client_secret: str = field(repr=False)


@dataclass
class KioskSession:
    """A session as its owner sees it.

    began_ns: own monotonic clock, before the command left. signing_keys: raw public keys by key id.
    """

    session_id: str
    nonce: str
    transaction_hash: str | None
    began_ns: int
    deadline_ms: int
    keepalive_ms: int
    event_topic: str
    signing_keys: dict[str, bytes]
    spent: bool = False  # its decision has opened once


@dataclass(frozen=True)
class KioskDecision:
    """payload, signature: the exact bytes; fields: the JSON object in the payload.

    Raises:
        KioskError: `bad_answer`, the payload is no clean JSON object.
    """

    payload: bytes
    signature: bytes
    fields: dict[str, Any] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", read_json(self.payload))

    @property
    def verdict(self) -> str:
        """To show and to log. Act on `is_open` alone."""
        return str(self.fields.get("verdict"))

    @property
    def reason(self) -> str:
        """Why; see docs/decisions.md."""
        return str(self.fields.get("reason"))


def is_open(decision: KioskDecision | None, session: KioskSession, *, accept_simulated: bool = False,
            required_modalities: Iterable[str] = (), now_ns: int | None = None) -> bool:
    """Whether this decision opens, once. False for anything missing, unknown, late, foreign, unsigned or already used.

    Args:
        accept_simulated: for tests on a simulated camera only.
        required_modalities: of `rgb`, `depth`, `infrared`; *all* of them must have been used, beside what the engine's
            policy demands.
        now_ns: own monotonic clock, for tests.
    """
    if not isinstance(decision, KioskDecision) or session.spent or not _signed(decision, session.signing_keys):
        return False
    fields = decision.fields
    took_ms, expires_ms = fields.get("time_to_decision_ms"), fields.get("expires_in_ms")
    if not (_in_range(took_ms, 0, _MAX_SESSION_MS) and _in_range(expires_ms, 1, _MAX_EXPIRY_MS)):
        return False
    expires_ns = session.began_ns + (took_ms + expires_ms) * 1e6
    nonce, used = fields.get("nonce"), fields.get("modalities_used")
    opens = (
        fields.get("type") == "decision"
        and type(fields.get("contract")) is int and fields["contract"] == CONTRACT
        and fields.get("verdict") == "bona_fide"
        and fields.get("origin") == "kiosk"
        and fields.get("examined") is True
        and (fields.get("simulated") is False or (accept_simulated and fields.get("simulated") is True))
        and (fields.get("model_purpose") == "release"
             or (accept_simulated and fields.get("simulated") is True and fields.get("model_purpose") == "simulated"))
        and isinstance(used, list) and all(modality in used for modality in required_modalities)
        and fields.get("session_id") == session.session_id
        and isinstance(nonce, str) and nonce.isascii()  # a lone surrogate cannot be encoded
        and hmac.compare_digest(nonce.encode(), session.nonce.encode())
        and "transaction_hash" in fields and fields["transaction_hash"] == session.transaction_hash
        and (time.monotonic_ns() if now_ns is None else now_ns) < expires_ns)
    session.spent = session.spent or opens
    return opens


def _signed(decision: KioskDecision, keys: dict[str, bytes]) -> bool:
    key_id = decision.fields.get("key_id")
    key = keys.get(key_id) if isinstance(key_id, str) else None
    if key is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(decision.signature, SIGNATURE_DOMAIN + decision.payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_public_key(text: str) -> bytes:
    """32 raw bytes from their base64. Raises `KioskError` (`bad_key`)."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise KioskError("bad_key", f"{text!r} is no base64: {error}") from error
    if len(raw) != 32:
        raise KioskError("bad_key", f"an Ed25519 public key has 32 bytes, {text!r} has {len(raw)}")
    return raw


def _by_id(keys: Iterable[str]) -> dict[str, bytes]:
    """Public keys under their ids, the first 16 hex digits of the SHA-256 of the raw key."""
    return {hashlib.sha256(raw).hexdigest()[:16]: raw for raw in map(read_public_key, keys)}


def _in_range(value: Any, low: float, high: float) -> TypeGuard[float]:
    return type(value) in (int, float) and low <= value <= high  # NaN is in no range; 10**400 is no float, but compares


def read_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises `KioskError` (`bad_answer`) for anything else, a repeated key included."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a key is repeated")
        return dict(pairs)

    try:
        value = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise KioskError("bad_answer", f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise KioskError("bad_answer", f"expected an object, got {type(value).__name__}")
    return value


class KioskClient:
    """One connection. For one thread. Keepalives are sent inside `wait_decision`.

    Args:
        endpoint: of the engine's command socket. name: shown in the engine's logs. timeout_s: for one answer.
        signing_keys: base64 of the public keys that this kiosk was installed with: decisions of any other key open
            nothing. None: the keys that `hello` tells are believed, which is for tests and for a first look, since
            whoever answers at the endpoint then decides.
        curve: for tcp endpoints.
    """

    def __init__(self, endpoint: str, *, name: str = "kiosk", timeout_s: float = 2.0,
                 signing_keys: Iterable[str] | None = None, curve: CurveKeys | None = None) -> None:
        if curve is None and not endpoint.startswith(("ipc://", "inproc://")):
            raise KioskError("no_curve", f"{endpoint}: between hosts only with CURVE keys")
        self.endpoint = endpoint
        self.name = name
        self.timeout_s = timeout_s
        self.engine: dict[str, Any] = {}
        self.lost_events = 0
        self.on_frames: Callable[[list[bytes]], None] | None = None  # sees everything that arrives, for diagnosis
        self._pinned = None if signing_keys is None else _by_id(signing_keys)
        self._curve = curve
        self._decisions: dict[str, list[bytes]] = {}
        self._sequences: dict[bytes, int] = {}  # topic -> last event
        self._requests = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._commands = self._open(zmq.DEALER, endpoint)
        self._events: zmq.Socket[bytes] | None = None

    @classmethod
    def from_bundle(cls, path: str, *, endpoint: str | None = None, name: str = "kiosk",
                    timeout_s: float = 2.0) -> KioskClient:
        """A client with the keys of a file of `mmdg keys client`: CURVE for tcp, pinned signing keys.

        Raises:
            KioskError: `bad_bundle`, the file cannot be read or lacks something.
        """
        try:
            with open(path, "rb") as file:
                bundle = read_json(file.read())
            if bundle["format"] != "mmdg-client-v1":
                raise ValueError(f"format {bundle['format']!r}")
            where = endpoint or bundle["endpoint"]
            if not isinstance(where, str):
                raise ValueError("it names no endpoint: give one")
            today = datetime.now(UTC).date().isoformat()
            keys = [str(key["public_key"]) for key in bundle["signing_public_keys"]
                    if key.get("until") is None or str(key["until"]) >= today]
            curve = CurveKeys(*(str(bundle[part]) for part in (
                "server_public_key", "client_public_key", "client_secret_key")))
        except (OSError, KeyError, TypeError, ValueError, AttributeError, KioskError) as error:
            raise KioskError("bad_bundle", f"{path}: {type(error).__name__}: {error}") from error
        return cls(where, name=name, timeout_s=timeout_s, signing_keys=keys,
                   curve=curve if where.startswith("tcp://") else None)

    def _open(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
        if self._curve is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, self._curve.server_public.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._curve.client_public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._curve.client_secret.encode())
        socket.connect(endpoint)
        return socket

    def close(self) -> None:
        """Drop the connection; an open session is then abandoned after two missed keepalives."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # --- commands ---------------------------------------------------------------------------------------------------
    def command(self, kind: str, **fields: Any) -> tuple[dict[str, Any], list[bytes]]:
        """Send one command and wait for its reply: the envelope and the frames after it.

        Raises:
            KioskError: an error reply, no answer within `timeout_s`, or an answer that cannot be read.
        """
        self._requests += 1
        request = str(self._requests)
        self._commands.send(json.dumps({"type": kind, "contract": CONTRACT, "request": request, **fields}).encode())
        end = time.monotonic() + self.timeout_s
        while (left_s := end - time.monotonic()) > 0:
            if not self._commands.poll(max(1, int(left_s * 1000))):
                continue
            envelope, more = self._receive()
            if envelope.get("request") != request:
                continue  # of a command that was given up on, or a decision, which _receive has kept
            if envelope.get("type") == "error":
                raise KioskError(str(envelope.get("code")), str(envelope.get("message")))
            return envelope, more
        raise KioskError("no_answer", f"{self.endpoint} did not answer {kind} within {self.timeout_s:g} s: it is not "
                                      "served, or this user is not admitted to it")

    def exchange(self, *frames: bytes, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Send frames as they are, and read the next answer; None when none comes. For tests of an engine."""
        self._commands.send_multipart(list(frames))
        if not self._commands.poll(round((self.timeout_s if timeout_s is None else timeout_s) * 1000)):
            return None
        return self._receive()[0]

    def _receive(self) -> tuple[dict[str, Any], list[bytes]]:
        frames = self._commands.recv_multipart()
        if self.on_frames is not None:
            self.on_frames(frames)
        envelope, more = read_json(frames[0]), frames[1:]
        if envelope.get("type") == "session.decision" and len(more) == 2:
            self._decisions.setdefault(str(envelope.get("session_id")), more)
        return envelope, more

    def hello(self) -> dict[str, Any]:
        """Introduce ourselves; must come first. Returns what the engine says of itself."""
        self.engine, _ = self.command("hello", client=self.name, contract_min=CONTRACT, contract_max=CONTRACT)
        return self.engine

    def begin(self, camera: str, *, policy: str = "default", deadline_ms: int | None = None,
              transaction_hash: str | None = None) -> KioskSession:
        """Open a session with a fresh nonce. Raises `KioskError` (`busy`, `no_camera`, `not_ready` ...)."""
        nonce, began_ns = secrets.token_hex(32), time.monotonic_ns()
        reply, _ = self.command("session.begin", camera=camera, nonce=nonce, policy=policy, deadline_ms=deadline_ms,
                                transaction_hash=transaction_hash)
        try:
            return KioskSession(session_id=str(reply["session_id"]), nonce=nonce, transaction_hash=transaction_hash,
                                began_ns=began_ns, deadline_ms=int(reply["deadline_ms"]),
                                keepalive_ms=int(reply["keepalive_ms"]), event_topic=str(reply["event_topic"]),
                                signing_keys=self._trusted())
        except (KeyError, TypeError, ValueError) as error:
            raise KioskError("bad_answer", f"session.begin was answered {reply}") from error

    def _trusted(self) -> dict[str, bytes]:
        if self._pinned is not None:
            return self._pinned
        return _by_id(str(key["public_key"]) for key in self.engine["signing_keys"])

    def cancel(self, session: KioskSession) -> None:
        """End a session; its decision will be `undecided`."""
        self.command("session.cancel", session_id=session.session_id)

    def status(self, session: KioskSession) -> dict[str, Any]:
        """`state` (`open`, `ended`), `phase` and guidance (`code`) of a session."""
        return self.command("session.status", session_id=session.session_id)[0]

    def health(self) -> dict[str, Any]:
        """The state of the engine: ready or not, model, cameras, lost processes."""
        reply, _ = self.command("health.get")
        return dict(reply["health"])

    def get_decision(self, session: KioskSession) -> KioskDecision:
        """Read a decision again, byte for byte. Raises `KioskError` (`no_decision`, `decision_expired` ...)."""
        _, more = self.command("decision.get", session_id=session.session_id)
        if len(more) != 2:
            raise KioskError("bad_answer", f"a decision is a payload and a signature, got {len(more)} frames")
        return KioskDecision(*more)

    def subscribe(self, topic: str | None = None) -> None:
        """Receive events in `wait_decision` or `next_event`. Default: all sessions of this client. After `hello`.

        It takes effect in its own time; the engine then tells how open sessions stand (`session.state`).
        """
        if self._events is None:
            self._events = self._open(zmq.SUB, str(self.engine["events_endpoint"]))
        self._events.subscribe(str(self.engine["event_topic"]) if topic is None else topic)

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event, None when there is none in time. A decision's fields stand under `decision`.

        `lost_events` counts the gaps in the sequences of events.
        """
        if self._events is None:
            raise KioskError("not_subscribed", "call subscribe first")
        if not self._events.poll(max(0, int(timeout_s * 1000))):
            return None
        topic, data, *more = self._events.recv_multipart()
        if self.on_frames is not None:
            self.on_frames([data, *more])
        event = read_json(data)
        sequence, last = event.get("sequence"), self._sequences.get(topic)
        if type(sequence) is int:
            if last is not None and event.get("type") != "session.state":
                self.lost_events += max(0, sequence - last - 1)
            self._sequences[topic] = sequence
        return event | ({"decision": read_json(more[0])} if len(more) == 2 else {})

    def wait_decision(self, session: KioskSession,
                      on_event: Callable[[dict[str, Any]], None] | None = None) -> KioskDecision | None:
        """Wait until the session is decided, showing life meanwhile. None when no decision came: keep closed.

        on_event: for every event that arrives before the decision; without a subscription for the answers to our
            keepalives, which tell phase and guidance, too.
        """
        end_ns = session.began_ns + int((session.deadline_ms / 1000 + _GRACE_S) * 1e9)
        next_keepalive_ns = time.monotonic_ns()
        show = on_event if on_event is not None else lambda _: None
        poller = zmq.Poller()
        for socket in (self._commands, self._events):
            if socket is not None:
                poller.register(socket, zmq.POLLIN)
        while session.session_id not in self._decisions and (now_ns := time.monotonic_ns()) < end_ns:
            if now_ns >= next_keepalive_ns:
                self._requests += 1
                self._commands.send(json.dumps({"type": "session.keepalive", "contract": CONTRACT,
                                                "request": str(self._requests),
                                                "session_id": session.session_id}).encode())
                next_keepalive_ns = now_ns + session.keepalive_ms * 500_000
            ready = dict(poller.poll(max(1, int((min(next_keepalive_ns, end_ns) - now_ns) / 1e6))))
            if self._commands in ready:
                envelope, _ = self._receive()
                if envelope.get("code") in _SESSION_GONE:
                    break
                if self._events is None and envelope.get("type") == "session.state.reply":
                    show(envelope)
            self._show_waiting(show)
        self._show_waiting(show)
        frames = self._decisions.pop(session.session_id, None)
        if frames is not None:
            return KioskDecision(*frames)
        try:
            return self.get_decision(session)
        except KioskError:
            return None

    def _show_waiting(self, show: Callable[[dict[str, Any]], None]) -> None:
        """Hand on the events that are here by now; a flood of them does not keep us from showing life."""
        for _ in range(_EVENTS_AT_ONCE):
            event = self.next_event(0) if self._events is not None else None
            if event is None:
                return
            show(event)
