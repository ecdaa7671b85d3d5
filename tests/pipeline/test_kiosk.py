"""The gateway by itself, driven by values."""

import base64
import json

import pytest

from pipeline.decision import DecisionEngine
from pipeline.kiosk import BURST, MAX_CLIENTS, MAX_ENDED, Gateway
from pipeline.kiosk_decision import Decision, policy_id_of
from pipeline.kiosk_messages import SigningKey
from pipeline.messages import ProcessEvent
from pipeline.security import Role
from pipeline.signing import DecisionSigner, verify
from tests.pipeline.scene import CAMERA, MODEL, MS, QUICK, observation, score

START = 10**9
SIGNER = DecisionSigner(bytes(range(32)))


class Desk:
    """A gateway and its engine; `sent` collects replies by client, `published` everything on the event socket."""

    def __init__(self, cameras=(CAMERA,)):
        self.engine = DecisionEngine({"default": QUICK}, cameras=cameras, model=MODEL)
        ids = iter(range(10**6))
        self.gateway = Gateway(self.engine, events_endpoint="ipc://events", build="test", signer=SIGNER,
                               now_ns=START, new_id=lambda: f"session-{next(ids)}", label=lambda: "a label")
        self.now_ns, self.sequence, self.published, self.pushed, self.nonces = START, 0, [], [], 0

    def take(self, output):
        self.published += output.published
        return output.replies

    def send(self, kind, identity=b"k1", role=Role.KIOSK, **fields):
        command = json.dumps({"type": kind, "contract": 1, "request": "r", **fields}).encode()
        replies = self.take(self.gateway.handle(identity, role, [command], self.now_ns))
        self.pushed += replies[1:]
        assert replies[0][0] == identity
        return json.loads(replies[0][1][0]), replies[0][1][1:]

    def hello(self, identity=b"k1", role=Role.KIOSK):
        return self.send("hello", identity, role, client="c", contract_min=1, contract_max=3)[0]

    def begin(self, identity=b"k1", **fields):
        self.nonces += 1
        return self.send("session.begin", identity, **({"camera": CAMERA, "nonce": f"{self.nonces:032x}"} | fields))[0]

    def frames(self, count, logit=6.0):
        for _ in range(count):
            self.now_ns += 33 * MS
            self.sequence += 1
            events = self.engine.observe(observation(self.sequence, self.now_ns), self.now_ns)
            events += self.engine.score(score(self.sequence, logit), self.now_ns)
            self.pushed += self.take(self.gateway.publish(events, self.now_ns))

    def events(self, topic):
        return [json.loads(frames[1]) for frames in self.published if frames[0] == topic.encode()]


def test_exactly_one_decision_the_same_bytes_everywhere_and_a_sequence_without_gaps():
    desk = Desk()
    prefix = desk.hello()["event_topic"]
    begun = desk.begin()
    assert begun["event_topic"] == prefix + begun["session_id"]
    desk.frames(5)
    events = desk.events(begun["event_topic"])
    assert [e["sequence"] for e in events] == list(range(1, len(events) + 1))
    assert [e["type"] for e in events] == ["session.started", "session.phase", "session.phase", "session.phase",
                                           "session.decision", "session.ended"]
    (published,) = [frames[2:] for frames in desk.published if len(frames) == 4]
    assert [(identity, frames[1:]) for identity, frames in desk.pushed] == [(b"k1", published)]
    desk.now_ns += 4_000 * MS
    assert desk.send("decision.get", session_id=begun["session_id"])[1] == published
    payload = json.loads(published[0])
    assert set(payload) == {"type", *Decision.__struct_fields__}
    assert (payload["nonce"], payload["issued_at"], payload["verdict"]) == (f"{1:032x}", "a label", "bona_fide")
    assert payload["key_id"] == SIGNER.key_id
    assert verify(SIGNER.public_key_raw, *published)
    assert not verify(SIGNER.public_key_raw, published[0].replace(b"front", b"rear_"), published[1])


def test_two_cameras_two_sessions_two_sequences():
    desk = Desk(cameras=(CAMERA, "back"))
    desk.hello()
    first, second = desk.begin(), desk.begin(camera="back")
    desk.frames(3)
    assert [e["sequence"] for e in desk.events(first["event_topic"])] == [1, 2, 3, 4, 5, 6]
    assert [e["sequence"] for e in desk.events(second["event_topic"])] == [1, 2]


def test_a_monitor_may_watch_and_no_more():
    desk = Desk()
    desk.hello(b"m", Role.MONITOR)
    assert desk.send("health.get", b"m", Role.MONITOR)[0]["health"]["ready"] is True
    for kind in ("session.begin", "session.cancel", "decision.get", "session.status", "session.keepalive"):
        fields = {"camera": CAMERA, "nonce": "00" * 16} if kind == "session.begin" else {"session_id": "s"}
        assert desk.send(kind, b"m", Role.MONITOR, **fields)[0]["code"] == "forbidden"


