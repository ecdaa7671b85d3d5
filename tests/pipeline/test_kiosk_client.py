"""The kiosk contract end to end: reference client, real ipc sockets, real decision stage; only cameras are played."""

import base64
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from pipeline import kiosk_client
from pipeline.kiosk_client import KioskClient, KioskError, is_open
from pipeline.messages import ProcessEvent
from pipeline.security import RoleMap
from pipeline.signing import verify
from tests.pipeline.scene import CAMERA, MODEL, TEST_MODEL
from tests.pipeline.signed_decisions import STRANGER, a_session
from tests.pipeline.stage_harness import PATIENT, RunningStage


@pytest.fixture
def stage(tmp_path):
    with RunningStage(tmp_path) as running:
        yield running


@pytest.fixture
def client(stage):
    with KioskClient(stage.kiosk, timeout_s=5.0) as connected:
        connected.hello()
        yield connected


def code_of(connected, kind, **fields):
    with pytest.raises(KioskError) as caught:
        connected.command(kind, **fields)
    return caught.value.code


def code_or_none(connected, kind, **fields):
    try:
        connected.command(kind, **fields)
    except KioskError as error:
        return error.code
    return None


def send_raw(client, *frames):
    """Send bytes as they are, and read the next answer."""
    client._commands.send_multipart(list(frames))
    assert client._commands.poll(5000)
    return json.loads(client._commands.recv_multipart()[0])


# --- whole sessions -------------------------------------------------------------------------------------------------
def test_a_full_session_opens_once_and_can_be_read_again_byte_for_byte(stage, client):
    client.subscribe()
    client.subscribe("health")
    assert client.next_event(5.0)["type"] == "health"  # the subscription stands
    session = client.begin(CAMERA, transaction_hash="ab" * 32)
    stage.both(3)
    events = []
    decision = client.wait_decision(session, on_event=events.append)
    assert (decision.verdict, decision.reason) == ("bona_fide", "llr_upper")
    again = client.get_decision(session)
    assert again.payload == decision.payload
    while "session.ended" not in [event["type"] for event in events]:  # the next health may come with it
        events.append(client.next_event(5.0))
    mine = [event for event in events if event["type"] != "health"]
    assert [event["sequence"] for event in mine] == list(range(1, len(mine) + 1))
    assert [event["type"] for event in mine].count("session.decision") == 1
    assert mine[0]["type"] == "session.started"
    assert [event["type"] for event in mine[-2:]] == ["session.decision", "session.ended"]
    assert mine[-1]["reason"] == "decided"
    assert mine[-2]["decision"] == decision.fields
    fields = decision.fields
    assert fields["sequence"] == mine[-2]["sequence"]
    assert (fields["nonce"], fields["transaction_hash"]) == (session.nonce, "ab" * 32)
    assert (fields["origin"], fields["examined"], fields["frames_used"]) == ("kiosk", True, 3)
    assert (fields["model_hash"], fields["model_purpose"]) == (MODEL.model_hash, "release")
    assert 0 < fields["expires_in_ms"] <= 5000
    assert (again.signature, len(again.signature)) == (decision.signature, 64)
    assert verify(base64.b64decode(client.engine["signing_keys"][0]["public_key"]), again.payload, again.signature)
    assert is_open(decision, session)
    assert not is_open(decision, session)  # single use
    assert not is_open(again, session)


def test_no_number_that_could_be_climbed_leaves_by_the_kiosk_socket(stage, client):
    session = client.begin(CAMERA)
    stage.both(3)
    fields = client.wait_decision(session).fields
    assert not {"logit", "probability", "llr", "evidence", "uncertainty", "would_decide", "counters"} & set(fields)


def test_an_attack_keeps_closed(stage, client):
    session = client.begin(CAMERA)
    stage.both(3, logit=-6.0)
    decision = client.wait_decision(session)
    assert decision.verdict == "attack"
    assert not is_open(decision, session)


