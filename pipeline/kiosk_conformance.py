"""Does a running engine keep the promises of the kiosk contract? `mmdg kiosk conformance ENDPOINT`.

Each check is a promise of docs/kiosk-protocol.md, tried from outside as a client, on connections of its own. What
cannot be tried against this engine (a role, a camera that decides too soon) is skipped with the reason, never passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from pipeline import kiosk_messages as wire
from pipeline.kiosk_client import CurveKeys, KioskClient, KioskDecision, KioskError, KioskSession
from pipeline.kiosk_decision import Decision
from pipeline.kiosk_schema import EVENTS, REPLIES

#: An engine on a busy machine may be this late before a check fails for it.
SLACK_S = 1.0
_FORMS = {str(kind.__struct_config__.tag): kind for kind in (*REPLIES, *EVENTS)}
#: No field of a decision may be one of these: they could be climbed by trial.
SCORE_FIELDS = frozenset(("logit", "llr", "probability", "score", "evidence", "evidence_nats", "uncertainty",
                          "would_decide"))


class BrokenPromiseError(AssertionError):
    """The engine did something else; the text says what."""


class NotTriedError(Exception):
    """This cannot be tried here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one check. why: what was found, empty when it passed."""

    name: str
    promise: str
    result: Literal["pass", "fail", "skip"]
    why: str
    took_s: float


def expect(holds: bool, text: str) -> None:
    """Raises `BrokenPromiseError` unless it holds."""
    if not holds:
        raise BrokenPromiseError(text)


@dataclass
class Examined:
    """One whole session as its owner saw it."""

    session: KioskSession
    decision: KioskDecision
    events: list[dict[str, Any]]
    wall_s: float
    read_again: list[KioskDecision]


@dataclass
class Kit:
    """What the checks work with.

    Attributes:
        camera: None = the first one. signing_keys: pinned; None = those of hello. timeout_s: for one answer.
        ill_formed: messages that are not of the documented form, found on any connection.
    """

    endpoint: str
    camera: str | None = None
    policy: str = "default"
    signing_keys: list[str] | None = None
    curve: CurveKeys | None = None
    timeout_s: float = 2.0
    ill_formed: list[str] = field(default_factory=list)
    messages: int = 0
    _whole: Examined | None = None

    @contextmanager
    def stranger(self) -> Iterator[KioskClient]:
        """A connection that has not said hello."""
        with KioskClient(self.endpoint, name="mmdg kiosk conformance", timeout_s=self.timeout_s,
                         signing_keys=self.signing_keys, curve=self.curve) as client:
            client.on_frames = self.judge_form
            yield client

    @contextmanager
    def client(self) -> Iterator[KioskClient]:
        """A connection that has."""
        with self.stranger() as client:
            client.hello()
            yield client

    @contextmanager
    def session(self, client: KioskClient, camera: str | None = None, **fields: Any) -> Iterator[KioskSession]:
        """An open session, cancelled afterwards so that the camera is free for the next check."""
        self.need_sessions(client)
        session = self.begin(client, camera, **fields)
        try:
            yield session
        finally:
            client.cancel(session)

    def begin(self, client: KioskClient, camera: str | None = None, **fields: Any) -> KioskSession:
        """A session as soon as the engine can open one."""
        end = time.monotonic() + 10.0
        while True:
            try:
                return client.begin(camera or self.camera_of(client), policy=self.policy, **fields)
            except KioskError as error:
                if error.code not in ("not_ready", "busy") or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def camera_of(self, client: KioskClient) -> str:
        """The camera that the checks use."""
        cameras = client.engine["cameras"]
        if not cameras:
            raise NotTriedError("the engine has no camera")
        return str(self.camera or cameras[0])

    @staticmethod
    def need_sessions(client: KioskClient) -> None:
        """Raises `NotTriedError` for a role that may not open one."""
        if client.engine["role"] == "monitor":
            raise NotTriedError("this user is a monitor and may not open sessions")

    def refused(self, connection: KioskClient, kind: str, code: str, /, **fields: Any) -> None:
        """Expect an error with this code."""
        try:
            connection.command(kind, **fields)
        except KioskError as error:
            expect(error.code == code, f"{kind} with {fields} was refused as {error.code!r}, expected {code!r}")
        else:
            raise BrokenPromiseError(f"{kind} with {fields} was accepted, expected {code!r}")

    def judge_form(self, frames: list[bytes]) -> None:
        """Every message that arrives must be of its documented form."""
        self.messages += 1
        try:
            kind = str(msgspec.json.decode(frames[0])["type"])
            msgspec.json.decode(frames[0], type=_FORMS[kind])
            if kind in ("session.decision", "decision.get.reply"):
                expect(len(frames) == 3, f"{len(frames)} frames, a decision has envelope, payload and signature")
                expect(len(frames[2]) == 64, f"a signature of {len(frames[2])} bytes")
                msgspec.json.decode(frames[1], type=Decision)
            else:
                expect(len(frames) == 1, f"{kind} of {len(frames)} frames")
        except KeyError as error:
            self.ill_formed.append(f"no known type: {error}: {frames[0][:120]!r}")
        except (msgspec.DecodeError, TypeError, UnicodeDecodeError, BrokenPromiseError) as error:
            self.ill_formed.append(f"{error}: {frames[0][:120]!r}")

    def whole(self) -> Examined:
        """One session that ran to its end, shared by the checks that look at it."""
        if self._whole is not None:
            return self._whole
        with self.client() as client:
            self.need_sessions(client)
            client.subscribe()
            client.subscribe(wire.HEALTH_TOPIC)
            if client.next_event(2.0 + SLACK_S) is None:
                raise BrokenPromiseError("no health event came within two seconds of a subscription to it")
            began = time.monotonic()
            session = self.begin(client, transaction_hash="5e" * 32)
            events: list[dict[str, Any]] = []
            decision = client.wait_decision(session, events.append)
            wall_s = time.monotonic() - began
            if decision is None:
                raise BrokenPromiseError("the session came to no decision")
            again = [client.get_decision(session) for _ in range(2)]
            end = time.monotonic() + SLACK_S
            while time.monotonic() < end:  # to the very end: something may come that must not
                event = client.next_event(0.1)
                events += [event] if event is not None else []
            mine = [event for event in events if event.get("session_id") == session.session_id]
            self._whole = Examined(session, decision, mine, wall_s, again)
            return self._whole


Check = Callable[[Kit], None]


def run_checks(kit: Kit, checks: dict[str, Check], *, only: frozenset[str] = frozenset(),
               on_outcome: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Run all of them, or those named; then judge the form of every message that arrived."""
    outcomes = []
    for name, check in (checks | {"documented_form": _documented_form}).items():
        if only and name not in only:
            continue
        began = time.monotonic()
        result: Literal["pass", "fail", "skip"]
        try:
            check(kit)
            result, why = "pass", ""
        except NotTriedError as reason:
            result, why = "skip", str(reason)
        except (BrokenPromiseError, KioskError) as error:
            result, why = "fail", str(error)
        except (KeyError, TypeError, ValueError) as error:
            result, why = "fail", f"an answer cannot be read: {type(error).__name__}: {error}"
        outcomes.append(Outcome(name=name, promise=(check.__doc__ or "").split("\n")[0], result=result, why=why,
                                took_s=round(time.monotonic() - began, 3)))
        on_outcome(outcomes[-1])
    return outcomes


def _documented_form(kit: Kit) -> None:
    """Every message that arrived has its documented form."""
    if not kit.messages:
        raise NotTriedError("no message arrived")
    expect(not kit.ill_formed, f"{len(kit.ill_formed)} of {kit.messages}: {'; '.join(kit.ill_formed[:3])}")