def test_an_operator_may_end_anyones_session():
    desk = Desk()
    desk.hello()
    session_id = desk.begin()["session_id"]
    desk.hello(b"o", Role.OPERATOR)
    assert desk.send("session.cancel", b"o", Role.OPERATOR, session_id=session_id)[0]["state"] == "ended"
    assert [identity for identity, _ in desk.pushed] == [b"k1"]  # the decision goes to the owner


def test_a_peer_without_a_role_gets_no_word():
    desk = Desk()
    output = desk.gateway.handle(b"x", None, [b'{"type": "hello", "contract": 1}'], START)
    assert (output.replies, output.published) == ([], [])
    assert desk.gateway.counters["no_role"] == 1


def test_the_allowance_refills_with_time():
    desk = Desk()
    desk.hello()
    answers = [desk.send("health.get")[0]["type"] for _ in range(BURST)]
    assert answers == ["health.get.reply"] * (BURST - 1) + ["error"]
    desk.now_ns += 100 * MS
    assert [desk.send("health.get")[0]["type"] for _ in range(3)] == ["health.get.reply"] * 2 + ["error"]


def test_the_number_of_clients_is_bounded_and_owners_of_sessions_stay():
    desk = Desk()
    desk.hello()
    session_id = desk.begin()["session_id"]
    for number in range(MAX_CLIENTS + 5):
        desk.hello(b"c%d" % number)
    assert len(desk.gateway._clients) == MAX_CLIENTS
    assert desk.send("session.status", session_id=session_id)[0]["state"] == "open"


def test_ended_sessions_are_forgotten_in_the_end():
    desk = Desk()
    desk.hello()
    for _ in range(MAX_ENDED + 20):
        desk.now_ns += 10**9
        desk.send("session.cancel", session_id=desk.begin()["session_id"])
    assert len(desk.gateway._sessions) <= MAX_ENDED + 1


def test_health_comes_each_second_with_its_own_sequence():
    desk = Desk()
    for step in range(30):
        desk.take(desk.gateway.due(START + step * 100 * MS))
    assert [e["sequence"] for e in desk.events("health")] == [1, 2, 3]


def test_health_says_how_old_a_camera_is_and_that_it_was_never_seen():
    desk = Desk(cameras=(CAMERA, "back"))
    desk.gateway.observed(CAMERA, 9, START)
    desk.now_ns = START + 250 * MS
    desk.hello()
    cameras = desk.send("health.get")[0]["health"]["cameras"]
    assert cameras == [{"name": "back", "status": "unseen", "age_ms": None, "sequence": None,
                        "open_session": False},
                       {"name": CAMERA, "status": "serving", "age_ms": 250.0, "sequence": 9, "open_session": False}]


def test_local_sessions_are_not_published():
    desk = Desk()
    desk.engine._local_policy = QUICK
    desk.frames(5)
    assert (desk.published, desk.pushed) == ([], [])


@pytest.mark.parametrize(("asked", "told"), [(None, 5000), (700, 700)])
def test_begin_tells_the_deadline_that_holds(asked, told):
    desk = Desk()
    desk.hello()
    assert desk.begin(deadline_ms=asked)["deadline_ms"] == told


def test_a_decision_can_be_read_until_the_very_moment_it_expires():
    desk = Desk()
    desk.hello()
    session_id = desk.begin()["session_id"]
    assert desk.send("decision.get", session_id=session_id)[0]["code"] == "no_decision"
    desk.frames(3)
    desk.now_ns += QUICK.expires_in_ms * MS - 1
    assert desk.send("decision.get", session_id=session_id)[0]["type"] == "decision.get.reply"
    desk.now_ns += 1
    assert desk.send("decision.get", session_id=session_id)[0]["code"] == "decision_expired"


def test_guidance_is_timed_from_the_begin_and_counters_are_told():
    desk = Desk()
    desk.hello()
    topic = desk.begin()["event_topic"]
    desk.now_ns += 40 * MS
    events = desk.engine.observe(observation(1, desk.now_ns, tracks=[]), desk.now_ns)
    desk.take(desk.gateway.publish(events, desk.now_ns))
    guidance = [e for e in desk.events(topic) if e["type"] == "guidance"]
    assert [(e["code"], e["since_ms"]) for e in guidance] == [("no_face", 40.0)]
    desk.send("session.cancel", session_id="nobody's")
    desk.engine.observe(observation(1, desk.now_ns), desk.now_ns)
    counters = desk.send("health.get")[0]["health"]["counters"]
    assert (counters["unknown_session"], counters["repeated_observation"]) == (1, 1)


