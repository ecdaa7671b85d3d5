"""`ReplayCamera`: a session file of ours, played as a camera."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from capture.camera import (
    Camera,
    CameraDescription,
    CameraError,
    CorruptStreamError,
    EndOfStreamError,
    MonotonicNs,
    Pace,
)
from capture.frames import Frame, FrameSet
from capture.pacing import RealtimePacer, Sleep
from capture.recording import RecordingReader


class ReplayCamera(Camera):
    """Plays a session of `mmdg record`. Opened once.

    Every plane is verified against its SHA-256 as it is read. Epoch and sequence are this camera's own; source and
    sensor stamps are as recorded. `LOCKSTEP`: each set exactly once, arrival stamps as recorded. `REALTIME`: at the
    recorded rate, arrival stamps moved to the host's clock; sets that a slow reader misses are counted as `late`.
    Recorded time starts with the first `read`.
    """

    def __init__(self, path: Path | str, pace: Pace = Pace.REALTIME, *, monotonic_ns: MonotonicNs = time.monotonic_ns,
                 sleep: Sleep = time.sleep) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self.path, self.pace = Path(path), pace
        self._sleep = sleep
        self._reader: RecordingReader | None = None
        self._pacer: RealtimePacer | None = None
        self._opened = False
        self._damage: CorruptStreamError | None = None
        self._position = 0
        self._sequence = 0

    def open(self) -> CameraDescription:
        """Verify the structure of the file and claim it.

        Raises:
            NoDeviceError: no such file. CorruptStreamError: damaged or foreign. CameraError: opened before.
        """
        if self._opened:
            raise CameraError(f"replay:{self.path}: opened before; make a new camera to play it again")
        reader = RecordingReader(self.path)
        self._opened, self._reader = True, reader
        if self.pace is Pace.REALTIME:
            self._pacer = RealtimePacer(reader.arrivals_ns, self.counters, self.monotonic_ns, self._sleep)
        manifest = reader.manifest
        details = {**manifest.details, "file": str(self.path), "sets": str(len(reader)), "recorded_with": manifest.kind,
                   "recorded_at": manifest.created, "label": manifest.label}
        return CameraDescription(kind="replay", serial=manifest.serial, rig=manifest.rig,
                                 frame_rate=manifest.frame_rate, live=False, simulated=manifest.simulated,
                                 details=details)

    def read(self, timeout_s: float) -> FrameSet:
        """The next set. A damaged set raises `CorruptStreamError`, and so does every read after it."""
        if self._reader is None:
            raise CameraError(f"replay:{self.path}: {'read after close' if self._opened else 'read before open'}")
        if self._damage is not None:
            raise self._damage
        shift_ns = 0
        if self._pacer is None:
            if self._position >= len(self._reader):
                raise EndOfStreamError(f"{self.path}: all {len(self._reader)} sets have been played")
        else:
            self._position = self._pacer.next(timeout_s)
            shift_ns = self._pacer.shift_ns
        try:
            recorded = self._reader.read(self._position)
        except CorruptStreamError as error:
            self._damage = error
            raise
        self._position += 1
        self._sequence += 1
        return replace(recorded, epoch=self.epoch, sequence=self._sequence - 1,
                       colour=_moved(recorded.colour, shift_ns),
                       depth=recorded.depth and _moved(recorded.depth, shift_ns),
                       infrared=recorded.infrared and _moved(recorded.infrared, shift_ns))

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _moved(frame: Frame, shift_ns: int) -> Frame:
    return replace(frame, arrival_ns=frame.arrival_ns + shift_ns) if shift_ns else frame
