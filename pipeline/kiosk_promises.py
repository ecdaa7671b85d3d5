"""The promises that `mmdg kiosk conformance` tries: a function each, whose docstring begins with it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from typing import Any

from pipeline import kiosk_messages as wire
from pipeline.kiosk_client import CONTRACT, KioskError, is_open
from pipeline.kiosk_conformance import (
    SCORE_FIELDS,
    SLACK_S,
    BrokenPromiseError,
    Check,
    Kit,
    NotTriedError,
    expect,
)
from pipeline.signing import verify

CHECKS: dict[str, Check] = {}


def promise(check: Check) -> Check:
    """Register a check under its function's name."""
    CHECKS[getattr(check, "__name__")] = check  # noqa: B009 - a Callable has no name for mypy
    return check


def _json(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "contract": CONTRACT, "request": "r", **fields}).encode()


# --- the connection -------------------------------------------------------------------------------------------------
@promise
def negotiation(kit: Kit) -> None:
    """A common contract version is found, and without one nothing happens."""
    with kit.stranger() as client:
        kit.refused(client, "hello", "unsupported_contract", client="c", contract_min=99, contract_max=100)
        kit.refused(client, "hello", "unsupported_contract", client="c", contract_min=-1, contract_max=0)
        kit.refused(client, "health.get", "hello_required")
        reply, _ = client.command("hello", client="c", contract_min=0, contract_max=100)
        expect(reply["contract"] == CONTRACT, f"hello was answered with contract {reply['contract']}")


@promise
def hello_first(kit: Kit) -> None:
    """Commands before hello are refused."""
    with kit.stranger() as client:
        for kind, fields in (("health.get", {}), ("session.status", {"session_id": "s"}),
                             ("session.begin", {"camera": "front", "nonce": "00" * 16})):
            kit.refused(client, kind, "hello_required", **fields)


@promise
def introduction(kit: Kit) -> None:
    """hello tells the range, the build, cameras, the topic, the keepalive interval and the signing keys."""
    with kit.client() as client:
        told = client.engine
        expect(told["contract_min"] <= CONTRACT <= told["contract_max"], f"range {told['contract_min']} to "
               f"{told['contract_max']}")
        expect(bool(told["build"]) and bool(told["event_topic"]), "no build or no event topic")
        expect(100 <= told["keepalive_ms"] <= 5000, f"keepalive_ms {told['keepalive_ms']}")
        expect(bool(told["signing_keys"]), "no signing key")
        for key in told["signing_keys"]:
            raw = base64.b64decode(key["public_key"], validate=True)
            expect(len(raw) == 32, f"a public key of {len(raw)} bytes")
            expect(key["key_id"] == hashlib.sha256(raw).hexdigest()[:16], f"key id {key['key_id']} is not the key's")


@promise
def unknown_fields(kit: Kit) -> None:
    """Unknown fields of a command are ignored."""
    with kit.client() as client:
        client.command("health.get", colour="blue", nested={"a": [1, 2]})


@promise
def requests_repeated(kit: Kit) -> None:
    """Replies and errors repeat the request of their command."""
    with kit.client() as client:
        for command in (_json("health.get"), _json("session.status", session_id="nobody's"), _json("door.open")):
            answer = client.exchange(command)
            expect(answer is not None and answer.get("request") == "r", f"{command!r} was answered {answer}")


@promise
def malformed_commands(kit: Kit) -> None:
    """What is no command is answered `malformed`, and the engine lives."""
    with kit.client() as client:
        for frames in ([b""], [b"{"], [b"\xff\xfe"], [b"[]"], [b"null"], [b'{"type": 7, "contract": 1}'],
                       [b"{}", b"{}"], [b"[" * 4000], [_json("health.get", x=[[[[[[[[[[0]]]]]]]]]] * 4)]):
            answer = client.exchange(*frames)
            expect(answer is not None and answer.get("code") == "malformed", f"{frames[0][:40]!r}: {answer}")
        client.health()


@promise
def too_large(kit: Kit) -> None:
    """A command above `max_command_bytes` is answered `too_large`."""
    with kit.client() as client:
        answer = client.exchange(_json("health.get", x="y" * int(client.engine["max_command_bytes"])))
        expect(answer is not None and answer.get("code") == "too_large", f"answered {answer}")
        client.health()


@promise
def oversized_messages(kit: Kit) -> None:
    """A message far above the limit costs its sender the connection and nobody else anything."""
    with kit.client() as client, kit.client() as other:
        answer = client.exchange(b"x" * 1_000_000, timeout_s=0.3)
        expect(answer is None, f"a megabyte was answered {answer}")
        other.health()


