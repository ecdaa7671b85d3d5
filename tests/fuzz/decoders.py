"""Everything that reads bytes of somebody else's, with what it may answer: a value, or the error that it documents.

A value that comes out is checked further where it can be written again: it must come back equal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calibration.operating_point_file import (
    OperatingPointFileError,
    canonical_bytes,
    file_bytes,
    read_operating_point_file,
)
from capture.camera import CorruptStreamError, NoDeviceError
from capture.recording import RecordingReader
from mmdg_model.operating_point import OperatingPointError, read_operating_point
from pipeline import audit_chain, kiosk_client, messages
from pipeline.audit_chain import AuditRecord, ChainError
from pipeline.authorised_clients import ClientFileError, read_clients
from pipeline.config import ConfigError, load_settings, settings_from
from pipeline.ed25519_files import KeyFileError, load_private_key, load_public_key
from pipeline.key_files import KeyDirectory
from pipeline.key_files import KeyFileError as KeyFolderError
from pipeline.kiosk_client import KioskDecision, KioskError, KioskSession
from pipeline.kiosk_messages import CommandError, read_command
from pipeline.lockout import LockoutFile, LockoutFileError, LockoutState
from pipeline.policy import PolicyError, parse_policy
from pipeline.policy_compiler import CompiledPolicyError, parse_request, read_compiled
from pipeline.release_manifest import SIGNATURE_DOMAIN, SIGNATURE_SUFFIX, ManifestError, load
from pipeline.yaml_file import YamlFileError, read_yaml
from tests.capture.sessions import make_rig, write_session
from tests.fuzz.world import ENGINE_KEY, operating_points
from tests.pipeline.scene import POINT, observation, score

#: No input may take longer or more memory; both are far above what any honest one takes.
MAX_SECONDS = 5.0
MAX_MEMORY_BYTES = 256 * 2**20
#: Sizes of what is generated.
MAX_INPUT_BYTES = 64 * 1024

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class DecoderFault(AssertionError):  # noqa: N818 - what is looked for
    """A decoder answered with something else than it documents, or a value did not come back equal."""


@dataclass(frozen=True)
class Target:
    """read: raises one of `errors`, or returns a value after checking it. seeds: of inputs to start from."""

    name: str
    read: Callable[[bytes, Path], Any]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    text: bool = field(default=True)  # its inputs are texts: structure is edited, too


def _equal(first: object, second: object, what: str) -> None:
    # NaN is not itself; the bytes of both tell.
    if first != second and repr(first) != repr(second):
        raise DecoderFault(f"{what} does not come back equal: {first!r:.300} {second!r:.300}")


def _file(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


# --- the wire -------------------------------------------------------------------------------------------------------
def _message(data: bytes, _: Path) -> object:
    found = messages.decode(data, messages.Message)
    again = messages.decode(messages.encode(found), type(found))
    _equal(found, again, "a message")
    return found


def _command(data: bytes, _: Path) -> object:
    found = read_command([data])
    _equal(found, read_command([msgspec.json.encode(found)]), "a command")
    return found


def _decision(data: bytes, _: Path) -> object:
    """A payload signed by the engine's key: whatever stands in it, `is_open` answers."""
    decision = KioskDecision(data, ENGINE_KEY.sign(data))
    session = KioskSession(session_id="s", nonce="00" * 16, transaction_hash=None, began_ns=0, deadline_ms=5000,
                           keepalive_ms=1000, event_topic="t", signing_keys={ENGINE_KEY.key_id:
                                                                             ENGINE_KEY.public_key_raw})
    opens = kiosk_client.is_open(decision, session, now_ns=0, required_modalities=("rgb",))
    if opens and json.loads(data).get("verdict") != "bona_fide":
        raise DecoderFault(f"opened on {data!r:.200}")
    return decision.verdict, decision.reason, opens


def _public_key(data: bytes, _: Path) -> object:
    return kiosk_client.read_public_key(data.decode("latin-1"))


