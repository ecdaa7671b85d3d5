"""Writing beside the camera: order, bounds, and errors that do not get lost."""

import threading
from dataclasses import replace

import pytest

from capture.recording import RecordingError, RecordingReader, RecordingWriter
from capture.write_ahead import WriteAhead
from tests.capture.sessions import make_description, make_set


class StallingWriter(RecordingWriter):
    """A disk that does not answer until `go` is set."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.go = threading.Event()

    def write(self, frames):
        assert self.go.wait(30)
        super().write(frames)


@pytest.fixture
def writer(tmp_path):
    with StallingWriter(tmp_path / "s.mcap", make_description(), min_free_bytes=0) as writer:
        yield writer


def recorded(writer):
    writer.close()
    with RecordingReader(writer.path) as reader:
        return [frames.sequence for frames in reader]


def test_sets_are_written_in_order_and_none_is_lost(writer):
    writer.go.set()
    with WriteAhead(writer, may_drop=False, max_pending=2) as ahead:
        assert all(ahead.put(make_set(n)) for n in range(20))
        ahead.finish()
    assert recorded(writer) == list(range(20))


def test_a_stalled_disk_makes_a_live_camera_drop_and_not_wait(writer):
    with WriteAhead(writer, may_drop=True, max_pending=3) as ahead:
        assert [ahead.put(make_set(n)) for n in range(5)] == [True, True, True, False, False]
        writer.go.set()
        ahead.finish()
    assert recorded(writer) == [0, 1, 2]


def test_leaving_without_finish_still_writes_what_was_accepted(writer):
    writer.go.set()
    with WriteAhead(writer, may_drop=False) as ahead:
        ahead.put(make_set(0))
    assert recorded(writer) == [0]


def test_a_set_that_cannot_be_written_is_reported(writer):
    with WriteAhead(writer, may_drop=False) as ahead:
        ahead.put(make_set(0))
        ahead.put(replace(make_set(1), depth=None))
        ahead.put(make_set(2))
        writer.go.set()
        with pytest.raises(RecordingError, match=r"set 1 of .* has planes colour 48x36, infrared 40x30, its"):
            ahead.finish()
        ahead.finish()
    assert recorded(writer) == [0]


def test_an_error_of_an_earlier_set_comes_up_at_the_next(writer):
    writer.go.set()
    writer._min_free_bytes = 1 << 62  # the disk has filled up
    with WriteAhead(writer, may_drop=False, max_pending=1) as ahead:
        ahead.put(make_set(0))
        with pytest.raises(RecordingError, match="MiB free"):
            ahead.put(make_set(1))
