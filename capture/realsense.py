"""A live RealSense camera."""

from __future__ import annotations

import secrets
import time
from typing import Any

from capture import realsense_sdk
from capture.camera import (
    Camera,
    CameraDescription,
    CameraError,
    DisconnectedError,
    FrameTimeoutError,
    MonotonicNs,
    NoDeviceError,
)
from capture.frames import Frame, FrameSet, Spectrum, StreamKind
from capture.pairing import PairedFrames, Pairer
from capture.realsense_device import (
    DeviceSource,
    HardwareDevices,
    Selection,
    select_profiles,
    usb_remark,
)
from capture.realsense_frames import DeviceFacts, depth_scale_of, frame_from_sdk, rig_from_profiles
from capture.realsense_optics import RealSenseSettings, apply_optics
from capture.realsense_restart import Action, Event, RestartLadder, RestartPolicy
from capture.rig import Rig


class RealSenseCamera(Camera):
    """Depth, left infrared and colour of one RealSense D400, paired by sensor time.

    Sensors are read one by one through a frame queue and never through `rs.pipeline`, whose syncer repeats the last
    frame of a dead stream. Pixels are copied out of the SDK at once. A stall walks the restart ladder inside `read`;
    a restart begins a new epoch, so nothing downstream takes two sides of a gap for one sequence.

    Args:
        serial: which camera; None where only one is connected.
        settings: modes and optics. device_source: hardware, or a simulated device. restart_policy: see the ladder.
        monotonic_ns: host clock.
    """

    def __init__(self, serial: str | None = None, *, settings: RealSenseSettings | None = None,
                 device_source: DeviceSource | None = None, restart_policy: RestartPolicy | None = None,
                 monotonic_ns: MonotonicNs = time.monotonic_ns) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        self.serial = serial
        self.settings = settings or RealSenseSettings()
        self.restart_policy = restart_policy or RestartPolicy()
        self._source: DeviceSource = device_source or HardwareDevices()
        self._device: Any = None
        self._selection: Selection | None = None
        self._queue: Any = None
        self._facts: DeviceFacts | None = None
        self._rig: Rig | None = None
        self._spectrum = Spectrum.UNKNOWN
        self._pairer: Pairer | None = None
        self._ladder: RestartLadder | None = None
        self._ready: list[PairedFrames] = []
        self._sequence = 0
        self._carried: dict[str, int] = {}
        self.last_restart_error = ""

    def open(self) -> CameraDescription:
        """Find the device, set its optics, start its streams.

        Raises:
            NoDeviceError: nothing to open, at once. CameraError: no such mode, or the SDK refused.
        """
        self.close()
        self.epoch, self._sequence = secrets.randbits(48), 0
        self.counters.clear()
        self._carried.clear()
        details = self._start()
        assert self._facts is not None
        assert self._rig is not None
        self._ladder = RestartLadder(self.restart_policy, self.monotonic_ns())
        return CameraDescription(kind="realsense", serial=self._facts.serial, rig=self._rig, live=True,
                                 frame_rate=float(self.settings.frame_rate), simulated=self._facts.simulated,
                                 details=details)

    def read(self, timeout_s: float) -> FrameSet:
        """The next set; walks the restart ladder while none comes.

        Raises:
            FrameTimeoutError: none yet, read again. DisconnectedError: the ladder is at its end; every later read
                raises it too. CameraError: not open.
        """
        if self._ladder is None:
            raise CameraError("RealSense camera is not open")
        deadline_ns = self.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            self._take_everything()
            if self._ready:
                self._ladder.step(Event.SET, self.monotonic_ns())
                return self._frame_set(self._ready.pop(0))
            action = self._ladder.step(Event.SILENCE, self.monotonic_ns())
            while action is not Action.WAIT:
                action = self._ladder.step(self._perform(action), self.monotonic_ns())
            left_ms = (deadline_ns - self.monotonic_ns()) / 1e6
            if left_ms <= 0:
                raise FrameTimeoutError(f"RealSense {self.serial}: no complete set within {timeout_s:g} s "
                                        f"({dict(self.counters)})")
            self._wait(min(left_ms, self.restart_policy.wait_ms))

    def close(self) -> None:
        self._stop()
        self._device = self._facts = self._rig = self._ladder = self._pairer = None
        self._ready.clear()

    # -- device ---------------------------------------------------------------------------------------------------

    def _start(self) -> dict[str, str]:
        """Open and start the device that the source gives; after a failure nothing is held."""
        try:
            device = self._source.find(self.serial)
            facts = DeviceFacts.of(device)
            selection = select_profiles(device, self.settings)
            stereo = selection.sensor_of(StreamKind.DEPTH) or selection.sensor_of(StreamKind.INFRARED)
            scale = depth_scale_of(stereo) if StreamKind.DEPTH in selection.profiles else None
            rig = rig_from_profiles(selection.profiles, facts, scale)
            if self._rig is not None and self._rig.hash != rig.hash:
                raise CameraError(f"RealSense {facts.serial} came back with another calibration (rig {rig.hash[:12]}, "
                                  f"was {self._rig.hash[:12]})")
            # Kept before the first sensor is opened, so that `_stop` releases whatever a failure leaves half open.
            self._device, self._selection, self._facts, self._rig = device, selection, facts, rig
            self._spectrum = self.settings.infrared_spectrum or facts.infrared_spectrum
            details = self._describe(facts) | apply_optics(stereo, selection.sensor_of(StreamKind.COLOUR),
                                                           self.settings)
            self._start_streams()
        except RuntimeError as error:
            self._stop()
            raise CameraError(f"RealSense {self.serial or '(any)'}: the SDK refused to start: {error}") from error
        except BaseException:
            self._stop()
            raise
        self.serial = facts.serial
        return details

    def _describe(self, facts: DeviceFacts) -> dict[str, str]:
        details = {"name": facts.name, "product_id": facts.product_id, "firmware": facts.firmware,
                   "usb_type": facts.usb_type, "sdk": realsense_sdk.version(),
                   "infrared_spectrum": str(self._spectrum)}
        if remark := usb_remark(facts.usb_type):
            details["warning"] = remark
        return details

    def _start_streams(self) -> None:
        assert self._selection is not None
        period_ns = round(1e9 / self.settings.frame_rate)
        skew_ns = None if self.settings.max_skew_ms is None else round(self.settings.max_skew_ms * 1e6)
        self._carry_counters()
        self._pairer = Pairer(streams=tuple(self._selection.profiles), frame_period_ns=period_ns, max_skew_ns=skew_ns)
        self._ready.clear()
        # A fresh queue: one of an earlier start may still hold frames from before the gap.
        self._queue = realsense_sdk.load().frame_queue(self.settings.queue_size)
        for sensor, profiles in self._selection.sensors:
            sensor.open(list(profiles))
        for sensor, _ in self._selection.sensors:
            sensor.start(self._queue)

    def _stop_streams(self) -> None:
        self._queue = None
        for sensor, _ in self._selection.sensors if self._selection else ():
            for end in (sensor.stop, sensor.close):
                try:
                    end()
                except RuntimeError:  # not started, not open, or gone: there is nothing more to release
                    continue

    def _stop(self) -> None:
        self._stop_streams()
        self._selection = None

    def _perform(self, action: Action) -> Event:
        """One rung. What fails here is answered by the next rung."""
        if action is Action.GIVE_UP:
            serial = self.serial
            self._stop()
            raise DisconnectedError(f"RealSense {serial} is gone: restart, re-open and hardware reset did not bring "
                                    "its frames back; leave this process and start a clean one")
        self.counters[f"restart_{action}"] += 1
        try:
            if action is Action.RESTART_STREAMS:
                self._stop_streams()
                self._start_streams()
            elif action is Action.REOPEN:
                self._stop()
                self._start()
            else:
                self._stop()
                self._source.reset(self._device)
                return Event.DONE
        except (CameraError, RuntimeError) as error:
            self.counters["restart_failed"] += 1
            if not isinstance(error, NoDeviceError):
                self.last_restart_error = str(error)
            return Event.FAILED
        self.epoch, self._sequence = secrets.randbits(48), 0
        return Event.DONE

    # -- frames ---------------------------------------------------------------------------------------------------

    def _wait(self, milliseconds: float) -> None:
        """Wait for one frame; an SDK that has nothing to wait on (device gone) still takes the time."""
        queue = self._queue if self._queue is not None else realsense_sdk.load().frame_queue(1)
        arrived, frame = queue.try_wait_for_frame(max(1, int(milliseconds)))
        if arrived:
            self._accept([frame])

    def _take_everything(self) -> None:
        """Drain the queue: one frame a poll starves the streams that share it."""
        frames = []
        while self._queue is not None and (frame := self._queue.poll_for_frame()):
            frames.append(frame)
        self._accept(frames)

    def _accept(self, sdk_frames: list[Any]) -> None:
        assert self._pairer is not None or not sdk_frames
        if self._pairer is None or self._facts is None or not sdk_frames:
            return
        frames: list[Frame] = []
        for sdk_frame in sdk_frames:
            frame = frame_from_sdk(sdk_frame, self._facts, self._spectrum, self.monotonic_ns())
            if frame is not None:
                frames.append(frame)
        self._ready.extend(self._pairer.step(frames))
        for cause, count in self._pairer.counters.items():
            self.counters[cause] = self._carried.get(cause, 0) + count

    def _carry_counters(self) -> None:
        """A new pairer counts from zero, the camera goes on."""
        if self._pairer is not None:
            for cause, count in self._pairer.counters.items():
                self._carried[cause] = self._carried.get(cause, 0) + count

    def _frame_set(self, paired: PairedFrames) -> FrameSet:
        assert self._facts is not None
        assert self._rig is not None
        frame_set = FrameSet(source=self._facts.serial, epoch=self.epoch, sequence=self._sequence,
                             colour=paired[StreamKind.COLOUR], depth=paired.get(StreamKind.DEPTH),
                             infrared=paired.get(StreamKind.INFRARED), depth_scale_m=self._rig.depth_scale_m)
        self._sequence += 1
        return frame_set
