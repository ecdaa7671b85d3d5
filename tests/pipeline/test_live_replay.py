"""`mmdg-live` on recordings: the same each time, and no verdict from a damaged one. All sessions here are simulated."""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from capture.camera import Pace
from capture.frames import StreamKind
from capture.recording import RecordingReader, RecordingWriter
from capture.simulated.camera import SimulatedCamera
from capture.simulated_device import record_to_db3
from pipeline.supervisor import ExitCode
from tests.pipeline.golden_replay import IGNORED, SESSION
from tests.pipeline.live_run import live_run

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SETS = 16


@pytest.fixture(scope="module")
def db3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that the real SDK recorded: a simulated camera fed into its software device."""
    path = tmp_path_factory.mktemp("sdk") / "session.db3"
    with SimulatedCamera("print", seed=2, frames=SETS, pace=Pace.LOCKSTEP) as camera:
        record_to_db3(path, [camera.read(1.0) for _ in range(SETS)], camera.rig, frame_rate=10)
    return path


def lines(path: Path) -> list[dict[str, object]]:
    with live_run("--camera", f"replay:{path}", "--pace", "lockstep") as run:
        assert run.wait(120) == ExitCode.OK, run.transcript()
    return [{k: v for k, v in event.items() if k not in IGNORED} for event in run.events]


def test_a_session_recorded_by_the_sdk_gives_the_same_three_times(db3: Path) -> None:
    first = lines(db3)
    assert lines(db3) == first
    assert lines(db3) == first
    assert [e["sequence"] for e in first if e["type"] == "score"] == list(range(SETS))
    # Which of the two depends on the random weights; neither is a verdict.
    assert {e["reason"] for e in first if e["type"] == "decision"} <= {"model_unverified", "stream_ended"}
    assert {e["verdict"] for e in first if e["type"] == "decision"} == {"undecided"}


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 2 // 3])


def _foreign(path: Path) -> None:
    path.write_bytes(b"RIFF" + bytes(4000))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(len(data) // 3, len(data) // 3 + 64):
        data[position] ^= 0x5A
    path.write_bytes(data)


def _without_colour(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("delete from messages where topic_id in (select id from topics where name like '%Color%')")
        database.execute("delete from topics where name like '%Color%'")
    database.close()


@pytest.mark.parametrize("damage", [_truncated, _foreign, _empty, _flipped])
@pytest.mark.parametrize("suffix", [".db3", ".mcap"])
def test_a_damaged_recording_is_refused_and_gives_no_verdict(db3: Path, tmp_path: Path, suffix: str,
                                                             damage: object) -> None:
    path = tmp_path / f"damaged{suffix}"
    shutil.copy(db3 if suffix == ".db3" else SESSION, path)
    damage(path)  # type: ignore[operator]
    refused(path)


def test_a_recording_without_colour_is_refused_by_its_streams(db3: Path, tmp_path: Path) -> None:
    path = tmp_path / "blind.db3"
    shutil.copy(db3, path)
    _without_colour(path)
    assert "colour" in refused(path)


def refused(path: Path) -> str:
    started_s = time.monotonic()
    with live_run("--camera", f"replay:{path}", "--pace", "lockstep") as run:
        assert run.wait(90) == ExitCode.CORRUPT_RECORDING, run.transcript()
    assert time.monotonic() - started_s < 90
    assert path.name in run.log[-1]
    assert {e["verdict"] for e in run.named("decision")} <= {"undecided"}
    return run.log[-1]


def test_a_colour_only_recording_misses_its_modalities(tmp_path: Path) -> None:
    """Depth and infrared are required by default: their absence is a reason, not a lower bar."""
    path = tmp_path / "colour.mcap"
    colour = StreamKind.COLOUR
    with RecordingReader(SESSION) as reader:
        rig = reader.manifest.rig
        colour_rig = replace(rig, intrinsics={colour: rig.intrinsics[colour]},
                             to_colour={colour: rig.to_colour[colour]}, depth_scale_m=None)
        with RecordingWriter(path, replace(reader.manifest, rig=colour_rig)) as writer:
            for frame_set in reader:
                writer.write(replace(frame_set, depth=None, infrared=None, depth_scale_m=None))
        sets = len(reader)
    config = tmp_path / "live.yaml"
    config.write_text(yaml.safe_dump({
        "cameras": [{"spec": f"replay:{path}", "pace": "lockstep"}], "policy": {"deadline_ms": 800}}))
    with live_run("--config", str(config)) as run:
        assert run.wait(90) == ExitCode.OK, run.transcript()
    decision = run.named("decision")[0]
    assert (decision["verdict"], decision["reason"]) == ("undecided", "modality_missing:depth")
    assert decision["frames_used"] == 0
    assert [e["modalities"] for e in run.named("score")] == [["rgb"]] * sets
