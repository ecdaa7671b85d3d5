"""Which of the faces in a frame is the one that counts: exactly one, or none."""

from __future__ import annotations

from collections.abc import Sequence

from detect.tracking import TrackedFace

#: A face with less than this share of the largest face's area does not count: it is at least twice as far away (a
#: passer-by, someone in the queue). Two faces nearer to each other in size than that are a condition, never a guess:
#: whoever picks one of them lets an attacker stand beside a live person.
BYSTANDER_AREA = 0.25


def select_subject(faces: Sequence[TrackedFace]) -> tuple[TrackedFace | None, str | None]:
    """The subject, or None and the condition that says why: `no_face` or `multiple_faces`."""
    if not faces:
        return None, "no_face"
    largest = max(faces, key=lambda face: face.box.area)
    rivals = [face for face in faces if face.box.area >= BYSTANDER_AREA * largest.box.area]
    if len(rivals) > 1:
        return None, "multiple_faces"
    return largest, None