# --- who comes late -------------------------------------------------------------------------------------------------
def test_whoever_subscribes_late_is_told_how_the_session_stands():
    """The first events may go out before a subscription has arrived: they were lost, and with them the guidance."""
    desk = Desk()
    prefix = desk.hello()["event_topic"]
    begun = desk.begin()
    desk.now_ns += 40 * MS
    desk.take(desk.gateway.publish(
        desk.engine.observe(observation(1, desk.now_ns, tracks=[]), desk.now_ns), desk.now_ns))
    before = len(desk.events(begun["event_topic"]))
    desk.gateway.subscribed({prefix.encode()})
    desk.take(desk.gateway.due(desk.now_ns))
    told = desk.events(begun["event_topic"])[before:]
    assert told == [{"type": "session.state", "contract": 1, "sequence": before, "session_id": begun["session_id"],
                     "camera": CAMERA, "policy": QUICK.name, "phase": "searching", "code": "no_face", "since_ms": 40.0}]
    desk.take(desk.gateway.due(desk.now_ns))
    assert desk.events(begun["event_topic"])[before:] == told  # once a subscription


def test_the_state_goes_to_sessions_of_the_topic_alone_and_not_to_ended_ones():
    desk = Desk(cameras=(CAMERA, "back"))
    desk.hello()
    first, second = desk.begin(), desk.begin(camera="back")
    desk.gateway.subscribed({second["event_topic"].encode()})
    desk.send("session.cancel", session_id=first["session_id"])
    desk.gateway.subscribed({b""})
    desk.take(desk.gateway.due(desk.now_ns))
    assert [e["type"] for e in desk.events(second["event_topic"])][-1] == "session.state"
    assert "session.state" not in [e["type"] for e in desk.events(first["event_topic"])]


def test_a_flood_of_subscriptions_is_answered_ten_times_a_second():
    desk = Desk()
    desk.hello()
    topic = desk.begin()["event_topic"]
    for _ in range(100):
        desk.now_ns += 5 * MS
        desk.gateway.subscribed({b""})
        desk.take(desk.gateway.due(desk.now_ns))
    assert 4 <= [e["type"] for e in desk.events(topic)].count("session.state") <= 6
    assert desk.gateway.next_due_ns(desk.now_ns) <= desk.now_ns + 100 * MS


def test_status_and_keepalive_carry_phase_and_guidance():
    desk = Desk()
    desk.hello()
    session_id = desk.begin()["session_id"]
    desk.now_ns += 40 * MS
    desk.take(desk.gateway.publish(
        desk.engine.observe(observation(1, desk.now_ns, tracks=[]), desk.now_ns), desk.now_ns))
    for kind in ("session.status", "session.keepalive"):
        state = desk.send(kind, session_id=session_id)[0]
        assert (state["state"], state["phase"], state["code"], state["since_ms"]) == (
            "open", "searching", "no_face", 40.0)
        assert state["last_sequence"] == 3
    ended = desk.send("session.cancel", session_id=session_id)[0]
    assert (ended["state"], ended["phase"], ended["code"], ended["last_sequence"]) == ("ended", None, None, 5)


# --- roles ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "allowed"), [
    ("health.get", {Role.MONITOR, Role.KIOSK, Role.OPERATOR}), ("metrics.get", {Role.MONITOR, Role.OPERATOR}),
    ("selftest.run", {Role.MONITOR, Role.OPERATOR}), ("config.get", {Role.OPERATOR})])
def test_who_may_ask_what_about_the_engine(kind, allowed):
    desk = Desk()
    got = set()
    for role in Role:
        desk.hello(role.name.encode(), role)
        reply, _ = desk.send(kind, role.name.encode(), role)
        assert reply["type"] == f"{kind}.reply" or reply["code"] == "forbidden"
        got |= {role} if reply["type"] != "error" else set()
    assert got == allowed


def test_the_raw_evidence_is_for_operators():
    desk = Desk()
    desk.hello()
    desk.hello(b"o", Role.OPERATOR)
    session_id = desk.begin()["session_id"]
    assert desk.send("session.status", b"o", Role.OPERATOR, session_id=session_id)[0]["evidence_nats"] is None
    desk.frames(3)
    assert desk.send("session.status", session_id=session_id)[0]["evidence_nats"] is None
    assert desk.send("session.status", b"o", Role.OPERATOR, session_id=session_id)[0]["evidence_nats"] > 0
    assert not [frames for frames in desk.published if b"evidence_nats" in b"".join(frames)]


def test_the_configuration_is_told_without_secrets():
    desk = Desk()
    desk.hello(b"o", Role.OPERATOR)
    reply, _ = desk.send("config.get", b"o", Role.OPERATOR)
    assert reply["policies"]["default"]["min_frames"] == QUICK.min_frames
    assert reply["policy_ids"]["default"] == policy_id_of(QUICK)
    text = json.dumps(reply)
    assert SIGNER.private_key_raw.hex() not in text
    assert base64.b64encode(SIGNER.private_key_raw).decode() not in text