def _signature(data: bytes, _: Path) -> object:
    session = KioskSession("s", "00" * 16, None, 0, 5000, 1000, "t", {ENGINE_KEY.key_id: ENGINE_KEY.public_key_raw})
    payload = _DECISION.encode()
    if kiosk_client.is_open(KioskDecision(payload, data), session, now_ns=0) and data != ENGINE_KEY.sign(payload):
        raise DecoderFault(f"opened on another signature: {data.hex()}")
    return None


_DECISION = json.dumps({
    "type": "decision", "contract": 1, "session_id": "s", "sequence": 4, "origin": "kiosk", "camera": "front",
    "verdict": "bona_fide", "reason": "llr_upper", "confidence": "none", "examined": True, "frames_used": 3,
    "effective_frames": 2.0, "modalities_used": ["rgb", "depth", "infrared"], "time_to_decision_ms": 99.0,
    "policy": "gate", "policy_id": "0" * 16, "threshold_id": None, "model_hash": "ab", "model_purpose": "release",
    "calibration_id": None, "simulated": False, "nonce": "00" * 16, "transaction_hash": None, "issued_at": "",
    "expires_in_ms": 1000, "key_id": ENGINE_KEY.key_id})


def _seeds_of_messages() -> list[bytes]:
    frame = messages.FrameStamp(kind="depth", frame_number=1, sensor_timestamp_ns=1, clock_domain="global",
                                exposure_us=1.0, gain=None, emitter="on")
    made = [observation(3, 5), score(3), messages.Ready(worker="w", credit=2),
            messages.ObservationAck(epoch=1, sequence=2), messages.Report(line="{}"),
            messages.ProcessEvent(process="p", role="camera", event="lost", stamp_ns=3, detail={"camera": "front"}),
            messages.Progress(process="p", pid=1, state="ready", sequence=1, stamp_ns=1, counters={"a": 1}),
            messages.CameraEnded(camera="front", source="s", epoch=1, reason="device_lost", detail="", stamp_ns=1,
                                 counters={}),
            messages.BundleHeader(camera="front", source="s", epoch=1, sequence=1, track_id=1, view="v", planes=[
                messages.PlaneHeader(name="colour", shape=[8, 8, 3], dtype="uint8")], depth_unit_m=0.001,
                infrared_bit_depth=8, frames=[frame], rig_hash="r", quality=score(1).quality, stamps_ns={"a": 1})]
    return [messages.encode(message) for message in made]


def _seeds_of_commands() -> list[bytes]:
    return [json.dumps({"contract": 1, "request": "1", **fields}).encode() for fields in (
        {"type": "hello", "client": "k", "contract_min": 1, "contract_max": 1},
        {"type": "session.begin", "camera": "front", "nonce": "00" * 16, "policy": "gate", "deadline_ms": 900,
         "transaction_hash": "ab" * 32}, {"type": "session.keepalive", "session_id": "s"},
        {"type": "decision.get", "session_id": "s"}, {"type": "health.get"}, {"type": "config.get"})]


# --- files of people ------------------------------------------------------------------------------------------------
def _settings(data: bytes, folder: Path) -> object:
    found = load_settings(_file(data, folder, "live.yaml"))
    _equal(found, settings_from(msgspec.to_builtins(found), "again"), "a configuration")
    return found


def _policy(data: bytes, folder: Path) -> object:
    raw = read_yaml(_file(data, folder, "policy.yaml"))
    if not isinstance(raw, dict):
        return None
    found = parse_policy(raw, "policy")
    _equal(found, parse_policy(msgspec.to_builtins(found), "again"), "a policy")
    return found


def _request(data: bytes, folder: Path) -> object:
    found = parse_request(read_yaml(_file(data, folder, "request.yaml")), "policy")
    _equal(found, parse_request(msgspec.to_builtins(found), "again"), "a request")
    return found


_SETTINGS = b"""cameras: [{spec: simulated, name: front}]
policy: {name: gate, apcer_max: 0.02, required_modalities: [rgb, depth], gating_conditions: [too_dark]}
kiosk: {endpoint: "ipc:///run/mmdg/kiosk"}
audit: {path: /tmp/audit.jsonl, sync: never}
lockout: {attacks: 3}
"""
_YAML = (_SETTINGS, b"{name: default, deadline_ms: 900, llr_clip: 3.5}",
         b"a: &a [x, x]\nb: &b [*a, *a]\ncameras: [*b, *b]\n")


