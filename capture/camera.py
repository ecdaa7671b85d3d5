"""The `Camera` contract that every source of frame sets fulfils, and its errors.

    CameraError
    |-- NoDeviceError         nothing to open; the message lists what was found
    |-- FrameTimeoutError     no complete, fresh set within the deadline; reading again may succeed
    |-- DisconnectedError     the device is gone and in-process recovery has failed: leave the process
    |-- EndOfStreamError      a recording or scene has ended, all its sets were delivered
    `-- CorruptStreamError    a recording is damaged, foreign, or lacks a required stream
"""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

from capture.frames import FrameSet, StreamKind
from capture.rig import Rig

MonotonicNs = Callable[[], int]
#: Characters of a camera kind at most, as messages carry it.
_KIND_LENGTH = 128


class CameraError(Exception):
    """Base of everything a camera may raise on purpose."""


class NoDeviceError(CameraError):
    pass


class FrameTimeoutError(CameraError):
    pass


class DisconnectedError(CameraError):
    pass


class EndOfStreamError(CameraError):
    pass


class CorruptStreamError(CameraError):
    pass


class Pace(StrEnum):
    """How a recorded or simulated source hands out its sets.

    `REALTIME`: at the recorded rate; a slow reader misses sets. `LOCKSTEP`: each set exactly once, as fast as it is
    read; the recorded arrival stamps are the clock.
    """

    REALTIME = "realtime"
    LOCKSTEP = "lockstep"


@dataclass(frozen=True, kw_only=True)
class CameraDescription:
    """What `open` found out. `frame_rate` in sets a second; `details` are strings for people and manifests."""

    kind: str  # realsense, replay, simulated, webcam
    serial: str
    rig: Rig
    frame_rate: float
    live: bool  # False: recorded time, `LOCKSTEP` possible
    simulated: bool = False
    details: dict[str, str] = field(default_factory=dict)

    @property
    def camera_kind(self) -> str:
        """The kind of camera, whichever unit and however it is read: what scores are calibrated for.

        The product's name in lower case with dashes (`intel-realsense-d435i`), `simulated-` and the profile for what
        is rendered, `webcam` for any plain camera; a recording is of the kind that recorded it.
        """
        if "webcam" in (self.kind, self.details.get("recorded_with")):
            return "webcam"
        name = self.details.get("profile", self.rig.name) if self.simulated else self.rig.name
        word = re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-._") or "unnamed"
        return f"simulated-{word}"[:_KIND_LENGTH] if self.simulated else word[:_KIND_LENGTH]

    @property
    def streams(self) -> tuple[StreamKind, ...]:
        return tuple(sorted(self.rig.intrinsics))


class Camera(ABC):
    """A source of `FrameSet`s.

    Use as a context manager, or `open` .. `close`. `counters` counts dropped frames and sets by cause
    (`stale_<stream>`, `skew`, `gap_<stream>`, `incomplete`, `late` ...) and never goes back within an epoch.
    A camera belongs to the thread that opened it.
    """

    def __init__(self, *, monotonic_ns: MonotonicNs = time.monotonic_ns) -> None:
        self.monotonic_ns = monotonic_ns
        self.counters: Counter[str] = Counter()
        self.epoch = secrets.randbits(48)

    @abstractmethod
    def open(self) -> CameraDescription:
        """Claim the device or file.

        Raises:
            NoDeviceError, CorruptStreamError, CameraError. After a failure nothing is held.
        """

    @abstractmethod
    def read(self, timeout_s: float) -> FrameSet:
        """The next complete, fresh set; blocks up to `timeout_s` seconds.

        Raises:
            FrameTimeoutError, DisconnectedError, EndOfStreamError, CorruptStreamError.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything. Idempotent, and safe after a failed `open`."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
