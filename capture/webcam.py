"""`WebcamCamera`: colour only, from a webcam or a video file, through OpenCV.

For trying the pipeline out: there is no depth and no infrared, and the rig is a guess.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.camera import (
    Camera,
    CameraDescription,
    CameraError,
    CorruptStreamError,
    DisconnectedError,
    EndOfStreamError,
    FrameTimeoutError,
    MonotonicNs,
    NoDeviceError,
    Pace,
)
from capture.frames import ClockDomain, Frame, FrameSet, Spectrum, StreamKind
from capture.pacing import RealtimePacer, Sleep
from capture.rig import Extrinsics, Intrinsics, Rig

ASSUMED_FIELD_OF_VIEW_DEG = 60.0
_ASSUMED_FRAME_RATE = 30.0


class WebcamCamera(Camera):
    """A webcam by index, or a video file. Opened once.

    A webcam has no frame numbers; its sensor stamps are the host's arrival stamps. A file is numbered from 0 and
    stamped with frame number / frame rate; `pace` is for files only, a webcam is always `REALTIME`.
    """

    def __init__(self, source: int | Path | str = 0, *, pace: Pace = Pace.REALTIME,
                 monotonic_ns: MonotonicNs = time.monotonic_ns, sleep: Sleep = time.sleep) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self.source = source if isinstance(source, int) else Path(source)
        self.pace = pace
        self._sleep = sleep
        self._video: cv2.VideoCapture | None = None
        self._pacer: RealtimePacer | None = None
        self._opened = False
        self._ended: CameraError | None = None
        self._position = 0  # of the next frame of a file
        self._sequence = 0

    @property
    def name(self) -> str:
        return f"webcam:{self.source}"

    def open(self) -> CameraDescription:
        """Claim the webcam or file.

        Raises:
            NoDeviceError: no such webcam or file. CorruptStreamError: the file is no video that OpenCV reads.
            CameraError: opened before, or lock-step asked of a live webcam.
        """
        if self._opened:
            raise CameraError(f"{self.name}: opened before; make a new camera")
        live = isinstance(self.source, int)
        if live and self.pace is Pace.LOCKSTEP:
            raise CameraError(f"{self.name}: a live webcam cannot run in lock-step; use a file")
        if isinstance(self.source, Path) and not self.source.is_file():
            raise NoDeviceError(f"{self.name}: no such file")
        video = cv2.VideoCapture(self.source if isinstance(self.source, int) else str(self.source))
        if not video.isOpened():
            video.release()
            if live:
                found = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
                raise NoDeviceError(f"{self.name}: cannot be opened; video devices: {found}")
            raise CorruptStreamError(f"{self.name}: OpenCV cannot read it as a video")
        width, height = (int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width <= 0 or height <= 0:
            video.release()
            raise CorruptStreamError(f"{self.name}: its frames are {width}x{height}")
        rate = video.get(cv2.CAP_PROP_FPS)
        self._frame_rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else _ASSUMED_FRAME_RATE
        self._size = (width, height)
        # A container's frame count may be an estimate; it decides only whether an end came too early.
        self._frame_count = 0 if live else max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        if self._frame_count == 0 and not live and self.pace is Pace.REALTIME:
            video.release()
            raise CorruptStreamError(f"{self.name}: does not say how many frames it has, so it cannot be paced; "
                                     "convert it to MJPG in .avi, or H.264 in .mp4")
        self._video, self._opened = video, True
        if not live and self.pace is Pace.REALTIME:
            arrivals_ns = [self._stamp_ns(n) for n in range(self._frame_count)]
            self._pacer = RealtimePacer(arrivals_ns, self.counters, self.monotonic_ns, self._sleep)
        return CameraDescription(kind="webcam", serial=self.name, rig=guessed_rig(self.name, width, height),
                                 frame_rate=self._frame_rate, live=live,
                                 details={"backend": video.getBackendName(), "calibration": "none: pinhole with "
                                          f"{ASSUMED_FIELD_OF_VIEW_DEG:g} deg horizontal field of view assumed"})

    def read(self, timeout_s: float) -> FrameSet:
        """The next frame as a colour-only set.

        A webcam's driver may take longer than `timeout_s` to give up: OpenCV cannot interrupt it.
        """
        if self._video is None:
            raise CameraError(f"{self.name}: {'read after close' if self._opened else 'read before open'}")
        if self._ended is not None:
            raise self._ended
        if isinstance(self.source, int):
            return self._read_live(self._video, timeout_s)
        return self._read_file(self._video, timeout_s)

    def close(self) -> None:
        if self._video is not None:
            self._video.release()
            self._video = None

    def _read_live(self, video: cv2.VideoCapture, timeout_s: float) -> FrameSet:
        started_ns = self.monotonic_ns()
        video.set(cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_s * 1e3)  # honoured by some backends only
        grabbed, bgr = video.read()
        arrival_ns = self.monotonic_ns()
        if not grabbed:
            if arrival_ns - started_ns >= timeout_s * 1e9:
                raise FrameTimeoutError(f"{self.name}: no frame within {timeout_s} s")
            self._ended = DisconnectedError(f"{self.name}: the webcam delivers no more frames")
            raise self._ended
        return self._set(bgr, None, arrival_ns, arrival_ns)

    def _read_file(self, video: cv2.VideoCapture, timeout_s: float) -> FrameSet:
        shift_ns = 0
        if self._pacer is not None:
            try:
                due = self._pacer.next(timeout_s)
            except EndOfStreamError as error:
                self._ended = error
                raise
            shift_ns = self._pacer.shift_ns
            while self._position < due and video.grab():
                self._position += 1
        grabbed, bgr = video.read()
        if not grabbed:
            self._ended = self._end()
            raise self._ended
        number, stamp_ns = self._position, self._stamp_ns(self._position)
        self._position += 1
        return self._set(bgr, number, stamp_ns, stamp_ns + shift_ns)

    def _end(self) -> CameraError:
        if self._position < 0.98 * self._frame_count - 1:
            return CorruptStreamError(f"{self.name}: ended early, {self._position} of {self._frame_count} frames "
                                      "could be read")
        return EndOfStreamError(f"{self.name}: all {self._position} frames have been played")

    def _stamp_ns(self, number: int) -> int:
        return round(number * 1e9 / self._frame_rate)

    def _set(self, bgr: NDArray[Any], number: int | None, stamp_ns: int, arrival_ns: int) -> FrameSet:
        if bgr.shape[1::-1] != self._size:
            self._ended = CorruptStreamError(f"{self.name}: a frame of {bgr.shape[1]}x{bgr.shape[0]} in a stream of "
                                             f"{self._size[0]}x{self._size[1]}")
            raise self._ended
        rgb = np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        frame = Frame(kind=StreamKind.COLOUR, pixels=rgb, frame_number=number, sensor_timestamp_ns=stamp_ns,
                      clock_domain=ClockDomain.HOST, arrival_ns=arrival_ns, spectrum=Spectrum.VISIBLE)
        self._sequence += 1
        return FrameSet(source=self.name, epoch=self.epoch, sequence=self._sequence - 1, colour=frame)


def guessed_rig(serial: str, width: int, height: int) -> Rig:
    """A pinhole without distortion, `ASSUMED_FIELD_OF_VIEW_DEG` across: enough to find a face, not to measure it."""
    focal = width / 2 / math.tan(math.radians(ASSUMED_FIELD_OF_VIEW_DEG / 2))
    intrinsics = Intrinsics(width=width, height=height, fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2)
    return Rig(serial=serial, name="webcam (uncalibrated)", intrinsics={StreamKind.COLOUR: intrinsics},
               to_colour={StreamKind.COLOUR: Extrinsics.identity()})
