"""`mmdg record`, run as a command over files, and its loop over cameras that misbehave."""

import json
import signal

import pytest
from typer.testing import CliRunner

from capture.camera import Camera, DisconnectedError, FrameTimeoutError, Pace
from capture.recording import RecordingReader
from capture.replay import ReplayCamera
from pipeline.commands import app
from pipeline.commands.record import MAX_SILENT_READS, _stop_on_signals, record_camera
from tests.capture.camera_builders import write_video
from tests.capture.sessions import make_description, make_set, write_session


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def source(tmp_path):
    return write_session(tmp_path / "source.mcap", 5, counters={"skew": 2})


def test_records_a_camera_and_says_what_it_got(tmp_path, source):
    out = tmp_path / "out.mcap"
    done = run("record", "--camera", f"replay:{source}", "--lockstep", "--label", "print", out)
    assert done.exit_code == 0, done.stderr
    assert "5 sets of colour, depth, infrared in 0.1 s" in done.stdout
    assert "ended: end_of_stream" in done.stdout
    with RecordingReader(out) as copy, RecordingReader(source) as original:
        assert copy.manifest.label == "print"
        for a, b in zip(copy, original, strict=True):
            assert a.depth.pixels.tobytes() == b.depth.pixels.tobytes()
            assert a.colour.sensor_timestamp_ns == b.colour.sensor_timestamp_ns


def test_json_is_one_line_with_the_summary(tmp_path, source):
    done = run("record", "--camera", f"replay:{source}", "--lockstep", "--frames", 3, "--json", tmp_path / "out.mcap")
    summary = json.loads(done.stdout)
    assert (summary["sets"], summary["ended"], summary["simulated"]) == (3, "frames", False)
    assert summary["streams"] == ["colour", "depth", "infrared"]


def test_seconds_are_recorded_time_for_a_file(tmp_path, source):
    done = run("record", "--camera", f"replay:{source}", "--lockstep", "--seconds", "0.1", "--json",
               tmp_path / "out.mcap")
    assert (json.loads(done.stdout)["sets"], json.loads(done.stdout)["ended"]) == (4, "seconds")


def test_a_video_file_becomes_a_colour_only_session(tmp_path):
    video = write_video(tmp_path / "v.avi", count=4)
    done = run("record", "--camera", f"webcam:{video}", "--lockstep", "--json", tmp_path / "out.mcap")
    assert (json.loads(done.stdout)["sets"], json.loads(done.stdout)["streams"]) == (4, ["colour"])


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["--camera", "replay:{source}", "{source}"], 1, "exists and is never overwritten"),
    (["--camera", "replay:missing.mcap", "{folder}/out.mcap"], 1, "no such file"),
    (["--camera", "kinect", "{folder}/out.mcap"], 2, "unknown kind 'kinect'"),
    (["--camera", "replay:{source}", "{folder}/out.avi"], 2, "ends in .mcap"),
    (["--camera", "replay:{source}", "--frames", "0", "{folder}/out.mcap"], 2, "greater than or equal to 1"),
    (["--camera", "replay:{source}", "{folder}/nowhere/out.mcap"], 1, "does not exist"),
])
def test_refuses_with_a_reason_and_leaves_no_file(tmp_path, source, arguments, code, message):
    before, files = source.read_bytes(), sorted(tmp_path.rglob("*"))
    done = run("record", *[a.format(source=source, folder=tmp_path) for a in arguments])
    assert done.exit_code == code
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert source.read_bytes() == before
    assert sorted(tmp_path.rglob("*")) == files


class ScriptedCamera(Camera):
    """Yields sets and raises errors in the order given, as a live device might."""

    def __init__(self, script):
        super().__init__()
        self.script, self.closed = list(script), False

    def open(self):
        return make_description()

    def read(self, timeout_s):
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return make_set(step)

    def close(self):
        self.closed = True


def test_a_lost_device_keeps_what_was_recorded(tmp_path):
    camera = ScriptedCamera([0, 1, FrameTimeoutError("slow"), 2, DisconnectedError("unplugged")])
    summary = record_camera(camera, tmp_path / "out.mcap")
    assert (summary.sets, summary.ended, summary.error) == (3, "error", "unplugged")
    assert camera.closed
    with RecordingReader(tmp_path / "out.mcap") as reader:
        assert len(list(reader)) == 3


def test_a_silent_camera_ends_the_recording(tmp_path):
    camera = ScriptedCamera([0, *[FrameTimeoutError("no frame")] * MAX_SILENT_READS])
    summary = record_camera(camera, tmp_path / "out.mcap")
    assert (summary.sets, summary.ended) == (1, "error")
    assert "no set for 10 s" in summary.error


def test_nothing_recorded_leaves_no_file(tmp_path):
    summary = record_camera(ScriptedCamera([DisconnectedError("unplugged")]), tmp_path / "out.mcap")
    assert (summary.sets, summary.error) == (0, "unplugged")
    assert list(tmp_path.iterdir()) == []


def test_stopping_is_clean_and_drops_are_kept(tmp_path, source):
    camera = ReplayCamera(source, Pace.LOCKSTEP)
    camera.counters["gap_depth"] = 4
    sets = []
    summary = record_camera(camera, tmp_path / "out.mcap", should_stop=lambda: len(sets) == 2, on_set=sets.append)
    assert (summary.sets, summary.ended, summary.dropped) == (2, "stopped", {"gap_depth": 4})
    with RecordingReader(tmp_path / "out.mcap") as reader:
        assert reader.counters == {"gap_depth": 4}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_the_recording_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with _stop_on_signals() as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()
    assert signal.getsignal(number) is before
