"""A RealSense recording (`.db3`, or `.bag` after conversion) as a camera."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from capture.camera import (
    Camera,
    CameraDescription,
    CameraError,
    CorruptStreamError,
    EndOfStreamError,
    FrameTimeoutError,
    MonotonicNs,
    Pace,
)
from capture.frames import ClockDomain, EmitterState, Frame, FrameSet, Spectrum, StreamKind
from capture.pairing import PairedFrames, Pairer
from capture.realsense_child import PLAYBACK_COMMAND, PlaybackChild
from capture.realsense_db3 import ROSBAG_MAGIC, Db3Contents, ImageChecks, inspect_db3, magic_of
from capture.realsense_playback import Ended, Failed, Opened, PlaybackMessage, Played
from capture.rig import Rig, RigError


class RealSenseFileCamera(Camera):
    """Plays a recording: every frame once, paired by our own rules, the same sets on each run.

    `Pace.LOCKSTEP`: each set once; arrival stamps are the recorded sensor stamps, the recording is the clock.
    `Pace.REALTIME`: sets are due at the recorded intervals; one that is overdue by more than a frame period is dropped
    and counted as `late`; arrival is the host's clock.

    Args:
        path: a `.db3` of SDK 2.58 or newer, or a `.bag`. open_timeout_s: limit on opening, and on converting a `.bag`;
            also on any later silence of the SDK. monotonic_ns, sleep: the host's clock, and the wait of real-time pace.
    """

    def __init__(self, path: Path | str, pace: Pace = Pace.REALTIME, *, open_timeout_s: float = 10.0,
                 monotonic_ns: MonotonicNs = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self.path = Path(path)
        self.pace = pace
        self.open_timeout_s = open_timeout_s
        self._sleep = sleep
        self.child_command: tuple[str, ...] = PLAYBACK_COMMAND
        self._child: PlaybackChild | None = None
        self._checks: ImageChecks | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._contents: Db3Contents | None = None
        self._rig: Rig | None = None
        self._pairer: Pairer | None = None
        self._ready: list[PairedFrames] = []
        self._delivered: Counter[StreamKind] = Counter()
        self._sequence = 0
        self._final: CameraError | None = None  # what every later read raises
        self._silent_s = 0.0  # waited for the child since its last message
        self._epoch_offset_ns: int | None = None  # host clock minus recorded clock, of the first set

    def open(self) -> CameraDescription:
        """Check the file, then have a child process open it.

        Raises:
            NoDeviceError: no such file. CorruptStreamError: foreign, damaged, without colour, or an SDK that did not
                open it in time. CameraError: the SDK is not installed.
        """
        self.close()
        self.epoch, self._sequence = secrets.randbits(48), 0
        self.counters.clear()
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> CameraDescription:
        playable = self._convert() if magic_of(self.path) == ROSBAG_MAGIC else self.path
        self._contents = inspect_db3(playable)
        self._checks = ImageChecks(playable, self._contents)
        self._child = PlaybackChild(str(playable.resolve()), command=self.child_command)
        opened = self._expect(self._child)
        if not isinstance(opened, Opened):
            raise CorruptStreamError(f"{self.path}: the SDK does not open it: {self._reason(opened)}")
        try:
            self._rig = Rig.from_dict(opened.rig, place=str(self.path))
        except RigError as error:
            raise CorruptStreamError(str(error)) from error
        if set(self._rig.intrinsics) != set(self._contents.image_counts):
            raise CorruptStreamError(f"{self.path}: the SDK offers {sorted(self._rig.intrinsics)} but the file has "
                                     f"images of {sorted(self._contents.image_counts)}")
        if not opened.frame_rate > 0:
            raise CorruptStreamError(f"{self.path}: frame rate {opened.frame_rate}")
        self._pairer = Pairer(streams=tuple(self._rig.intrinsics), frame_period_ns=round(1e9 / opened.frame_rate))
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(self._contents.image_counts.items()))
        return CameraDescription(kind="replay", serial=self._rig.serial, rig=self._rig, frame_rate=opened.frame_rate,
                                 live=False, simulated=opened.simulated,
                                 details=opened.details | {"path": str(self.path), "images": counts})

    def read(self, timeout_s: float) -> FrameSet:
        """The next set; damaged images and early ends are errors, never the end.

        Raises:
            FrameTimeoutError, EndOfStreamError, CorruptStreamError. The last two are final. CameraError: not open.
        """
        if self._pairer is None:
            raise CameraError(f"{self.path}: the recording is not open")
        deadline_ns = self.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            while not self._ready:
                if self._final is not None:
                    raise self._final
                left_s = (deadline_ns - self.monotonic_ns()) / 1e9
                if not self._take(max(0.0, left_s)) and left_s <= 0:
                    raise FrameTimeoutError(f"{self.path}: no set within {timeout_s:g} s")
            if self.pace is Pace.LOCKSTEP:
                return self._frame_set(self._ready.pop(0), None)
            late_ns = self._wait_until_due(self._ready[0], deadline_ns, timeout_s)
            paired = self._ready.pop(0)
            if late_ns <= self._pairer.frame_period_ns:
                return self._frame_set(paired, self.monotonic_ns())
            self.counters["late"] += 1

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
        if self._checks is not None:
            self._checks.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        self._child = self._checks = self._scratch = self._pairer = self._final = None
        self._ready.clear()
        self._delivered.clear()
        self._epoch_offset_ns = None

    # -- child ----------------------------------------------------------------------------------------------------

    def _convert(self) -> Path:
        """A `.bag` becomes a temporary `.db3`, in a child with the same time limit."""
        self._scratch = tempfile.TemporaryDirectory(prefix="mmdg-bag-")
        target = Path(self._scratch.name) / "converted.db3"
        self._child = PlaybackChild(str(self.path.resolve()), str(target), command=self.child_command)
        answer = self._expect(self._child)
        self._child.close()
        if not isinstance(answer, Ended) or not target.exists():
            raise CorruptStreamError(f"{self.path}: the SDK does not convert it: {self._reason(answer)}")
        return target

    def _expect(self, child: PlaybackChild) -> PlaybackMessage:
        try:
            received = child.receive(self.open_timeout_s)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{self.path}: {error}") from error
        if received is None:
            raise CorruptStreamError(f"{self.path}: the SDK did not open it within {self.open_timeout_s:g} s; "
                                     "damaged, or open_timeout_s is too short")
        self._silent_s = 0.0
        return received[0]

    @staticmethod
    def _reason(message: PlaybackMessage) -> str:
        return message.reason if isinstance(message, Failed) else f"it answered {type(message).__name__}"

    def _take(self, timeout_s: float) -> bool:
        """One message from the child; True if there was one. What ends the stream is kept in `_final`, so that sets
        that were complete before it are still handed on."""
        assert self._child is not None
        try:
            # Capped, so that a hung child is noticed even by a reader with all the time in the world.
            asked_s = time.monotonic()
            received = self._child.receive(min(timeout_s, self.open_timeout_s))
            if received is None:
                self._silent_s += time.monotonic() - asked_s
                if self._silent_s >= self.open_timeout_s:
                    raise CorruptStreamError(f"the SDK hangs: nothing for {self.open_timeout_s:g} s "
                                             f"after {self._progress()}")
                return False
            self._silent_s = 0.0
            message, pixels = received
            if isinstance(message, Played):
                self._accept(message, pixels)
            elif isinstance(message, Ended):
                self._final = self._end()
            else:
                raise CorruptStreamError(f"playback failed after {self._progress()}: {self._reason(message)}")
        except CorruptStreamError as error:
            text = str(error)
            self._final = CorruptStreamError(text if text.startswith(str(self.path)) else f"{self.path}: {text}")
            self._child.close()
        return True

    def _progress(self) -> str:
        assert self._contents is not None
        return ", ".join(f"{self._delivered[kind]} of {count} {kind} frames"
                         for kind, count in sorted(self._contents.image_counts.items()))

    def _end(self) -> CameraError:
        assert self._contents is not None
        if any(self._delivered[kind] != count for kind, count in self._contents.image_counts.items()):
            return CorruptStreamError(f"{self.path}: ended early: {self._progress()}")
        return EndOfStreamError(f"{self.path}: all {self._sequence + len(self._ready)} sets delivered")

    def _accept(self, message: Played, pixels: bytes) -> None:
        assert self._checks is not None
        assert self._pairer is not None
        assert self._contents is not None
        frame = _frame(message, pixels)
        self._checks.check_next(frame.kind, frame.frame_number)
        self._delivered[frame.kind] += 1
        self._ready.extend(self._pairer.step([frame]))
        if all(self._delivered[kind] == count for kind, count in self._contents.image_counts.items()):
            self._final = self._end()  # the child would need another moment of silence to be sure
        self.counters.update({cause: count - self.counters[cause] for cause, count in self._pairer.counters.items()})

    # -- time -----------------------------------------------------------------------------------------------------

    def _wait_until_due(self, paired: PairedFrames, deadline_ns: int, timeout_s: float) -> int:
        """Wait for the recorded moment of a set; how many nanoseconds too late it is."""
        recorded_ns = max(frame.sensor_timestamp_ns for frame in paired.values())
        if self._epoch_offset_ns is None:
            self._epoch_offset_ns = self.monotonic_ns() - recorded_ns
        due_ns = recorded_ns + self._epoch_offset_ns
        while (early_ns := due_ns - self.monotonic_ns()) > 0:
            left_ns = deadline_ns - self.monotonic_ns()
            if left_ns <= 0:
                raise FrameTimeoutError(f"{self.path}: the next set is due later than {timeout_s:g} s from now")
            self._sleep(min(early_ns, left_ns) / 1e9)
        return -early_ns

    def _frame_set(self, paired: PairedFrames, arrival_ns: int | None) -> FrameSet:
        assert self._rig is not None
        if arrival_ns is not None:
            paired = {kind: _with_arrival(frame, arrival_ns) for kind, frame in paired.items()}
        frame_set = FrameSet(source=self._rig.serial, epoch=self.epoch, sequence=self._sequence,
                             colour=paired[StreamKind.COLOUR], depth=paired.get(StreamKind.DEPTH),
                             infrared=paired.get(StreamKind.INFRARED), depth_scale_m=self._rig.depth_scale_m)
        self._sequence += 1
        return frame_set


def _with_arrival(frame: Frame, arrival_ns: int) -> Frame:
    fields: dict[str, Any] = {name: getattr(frame, name) for name in frame.__dataclass_fields__}
    return Frame(**(fields | {"arrival_ns": arrival_ns}))


def _frame(message: Played, pixels: bytes) -> Frame:
    """A frame as recorded; its arrival is its sensor stamp until real-time pace says otherwise."""
    try:
        plane = np.frombuffer(pixels, dtype=np.dtype(message.dtype)).reshape(message.shape)
        return Frame(kind=StreamKind(message.kind), pixels=plane.copy(), frame_number=message.frame_number,
                     sensor_timestamp_ns=message.sensor_timestamp_ns, clock_domain=ClockDomain(message.clock_domain),
                     arrival_ns=message.sensor_timestamp_ns, bit_depth=message.bit_depth,
                     exposure_us=message.exposure_us, gain=message.gain, emitter=EmitterState(message.emitter),
                     spectrum=Spectrum(message.spectrum))
    except (ValueError, TypeError) as error:
        raise CorruptStreamError(f"{message.kind} frame {message.frame_number}: {error}") from error