def _no_cameras(name: str) -> Callable[[], list[bytes]]:
    wish = (b"name: gate\napcer_max: 0.02\ndeadline_ms: 1100\nconfidence: 0.95\nspecies: [print]\n"
            b"required_modalities: [rgb]\nsettings: {min_frames: 5}\n")
    return lambda: [wish, *_YAML[1:], name.encode()]


# --- files of programs ----------------------------------------------------------------------------------------------
def _compiled(data: bytes, folder: Path) -> object:
    return read_compiled(_file(data, folder, "gate.json"))


@cache
def _seeds_of_compiled() -> list[bytes]:
    from tests.pipeline.test_policy_compiler import compiled, sessions
    return [msgspec.json.encode(compiled(sessions(bona_fide=[9.0], mask=[0.0] * 90 + [7.0] * 10)))]


def _points(data: bytes, folder: Path) -> object:
    """Also with the id that its content has, so that the checks behind the id are reached."""
    try:
        raw = json.loads(data)
        if isinstance(raw, dict):
            digest = hashlib.sha256(canonical_bytes(raw)).hexdigest()[:16]
            data = json.dumps({**raw, "calibration_id": digest}).encode()
    except (ValueError, RecursionError):
        pass
    found = read_operating_point_file(_file(data, folder, "points.json"))
    _equal(found, read_operating_point_file(_file(file_bytes(found), folder, "points.json")), "operating points")
    return found


def _point(data: bytes, folder: Path) -> object:
    return read_operating_point(_file(data, folder, "point.json"))


def _manifest(data: bytes, folder: Path) -> object:
    """Signed, whatever it is: what an operator signs may be damaged, too."""
    path = _file(data, folder, "release.json")
    signature = base64.b64encode(_KEY.sign(SIGNATURE_DOMAIN + data))
    _file(signature, folder, "release.json" + SIGNATURE_SUFFIX)
    return load(path, _KEY.public_key())


def _manifest_signature(data: bytes, folder: Path) -> object:
    _file(data, folder, "release.json" + SIGNATURE_SUFFIX)
    load(_file(_seeds_of_manifests()[0], folder, "release.json"), _KEY.public_key())


def _seeds_of_manifests() -> list[bytes]:
    pin = {"name": "model.safetensors", "sha256": "ab" * 32}
    return [json.dumps({
        "format": "mmdg-manifest-v1", "created": "2026-11-23", "weights": pin, "input_specification": "cd" * 32,
        "operating_point": None, "policies": {"gate": "ef" * 32}, "cameras": {"front": {
            "serial": "s", "rig_sha256": "12" * 32}}, "files": {"calibration": pin}}).encode()]


def _audit_line(data: bytes, _: Path) -> object:
    """As it is, and with the digest that its bytes have."""
    body = data.rstrip(b"}\n")
    for line in (data, body + b',"digest":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'):
        try:
            found = audit_chain.decode_line(line)
        except ChainError:
            continue
        _equal(found, audit_chain.decode_line(audit_chain.encode_line(found)), "a record")
    return None


def _seeds_of_records() -> list[bytes]:
    record = AuditRecord(sequence=3, previous="0" * 64, kind="session.decided", wall_clock="2026", monotonic_ns=5,
                         boot_id="b", content={"session_id": "s", "counters": {"a": 1}, "x": [1, None, 2.5]})
    return [audit_chain.encode_line(record), msgspec.json.encode(record)[:-1]]


def _clients(data: bytes, folder: Path) -> object:
    return read_clients(_file(data, folder, "clients.json"))


def _seeds_of_clients() -> list[bytes]:
    key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    return [json.dumps({"format": "mmdg-clients-v1", "clients": [
        {"name": "door", "role": "kiosk", "public_key": key, "created": "2026-11-23", "revoked": None}]}).encode()]


