import pytest
from hypothesis import given
from hypothesis import strategies as st

from detect.tracking import Tracker, TrackerSettings
from tests.detect.drawn_face import box

MS = 1_000_000


def ids(tracker, boxes, at_ms):
    return [face.track_id for face in tracker.step(boxes, at_ms * MS)]


@pytest.mark.parametrize(("moved", "same"), [
    (box(107, 100), True),  # 0.3 m/s seen at 30 frames a second
    (box(114, 100), True),  # ... at 15
    (box(100, 100, 120), True),  # leaning forward
    (box(170, 100), False),  # most of a face's width
    (box(400, 100), False),
    (box(70, 70, 160), False),  # same centre, but 1.6 times as large: nearer in one frame
    (box(100, 100, image="infrared"), False),  # boxes of two sensors do not compare
])
def test_a_track_goes_on_only_where_box_and_scale_agree(moved, same):
    tracker = Tracker()
    assert ids(tracker, [box()], 0) == [0]
    assert ids(tracker, [moved], 33) == [0 if same else 1]


def test_age_counts_from_the_first_sight():
    tracker = Tracker()
    tracker.step([box()], 5 * MS)
    assert tracker.step([box(102)], 105 * MS)[0].age_ns == 100 * MS


def test_a_short_gap_keeps_the_id_a_longer_one_breaks_it():
    tracker = Tracker(TrackerSettings(lost_after_ms=200))
    assert ids(tracker, [box()], 0) == [0]
    assert ids(tracker, [], 100) == []
    assert ids(tracker, [box()], 200) == [0]
    assert ids(tracker, [box()], 401) == [1]


def test_two_faces_keep_their_ids_whatever_the_order():
    tracker = Tracker()
    assert ids(tracker, [box(0), box(300)], 0) == [0, 1]
    assert ids(tracker, [box(305), box(4)], 33) == [1, 0]


def test_overlapping_rivals_are_paired_for_the_largest_total_overlap():
    tracker = Tracker()
    assert ids(tracker, [box(0), box(60)], 0) == [0, 1]
    assert ids(tracker, [box(30), box(90)], 33) == [0, 1]


def test_ids_are_never_reused():
    tracker = Tracker()
    seen = [ids(tracker, [box(x)], 33 * n)[0] for n, x in enumerate((0, 300, 0, 300))]
    assert seen == [0, 1, 0, 1]  # both tracks are still warm
    assert ids(tracker, [box(0)], 5000) == [2]


def test_a_clock_that_goes_back_ends_all_tracks():
    tracker = Tracker()
    ids(tracker, [box()], 1000)
    assert ids(tracker, [box()], 0) == [1]


@given(st.lists(st.lists(st.tuples(st.floats(0, 500), st.floats(20, 200)), max_size=4), max_size=12))
def test_ids_within_a_frame_differ_and_new_ones_only_rise(frames):
    tracker, highest, known = Tracker(), -1, set()
    for n, faces in enumerate(frames):
        now = ids(tracker, [box(x, 100, width) for x, width in faces], 33 * n)
        assert len(now) == len(faces) == len(set(now))
        new = sorted(set(now) - known)
        assert all(track > highest for track in new)
        known |= set(now)
        highest = max([highest, *new])


@pytest.mark.parametrize("wrong", [{"min_overlap": 0}, {"min_overlap": 1}, {"max_scale_change": 1},
                                   {"lost_after_ms": 0}])
def test_settings_quote_the_wrong_value(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackerSettings(**wrong)
