"""The seam "give me an rs.device": hardware here, simulated devices in `capture.simulated_device`.

Everything after the seam is one code path. Devices are always asked for before anything is started: starting a
pipeline without a device blocks the SDK for 15 s with Python's lock held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from capture import realsense_sdk
from capture.camera import CameraError, NoDeviceError
from capture.frames import StreamKind
from capture.realsense_frames import DeviceFacts, formats_of, kind_of
from capture.realsense_optics import RealSenseSettings

SUPPORTED_PRODUCT_LINE = "D400"
#: Members of the line that cannot give the three planes: product id -> why.
UNSUITABLE_PRODUCTS = {
    "0B5B": "D405: infrared-cut filter and no projector, its infrared plane is visible light",
    "1155": "D421: no colour sensor",
}


class DeviceSource(Protocol):
    """Where a camera gets its `rs.device` from, at open and again after a restart."""

    def find(self, serial: str | None) -> Any:
        """The device with this serial number, or the only one.

        Raises:
            NoDeviceError: none, several without a serial, or an unsupported one; the message lists what was found.
        """

    def reset(self, device: Any) -> None:
        """Reset the hardware; it will leave and enumerate again. Raises RuntimeError where it cannot."""


def unsuitable(facts: DeviceFacts) -> str | None:
    """Why a device cannot be used, or None."""
    if facts.product_line != SUPPORTED_PRODUCT_LINE:
        return f"product line {facts.product_line or 'unknown'}, only {SUPPORTED_PRODUCT_LINE} is supported"
    return UNSUITABLE_PRODUCTS.get(facts.product_id)


class HardwareDevices:
    """Cameras on this machine's USB. Keeps its context: a device whose context is gone stops working after a reset."""

    def __init__(self) -> None:
        self._context: Any = None

    def _devices(self) -> list[tuple[DeviceFacts, Any]]:
        if self._context is None:
            self._context = realsense_sdk.load().context()
        found = []
        for device in self._context.query_devices():
            try:
                found.append((DeviceFacts.of(device), device))
            except RuntimeError:  # it left while we asked
                continue
        return found

    def find(self, serial: str | None) -> Any:
        found = self._devices()
        usable = [(facts, device) for facts, device in found if unsuitable(facts) is None]
        if not found:
            wanted = "" if serial is None else f" (looked for serial number {serial})"
            raise NoDeviceError(f"no RealSense camera is connected{wanted}; check the cable, the port and the udev "
                                "rules")
        listing = "; ".join(f"{f.name} {f.serial}" + (f" (unsupported: {why})" if (why := unsuitable(f)) else "")
                            for f, _ in found)
        matching = [device for facts, device in usable if serial in (None, facts.serial)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            raise NoDeviceError(f"several RealSense cameras, name one by its serial number: {listing}")
        wanted = "no usable RealSense camera" if serial is None else f"no usable RealSense camera with serial {serial}"
        raise NoDeviceError(f"{wanted}; found: {listing}")

    def reset(self, device: Any) -> None:
        device.hardware_reset()

    def list(self) -> list[dict[str, str]]:
        rows = []
        for facts, _ in self._devices():
            why = unsuitable(facts)
            rows.append({"name": facts.name, "serial": facts.serial, "product_id": facts.product_id,
                         "product_line": facts.product_line, "usb_type": facts.usb_type, "firmware": facts.firmware,
                         "infrared_spectrum": str(facts.infrared_spectrum), "supported": "no" if why else "yes",
                         "remark": why or usb_remark(facts.usb_type)})
        return rows


def list_devices() -> list[dict[str, str]]:
    """Connected RealSense cameras, for `mmdg doctor`: name, serial, product_id, product_line, usb_type, firmware,
    infrared_spectrum, supported (yes/no), remark. Empty without a camera.

    Raises:
        RealSenseSdkError: the SDK is not installed.
    """
    return HardwareDevices().list()


def usb_remark(usb_type: str) -> str:
    """A warning for a USB 2 link, else an empty string. A USB 3 port may enumerate as 2.1 with a poor cable."""
    if usb_type.startswith("2"):
        return (f"connected as USB {usb_type}: only 640x480 at 30 or 1280x720 at 6 frames a second fit; "
                "use a USB 3 port and cable")
    return ""


@dataclass(frozen=True)
class Selection:
    """The sensors to open, each with its profiles, and the profile of every stream."""

    sensors: tuple[tuple[Any, tuple[Any, ...]], ...]
    profiles: dict[StreamKind, Any]

    def sensor_of(self, kind: StreamKind) -> Any | None:
        for sensor, profiles in self.sensors:
            if any(kind_of(profile) is kind for profile in profiles):
                return sensor
        return None


def select_profiles(device: Any, settings: RealSenseSettings) -> Selection:
    """Pick one profile a stream, by what sensors offer (`is_color_sensor` is False on simulated devices).

    Raises:
        CameraError: a stream is not offered in the asked mode; the message lists the modes that are.
    """
    profiles: dict[StreamKind, Any] = {}
    sensors = []
    offered: dict[StreamKind, set[str]] = {kind: set() for kind in settings.streams}
    for sensor in device.query_sensors():
        chosen: dict[StreamKind, Any] = {}
        for profile in sensor.get_stream_profiles():
            kind = kind_of(profile)
            if kind is None or kind not in offered or kind in profiles or profile.format() not in formats_of(kind):
                continue
            video = profile.as_video_stream_profile()
            offered[kind].add(f"{video.width()}x{video.height()}@{profile.fps()} {profile.format().name}")
            if (video.width(), video.height(), profile.fps()) == (*settings.resolution(kind), settings.frame_rate):
                best = chosen.get(kind)
                preference = formats_of(kind)
                if best is None or preference.index(profile.format()) < preference.index(best.format()):
                    chosen[kind] = profile
        if chosen:
            sensors.append((sensor, tuple(chosen.values())))
            profiles.update(chosen)
    for kind in settings.streams:
        if kind not in profiles:
            width, height = settings.resolution(kind)
            raise CameraError(f"{DeviceFacts.of(device).name}: no {kind} at {width}x{height}@{settings.frame_rate}; "
                              f"it offers {', '.join(sorted(offered[kind])) or f'no {kind} stream at all'}")
    return Selection(sensors=tuple(sensors), profiles=profiles)