@promise
def unknown_commands(kit: Kit) -> None:
    """An unknown command and an unknown contract version are refused by name."""
    with kit.client() as client:
        kit.refused(client, "door.open", "unknown_command")
        kit.refused(client, "health.get", "unsupported_contract", contract=99)


@promise
def command_rate(kit: Kit) -> None:
    """A client that floods is answered `rate_limited`, and others are served."""
    with kit.client() as client, kit.client() as other:
        codes = {(client.exchange(_json("health.get")) or {}).get("code") for _ in range(60)}
        expect("rate_limited" in codes, "60 commands at once were all answered")
        other.health()


@promise
def roles(kit: Kit) -> None:
    """What is not for a role is `forbidden`."""
    allowed = {"monitor": {"metrics.get", "selftest.run"}, "kiosk": set[str](),
               "operator": {"metrics.get", "selftest.run", "config.get"}}
    with kit.client() as client:
        for kind in ("metrics.get", "selftest.run", "config.get"):
            if kind in allowed[client.engine["role"]]:
                client.command(kind)
            else:
                kit.refused(client, kind, "forbidden")
        if client.engine["role"] == "monitor":
            kit.refused(client, "session.begin", "forbidden", camera="front", nonce="00" * 16)


# --- opening a session ----------------------------------------------------------------------------------------------
@promise
def begin_is_checked(kit: Kit) -> None:
    """`session.begin` with a short nonce, an unknown camera or policy, or a deadline out of range is refused."""
    with kit.client() as client:
        kit.need_sessions(client)
        good = {"camera": kit.camera_of(client), "nonce": "00" * 16, "policy": kit.policy}
        for change, code in (({"nonce": "00" * 15}, "malformed"), ({"nonce": "no nonce!"}, "malformed"),
                             ({"camera": "no such camera"}, "no_camera"),
                             ({"policy": "no such policy"}, "unknown_policy"), ({"deadline_ms": 10_001}, "malformed"),
                             ({"deadline_ms": 1}, "malformed"), ({"transaction_hash": "short"}, "malformed")):
            kit.refused(client, "session.begin", code, **{**good, **change})


@promise
def busy(kit: Kit) -> None:
    """One session a camera; a second begin is `busy`."""
    with kit.client() as client, kit.session(client) as session, kit.client() as other:
        for connection in (client, other):
            try:
                connection.begin(kit.camera_of(client), policy=kit.policy)
            except KioskError as error:
                if client.status(session)["state"] == "ended":
                    raise NotTriedError("the session was decided before a second begin") from error
                expect(error.code == "busy", f"a second begin was refused as {error.code!r}")
            else:
                raise BrokenPromiseError("a second session was opened on the camera")


@promise
def fresh_nonces(kit: Kit) -> None:
    """A nonce opens one session only."""
    with kit.client() as client, kit.session(client) as session:
        client.cancel(session)
        kit.refused(client, "session.begin", "nonce_reused", camera=kit.camera_of(client), nonce=session.nonce,
                    policy=kit.policy)


@promise
def sessions_are_private(kit: Kit) -> None:
    """Another connection's session is unknown; an operator sees it."""
    with kit.client() as client, kit.session(client) as session, kit.client() as other:
        if other.engine["role"] == "operator":
            other.command("session.status", session_id=session.session_id)
            return
        for kind in ("session.status", "session.cancel", "session.keepalive", "decision.get"):
            kit.refused(other, kind, "unknown_session", session_id=session.session_id)


@promise
def no_decision_yet(kit: Kit) -> None:
    """An open session has no decision to read."""
    with kit.client() as client, kit.session(client) as session:
        try:
            kit.refused(client, "decision.get", "no_decision", session_id=session.session_id)
        except BrokenPromiseError as broken:
            if client.status(session)["state"] == "ended":
                raise NotTriedError("the session was decided at once") from broken
            raise


# --- the decision ---------------------------------------------------------------------------------------------------
@promise
def decision_comes_once(kit: Kit) -> None:
    """A session has exactly one decision, the last event but one; `session.ended` follows it."""
    kinds = [event["type"] for event in kit.whole().events]
    expect(kinds.count("session.decision") == 1, f"{kinds.count('session.decision')} decisions were published: {kinds}")
    expect(kinds[-2:] == ["session.decision", "session.ended"], f"the last events are {kinds[-2:]}")
    expect(kinds[0] in ("session.started", "session.state"), f"the first event is {kinds[0]}")


