"""By default nothing that leaves the engine holds an image or an embedding: files, kiosk messages, reports and logs.

The internal sockets carry face crops from the camera to the network, in a private folder (mode 700), and are not
looked at. The camera is a recording of a simulation, so that every pixel that was seen is known.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import yaml

from align.crop import CropSettings
from capture.camera import EndOfStreamError, Pace
from capture.recording import RecordingWriter
from capture.replay import ReplayCamera
from capture.simulated.camera import SimulatedCamera
from detect.blazeface import BlazeFaceDetector
from pipeline.audit_check import records, verify
from pipeline.bundle import unpack
from pipeline.camera_stage import CameraStep
from pipeline.kiosk_client import KioskClient
from tests.pipeline.live_run import live_run
from tests.pipeline.privacy_scan import files_below, findings, shingles
from tests.pipeline.test_live import PATIENT_POLICY, begun

SETS, RATE = 30, 5


def recorded(path: Path) -> Path:
    with SimulatedCamera("bona_fide", seed=5, pace=Pace.LOCKSTEP, frames=SETS, size=(320, 240),
                         frame_rate=RATE) as camera, \
            RecordingWriter(path, camera.describe()) as writer:
        for _ in range(SETS):
            writer.write(camera.read(1.0))
    return path


def seen_planes(session: Path) -> list[Any]:
    """Every plane of a recording, and every crop that the camera process makes of it."""
    planes: list[Any] = []
    camera = ReplayCamera(session, Pace.LOCKSTEP)
    with BlazeFaceDetector() as detector:
        step = CameraStep("door", camera.open(), detector, CropSettings(), lockstep=True)
        try:
            while True:
                frame_set = camera.read(1.0)
                bundle = step.step(frame_set, {}).bundle
                crop = unpack(bundle)[1] if bundle is not None else None
                planes += [frame.pixels for frame in frame_set.frames()]
                planes += [crop.colour, crop.depth, crop.infrared] if crop is not None else []
        except EndOfStreamError:
            return planes
        finally:
            camera.close()


@pytest.fixture(scope="module")
def crop_planes() -> list[Any]:
    """Planes of one simulated face crop."""
    with SimulatedCamera("bona_fide", seed=5, pace=Pace.LOCKSTEP, frames=1, size=(320, 240)) as camera, \
            BlazeFaceDetector() as detector:
        bundle = CameraStep("door", camera.describe(), detector, CropSettings(), lockstep=True).step(
            camera.read(1.0), {}).bundle
    assert bundle is not None
    planes = unpack(bundle)[1]
    return [planes.colour, planes.depth, planes.infrared]


EMBEDDING = np.random.default_rng(1).normal(size=768).astype(np.float32)


def npz(plane: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, plane)
    return file.getvalue()


@pytest.mark.parametrize("plant", [
    lambda colour: colour.tobytes()[5000:5100],
    lambda colour: base64.b64encode(colour.tobytes()[5001:5081]),
    lambda colour: colour.tobytes()[5000:5060].hex().encode(),
    lambda colour: cv2.imencode(".jpg", colour)[1].tobytes(),
    lambda colour: cv2.imencode(".png", colour)[1].tobytes(),
    lambda colour: base64.b64encode(cv2.imencode(".jpg", colour)[1].tobytes()),
    npz,
    lambda colour: json.dumps(colour[60, :20].tolist()).encode(),
    lambda _: EMBEDDING.tobytes(),
    lambda _: json.dumps({"embedding": EMBEDDING.tolist()}).encode(),
    lambda _: base64.b64encode(EMBEDDING.tobytes()),
    lambda _: msgspec.msgpack.encode(EMBEDDING.tolist()),
])
def test_the_scan_finds_what_is_planted(plant: Any, crop_planes: list[Any]) -> None:
    honest = b'{"session_id":"' + b"ab" * 16 + b'","model_hash":"' + b"0f" * 32 + b'"}\n'
    known = shingles(crop_planes)
    assert findings("log", honest * 50, known) == []
    assert findings("log", honest * 5 + plant(crop_planes[0]) + honest * 5, known)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder as the system's own: everybody may pass, which pytest's do not allow."""
    folder = Path(tempfile.mkdtemp(prefix="mmdg-privacy-", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_a_session_leaves_no_picture_and_no_embedding_anywhere(tmp_path_factory: pytest.TempPathFactory,
                                                               open_folder: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path_factory.mktemp("k"), tmp_path_factory.mktemp("r")
    folder.chmod(0o700)
    session_file = recorded(elsewhere / "session.mcap")
    known = shingles(seen_planes(session_file))
    names = ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CACHE_HOME")
    homes = {name: folder / name.lower()[-8:] for name in names}
    homes["TMPDIR"] = open_folder  # the start-up self-test connects as a foreign user there
    for variable, place in homes.items():
        place.mkdir(exist_ok=True, mode=0o700)
        monkeypatch.setenv(variable, str(place))
    config = folder / "live.yaml"
    config.write_text(yaml.safe_dump({
        "cameras": [{"spec": f"replay:{session_file}", "name": "door"}], "policy": PATIENT_POLICY,
        "kiosk": {"endpoint": f"ipc://{folder}/kiosk"}, "audit": {"path": str(folder / "audit.jsonl")},
        "lockout": {"path": str(folder / "lockout.json")}}))
    written, messages = {}, []
    with live_run("--config", str(config)) as run, KioskClient(f"ipc://{folder}/kiosk", timeout_s=30) as client:
        client.hello()
        client.subscribe("")
        session = begun(client)
        run.wait_for(lambda r: len(r.named("score")) >= 3)
        written |= files_below(folder) | files_below(open_folder)  # while the internal sockets are there
        client.cancel(session)
        decision = client.wait_decision(session, messages.append)
        assert decision is not None
        messages += [decision.fields, client.health()]
        while (event := client.next_event(5.0)) is not None:
            messages.append(event)
            if event["type"] == "session.ended":
                break
        run.process.terminate()
        assert run.wait(60) == 0, run.transcript()
    written |= files_below(folder) | files_below(open_folder)
    assert {"audit.jsonl", "lockout.json", "live.yaml"} <= set(written)
    texts = {**written, "kiosk messages": "\n".join(map(json.dumps, messages)).encode(),
             "reports": "\n".join(map(json.dumps, run.events)).encode(), "logs": "\n".join(run.log).encode()}
    assert [found for name, data in texts.items() for found in findings(name, data, known)] == []
    assert {"session.started", "session.decision", "session.ended"} <= {message.get("type") for message in messages}
    log = folder / "audit.jsonl"
    told = {record.kind for record in records(log)}
    assert {"engine.started", "process.ready", "session.begun", "session.decided", "session.ended",
            "engine.stopped"} <= told
    assert "security.alert" not in told  # an honest stream
    assert verify(log).complete
