"""Pacing as a table: when the reader comes, which set it gets, when it leaves."""

from collections import Counter

import pytest

from capture.camera import EndOfStreamError
from capture.pacing import RealtimePacer
from tests.capture.camera_builders import FakeTime

MS = 1_000_000


@pytest.mark.parametrize(("arrivals_ms", "reader_ms", "positions", "leaves_ms", "late"), [
    ([0, 10, 20], [0, 0, 0], [0, 1, 2], [0, 10, 20], 0),  # always waiting
    ([500, 510, 520], [0, 11, 22], [0, 1, 2], [0, 11, 22], 0),  # a little late: nothing is lost
    ([0, 10, 20, 30], [0, 25], [0, 2], [0, 25], 1),
    ([0, 10, 20, 30], [0, 99], [0, 3], [0, 99], 2),
    ([0, 10, 500], [0, 10, 20], [0, 1, 2], [0, 10, 500], 0),  # a gap in the recording is a gap in the replay
    ([0, 0, 10], [0, 0], [1, 2], [0, 10], 1),  # two at once: the newer one
])
def test_gives_the_newest_due_set(arrivals_ms, reader_ms, positions, leaves_ms, late):
    time, counters = FakeTime(7_000 * MS), Counter()
    pacer = RealtimePacer([a * MS for a in arrivals_ms], counters, time.monotonic_ns, time.sleep)
    for comes, position, leaves in zip(reader_ms, positions, leaves_ms, strict=True):
        time.now_ns = max(time.now_ns, (7_000 + comes) * MS)
        assert pacer.next(10.0) == position
        assert time.now_ns == (7_000 + leaves) * MS
    assert counters["late"] == late
    assert pacer.shift_ns == (7_000 - arrivals_ms[0]) * MS


def test_nothing_recorded_has_ended():
    time = FakeTime()
    with pytest.raises(EndOfStreamError):
        RealtimePacer([], Counter(), time.monotonic_ns, time.sleep).next(1.0)
