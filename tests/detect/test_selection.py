import pytest

from detect.selection import select_subject
from detect.tracking import TrackedFace
from tests.detect.drawn_face import box


def faces(*widths):
    return [TrackedFace(track_id=n, box=box(300 * n, 0, width), age_ns=0) for n, width in enumerate(widths)]


@pytest.mark.parametrize(("widths", "subject", "condition"), [
    ((), None, "no_face"),
    ((100,), 0, None),
    ((100, 100), None, "multiple_faces"),
    ((100, 60), None, "multiple_faces"),  # somewhat behind is still a rival
    ((100, 50), None, "multiple_faces"),  # exactly a quarter of the area: not yet ignored
    ((49, 100), 1, None),  # twice as far away: a passer-by
    ((100, 40, 30), 0, None),
    ((100, 40, 90), None, "multiple_faces"),
])
def test_one_face_counts_or_none(widths, subject, condition):
    chosen, why = select_subject(faces(*widths))
    assert (None if chosen is None else chosen.track_id, why) == (subject, condition)