def _key_folder(data: bytes, folder: Path) -> object:
    """Each key file of a folder in turn."""
    folder = folder / "keys"
    folder.mkdir(mode=0o700, exist_ok=True)
    keys = KeyDirectory(folder)
    for name in ("curve-server.json", "signing.json", "signing-public.json"):
        _file(data, folder, name)
    failures = []
    for read in (keys.curve_server, keys.signer, lambda: keys.verification_keys(ended=True)):
        try:
            read()
        except (KeyFolderError, ClientFileError) as error:
            failures.append(error)
    return failures


def _key_file(data: bytes, folder: Path) -> object:
    path, failures = _file(data, folder, "key"), []
    for read in (load_private_key, load_public_key):
        try:
            read(path)
        except KeyFileError as error:
            failures.append(error)
    return failures


def _seeds_of_keys() -> list[bytes]:
    from cryptography.hazmat.primitives import serialization as form
    return [_KEY.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()),
            _KEY.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo),
            b"ab" * 32 + b"\n", base64.b64encode(bytes(32)),
            json.dumps({"format": "mmdg-signing-v1", "created": "2026-11-23", "key_id": "0" * 16, "private_key":
                        base64.b64encode(bytes(32)).decode()}).encode(),
            json.dumps({"format": "mmdg-signing-public-v1", "keys": [
                {"key_id": "0" * 16, "public_key": base64.b64encode(bytes(32)).decode(), "since": "", "until": "x"}]}
            ).encode(), json.dumps({"format": "mmdg-curve-server-v1", "created": "", "public_key": "x" * 40,
                                    "secret_key": "y" * 40}).encode()]


def _lockout(data: bytes, folder: Path) -> object:
    file = LockoutFile(_file(data, folder, "lockout.json"), boot_id="b")
    found = file.read(10**12)
    file.write(found, 10**12)
    _equal(file.read(10**12).cameras, found.cameras, "a lock-out state")
    return found


def _recording(data: bytes, folder: Path) -> object:
    with RecordingReader(_file(data, folder, "session.mcap")) as reader:
        return sum(len(list(frame_set.frames())) for frame_set in reader)


@cache
def _seeds_of_recordings() -> list[bytes]:
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.mcap"
        write_session(path, count=2, rig=make_rig(8, 6))
        return [path.read_bytes()]


TARGETS = (
    Target("message", _message, (messages.MessageError,), _seeds_of_messages, text=False),
    Target("command", _command, (CommandError,), _seeds_of_commands),
    Target("decision", _decision, (KioskError,), lambda: [_DECISION.encode()]),
    Target("public_key", _public_key, (KioskError,), lambda: [base64.b64encode(bytes(32))]),
    Target("signature", _signature, (KioskError,), lambda: [ENGINE_KEY.sign(_DECISION.encode())], text=False),
    Target("settings", _settings, (ConfigError,), lambda: list(_YAML)),
    Target("policy", _policy, (PolicyError, YamlFileError), _no_cameras("gate")),
    Target("policy_request", _request, (PolicyError, YamlFileError), _no_cameras("request")),
    Target("compiled_policy", _compiled, (CompiledPolicyError,), _seeds_of_compiled),
    Target("operating_point_file", _points, (OperatingPointFileError,),
           lambda: [file_bytes(operating_points("ab" * 32))]),
    Target("operating_point", _point, (OperatingPointError,), lambda: [json.dumps(POINT.to_dict()).encode()]),
    Target("manifest", _manifest, (ManifestError,), _seeds_of_manifests),
    Target("manifest_signature", _manifest_signature, (ManifestError,), lambda: [base64.b64encode(
        _KEY.sign(SIGNATURE_DOMAIN + _seeds_of_manifests()[0]))]),
    Target("audit_line", _audit_line, (ChainError,), _seeds_of_records),
    Target("clients", _clients, (ClientFileError,), _seeds_of_clients),
    Target("key_folder", _key_folder, (), _seeds_of_keys),
    Target("key_file", _key_file, (), _seeds_of_keys),
    Target("lockout", _lockout, (LockoutFileError,), lambda: [msgspec.json.encode(LockoutState(
        boot_id="b", saved_ns=5))]),
    Target("recording", _recording, (CorruptStreamError, NoDeviceError), _seeds_of_recordings, text=False),
)


