"""A simulated RealSense: our frames fed through the SDK's `software_device`.

It drives `RealSenseCamera` without hardware, and through the SDK's recorder it turns frame sets into real `.db3`
files. Its product line is SIMULATED, and so is everything read back from it or from its recordings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from capture import realsense_sdk
from capture.camera import CameraError, NoDeviceError
from capture.frames import ClockDomain, EmitterState, Frame, FrameSet, Spectrum, StreamKind
from capture.realsense_db3 import inspect_db3
from capture.realsense_frames import SIMULATED_PRODUCT_LINE
from capture.rig import Intrinsics, Rig

#: How a spectrum is told in the SDK's terms: product id and name, which `DeviceFacts.infrared_spectrum` reads back.
_IMITATES = {
    Spectrum.VISIBLE_AND_NEAR_INFRARED: ("0B07", "Simulated D435"),
    Spectrum.NEAR_INFRARED: ("0B07", "Simulated D435F"),
    Spectrum.VISIBLE: ("0B5B", "Simulated D405"),
    Spectrum.UNKNOWN: ("0000", "Simulated camera"),
}
#: Writable options of the stereo and the colour sensor: name -> (lowest, highest, default).
STEREO_OPTIONS = {"visual_preset": (0, 5, 0), "emitter_enabled": (0, 2, 1), "emitter_on_off": (0, 1, 0),
                  "laser_power": (0, 360, 150), "enable_auto_exposure": (0, 1, 1), "exposure": (1, 165_000, 8_500),
                  "gain": (16, 248, 16)}
COLOUR_OPTIONS = {"auto_exposure_priority": (0, 1, 1), "enable_auto_exposure": (0, 1, 1), "exposure": (1, 10_000, 156)}


class SimulatedDevice:
    """One `rs.software_device` with the streams of `rig`; `feed` is its shutter.

    Args:
        rig: geometry; its streams are the device's. frame_rate: nominal, a second.
        infrared_bits: 8 or 16. infrared_spectrum: what the infrared plane stands for.
        usb_type: as the device would report it.
    """

    def __init__(self, rig: Rig, *, frame_rate: int = 30, infrared_bits: int = 8,
                 infrared_spectrum: Spectrum = Spectrum.UNKNOWN, usb_type: str = "3.2") -> None:
        rs = realsense_sdk.load()
        self.rig, self.frame_rate = rig, frame_rate
        self.device = rs.software_device()
        product_id, name = _IMITATES[infrared_spectrum]
        info = rs.camera_info
        for key, value in ((info.serial_number, rig.serial), (info.name, name), (info.product_id, product_id),
                           (info.product_line, SIMULATED_PRODUCT_LINE), (info.usb_type_descriptor, usb_type),
                           (info.firmware_version, "simulated")):
            self.device.register_info(key, value)
        stereo, colour = self.device.add_sensor("Stereo Module"), self.device.add_sensor("RGB Camera")
        self._sensors = {StreamKind.DEPTH: stereo, StreamKind.INFRARED: stereo, StreamKind.COLOUR: colour}
        for sensor, options in ((stereo, STEREO_OPTIONS), (colour, COLOUR_OPTIONS)):
            for option, (low, high, default) in options.items():
                limits = rs.option_range()
                limits.min, limits.max, limits.step, limits.default = low, high, 1, default
                sensor.add_option(getattr(rs.option, option), limits, True)
        if rig.depth_scale_m is not None:
            stereo.add_read_only_option(rs.option.depth_units, rig.depth_scale_m)
        infrared = (rs.format.y8, 1) if infrared_bits == 8 else (rs.format.y16, 2)
        self._formats = {StreamKind.DEPTH: (rs.format.z16, 2), StreamKind.INFRARED: infrared,
                         StreamKind.COLOUR: (rs.format.rgb8, 3)}
        self._profiles = {kind: self._add_stream(kind, number) for number, kind in enumerate(sorted(rig.intrinsics))}
        self._register_extrinsics()
        self.device.create_matcher(rs.matchers.default)

    def _add_stream(self, kind: StreamKind, number: int) -> Any:
        rs = realsense_sdk.load()
        stream = rs.video_stream()
        stream.type, stream.index = {StreamKind.DEPTH: (rs.stream.depth, 0), StreamKind.INFRARED:
                                     (rs.stream.infrared, 1), StreamKind.COLOUR: (rs.stream.color, 0)}[kind]
        geometry = self.rig.intrinsics[kind]
        stream.uid, stream.width, stream.height, stream.fps = number, geometry.width, geometry.height, self.frame_rate
        stream.fmt, stream.bpp = self._formats[kind]
        stream.intrinsics = self._intrinsics(geometry)
        return self._sensors[kind].add_video_stream(stream, True).as_video_stream_profile()

    @staticmethod
    def _intrinsics(geometry: Intrinsics) -> Any:
        rs = realsense_sdk.load()
        raw = rs.intrinsics()
        raw.width, raw.height, raw.fx, raw.fy = geometry.width, geometry.height, geometry.fx, geometry.fy
        raw.ppx, raw.ppy, raw.coeffs = geometry.cx, geometry.cy, list(geometry.coefficients)
        raw.model = getattr(rs.distortion, geometry.model.value)
        return raw

    def _register_extrinsics(self) -> None:
        for kind, profile in self._profiles.items():
            if kind is not StreamKind.COLOUR:
                raw = realsense_sdk.load().extrinsics()
                transform = self.rig.to_colour[kind]
                raw.rotation = [float(v) for v in transform.matrix.T.ravel()]  # column-major
                raw.translation = [float(v) for v in transform.translation_m]
                profile.register_extrinsics_to(self._profiles[StreamKind.COLOUR], raw)

    def feed(self, frame_set: FrameSet) -> None:
        """Expose every plane of one set."""
        for frame in frame_set.frames():
            self.feed_frame(frame)

    def feed_frame(self, frame: Frame) -> None:
        """Expose one plane, with its own frame number, stamp and metadata. Only while a camera or recorder has started
        the streams; frames fed before that are lost, as on hardware.

        Raises:
            CameraError: a stream or a size that the rig does not have.
        """
        rs = realsense_sdk.load()
        geometry = self.rig.intrinsics.get(frame.kind)
        pixel_format, pixel_bytes = self._formats[frame.kind]
        if geometry is None or (frame.width, frame.height) != (geometry.width, geometry.height):
            expected = f"{geometry.width}x{geometry.height}" if geometry else "no such stream"
            raise CameraError(f"simulated device {self.rig.serial}: {frame.kind} frame {frame.frame_number} is "
                              f"{frame.width}x{frame.height}, the rig has {expected}")
        if frame.kind is not StreamKind.COLOUR and frame.pixels.dtype.itemsize != pixel_bytes:
            raise CameraError(f"simulated device {self.rig.serial}: {frame.kind} frame {frame.frame_number} is "
                              f"{frame.pixels.dtype}, the device was made for {pixel_format}")
        sensor, key = self._sensors[frame.kind], rs.frame_metadata_value
        # Without this the SDK makes up a rate from the frame number and the stamp, and its matcher duplicates frames.
        sensor.set_metadata(key.actual_fps, 1000 * self.frame_rate)
        if frame.exposure_us is not None:
            sensor.set_metadata(key.actual_exposure, round(frame.exposure_us))
        if frame.gain is not None:
            sensor.set_metadata(key.gain_level, round(frame.gain))
        if frame.emitter in (EmitterState.ON, EmitterState.OFF):
            sensor.set_metadata(key.frame_laser_power_mode, int(frame.emitter is EmitterState.ON))
        video = rs.software_video_frame()
        video.pixels, video.bpp = np.array(frame.pixels, copy=True), pixel_bytes
        video.stride = frame.width * pixel_bytes
        video.timestamp, video.frame_number = frame.sensor_timestamp_ns / 1e6, frame.frame_number or 0
        domain = rs.timestamp_domain
        video.domain = {ClockDomain.GLOBAL: domain.global_time, ClockDomain.HOST: domain.system_time}.get(
            frame.clock_domain, domain.hardware_clock)
        video.profile = self._profiles[frame.kind]
        if frame.kind is StreamKind.DEPTH:
            video.depth_units = self.rig.depth_scale_m
        sensor.on_video_frame(video)


class SimulatedDevices:
    """A `DeviceSource` over simulated devices. `unplug` and `plug` say which are there; `resets` counts resets.

    The SDK cannot take a software device away, so an unplugged one merely cannot be found: stop feeding it too.
    """

    def __init__(self, *devices: SimulatedDevice) -> None:
        self._devices = {device.rig.serial: device for device in devices}
        self._unplugged: set[str] = set()
        self.resets = 0

    def unplug(self, serial: str) -> None:
        self._unplugged.add(serial)

    def plug(self, serial: str) -> None:
        self._unplugged.discard(serial)

    def find(self, serial: str | None) -> Any:
        present = [s for s in self._devices if s not in self._unplugged]
        matching = [s for s in present if serial in (None, s)]
        if len(matching) != 1:
            raise NoDeviceError(f"simulated devices: asked for {serial or 'the only one'}, found "
                                f"{', '.join(present) or 'none'}")
        return self._devices[matching[0]].device

    def reset(self, device: Any) -> None:
        serial = device.get_info(realsense_sdk.load().camera_info.serial_number)
        if serial in self._unplugged:
            raise RuntimeError(f"simulated device {serial} is not there to be reset")
        self.resets += 1


def record_to_db3(path: Path, frame_sets: Iterable[FrameSet], rig: Rig, *, frame_rate: int = 30) -> int:
    """Write frame sets as a RealSense `.db3` file; returns how many sets were written.

    The file keeps pixels exactly, frame numbers, stamps, exposure, gain and laser state, intrinsics, and extrinsics to
    six decimals. It does not keep host arrival stamps, truth, or the epoch. Sets are buffered in memory while the SDK
    encodes them.

    Raises:
        CameraError: the path exists (the SDK would replace it silently) or does not end in .db3, a depth scale that
            the file cannot hold (steps of 1e-6 m), no set at all, or fewer images on disk than were written.
    """
    rs = realsense_sdk.load()
    if path.suffix != ".db3" or path.exists() or not path.parent.is_dir():
        raise CameraError(f"{path}: must be a new file named .db3 in a folder that exists")
    scale = rig.depth_scale_m
    if scale is not None and not math.isclose(round(scale, 6), scale, rel_tol=1e-6):
        raise CameraError(f"{path}: depth scale {scale} m is not a multiple of 1e-6 m and would be rounded")
    source = iter(frame_sets)
    first = next(source, None)
    if first is None:
        raise CameraError(f"{path}: no frame sets to write")
    infrared = first.infrared
    device = SimulatedDevice(rig, frame_rate=frame_rate,
                             infrared_bits=8 if infrared is None else 8 * infrared.pixels.dtype.itemsize,
                             infrared_spectrum=Spectrum.UNKNOWN if infrared is None else infrared.spectrum)
    written: dict[StreamKind, int] = dict.fromkeys(rig.intrinsics, 0)
    recorder = rs.recorder(str(path), device.device)
    sensors = recorder.query_sensors()
    sink = rs.frame_queue(1)
    sets = 0
    try:
        for sensor in sensors:
            if profiles := sensor.get_stream_profiles():
                sensor.open(profiles)
                sensor.start(sink)
        frame_set: FrameSet | None = first
        while frame_set is not None:
            device.feed(frame_set)
            for frame in frame_set.frames():
                written[frame.kind] += 1
            sets += 1
            frame_set = next(source, None)
    finally:
        for sensor in sensors:
            if sensor.get_stream_profiles() and sensor.get_active_streams():
                sensor.stop()
                sensor.close()
        # The file is complete only when the last reference to the recorder has gone.
        sensor = sensors = recorder = None
    found = inspect_db3(path).image_counts
    if {k: found.get(k, 0) for k in written} != written:
        raise CameraError(f"{path}: the recording is not complete, wrote {written} images, the file has {found}; "
                          "is the disk full, or did another process read the file?")
    return sets