def test_a_test_checkpoint_never_opens_and_what_it_would_decide_stays_inside(tmp_path):
    policy = msgspec.structs.replace(PATIENT, expose_would_decide=True)
    with RunningStage(tmp_path, model=TEST_MODEL, policies={"default": policy}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        session = client.begin(CAMERA)
        for _ in range(3):
            stage.see()
            stage.hear(model=TEST_MODEL)
        decision = client.wait_decision(session)
        assert (decision.verdict, decision.reason) == ("undecided", "model_unverified")
        assert b"would_decide" not in decision.payload
        assert not is_open(decision, session)
        stage.until(lambda: any(r["type"] == "decision" for r in stage.reports))
        reported = next(r for r in stage.reports if r["type"] == "decision")
        assert (reported["verdict"], reported["would_decide"]) == ("undecided", "bona_fide")


def test_nobody_in_front_of_the_camera(tmp_path):
    policy = msgspec.structs.replace(PATIENT, no_face_ms=100, stall_min_ms=1000.0)
    with RunningStage(tmp_path, policies={"default": policy}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        session = client.begin(CAMERA)
        stage.see(tracks=[])
        decision = client.wait_decision(session)
        assert (decision.verdict, decision.reason) == ("undecided", "no_face")
        assert decision.fields["examined"] is False
        assert not is_open(decision, session)


def test_a_camera_that_falls_silent_is_noticed_without_any_frame(tmp_path):
    with RunningStage(tmp_path, policies={"default": msgspec.structs.replace(PATIENT, stall_min_ms=150.0)}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        decision = client.wait_decision(client.begin(CAMERA))
        assert (decision.verdict, decision.reason) == ("undecided", "stream_stale")


def test_cancel_is_a_decision_and_idempotent(stage, client):
    session = client.begin(CAMERA)
    assert client.status(session)["state"] == "open"
    client.cancel(session)
    client.cancel(session)
    decision = client.wait_decision(session)
    assert (decision.verdict, decision.reason) == ("undecided", "cancelled")
    assert client.status(session)["state"] == "ended"
    assert client.get_decision(session).payload == decision.payload


@pytest.mark.parametrize(("role", "reason"), [
    ("inference", "engine_error"), ("hub", "engine_error"), ("camera", "device_lost")])
def test_a_lost_process_ends_the_session_at_once(stage, client, role, reason):
    session = client.begin(CAMERA)
    stage.both(2)
    stage.tell(ProcessEvent(process=CAMERA if role == "camera" else role, role=role, event="lost", stamp_ns=0))
    decision = client.wait_decision(session)
    assert (decision.verdict, decision.reason) == ("undecided", reason)
    assert not is_open(decision, session)


def test_stopping_the_engine_decides_what_is_open(stage, client):
    session = client.begin(CAMERA)
    stage.stop()
    decision = client.wait_decision(session)
    assert (decision.verdict, decision.reason) == ("undecided", "engine_stopped")


def test_an_abandoned_session_ends_by_itself(tmp_path):
    policy = msgspec.structs.replace(PATIENT, keepalive_ms=100)
    with RunningStage(tmp_path, policies={"default": policy}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        client.begin(CAMERA)
        stage.until(lambda: any(r["type"] == "decision" for r in stage.reports))
        assert next(r for r in stage.reports if r["type"] == "decision")["reason"] == "abandoned"


def test_a_subscription_that_comes_late_has_lost_nothing_that_still_holds(stage, client):
    session = client.begin(CAMERA)
    stage.see(tracks=[])
    stage.until(lambda: client.status(session)["code"] == "no_face")  # published before anybody listened
    client.subscribe()
    events = []
    while not events or events[-1]["type"] != "session.state":
        events.append(client.next_event(5.0))
    state = events[-1]
    assert (state["session_id"], state["phase"], state["code"]) == (session.session_id, "searching", "no_face")
    assert state["sequence"] == client.status(session)["last_sequence"]
    client.cancel(session)
    assert client.next_event(5.0)["sequence"] == state["sequence"] + 1
    assert client.lost_events == 0


def test_without_a_subscription_the_answers_to_keepalives_show_guidance(tmp_path):
    policy = msgspec.structs.replace(PATIENT, keepalive_ms=100, deadline_ms=700, stall_min_ms=1000.0)
    with RunningStage(tmp_path, policies={"default": policy}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        session = client.begin(CAMERA)
        stage.see(tracks=[])
        shown = []
        client.wait_decision(session, on_event=shown.append)
        assert "no_face" in [state["code"] for state in shown]


def test_wait_decision_shows_life(tmp_path):
    policy = msgspec.structs.replace(PATIENT, keepalive_ms=200, deadline_ms=1000, stall_min_ms=1000.0)
    with RunningStage(tmp_path, policies={"default": policy}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        session = client.begin(CAMERA)
        ended = threading.Event()

        def camera():
            while not ended.wait(0.03):
                stage.see()

        feeder = threading.Thread(target=camera)
        feeder.start()
        decision = client.wait_decision(session)
        ended.set()
        feeder.join()
        assert decision.reason == "deadline"  # five missed keepalives would have been `abandoned`


# --- what is refused ------------------------------------------------------------------------------------------------
def test_hello_says_who_serves(stage, client):
    assert client.engine["model_hash"] == MODEL.model_hash
    assert client.engine["cameras"] == [CAMERA]
    assert client.engine["role"] == "kiosk"
    assert client.engine["events_endpoint"] == stage.kiosk + ".events"


def test_a_second_begin_is_busy(client):
    client.begin(CAMERA)
    with pytest.raises(KioskError) as caught:
        client.begin(CAMERA)
    assert caught.value.code == "busy"


@pytest.mark.parametrize(("kind", "fields", "code"), [
    ("session.start", {}, "unknown_command"),
    ("session.begin", {}, "malformed"),
    ("session.begin", {"camera": "side", "nonce": "00" * 16}, "no_camera"),
    ("session.begin", {"camera": CAMERA, "nonce": "00" * 15}, "malformed"),
    ("session.begin", {"camera": CAMERA, "nonce": "not hex, not base64!"}, "malformed"),
    ("session.begin", {"camera": CAMERA, "nonce": "00" * 16, "transaction_hash": "x"}, "malformed"),
    ("session.begin", {"camera": CAMERA, "nonce": "00" * 16, "deadline_ms": 10_001}, "malformed"),
    ("session.begin", {"camera": CAMERA, "nonce": "00" * 16, "policy": "vault"}, "unknown_policy"),
    ("session.cancel", {"session_id": "nobody's"}, "unknown_session"),
    ("decision.get", {"session_id": "nobody's"}, "unknown_session"),
    ("hello", {"client": "k", "contract_min": 2, "contract_max": 9}, "unsupported_contract"),
    ("health.get", {"contract": 9}, "unsupported_contract"),
])
def test_a_command_that_cannot_be_served_says_why(client, kind, fields, code):
    assert code_of(client, kind, **fields) == code


def test_commands_before_hello_are_refused(stage):
    with KioskClient(stage.kiosk, timeout_s=5.0) as stranger:
        assert code_of(stranger, "health.get") == "hello_required"


@pytest.mark.parametrize(("frames", "code"), [
    ((b"",), "malformed"),
    ((b"{",), "malformed"),
    ((b"\xff\xfe",), "malformed"),
    ((b"[]",), "malformed"),
    ((b"null",), "malformed"),
    ((b'{"type": 7, "contract": 1}',), "malformed"),
    ((b"[" * 8000,), "malformed"),
    ((b'{"a":' * 4000,), "too_large"),
    ((b'{"type": "health.get", "contract": 1, "x": "' + b"y" * 9000 + b'"}',), "too_large"),
    ((b"{}", b"{}"), "malformed"),
])
def test_malformed_bytes_get_an_error_and_the_engine_lives(client, frames, code):
    assert send_raw(client, *frames)["code"] == code
    assert client.health()["ready"] is True


def test_a_message_beyond_the_sockets_limit_costs_the_sender_its_connection_only(stage, client):
    with KioskClient(stage.kiosk, timeout_s=5.0) as flooder:
        flooder.hello()
        flooder._commands.send(b"x" * 200_000)
        assert client.health()["ready"] is True
        with pytest.raises(KioskError, match=r"hello_required|no_answer"):
            flooder.health()


def test_unknown_fields_are_ignored(client):
    reply, _ = client.command("health.get", colour="blue")
    assert reply["type"] == "health.get.reply"


def test_another_clients_session_is_unknown(stage, client):
    session = client.begin(CAMERA)
    with KioskClient(stage.kiosk, timeout_s=5.0) as other:
        other.hello()
        for kind in ("session.status", "session.cancel", "session.keepalive", "decision.get"):
            assert code_of(other, kind, session_id=session.session_id) == "unknown_session"
    assert client.status(session)["state"] == "open"


def test_a_client_that_floods_is_limited_and_others_are_not(stage, client):
    with KioskClient(stage.kiosk, timeout_s=5.0) as flooder:
        flooder.hello()
        assert "rate_limited" in {code_or_none(flooder, "health.get") for _ in range(100)}
    assert client.health()["ready"] is True


def test_an_expired_decision_cannot_be_read(tmp_path):
    policy = msgspec.structs.replace(PATIENT, expires_in_ms=100)
    with RunningStage(tmp_path, policies={"default": policy}) as stage, \
            KioskClient(stage.kiosk, timeout_s=5.0) as client:
        client.hello()
        client.subscribe()
        session = client.begin(CAMERA)
        stage.both(3)
        decision = client.wait_decision(session)
        while time.monotonic_ns() < session.began_ns + (decision.fields["time_to_decision_ms"] + 100) * 1e6:
            client.next_event(0.1)
        assert code_of(client, "decision.get", session_id=session.session_id) == "decision_expired"
        assert not is_open(decision, session)


def test_an_endpoint_that_nobody_serves_gives_no_answer(tmp_path):
    with KioskClient(f"ipc://{tmp_path}/nobody", timeout_s=0.05) as client, \
            pytest.raises(KioskError, match="not served"):
        client.hello()


def test_a_client_that_is_not_admitted_gets_no_answer_again_and_again(tmp_path):
    """The refusal takes the connection away: a second command has nothing to be sent over, and must not wait for it."""
    refused = RoleMap(uids={}, gids={})
    with RunningStage(tmp_path, roles=refused) as stage, KioskClient(stage.kiosk, timeout_s=0.2) as client:
        for _ in range(3):
            assert code_of(client, "hello", client="stranger", contract_min=1, contract_max=1) == "no_answer"
        assert client.exchange(b"{}", timeout_s=0.01) is None


def test_a_session_whose_engine_has_refused_us_meanwhile_ends_without_a_decision(tmp_path):
    with RunningStage(tmp_path, roles=RoleMap(uids={}, gids={})) as stage, \
            KioskClient(stage.kiosk, timeout_s=0.1) as client:
        assert code_or_none(client, "health.get") == "no_answer"
        session = a_session()
        session.began_ns, session.deadline_ms, session.keepalive_ms = time.monotonic_ns(), -1800, 10
        assert client.wait_decision(session) is None


@pytest.mark.parametrize(("kind", "changes", "code"), [
    ("hello", {"contract": 2}, "unsupported_contract"), ("hello", {"contract": None}, "unsupported_contract"),
    ("begin", {"deadline_ms": 10**9}, "bad_answer"), ("begin", {"deadline_ms": "5000"}, "bad_answer"),
    ("begin", {"keepalive_ms": 0}, "bad_answer"), ("begin", {"keepalive_ms": True}, "bad_answer"),
    ("begin", {"session_id": None}, "bad_answer"), ("begin", {"event_topic": 7}, "bad_answer"),
    ("subscribe", {"events_endpoint": "tcp://192.0.2.1:5561"}, "bad_answer"),
])
def test_an_engine_that_answers_what_the_contract_does_not_is_not_believed(monkeypatch, kind, changes, code):
    good = {"contract": 1, "session_id": "s", "event_topic": "t/", "deadline_ms": 5000, "keepalive_ms": 1000,
            "events_endpoint": "ipc:///nowhere.events", "signing_keys": []}
    with KioskClient("ipc:///nowhere", signing_keys=[]) as client:
        client.engine = good | (changes if kind == "subscribe" else {})
        monkeypatch.setattr(client, "command", lambda *_, **__: (good | changes, []))
        with pytest.raises(KioskError) as caught:
            {"hello": client.hello, "begin": lambda: client.begin("front"), "subscribe": client.subscribe}[kind]()
    assert caught.value.code == code


def test_a_kiosk_with_another_pinned_key_keeps_closed(stage):
    pins = [base64.b64encode(STRANGER.public_key_raw).decode()]
    with KioskClient(stage.kiosk, timeout_s=5.0, signing_keys=pins) as client:
        client.hello()
        session = client.begin(CAMERA)
        stage.both(3)
        decision = client.wait_decision(session)
        assert decision.verdict == "bona_fide"
        assert not is_open(decision, session)


def test_the_client_stands_alone(tmp_path):
    """Copied out of the project, it needs pyzmq and the standard library only."""
    (tmp_path / "kiosk_client.py").write_bytes(Path(kiosk_client.__file__).read_bytes())
    program = ("import sys; sys.path.insert(0, sys.argv[1]); import kiosk_client; "
               "print({name.partition('.')[0] for name in sys.modules} & "
               "{'pipeline', 'msgspec', 'numpy', 'mmdg_model', 'typer'})")
    result = subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path)], capture_output=True, text=True,
                            check=True, cwd=tmp_path)
    assert result.stdout.strip() == "set()"