def attempt(target: Target, data: bytes, folder: Path, *, memory: bool = False) -> bool:
    """Whether the target took the input. memory: measure it, too (slow).

    Raises:
        DecoderFault: another error than documented, a value that does not come back, too much time or memory.
    """
    if memory:
        tracemalloc.start()
    began = time.perf_counter()
    try:
        target.read(data, folder)
        taken = True
    except target.errors:
        taken = False
    except DecoderFault:
        raise
    except Exception as error:
        raise DecoderFault(f"{target.name}: {type(error).__name__}: {error} from {data[:200]!r}") from error
    finally:
        seconds = time.perf_counter() - began
        if memory:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    if seconds > MAX_SECONDS or (memory and peak > MAX_MEMORY_BYTES):
        raise DecoderFault(f"{target.name}: {seconds:.1f} s from {len(data)} bytes")
    return taken


# --- inputs ---------------------------------------------------------------------------------------------------------
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -2**63 - 1, 10**400, 0.5, -0.0, 1e308, 1e-320, "", "x", "\ud800",
    "é", "\x00", "A" * 5000, [], {}, [[]], {"": None}, "NaN", "2026-13-45", float("nan"), float("inf"), "0" * 64, "$",
    "`", [None] * 300, {"a": {"b": {"c": 1}}})
_TOKENS = (
    b"\x00", b"\xff", b'"', b"{", b"}", b"[", b"]", b"\\", b"\n", b"NaN", b"Infinity", b"-", b"9" * 400, b"1e999",
    b"\\ud800", b"&a ", b"*a", b"!!binary ", b"!!float ", b"!!timestamp ", b"!!int ", b"<<: ", b"2026-13-45", b"0x",
    b"? ", b": ", b"- ", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"%", b"[" * 3000, b'{"a":' * 2000, b"- " * 2000)


def _edit_json(rng: random.Random, value: Any) -> Any:
    """One place in a JSON value becomes something else, goes, or is joined by another."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in (list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()):
            places.append((node, key))
            walk(node[key])

    walk(value)
    if not places:
        return deepcopy(rng.choice(_VALUES))
    node, key = rng.choice(places)
    how = rng.randrange(4)
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, dict):
        node[rng.choice(["type", "x", "", "a.b", *map(str, node)])] = deepcopy(rng.choice(_VALUES))
    else:
        node[key] = deepcopy(rng.choice(_VALUES))
    return value


def _structure(data: bytes) -> Any:
    """What a JSON or YAML text says, None for neither."""
    try:
        return json.loads(data)
    except ValueError:
        try:
            return yaml.safe_load(data)
        except yaml.YAMLError:
            return None


def mutated(rng: random.Random, target: Target) -> bytes:
    """A seed of the target, changed in its bytes or in its structure."""
    seeds = target.seeds()
    data = rng.choice(seeds)
    if target.text and rng.random() < 0.5:
        value = _structure(data)
        if value is not None:
            for _ in range(rng.randrange(1, 4)):
                value = _edit_json(rng, value)
            return json.dumps(value, default=str).encode()
    if target.name == "message" and rng.random() < 0.5:
        try:
            return msgspec.msgpack.encode(_edit_json(rng, msgspec.msgpack.decode(data)))
        except (OverflowError, UnicodeEncodeError):  # a number or text that MessagePack has not
            return data + data
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice([1, 1, 2, 4, 8, 64]))
        how = rng.randrange(6)
        if how == 0:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
        elif how == 1:
            data = data[:at] + data[to:]
        elif how == 2:
            data = data[:at] + rng.choice(_TOKENS) + data[to if rng.random() < 0.5 else at:]
        elif how == 3:
            data = data[:at] + data[at:to] * rng.choice([2, 3, 40]) + data[to:]
        elif how == 4:
            data = data[:at]
        else:
            other = rng.choice(seeds)
            data = data[:at] + other[rng.randrange(len(other) + 1):]
    return data[:MAX_INPUT_BYTES]
