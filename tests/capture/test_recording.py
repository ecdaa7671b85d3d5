"""Session files: what goes in comes out bit for bit; what is damaged is named; what was cut short is rescued."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Message
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer

from capture.camera import CorruptStreamError, NoDeviceError
from capture.mcap_file import open_chunk
from capture.recording import RecordingError, RecordingReader, RecordingWriter, decode_messages, recover_recording
from capture.recording_format import FormatError, Manifest
from tests.capture.sessions import make_description, make_rig, make_set, write_session


def assert_same_set(found, expected):
    assert (found.source, found.epoch, found.sequence) == (expected.source, expected.epoch, expected.sequence)
    assert found.depth_scale_m == expected.depth_scale_m
    kinds = [f.kind for f in expected.frames()]
    assert [f.kind for f in found.frames()] == kinds
    for a, b in zip(found.frames(), expected.frames(), strict=True):
        assert a.pixels.dtype == b.pixels.dtype
        np.testing.assert_array_equal(a.pixels, b.pixels)
        for name in ("frame_number", "sensor_timestamp_ns", "clock_domain", "arrival_ns", "bit_depth", "exposure_us",
                     "gain", "emitter", "spectrum"):
            assert getattr(a, name) == getattr(b, name), (a.kind, name)


@pytest.mark.parametrize(("rig", "infrared_dtype"), [
    (make_rig(), np.uint8), (make_rig(), np.uint16), (make_rig(colour_only=True), np.uint8)],
    ids=["infrared 8 bit", "infrared 16 bit", "colour only"])
def test_sets_come_back_bit_for_bit(tmp_path, rig, infrared_dtype):
    path = tmp_path / "session.mcap"
    sets = [make_set(n, rig, infrared_dtype) for n in range(4)]
    with RecordingWriter(path, make_description(rig), min_free_bytes=0) as writer:
        for frames in sets:
            writer.write(frames)
    with RecordingReader(path) as reader:
        assert len(reader) == 4
        assert reader.arrivals_ns == [frames.arrival_ns for frames in sets]
        for found, expected in zip(reader, sets, strict=True):
            assert_same_set(found, expected)
        assert_same_set(reader.read(2), sets[2])  # out of order


def test_planes_are_owned_and_writable(tmp_path):
    with RecordingReader(write_session(tmp_path / "s.mcap", 1)) as reader:
        for frame in reader.read(0).frames():
            assert frame.pixels.flags.owndata
            assert frame.pixels.flags.writeable


def test_the_manifest_tells_the_camera_the_rig_and_the_label(tmp_path):
    path = write_session(tmp_path / "s.mcap", 1, label="print", notes="A4, matte", simulated=True,
                         counters={"skew": 3, "gap_colour": 0})
    with RecordingReader(path) as reader:
        manifest = reader.manifest
        assert manifest.rig.hash == make_rig().hash
        assert (manifest.kind, manifest.frame_rate, manifest.simulated) == ("realsense", 30.0, True)
        assert (manifest.label, manifest.notes, manifest.recovered_from) == ("print", "A4, matte", "")
        assert manifest.details == {"firmware": "5.16.0.1"}
        assert manifest.software.startswith("mmdg-live")
        assert reader.counters == {"skew": 3}


def test_any_mcap_viewer_can_read_the_images(tmp_path):
    from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
    from foxglove_schemas_protobuf.RawImage_pb2 import RawImage

    path, first = write_session(tmp_path / "s.mcap", 2), make_set(0)
    with path.open("rb") as file:
        messages = {}
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            messages.setdefault(channel.topic, (schema, channel, message))
    expected = {"/colour/image": "rgb8", "/depth/image": "16UC1", "/infrared/image": "mono8"}
    for topic, encoding in expected.items():
        schema, channel, message = messages[topic]
        assert (schema.name, schema.encoding) == ("foxglove.RawImage", "protobuf")
        image = RawImage.FromString(message.data)
        assert image.encoding == encoding
        assert image.step * image.height == len(image.data)
        assert (image.timestamp.ToNanoseconds()) == getattr(first, topic.split("/")[1]).arrival_ns
    assert messages["/depth/image"][1].metadata == {"depth_scale_m": "0.00025"}
    calibration = CameraCalibration.FromString(messages["/colour/calibration"][2].data)
    assert (calibration.K[0], calibration.K[2], calibration.D[0]) == (44.0, 23.5, -0.05)
    assert messages["/frame_set"][0].name == "mmdg.FrameSet"
    assert json.loads(messages["/frame_set"][2].data)["position"] == 0


# --- refusing to write ------------------------------------------------------------------------------------------------
def test_an_existing_session_is_never_overwritten(tmp_path):
    path = write_session(tmp_path / "s.mcap", 2)
    before = path.read_bytes()
    with pytest.raises(RecordingError, match=r"s\.mcap exists and is never overwritten"):
        RecordingWriter(path, make_description(), min_free_bytes=0)
    assert path.read_bytes() == before


def test_a_name_taken_while_recording_is_not_overwritten(tmp_path):
    path = tmp_path / "s.mcap"
    writer = RecordingWriter(path, make_description(), min_free_bytes=0)
    writer.write(make_set(0))
    path.write_bytes(b"someone else's")
    with pytest.raises(RecordingError, match="could not become"):
        writer.close()
    assert path.read_bytes() == b"someone else's"
    assert recover_recording(writer.partial).sets == 1


def test_two_recorders_cannot_share_a_name(tmp_path):
    with RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0) as writer:
        writer.write(make_set(0))
        with pytest.raises(RecordingError, match=r"s\.mcap\.partial exists: it is being recorded now"):
            RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(RecordingError, match=r"the folder .*nowhere does not exist"):
        RecordingWriter(tmp_path / "nowhere" / "s.mcap", make_description(), min_free_bytes=0)


def test_a_full_disk_is_refused_before_and_noticed_while_recording(tmp_path):
    with pytest.raises(RecordingError, match="MiB free, recording needs"):
        RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=1 << 62)
    assert list(tmp_path.iterdir()) == []
    with RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0) as writer:
        writer.write(make_set(0))
        writer._min_free_bytes = 1 << 62  # the disk has filled up meanwhile
        with pytest.raises(RecordingError, match="MiB free, recording needs"):
            writer.write(make_set(1))
    with RecordingReader(tmp_path / "s.mcap") as reader:
        assert len(reader) == 1


@pytest.mark.parametrize("rig", [make_rig(width=44), make_rig(colour_only=True)], ids=["other size", "no depth"])
def test_a_set_that_does_not_fit_the_rig_is_refused(tmp_path, rig):
    with (RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0) as writer,
          pytest.raises(RecordingError, match=r"set 0 of 0123456789 has planes colour .* its rig says")):
        writer.write(make_set(0, rig))


def test_a_session_without_a_set_leaves_no_file(tmp_path):
    RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0).close()
    assert list(tmp_path.iterdir()) == []


def test_close_is_idempotent_and_final(tmp_path):
    writer = RecordingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0)
    writer.write(make_set(0))
    writer.close()
    writer.close()
    with pytest.raises(RecordingError, match="already closed"):
        writer.write(make_set(1))


# --- reading what is not there, not ours, or damaged ------------------------------------------------------------------
def foreign_mcap(path):
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start()
        channel = writer.register_channel("/chatter", "json", 0)
        writer.add_message(channel, 0, b"{}", 0)
        writer.finish()


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda path: None, NoDeviceError, r"no such file; sessions in .*: other\.mcap"),
    (lambda path: path.mkdir(), NoDeviceError, "is not a file"),
    (lambda path: path.touch(), CorruptStreamError, "empty"),
    (lambda path: path.write_bytes(b"hello world, not a recording"), CorruptStreamError, "no MCAP file .*hello"),
    (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(100)), CorruptStreamError, r"a RealSense \.db3"),
    (foreign_mcap, CorruptStreamError, "not a session of `mmdg record` .*/chatter"),
], ids=["missing", "folder", "empty", "text", "db3", "foreign mcap"])
def test_what_is_no_session_is_named_with_its_path(tmp_path, make, error, message):
    write_session(tmp_path / "other.mcap", 1)
    make(tmp_path / "s.mcap")
    with pytest.raises(error, match=message) as raised:
        RecordingReader(tmp_path / "s.mcap")
    assert str(tmp_path / "s.mcap") in str(raised.value)


def read_all(path):
    with RecordingReader(path) as reader:
        return list(reader)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.5, 0.9, 0.99, 0.9999])
def test_a_truncated_session_is_refused_at_opening(tmp_path, share):
    path = write_session(tmp_path / "s.mcap", 3)
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(CorruptStreamError, match=r"s\.mcap"):
        RecordingReader(path)


def flip(path, offset, bit=0):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["colour", "depth", "infrared"])
def test_a_flipped_bit_in_a_plane_names_the_set_and_the_plane(tmp_path, kind):
    path = write_session(tmp_path / "s.mcap", 4)
    # Noise does not compress, so zstd stores the plane as it is and its bytes can be found in the file.
    plane = getattr(make_set(2), kind).pixels.tobytes()
    flip(path, path.read_bytes().index(plane) + len(plane) // 2, bit=3)
    with RecordingReader(path) as reader:
        assert_same_set(reader.read(1), make_set(1))
        with pytest.raises(CorruptStreamError, match=rf"s\.mcap: set 2 of 4: {kind} plane: .* SHA-256"):
            reader.read(2)
        assert_same_set(reader.read(3), make_set(3))


def test_no_flipped_bit_anywhere_changes_what_is_read(tmp_path):
    """Either an error, or exactly the recorded sets: never other pixels or stamps, never a crash."""
    good = write_session(tmp_path / "good.mcap", 2).read_bytes()
    expected, rng, refused = [make_set(0), make_set(1)], np.random.default_rng(11), 0
    path = tmp_path / "s.mcap"
    offsets = np.concatenate([rng.integers(0, len(good), 120), rng.integers(len(good) - 3000, len(good), 120)])
    for offset in offsets:
        damaged = bytearray(good)
        damaged[offset] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_all(path)
        except CorruptStreamError:
            refused += 1
        else:
            assert len(found) == 2
            for a, b in zip(found, expected, strict=True):
                assert_same_set(a, b)
    assert refused > 150


def test_a_changed_stamp_beside_sound_planes_fails_the_checksum(tmp_path):
    with write_session(tmp_path / "s.mcap", 1).open("rb") as file:
        chunk = next(r for r in StreamReader(file, emit_chunks=True).records if isinstance(r, Chunk))
    content = zstandard.decompress(chunk.data)
    assert content.count(b"8333.25") == 2
    chunk.data = zstandard.compress(content.replace(b"8333.25", b"8333.26", 1))
    records, damage = open_chunk(chunk)
    topics = {r.id: r.topic for r in records if isinstance(r, Channel)}
    messages = [r for r in records if isinstance(r, Message)]
    manifest = Manifest.of(make_description(), created="")
    assert decode_messages(messages, None, topics, manifest, 0).colour.exposure_us == 8333.26  # only the checksum knows
    with pytest.raises(FormatError, match="crc validation failed"):
        decode_messages(messages, damage, topics, manifest, 0)


def test_a_set_cut_out_of_the_middle_is_missed(tmp_path):
    """Sets are counted against the index and numbered: splicing two good halves does not pass."""
    path = tmp_path / "s.mcap"
    with RecordingWriter(path, make_description(), min_free_bytes=0) as writer:
        for n in range(3):
            writer.sets = n if n < 2 else 5  # the third chunk says that it is number 5
            writer.write(make_set(n))
        writer.sets = 3
    with RecordingReader(path) as reader, pytest.raises(CorruptStreamError, match="found set 5 where set 2"):
        reader.read(2)


# --- rescue ---------------------------------------------------------------------------------------------------------
RECORDER = """
import itertools, sys
from pathlib import Path
from capture.recording import RecordingWriter
from tests.capture.sessions import make_description, make_set
writer = RecordingWriter(Path(sys.argv[1]), make_description(), min_free_bytes=0)
for n in itertools.count():
    writer.write(make_set(n))
    print(n, flush=True)
