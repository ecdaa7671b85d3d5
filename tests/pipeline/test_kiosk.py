"""The gateway by itself, driven by values."""

import json

import pytest

from pipeline.decision import DecisionEngine
from pipeline.kiosk import BURST, MAX_CLIENTS, MAX_ENDED, Gateway
from pipeline.kiosk_messages import Decision
from pipeline.security import Role
from tests.pipeline.scene import CAMERA, MODEL, MS, QUICK, observation, score

START = 10**9


class Desk:
    """A gateway and its engine; `sent` collects replies by client, `published` everything on the event socket."""

    def __init__(self, cameras=(CAMERA,)):
        self.engine = DecisionEngine({"default": QUICK}, cameras=cameras, model=MODEL)
        ids = iter(range(10**6))
        self.gateway = Gateway(self.engine, events_endpoint="ipc://events", build="test",
                               new_id=lambda: f"session-{next(ids)}", label=lambda: "a label")
        self.now_ns, self.sequence, self.published, self.pushed = START, 0, [], []

    def take(self, output):
        self.published += output.published
        return output.replies

    def send(self, kind, identity=b"k1", role=Role.KIOSK, **fields):
        command = json.dumps({"type": kind, "contract": 0, "request": "r", **fields}).encode()
        replies = self.take(self.gateway.handle(identity, role, [command], self.now_ns))
        self.pushed += replies[1:]
        assert replies[0][0] == identity
        return json.loads(replies[0][1][0]), replies[0][1][1:]

    def hello(self, identity=b"k1", role=Role.KIOSK):
        return self.send("hello", identity, role, client="c", contract_min=0, contract_max=3)[0]

    def begin(self, identity=b"k1", **fields):
        return self.send("session.begin", identity, **({"camera": CAMERA, "nonce": "00" * 16} | fields))[0]

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
    published = [frames[2] for frames in desk.published if len(frames) == 3]
    assert len(published) == 1
    assert [(identity, frames[1]) for identity, frames in desk.pushed] == [(b"k1", published[0])]
    desk.now_ns += 4_000 * MS
    assert desk.send("decision.get", session_id=begun["session_id"])[1] == published
    payload = json.loads(published[0])
    assert set(payload) == {"type", *Decision.__struct_fields__}
    assert (payload["nonce"], payload["issued_at"], payload["verdict"]) == ("00" * 16, "a label", "bona_fide")


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
    output = desk.gateway.handle(b"x", None, [b'{"type": "hello", "contract": 0}'], START)
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
        desk.take(desk.gateway.health_due(START + step * 100 * MS))
    assert [e["sequence"] for e in desk.events("health")] == [1, 2, 3]


def test_health_says_how_old_a_camera_is_and_that_it_was_never_seen():
    desk = Desk(cameras=(CAMERA, "back"))
    desk.gateway.observed(CAMERA, 9, START)
    desk.now_ns = START + 250 * MS
    desk.hello()
    cameras = desk.send("health.get")[0]["health"]["cameras"]
    assert cameras == [{"name": "back", "age_ms": None, "sequence": None, "open_session": False},
                       {"name": CAMERA, "age_ms": 250.0, "sequence": 9, "open_session": False}]


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
