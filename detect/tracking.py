"""`Tracker`: gives each face a number that holds from frame to frame, and breaks it rather than guess.

The track id is what ties evidence together: scores of one id are added up into one verdict. So the costly mistake is
to carry an id over from one face to another (a live person steps in front of a print), and the cheap one is to break
an id that was the same person. All rules here lean that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from detect.faces import FaceBox


@dataclass(frozen=True, kw_only=True)
class TrackerSettings:
    """When a box continues a track.

    Attributes:
        min_overlap: least intersection over union of consecutive boxes. A head at 0.3 m/s moves 7 % of a face's width
            in a 30th of a second (overlap 0.87) and 14 % in a 15th (0.75); 0.3 is a jump of half a face.
        max_scale_change: largest ratio of consecutive box widths; larger is another face, or another distance.
        lost_after_ms: a track unseen for longer is over. Short, because a face can be swapped while nobody looks.
    """

    min_overlap: float = 0.3
    max_scale_change: float = 1.4
    lost_after_ms: float = 200.0

    def __post_init__(self) -> None:
        if not 0.0 < self.min_overlap < 1.0:
            raise ValueError(f"min_overlap is {self.min_overlap}, must lie between 0 and 1")
        if self.max_scale_change <= 1.0 or self.lost_after_ms <= 0.0:
            raise ValueError(f"max_scale_change is {self.max_scale_change} (must exceed 1), lost_after_ms is "
                             f"{self.lost_after_ms} (must be positive)")


@dataclass(frozen=True, kw_only=True)
class TrackedFace:
    """One face seen in this frame. `age_ns`: how long its track has existed; 0 in its first frame."""

    track_id: int
    box: FaceBox
    age_ns: int


@dataclass
class _Track:
    track_id: int
    box: FaceBox
    first_seen_ns: int
    last_seen_ns: int


class Tracker:
    """Ids start at 0 and are never used twice within a tracker. Pure: time comes in as a value."""

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._last_stamp_ns: int | None = None

    def step(self, boxes: Sequence[FaceBox], stamp_ns: int) -> list[TrackedFace]:
        """The faces of one frame with their ids, in the order of `boxes`.

        Boxes are paired with the last ones so that the total overlap is largest; a pair that overlaps too little or
        changes scale too much is no pair, and the box starts a new track. A stamp that goes back ends all tracks: the
        source has restarted.
        """
        if self._last_stamp_ns is not None and stamp_ns < self._last_stamp_ns:
            self._tracks.clear()
        self._last_stamp_ns = stamp_ns
        limit_ns = self.settings.lost_after_ms * 1e6
        self._tracks = [track for track in self._tracks if stamp_ns - track.last_seen_ns <= limit_ns]
        paired = self._pair(boxes)
        faces = []
        for index, box in enumerate(boxes):
            track = paired.get(index)
            if track is None:
                track = _Track(self._next_id, box, stamp_ns, stamp_ns)
                self._next_id += 1
                self._tracks.append(track)
            track.box, track.last_seen_ns = box, stamp_ns
            faces.append(TrackedFace(track_id=track.track_id, box=box, age_ns=stamp_ns - track.first_seen_ns))
        return faces

    def _pair(self, boxes: Sequence[FaceBox]) -> dict[int, _Track]:
        if not boxes or not self._tracks:
            return {}
        overlap = np.array([[self._affinity(track.box, box) for box in boxes] for track in self._tracks])
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        return {int(c): self._tracks[r] for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0.0}

    def _affinity(self, before: FaceBox, now: FaceBox) -> float:
        overlap = before.intersection_over_union(now)
        if overlap < self.settings.min_overlap:
            return 0.0
        narrow, wide = sorted((before.width, now.width))
        return overlap if wide <= self.settings.max_scale_change * narrow else 0.0