"""


def test_a_killed_recorder_loses_nothing_it_had_written(tmp_path):
    path = tmp_path / "s.mcap"
    with subprocess.Popen([sys.executable, "-c", RECORDER, str(path)], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as recorder:
        for line in recorder.stdout:
            if int(line) == 6:
                with pytest.raises(RecordingError, match="still being recorded"):
                    recover_recording(tmp_path / "s.mcap.partial")
                break
        os.kill(recorder.pid, signal.SIGKILL)
    assert not path.exists()
    recovered = recover_recording(tmp_path / "s.mcap.partial")
    assert recovered.path == tmp_path / "s.recovered.mcap"
    assert recovered.sets >= 7
    with RecordingReader(recovered.path) as reader:
        for n, found in enumerate(reader):
            assert_same_set(found, make_set(n))
        assert "s.mcap.partial" in reader.manifest.recovered_from
    assert (tmp_path / "s.mcap.partial").exists()


def test_recovery_keeps_everything_before_the_damage(tmp_path):
    path = write_session(tmp_path / "s.mcap", 5, label="bona_fide")
    plane = make_set(3).depth.pixels.tobytes()
    flip(path, path.read_bytes().index(plane) + 10)
    recovered = recover_recording(path)
    assert recovered.sets == 3
    with RecordingReader(recovered.path) as reader:
        assert reader.manifest.label == "bona_fide"
        assert [frames.sequence for frames in reader] == [0, 1, 2]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_recovery_of_a_truncated_session_keeps_the_whole_sets(tmp_path, share):
    path = write_session(tmp_path / "s.mcap", 10)
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    recovered = recover_recording(path)
    assert 10 * share - 2 <= recovered.sets <= 10
    for n, found in enumerate(read_all(recovered.path)):
        assert_same_set(found, make_set(n))


@pytest.mark.parametrize("content", [b"not a recording at all", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n\x06" + b"\xff" * 64])
def test_nothing_to_recover_is_an_error_and_leaves_no_file(tmp_path, content):
    path = tmp_path / "s.mcap"
    path.write_bytes(content)
    with pytest.raises(CorruptStreamError, match="no undamaged set to recover"):
        recover_recording(path)
    assert list(tmp_path.iterdir()) == [path]


def test_recovery_survives_a_flipped_bit_anywhere(tmp_path):
    good, rng = write_session(tmp_path / "good.mcap", 2).read_bytes(), np.random.default_rng(12)
    path = tmp_path / "s.mcap"
    for offset in rng.integers(0, len(good), 60):
        damaged = bytearray(good)
        damaged[offset] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            recovered = recover_recording(path)
        except CorruptStreamError:
            continue
        for n, found in enumerate(read_all(recovered.path)):
            assert_same_set(found, make_set(n))
        recovered.path.unlink()