@promise
def sequences(kit: Kit) -> None:
    """Events of a session are numbered from 1 without gaps."""
    numbers = [event["sequence"] for event in kit.whole().events if event["type"] != "session.state"]
    expect(numbers == list(range(1, len(numbers) + 1)), f"the numbers are {numbers}")
    decision = kit.whole().decision.fields
    expect(decision["sequence"] == numbers[-2], f"the payload says {decision['sequence']}, its event {numbers[-2]}")


@promise
def read_again(kit: Kit) -> None:
    """The decision reads again byte for byte, and is the same on both sockets."""
    whole = kit.whole()
    for again in whole.read_again:
        expect((again.payload, again.signature) == (whole.decision.payload, whole.decision.signature),
               "decision.get answered other bytes")
    published = [event["decision"] for event in whole.events if event["type"] == "session.decision"]
    expect(published == [whole.decision.fields], "the subscriber's decision is another one")


@promise
def echoes(kit: Kit) -> None:
    """The decision names its session, and repeats nonce and transaction."""
    whole, fields = kit.whole(), kit.whole().decision.fields
    for name, value in (("nonce", whole.session.nonce), ("transaction_hash", whole.session.transaction_hash),
                        ("session_id", whole.session.session_id), ("origin", "kiosk")):
        expect(fields.get(name) == value, f"{name} is {fields.get(name)!r}, expected {value!r}")


@promise
def signature(kit: Kit) -> None:
    """The signature covers the exact payload, by a key that is known."""
    whole = kit.whole()
    key = whole.session.signing_keys.get(str(whole.decision.fields.get("key_id")))
    expect(key is not None, f"key {whole.decision.fields.get('key_id')!r} is not among the known keys")
    assert key is not None
    expect(verify(key, whole.decision.payload, whole.decision.signature), "the signature does not verify")


@promise
def words(kit: Kit) -> None:
    """Verdict, confidence and origin are words of this contract, never numbers."""
    fields = kit.whole().decision.fields
    for name, known in (("verdict", ("bona_fide", "attack", "undecided")), ("origin", ("kiosk", "local")),
                        ("confidence", ("none", "low", "medium", "high"))):
        expect(fields.get(name) in known, f"{name} is {fields.get(name)!r}, expected one of {', '.join(known)}")


@promise
def coarse(kit: Kit) -> None:
    """The decision holds no score, and confidence is `none` unless it accepts."""
    fields = kit.whole().decision.fields
    expect(not SCORE_FIELDS & set(fields), f"it holds {sorted(SCORE_FIELDS & set(fields))}")
    expect(fields["verdict"] == "bona_fide" or fields["confidence"] == "none",
           f"{fields['verdict']} with confidence {fields['confidence']}")


@promise
def expiry_is_short(kit: Kit) -> None:
    """A decision expires within five seconds and opens once at most."""
    whole = kit.whole()
    expires_ms = whole.decision.fields["expires_in_ms"]
    expect(0 < expires_ms <= 5000, f"expires_in_ms {expires_ms}")
    at_ns = whole.session.began_ns + 10**6
    first = is_open(whole.decision, whole.session, accept_simulated=True, now_ns=at_ns)
    expect(first is (whole.decision.verdict == "bona_fide" and whole.decision.fields["model_purpose"] != "test"),
           f"a decision {whole.decision.verdict} ({whole.decision.reason}) {'opens' if first else 'opens nothing'}")
    expect(not is_open(whole.decision, whole.session, accept_simulated=True, now_ns=at_ns), "it opens twice")


@promise
def expired_decisions(kit: Kit) -> None:
    """An expired decision cannot be read any more."""
    with kit.client() as client, kit.session(client) as session:
        client.cancel(session)
        decision = client.get_decision(session)
        end = time.monotonic() + decision.fields["expires_in_ms"] / 1000 + SLACK_S
        while True:
            try:
                client.get_decision(session)
            except KioskError as error:
                expect(error.code == "decision_expired", f"it was refused as {error.code!r}")
                return
            expect(time.monotonic() < end, "it can be read longer than expires_in_ms")
            time.sleep(0.15)


@promise
def deadline(kit: Kit) -> None:
    """A session ends within the deadline that was asked for."""
    with kit.client() as client, kit.session(client, deadline_ms=700) as session:
        expect(session.deadline_ms == 700, f"deadline_ms 700 was answered {session.deadline_ms}")
        began = time.monotonic()
        decision = client.wait_decision(session)
        took_s = time.monotonic() - began
        expect(decision is not None, "no decision came")
        assert decision is not None
        expect(took_s < 0.7 + SLACK_S, f"it came after {took_s:.2f} s")
        told_ms = decision.fields["time_to_decision_ms"]
        expect(told_ms < 700 + SLACK_S * 1000, f"time_to_decision_ms is {told_ms}")


