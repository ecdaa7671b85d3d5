"""The reference client of the kiosk contract, version 0. Stands alone: it needs this file and pyzmq.

    with KioskClient("ipc:///run/mmdg/kiosk") as client:
        client.hello()
        session = client.begin("front")
        decision = client.wait_decision(session)
        if is_open(decision, session):
            ...

`is_open` is the only thing to act on. Whatever it does not know, cannot read or cannot match keeps closed.
"""

from __future__ import annotations

import hmac
import json
import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeGuard

import zmq

CONTRACT = 0
_MAX_MESSAGE_BYTES = 64 * 1024
#: No decision of this contract takes longer or may be acted on later.
_MAX_SESSION_MS = 11_000
_MAX_EXPIRY_MS = 5_000
#: Between the engine's deadline and giving up on an answer.
_GRACE_S = 2.0
#: Answers to a keepalive that mean that the engine knows nothing of the session, after a restart for instance.
_SESSION_GONE = frozenset(("unknown_session", "hello_required"))


class KioskError(RuntimeError):
    """The engine refused a command, or gave no answer. `code`: of the contract, or `no_answer`, `bad_answer`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass
class KioskSession:
    """A session as its owner sees it. `began_ns`: own monotonic clock, before the command left."""

    session_id: str
    nonce: str
    transaction_hash: str | None
    began_ns: int
    deadline_ms: int
    keepalive_ms: int
    event_topic: str
    spent: bool = False  # its decision has opened once


@dataclass(frozen=True)
class KioskDecision:
    """payload: the exact bytes; fields: the JSON object in them."""

    payload: bytes
    fields: dict[str, Any] = field(compare=False)

    @property
    def verdict(self) -> str:
        """To show and to log. Act on `is_open` alone."""
        return str(self.fields.get("verdict"))

    @property
    def reason(self) -> str:
        """Why; see docs/decisions.md."""
        return str(self.fields.get("reason"))


def is_open(decision: KioskDecision | None, session: KioskSession, *, accept_simulated: bool = False,
            now_ns: int | None = None) -> bool:
    """Whether this decision opens, once. False for anything missing, unknown, late, foreign or already used.

    Args:
        accept_simulated: for tests on a simulated camera only. now_ns: own monotonic clock, for tests.
    """
    if not isinstance(decision, KioskDecision) or session.spent:
        return False
    fields = decision.fields
    took_ms, expires_ms = fields.get("time_to_decision_ms"), fields.get("expires_in_ms")
    if not (_in_range(took_ms, 0, _MAX_SESSION_MS) and _in_range(expires_ms, 1, _MAX_EXPIRY_MS)):
        return False
    expires_ns = session.began_ns + (took_ms + expires_ms) * 1e6
    nonce = fields.get("nonce")
    opens = (
        fields.get("type") == "decision"
        and type(fields.get("contract")) is int and fields["contract"] == CONTRACT
        and fields.get("verdict") == "bona_fide"
        and fields.get("origin") == "kiosk"
        and fields.get("examined") is True
        and (fields.get("simulated") is False or (accept_simulated and fields.get("simulated") is True))
        and (fields.get("model_purpose") == "release"
             or (accept_simulated and fields.get("simulated") is True and fields.get("model_purpose") == "simulated"))
        and fields.get("session_id") == session.session_id
        and isinstance(nonce, str) and hmac.compare_digest(nonce.encode(), session.nonce.encode())
        and fields.get("transaction_hash") == session.transaction_hash
        and (time.monotonic_ns() if now_ns is None else now_ns) < expires_ns)
    session.spent = session.spent or opens
    return opens


def _in_range(value: Any, low: float, high: float) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


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
    """

    def __init__(self, endpoint: str, *, name: str = "kiosk", timeout_s: float = 2.0) -> None:
        self.endpoint = endpoint
        self.name = name
        self.timeout_s = timeout_s
        self.engine: dict[str, Any] = {}
        self._decisions: dict[str, bytes] = {}
        self._requests = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._commands = self._open(zmq.DEALER, endpoint)
        self._events: zmq.Socket[bytes] | None = None

    def _open(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
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

    def _receive(self) -> tuple[dict[str, Any], list[bytes]]:
        frames = self._commands.recv_multipart()
        envelope, more = read_json(frames[0]), frames[1:]
        if envelope.get("type") == "session.decision" and more:
            self._decisions.setdefault(str(envelope.get("session_id")), more[0])
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
                                keepalive_ms=int(reply["keepalive_ms"]), event_topic=str(reply["event_topic"]))
        except (KeyError, TypeError, ValueError) as error:
            raise KioskError("bad_answer", f"session.begin was answered {reply}") from error

    def cancel(self, session: KioskSession) -> None:
        """End a session; its decision will be `undecided`."""
        self.command("session.cancel", session_id=session.session_id)

    def status(self, session: KioskSession) -> dict[str, Any]:
        """`state` (`open`, `ended`) and `phase` of a session."""
        return self.command("session.status", session_id=session.session_id)[0]

    def health(self) -> dict[str, Any]:
        """The state of the engine: ready or not, model, cameras, lost processes."""
        reply, _ = self.command("health.get")
        return dict(reply["health"])

    def get_decision(self, session: KioskSession) -> KioskDecision:
        """Read a decision again, byte for byte. Raises `KioskError` (`no_decision`, `decision_expired` ...)."""
        _, more = self.command("decision.get", session_id=session.session_id)
        if len(more) != 1:
            raise KioskError("bad_answer", f"a decision is one frame, got {len(more)}")
        return KioskDecision(more[0], read_json(more[0]))

    def subscribe(self, topic: str | None = None) -> None:
        """Receive events in `wait_decision` or `next_event`. Default: all sessions of this client. After `hello`."""
        if self._events is None:
            self._events = self._open(zmq.SUB, str(self.engine["events_endpoint"]))
        self._events.subscribe(str(self.engine["event_topic"]) if topic is None else topic)

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next event, None when there is none in time. A decision's fields stand under `decision`."""
        if self._events is None:
            raise KioskError("not_subscribed", "call subscribe first")
        if not self._events.poll(max(0, int(timeout_s * 1000))):
            return None
        _, envelope, *more = self._events.recv_multipart()
        return read_json(envelope) | ({"decision": read_json(more[0])} if more else {})

    def wait_decision(self, session: KioskSession,
                      on_event: Callable[[dict[str, Any]], None] | None = None) -> KioskDecision | None:
        """Wait until the session is decided, showing life meanwhile. None when no decision came: keep closed."""
        end_ns = session.began_ns + int((session.deadline_ms / 1000 + _GRACE_S) * 1e9)
        next_keepalive_ns = time.monotonic_ns()
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
            if self._events is not None and self._events in ready:
                event = self.next_event(0)
                if event is not None and on_event is not None:
                    on_event(event)
        payload = self._decisions.pop(session.session_id, None)
        if payload is not None:
            return KioskDecision(payload, read_json(payload))
        try:
            return self.get_decision(session)
        except KioskError:
            return None
