"""`FaceFinder`: one frame in, its tracked faces out; falls back to the infrared image in the dark."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detect.faces import Detector
from detect.selection import select_subject
from detect.tracking import TrackedFace, Tracker, TrackerSettings

InfraredPixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class FaceFinding:
    """What one frame shows.

    Attributes:
        faces: all tracked faces of the frame. subject: the one that counts, None when there is none or more than one.
        conditions: `no_face` or `multiple_faces`, and `too_dark` when the colour image was too dark to search.
        image_used: `colour` or `infrared`: where the boxes are measured.
        image_size: (width, height) of that image in pixels.
        brightness: mean grey level of the colour image, 0..255.
    """

    faces: tuple[TrackedFace, ...]
    subject: TrackedFace | None
    conditions: tuple[str, ...]
    image_used: str
    image_size: tuple[int, int]
    brightness: float


class FaceFinder:
    """Detector, tracker and selection in a row. `detector` is borrowed: whoever made it closes it.

    Args:
        dark_level: mean grey level of the colour image, 0..255, below which infrared is searched instead. Between
            images a track does not continue (boxes of two sensors do not compare), so one short band of hysteresis
            (`dark_hysteresis`) keeps a light level at the border from breaking tracks frame by frame.
    """

    def __init__(self, detector: Detector, *, tracking: TrackerSettings | None = None, dark_level: float = 25.0,
                 dark_hysteresis: float = 5.0) -> None:
        if not 0.0 <= dark_level <= 255.0 or dark_hysteresis < 0.0:
            raise ValueError(f"dark_level is {dark_level} (0..255), dark_hysteresis {dark_hysteresis} (0 or more)")
        self._detector = detector
        self._tracker = Tracker(tracking)
        self._dark_level = dark_level
        self._dark_hysteresis = dark_hysteresis
        self._in_the_dark = False

    def step(self, colour: NDArray[np.uint8], infrared: InfraredPixels | None, stamp_ns: int) -> FaceFinding:
        """Search one frame.

        Args:
            colour: `uint8 HxWx3` RGB. infrared: `uint8|uint16 HxW` or None. stamp_ns: monotonic time of the frame.
        """
        brightness = mean_grey(colour)
        limit = self._dark_level + (self._dark_hysteresis if self._in_the_dark else 0.0)
        self._in_the_dark = brightness < limit
        use_infrared = self._in_the_dark and infrared is not None
        if use_infrared and infrared is not None:
            searched: NDArray[np.uint8] = infrared_picture(infrared)
            boxes = [replace(box, image="infrared") for box in self._detector.detect(searched)]
        else:
            searched = colour
            boxes = self._detector.detect(searched)
        faces = tuple(self._tracker.step(boxes, stamp_ns))
        subject, condition = select_subject(faces)
        conditions = [condition] if condition else []
        if self._in_the_dark:
            conditions.append("too_dark")
        return FaceFinding(faces=faces, subject=subject, conditions=tuple(conditions),
                           image_used="infrared" if use_infrared else "colour",
                           image_size=(searched.shape[1], searched.shape[0]), brightness=brightness)


def mean_grey(colour: NDArray[np.uint8]) -> float:
    """Mean grey level (ITU-R BT.601 weights) over every eighth row and column, 0..255."""
    red, green, blue = (float(colour[::8, ::8, channel].mean()) for channel in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def infrared_picture(infrared: InfraredPixels) -> NDArray[np.uint8]:
    """An infrared plane as the detector wants it: `uint8 HxWx3`, contrast stretched (1st to 99.5th percentile).

    Percentiles, so that neither dots of the projector nor a 10-bit sensor in 16-bit samples matter. Used to find faces
    only; the planes that are scored are never stretched.
    """
    low, high = (float(level) for level in np.percentile(infrared[::4, ::4], (1.0, 99.5)))
    scale = 255.0 / max(high - low, 1.0)
    grey = np.clip((infrared.astype(np.float32) - low) * scale, 0.0, 255.0).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
