"""Makes the golden transcripts of docs/kiosk-transcripts: real engine and gateway, virtual time, a known key.

    python -m tests.pipeline.kiosk_transcripts

writes them anew after a change of the contract. Nothing in them is random, so that the same code gives the same bytes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from mmdg_model.scorer import Purpose
from pipeline.decision import Decided, DecisionEngine, SessionStarted
from pipeline.kiosk import Gateway, Output
from pipeline.messages import Message, Observation, ProcessEvent, Score
from pipeline.policy import Policy
from pipeline.security import Role
from pipeline.signing import DecisionSigner
from pipeline.synthetic_scene import SYNTHETIC_MODEL, SyntheticScene, parse_faults

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "kiosk-transcripts"
#: Test key 1 of RFC 8032, section 7.1: known to everyone, for tests alone.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
STRANGER = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
MS = 1_000_000
POLICY = Policy(allowed_purposes=(Purpose.RELEASE, Purpose.SIMULATED))
NONCE = "6b" * 32


class Stage:
    """Records what goes over both sockets, with the time since the start."""

    def __init__(self, scene: str, fault: str = "") -> None:
        self.engine = DecisionEngine({"default": POLICY}, cameras=("front",), model=SYNTHETIC_MODEL)
        ids = iter(range(1, 1000))
        self.gateway = Gateway(
            self.engine, events_endpoint="ipc:///run/mmdg/kiosk.events", build="golden transcript", transport="proven",
            signer=DecisionSigner(SEED), simulated=True, new_id=lambda: f"{next(ids):032x}",
            label=lambda: "2026-11-01T12:00:00.000+00:00")
        self.scene = SyntheticScene("front", scene, faults=parse_faults(fault))
        self.now_ns, self.lines, self.decided = 0, [], False
        self.requests = 0

    def line(self, socket: str, direction: str, frames: list[bytes]) -> None:
        entry: dict[str, Any] = {"at_ms": round(self.now_ns / MS, 1), "socket": socket, "from": direction}
        entry["frames"] = [frame.decode() if self._text(frame) else {"base64": base64.b64encode(frame).decode()}
                           for frame in frames]
        self.lines.append(entry)

    @staticmethod
    def _text(frame: bytes) -> bool:
        return frame[:1] == b"{" or frame.isascii()

    def send(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.requests += 1
        return self.raw(json.dumps({"type": kind, "contract": 1, "request": str(self.requests), **fields}).encode())

    def raw(self, frame: bytes) -> dict[str, Any]:
        self.line("commands", "kiosk", [frame])
        output = self.gateway.handle(b"kiosk", Role.KIOSK, [frame], self.now_ns)
        self.out(output)
        answer: dict[str, Any] = json.loads(output.replies[0][1][0])
        return answer

    def out(self, output: Output) -> None:
        for _, frames in output.replies:
            self.line("commands", "engine", frames)
        for frames in output.published:
            self.line("events", "engine", frames)
        for event in output.events:
            if isinstance(event, SessionStarted):
                self.scene.session_began(self.now_ns)
            self.decided |= isinstance(event, Decided)

    def run(self, until_ms: float, keepalive: str | None = None) -> None:
        """Let time pass, until a decision comes."""
        next_alive_ns, until_ns = self.now_ns + 500 * MS, round(until_ms * MS)
        while not self.decided:
            due = [self.scene.next_due_ns(), self.gateway.next_due_ns(self.now_ns), until_ns,
                   self.engine.next_deadline_ns() or 10**18]
            self.now_ns = min(max(self.now_ns, min(due)), until_ns)
            for message in self.scene.step(self.now_ns):
                self.out(self.gateway.publish(self._take(message), self.now_ns))
            self.out(self.gateway.due(self.now_ns))
            self.out(self.gateway.publish(self.engine.tick(self.now_ns), self.now_ns))
            if keepalive is not None and not self.decided and self.now_ns >= next_alive_ns:
                next_alive_ns += 500 * MS
                self.send("session.keepalive", session_id=keepalive)
            if self.now_ns >= until_ns:
                return

    def _take(self, message: Message) -> list[Any]:
        match message:
            case Observation():
                self.gateway.observed(message.camera, message.sequence, self.now_ns)
                return self.engine.observe(message, self.now_ns)
            case Score():
                return self.engine.score(message, self.now_ns)
            case ProcessEvent():
                return self.engine.process_event(message, self.now_ns)
        return []

    def hello(self) -> dict[str, Any]:
        return self.send("hello", client="golden kiosk", contract_min=1, contract_max=1)

    def begin(self, **fields: Any) -> str:
        told = self.send("session.begin", **{"camera": "front", "nonce": NONCE, "policy": "default"} | fields)
        return str(told["session_id"])


def session(scene: str, fault: str = "", **fields: Any) -> Stage:
    """One session from hello to `session.ended`, read again, and read too late."""
    stage = Stage(scene, fault)
    stage.run(100)
    stage.hello()
    stage.gateway.subscribed({b"kiosk/"})
    session_id = stage.begin(**fields)
    stage.gateway.subscribed({b"kiosk/"})  # the subscription comes through after the first events
    stage.run(20_000, keepalive=session_id)
    stage.send("decision.get", session_id=session_id)
    stage.now_ns += 5000 * MS
    stage.send("decision.get", session_id=session_id)
    return stage


def refusals() -> Stage:
    """What is answered with an error."""
    stage = Stage("bona_fide")
    stage.run(100)
    stage.send("health.get")
    stage.send("hello", client="old kiosk", contract_min=0, contract_max=0)
    stage.hello()
    stage.raw(b"{")
    stage.send("door.open")
    stage.send("health.get", contract=2)
    stage.send("session.begin", camera="front", nonce="short")
    stage.send("session.begin", camera="back", nonce=NONCE)
    stage.send("session.begin", camera="front", nonce=NONCE, policy="vault")
    session_id = stage.begin()
    stage.send("session.begin", camera="front", nonce="6c" * 32)
    stage.send("decision.get", session_id=session_id)
    stage.send("session.status", session_id="of somebody else")
    stage.send("metrics.get")
    stage.send("session.cancel", session_id=session_id)
    stage.send("session.cancel", session_id=session_id)
    stage.send("session.begin", camera="front", nonce=NONCE)
    return stage


def transcripts() -> dict[str, list[dict[str, Any]]]:
    """By file name."""
    return {
        "bona_fide.jsonl": session("bona_fide", transaction_hash="ab" * 32).lines,
        "attack.jsonl": session("print").lines,
        "no_face.jsonl": session("nobody").lines,
        "camera_stalls.jsonl": session("bona_fide", "stall:2s").lines,
        "infrared_missing.jsonl": session("bona_fide", "drop:ir", deadline_ms=1500).lines,
        "inference_killed.jsonl": session("bona_fide", "kill:inference").lines,
        "refusals.jsonl": refusals().lines}


def decision_cases() -> list[dict[str, Any]]:
    """Signed payloads, and whether a client that accepts simulated cameras may open: for tests of `is_open`."""
    signer, stranger = DecisionSigner(SEED), DecisionSigner(STRANGER)
    good = next(line["frames"] for line in transcripts()["bona_fide.jsonl"]
                if line["socket"] == "commands" and len(line["frames"]) == 3)[1]
    fields = json.loads(good)
    cases: list[dict[str, Any]] = []

    def case(name: str, payload: str, opens: bool, key: DecisionSigner = signer, **more: Any) -> None:
        cases.append({"case": name, "opens": opens, "payload": payload,
                      "signature": base64.b64encode(key.sign(payload.encode())).decode(), **more})

    def changed(**changes: Any) -> str:
        return json.dumps({k: v for k, v in {**fields, **changes}.items() if v != "DROP"}, separators=(",", ":"))

    case("as the engine sent it", good, True)
    case("a field that a later engine added", changed(weather="fair"), True)
    for name, value in (("verdict", "attack"), ("verdict", "undecided"), ("verdict", "DROP"), ("verdict", 1),
                        ("verdict", True), ("verdict", "BONA_FIDE"), ("verdict", "live"), ("contract", 0),
                        ("contract", 2),
                        ("contract", "1"), ("origin", "local"), ("examined", False), ("examined", "DROP"),
                        ("simulated", None), ("model_purpose", "test"), ("nonce", "6c" * 32), ("nonce", "DROP"),
                        ("transaction_hash", None), ("transaction_hash", "DROP"), ("session_id", "f" * 32),
                        ("expires_in_ms", 5001), ("expires_in_ms", -1), ("time_to_decision_ms", "0"),
                        ("modalities_used", ["rgb", "depth"]), ("key_id", stranger.key_id)):
        case(f"{name} is {'missing' if value == 'DROP' else json.dumps(value)}", changed(**{name: value}), False)
    case("a verdict twice", good.replace('"verdict":', '"verdict":"attack","verdict":'), False)
    case("signed by another key", good, False, stranger)
    cases.append({"case": "altered after it was signed", "opens": False,
                  "payload": changed(verdict="attack").replace('"attack"', '"bona_fide"'),
                  "signature": base64.b64encode(signer.sign(changed(verdict="attack").encode())).decode()})
    cases.append({"case": "signed without the domain prefix", "opens": False, "payload": good,
                  "signature": base64.b64encode(signer._key.sign(good.encode())).decode()})
    cases.append({"case": "not signed", "opens": False, "payload": good, "signature": ""})
    case("read too late", good, False, at_ms=10_000)
    return cases


def keys() -> dict[str, Any]:
    """What checks the transcripts."""
    signer = DecisionSigner(SEED)
    return {"comment": "Test key 1 of RFC 8032, section 7.1. Its private half is public: for tests alone.",
            "key_id": signer.key_id, "public_key": base64.b64encode(signer.public_key_raw).decode(),
            "private_seed_hex": SEED.hex(), "domain": "mmdg-decision-v1\u0000", "nonce": NONCE,
            "transaction_hash": "ab" * 32, "session_id": f"{2:032x}",
            "required_modalities": ["rgb", "depth", "infrared"], "accept_simulated": True}


def files() -> dict[str, str]:
    """Every file of the folder, byte for byte."""
    text = {name: "".join(json.dumps(line) + "\n" for line in lines) for name, lines in transcripts().items()}
    text["decisions.jsonl"] = "".join(json.dumps(case) + "\n" for case in decision_cases())
    text["keys.json"] = json.dumps(keys(), indent=1) + "\n"
    return text


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file_name, content in files().items():
        (FOLDER / file_name).write_text(content, encoding="utf-8")