def test_metrics_count_what_happened():
    desk = Desk()
    desk.hello()
    desk.begin()
    desk.frames(3)
    desk.send("session.cancel", session_id="nobody's")
    desk.hello(b"m", Role.MONITOR)
    metrics = desk.send("metrics.get", b"m", Role.MONITOR)[0]["metrics"]
    assert (metrics["sessions"], metrics["open_sessions"], metrics["clients"]) == (1, 0, 2)
    assert metrics["verdicts"] == {"bona_fide": 1}
    assert metrics["errors"] == {"unknown_session": 1}
    assert metrics["commands"]["session.begin"] == 1
    assert metrics["time_to_decision_ms"] == {"p50": 99.0, "p99": 99.0, "max": 99.0}
    assert metrics["uptime_s"] == round((desk.now_ns - START) / 1e9, 3)


def test_the_selftest_tells_what_is_wrong():
    desk = Desk()
    desk.hello(b"m", Role.MONITOR)
    desk.gateway.observed(CAMERA, 1, desk.now_ns)
    reply, _ = desk.send("selftest.run", b"m", Role.MONITOR)
    assert [check["name"] for check in reply["checks"] if not check["passed"]] == ["transport"]
    desk.engine.process_event(ProcessEvent(process="hub", role="hub", event="lost", stamp_ns=0), desk.now_ns)
    desk.now_ns += 2 * 10**9
    reply, _ = desk.send("selftest.run", b"m", Role.MONITOR)
    assert reply["passed"] is False
    assert [check["name"] for check in reply["checks"] if not check["passed"]] == [
        "transport", "processes", f"camera {CAMERA}"]


# --- health, cameras, alerts ----------------------------------------------------------------------------------------
def test_a_change_is_told_at_once():
    desk = Desk()
    desk.take(desk.gateway.due(START))
    desk.gateway.observed(CAMERA, 1, START + 10 * MS)
    desk.take(desk.gateway.due(START + 10 * MS))
    desk.engine.process_event(ProcessEvent(process=CAMERA, role="camera", event="lost", stamp_ns=0), START)
    desk.take(desk.gateway.due(START + 20 * MS))
    desk.take(desk.gateway.due(START + 30 * MS))  # nothing new
    assert [(e["camera"], e["status"]) for e in desk.events("device")] == [
        (CAMERA, "unseen"), (CAMERA, "serving"), (CAMERA, "lost")]
    assert [e["sequence"] for e in desk.events("health")] == [1, 2, 3]


def test_alerts_are_counted_and_told_once_a_second():
    desk = Desk()
    desk.hello()
    for step in range(40):
        desk.gateway.handle(b"k1", Role.KIOSK, [b"{"], desk.now_ns + step * MS)
        desk.take(desk.gateway.due(desk.now_ns + step * MS))
    desk.take(desk.gateway.due(desk.now_ns + 2 * 10**9))
    alerts = [(e["code"], e["count"]) for e in desk.events("security")]
    assert alerts[0] == ("malformed_commands", 1)
    assert sum(count for _, count in alerts) == 40
    assert {code for code, _ in alerts} == {"malformed_commands", "command_flood"}
    assert len(alerts) == 4


def test_a_nonce_opens_one_session_only():
    desk = Desk()
    desk.hello()
    first = desk.begin(nonce="ab" * 16)
    desk.send("session.cancel", session_id=first["session_id"])
    assert desk.begin(nonce="ab" * 16)["code"] == "nonce_reused"


def test_hello_tells_the_key_and_that_it_dies_with_the_engine():
    desk = Desk()
    reply = desk.hello()
    assert reply["signing_keys"] == [{"key_id": SIGNER.key_id,
                                      "public_key": base64.b64encode(SIGNER.public_key_raw).decode()}]
    assert (reply["signing_key_ephemeral"], reply["contract"], reply["calibration_id"]) == (False, 1, None)
    later = SigningKey(key_id="00" * 8, public_key="AA==")
    rotating = Gateway(desk.engine, events_endpoint="ipc://events", build="test", signer=SIGNER,
                       verification_keys=[SigningKey(key_id=SIGNER.key_id, public_key="its own"), later])
    hello = json.dumps({"type": "hello", "contract": 1, "client": "c", "contract_min": 1, "contract_max": 1}).encode()
    told = json.loads(rotating.handle(b"k", Role.KIOSK, [hello], 0).replies[0][1][0])
    assert told["signing_keys"] == [*reply["signing_keys"], {"key_id": "00" * 8, "public_key": "AA=="}]
    unnamed = Gateway(desk.engine, events_endpoint="ipc://events", build="test")
    assert unnamed._ephemeral
    assert unnamed.signer.key_id != SIGNER.key_id