@promise
def cancel_is_idempotent(kit: Kit) -> None:
    """Cancelling ends a session `undecided`, and again changes nothing."""
    with kit.client() as client, kit.session(client) as session:
        client.cancel(session)
        first = client.get_decision(session)
        if first.reason != "cancelled":
            raise NotTriedError(f"the session was decided before ({first.reason})")
        expect(first.verdict == "undecided", f"a cancelled session is {first.verdict}")
        client.cancel(session)
        expect(client.get_decision(session).payload == first.payload, "the decision changed")
        expect(client.status(session)["state"] == "ended", "the session is still open")


@promise
def abandonment(kit: Kit) -> None:
    """Two missed keepalives end a session as abandoned."""
    found = []
    with kit.client() as client:
        kit.need_sessions(client)
        for camera in [kit.camera] if kit.camera else client.engine["cameras"]:
            with kit.session(client, camera, deadline_ms=10_000) as session:
                end = time.monotonic() + 2 * session.keepalive_ms / 1000 + SLACK_S
                while (state := client.status(session)["state"]) == "open" and time.monotonic() < end:
                    time.sleep(0.12)
                expect(state == "ended", f"{2 * session.keepalive_ms} ms without a keepalive, and the session is open")
                reason = client.get_decision(session).reason
                if reason == "abandoned":
                    return
                found.append(f"{camera}: {reason}")
    raise NotTriedError(f"sessions ended before two keepalives were missed ({', '.join(found)}); serve a scene that "
                        "takes longer, such as `doubtful`")


# --- events ---------------------------------------------------------------------------------------------------------
@promise
def late_subscription(kit: Kit) -> None:
    """Whoever subscribes during a session is told how it stands."""
    with kit.client() as client, kit.session(client) as session:
        client.subscribe(session.event_topic)
        end = time.monotonic() + SLACK_S + 1.0
        while time.monotonic() < end:
            event = client.next_event(0.2)
            if event is not None and event["type"] == "session.state":
                expect(event["session_id"] == session.session_id, "it is another session's state")
                return
            client.command("session.keepalive", session_id=session.session_id)
        if client.status(session)["state"] == "ended":
            raise NotTriedError("the session ended before the subscription came through")
        raise BrokenPromiseError("no session.state came after the subscription")


@promise
def guidance_rate(kit: Kit) -> None:
    """Guidance is held for half a second, so that a screen does not flicker."""
    shown = [event for event in kit.whole().events if event["type"] == "guidance"]
    if len(shown) < 2:
        raise NotTriedError(f"{len(shown)} guidance event in the session")
    gaps = [b["since_ms"] - a["since_ms"] for a, b in itertools.pairwise(shown)]
    expect(min(gaps) >= 499, f"two codes {min(gaps):.0f} ms apart")


@promise
def phases(kit: Kit) -> None:
    """A session begins searching, and its phases are known words."""
    events = kit.whole().events
    seen = [event["phase"] for event in events if event["type"] == "session.phase"]
    known = {"searching", "acquiring", "deciding"}
    expect(bool(seen) and set(seen) <= known, f"the phases are {seen}")
    expect(seen[0] == "searching" or events[0]["type"] == "session.state", f"the first phase is {seen[0]}")


@promise
def health(kit: Kit) -> None:
    """Health can be asked for, and comes each second without gaps."""
    with kit.client() as client:
        told = client.health()
        expect({camera["name"] for camera in told["cameras"]} == set(client.engine["cameras"]), "not all cameras")
        client.subscribe(wire.HEALTH_TOPIC)
        events: list[dict[str, Any]] = []
        end = time.monotonic() + 3 * (1 + SLACK_S)
        while len(events) < 3 and time.monotonic() < end:
            event = client.next_event(0.3)
            events += [event] if event is not None else []
        expect(len(events) == 3, f"{len(events)} health events in {3 * (1 + SLACK_S):g} s")
        numbers = [event["sequence"] for event in events]
        expect(numbers == list(range(numbers[0], numbers[0] + 3)), f"the numbers are {numbers}")


def named(names: list[str]) -> frozenset[str]:
    """Names of checks, as typed. Raises `ValueError` for one that there is not."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise ValueError(f"no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    return frozenset(names)
