"""`mmdg sessions` over sound, damaged and foreign files."""

import json

import pytest
from typer.testing import CliRunner

from capture.recording import RecordingReader
from capture.simulated_device import record_to_db3
from pipeline.commands import app
from tests.capture import realsense_scenes
from tests.capture.sessions import SERIAL, make_rig, make_set, write_session


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def damage(path, sequence):
    data, plane = bytearray(path.read_bytes()), make_set(sequence).infrared.pixels.tobytes()
    data[data.index(plane) + 7] ^= 2
    path.write_bytes(data)
    return path


def test_info_tells_what_a_session_holds(tmp_path):
    path = write_session(tmp_path / "s.mcap", 4, label="print", simulated=True, counters={"skew": 2})
    done = run("sessions", "info", path)
    assert done.exit_code == 0
    for text in ("4 in 0.1 s", "colour 48x36, depth 40x30, infrared 40x30", f"{SERIAL} (SIMULATED)", make_rig().hash,
                 "print", "skew 2", "every one is as recorded", "2.0 ms"):
        assert text in done.stdout


def test_info_as_json(tmp_path):
    report = json.loads(run("sessions", "info", "--json", write_session(tmp_path / "s.mcap", 4)).stdout)
    expected = {"sets": 4, "verified_sets": 4, "hashes_ok": True, "damage": "", "serial": SERIAL, "simulated": False,
                "rig_sha256": make_rig().hash, "depth_scale_m": 0.00025, "missing_sequences": 0, "epochs": 1,
                "max_skew_ms": 2.0, "dropped": {}, "recovered_from": ""}
    assert {key: report[key] for key in expected} == expected


def test_info_names_the_damaged_plane_and_fails(tmp_path):
    done = run("sessions", "info", "--json", damage(write_session(tmp_path / "s.mcap", 4), 2))
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["hashes_ok"], report["verified_sets"]) == (False, 2)
    assert "set 2 of 4: infrared plane" in report["damage"]


@pytest.mark.parametrize("command", ["info", "recover"])
def test_what_is_no_session_fails_with_its_path(tmp_path, command):
    (tmp_path / "s.mcap").write_text("hello")
    done = run("sessions", command, tmp_path / "s.mcap")
    assert done.exit_code == 1
    assert str(tmp_path / "s.mcap") in done.stderr
    assert done.stdout == ""


def test_recover_writes_a_sound_session_beside_the_damaged_one(tmp_path):
    path = damage(write_session(tmp_path / "s.mcap", 4), 2)
    done = run("sessions", "recover", path)
    assert done.exit_code == 0
    assert "2 sets recovered" in done.stdout
    assert "infrared plane" in done.stdout
    assert run("sessions", "info", tmp_path / "s.recovered.mcap").exit_code == 0
    again = run("sessions", "recover", path)
    assert again.exit_code == 1
    assert "never overwritten" in again.stderr
    assert run("sessions", "recover", path, "--output", tmp_path / "b.mcap").exit_code == 0
    with RecordingReader(tmp_path / "b.mcap") as reader:
        assert len(list(reader)) == 2


def test_info_plays_a_recording_of_the_sdk(tmp_path):
    path = tmp_path / "s.db3"
    record_to_db3(path, [realsense_scenes.frame_set(n) for n in range(1, 5)], realsense_scenes.rig(), frame_rate=30)
    done = run("sessions", "info", "--json", path)
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert (report["sets"], report["hashes_ok"], report["simulated"]) == (4, True, True)
    assert report["streams"] == {"colour": "64x48", "depth": "64x48", "infrared": "64x48"}
    path.write_bytes(path.read_bytes()[:5000])
    assert run("sessions", "info", path).exit_code == 1
