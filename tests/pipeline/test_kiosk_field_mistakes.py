"""Mistakes that were seen in fielded systems, each tried on the gateway and the client as they are shipped.

Sessions run through the real engine and gateway in virtual time; observations and scores are synthetic.
"""

import base64
import json

import pytest

from pipeline.kiosk_client import KioskDecision, KioskSession, is_open
from pipeline.signing import DecisionSigner
from pipeline.synthetic_scene import SyntheticScene
from tests.pipeline.kiosk_transcripts import NONCE, SEED, session

SIGNER = DecisionSigner(SEED)


def owners(stage, **changes):
    """The session as its kiosk knows it."""
    values = {"session_id": f"{2:032x}", "nonce": NONCE, "transaction_hash": None, "began_ns": 100 * 10**6,
              "deadline_ms": 5000, "keepalive_ms": 1000, "event_topic": "t",
              "signing_keys": {SIGNER.key_id: SIGNER.public_key_raw}}
    return KioskSession(**(values | changes))


def decided(stage):
    """The decision as it was pushed to the owner."""
    frames = next(line["frames"] for line in stage.lines if line["socket"] == "commands" and len(line["frames"]) == 3)
    return KioskDecision(frames[1].encode(), base64.b64decode(frames[2]["base64"]))


def opens(decision, owner, at_ms=2000, **options):
    return is_open(decision, owner, accept_simulated=True, now_ns=at_ms * 10**6, **options)


def resigned(decision, **changes):
    """Another engine's decision, signed with the right key."""
    fields = {k: v for k, v in (decision.fields | changes).items() if v != "DROP"}
    payload = json.dumps(fields).encode()
    return KioskDecision(payload, SIGNER.sign(payload))


@pytest.fixture(scope="module")
def person():
    return session("bona_fide")


def test_the_good_case_opens_so_that_the_others_mean_something(person):
    assert opens(decided(person), owners(person))


def test_a_missing_verdict_is_not_read_as_real(person):
    assert not opens(resigned(decided(person), verdict="DROP"), owners(person))
    assert not opens(None, owners(person))


@pytest.mark.parametrize(("scene", "verdict"), [("bona_fide", "bona_fide"), ("print", "attack"), ("screen", "attack"),
                                                ("mask", "attack")])
def test_labels_are_not_inverted_between_the_score_and_the_wire(scene, verdict):
    decision = decided(session(scene))
    assert (decision.verdict, decision.reason) == (verdict, {"bona_fide": "llr_upper"}.get(verdict, "llr_lower"))
    assert opens(decision, owners(None)) is (scene == "bona_fide")


@pytest.mark.parametrize("value", [0, 1, 2, True, "1", "real", "live", "Bona_fide", "bona fide", "bona_fide2", None,
                                   {}])
def test_a_verdict_of_another_numbering_keeps_closed(person, value):
    assert not opens(resigned(decided(person), verdict=value), owners(person))


def test_a_decision_is_not_used_twice_nor_for_the_next_person(person):
    decision, owner = decided(person), owners(person)
    assert opens(decision, owner)
    assert not opens(decision, owner)
    assert not opens(decision, owners(person, nonce="6c" * 32))
    assert not opens(decision, owners(person, session_id="f" * 32))
    assert not opens(decision, owners(person, transaction_hash="ab" * 32))


def test_a_decision_is_not_used_for_seconds(person):
    decision = decided(person)
    last_ms = 100 + decision.fields["time_to_decision_ms"] + decision.fields["expires_in_ms"]
    assert opens(decision, owners(person), at_ms=last_ms - 1)
    assert not opens(decision, owners(person), at_ms=last_ms)
    assert json.loads(person.lines[-1]["frames"][0])["code"] == "decision_expired"


@pytest.mark.parametrize("dropped", ["ir", "depth"])
def test_a_good_picture_in_colour_does_not_make_up_for_a_missing_sensor(dropped):
    """OR for AND: colour passed, infrared failed, access granted."""
    stage = session("bona_fide", f"drop:{dropped}")
    assert decided(stage).verdict == "undecided"
    assert not opens(decided(stage), owners(stage))


@pytest.mark.parametrize("used", [["rgb"], ["rgb", "infrared"], ["depth", "infrared"], [], "rgb,depth,infrared"])
def test_a_kiosk_that_demands_three_sensors_takes_no_two(person, used):
    assert not opens(resigned(decided(person), modalities_used=used), owners(person),
                     required_modalities=("rgb", "depth", "infrared"))


@pytest.mark.parametrize(("scene", "fault"), [("nobody", ""), ("bona_fide", "stall:9s"), ("bona_fide", "skew:20ms")])
def test_a_session_ends_also_when_nothing_is_seen(scene, fault):
    """Timeouts that hang on frames never fire in the dark."""
    decision = decided(session(scene, fault))
    assert decision.verdict == "undecided"
    assert decision.fields["time_to_decision_ms"] <= 2100


def test_nobody_retries_within_a_session():
    """After an attack the session is over: what comes later changes nothing, and a new one needs a new nonce."""
    stage = session("print")
    said = len(stage.lines)
    stage.decided, stage.scene = False, SyntheticScene("front", "bona_fide", now_ns=stage.now_ns)
    stage.run(stage.now_ns / 10**6 + 3000)  # a person steps up now
    assert [line for line in stage.lines[said:] if f"{2:032x}" in str(line["frames"])] == []
    assert stage.send("session.begin", camera="front", nonce=NONCE, policy="default")["code"] == "nonce_reused"
