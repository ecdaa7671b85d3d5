"""SDK frames and stream profiles become our nouns: `Frame`, `Intrinsics`, `Extrinsics`, `Rig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from capture import realsense_sdk
from capture.camera import CameraError
from capture.frames import ClockDomain, EmitterState, Frame, Spectrum, StreamKind
from capture.rig import DistortionModel, Extrinsics, Intrinsics, Rig, RigError

#: `camera_info.product_line` of the devices that `capture.simulated_device` makes, kept in the files it records.
SIMULATED_PRODUCT_LINE = "SIMULATED"

_BOTH = Spectrum.VISIBLE_AND_NEAR_INFRARED
#: Product id -> what its infrared imagers admit. The D43x and D45x have no visible-cut filter and the D415's imagers
#: carry a Bayer pattern, so a lit screen is not black in them; the D405 has an infrared-cut filter and no projector.
INFRARED_SPECTRUM_BY_PRODUCT: dict[str, Spectrum] = {
    "0AD3": _BOTH,  # D415
    "0B07": _BOTH,  # D435, D435f
    "0B3A": _BOTH,  # D435i, D435if
    "0B5C": _BOTH,  # D455, D455f
    "0B5B": Spectrum.VISIBLE,  # D405
}
#: Variants with a filter that passes only near infrared share the plain model's product id; only their names differ.
_PASS_FILTER_SUFFIXES = ("D435F", "D435IF", "D455F")


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What a device says of itself; empty strings where it says nothing."""

    name: str
    serial: str
    product_id: str
    product_line: str
    usb_type: str
    firmware: str

    @classmethod
    def of(cls, device: Any) -> DeviceFacts:
        info = realsense_sdk.load().camera_info

        def ask(key: Any) -> str:
            return str(device.get_info(key)) if device.supports(key) else ""

        return cls(name=ask(info.name), serial=ask(info.serial_number), product_id=ask(info.product_id).upper(),
                   product_line=ask(info.product_line), usb_type=ask(info.usb_type_descriptor),
                   firmware=ask(info.firmware_version))

    @property
    def simulated(self) -> bool:
        return self.product_line == SIMULATED_PRODUCT_LINE

    @property
    def infrared_spectrum(self) -> Spectrum:
        if self.name.upper().endswith(_PASS_FILTER_SUFFIXES):
            return Spectrum.NEAR_INFRARED
        return INFRARED_SPECTRUM_BY_PRODUCT.get(self.product_id, Spectrum.UNKNOWN)


def kind_of(profile: Any) -> StreamKind | None:
    """Depth, left infrared (the lowest index: it shares the depth grid) or colour; None for every other stream.

    Index 2 is the right imager, which is not registered to depth.
    """
    stream = realsense_sdk.load().stream
    kind = profile.stream_type()
    if kind == stream.depth:
        return StreamKind.DEPTH
    if kind == stream.infrared and profile.stream_index() <= 1:
        return StreamKind.INFRARED
    return StreamKind.COLOUR if kind == stream.color else None


def formats_of(kind: StreamKind) -> tuple[Any, ...]:
    """Pixel formats that become a `Frame` of this kind without loss."""
    formats = realsense_sdk.load().format
    return {StreamKind.DEPTH: (formats.z16,), StreamKind.INFRARED: (formats.y8, formats.y16),
            StreamKind.COLOUR: (formats.rgb8, formats.bgr8)}[kind]


def frame_from_sdk(sdk_frame: Any, facts: DeviceFacts, infrared_spectrum: Spectrum, arrival_ns: int) -> Frame | None:
    """Copy one SDK frame out of the SDK's buffers; None for a stream that we do not carry.

    The copy is not optional: the SDK owns sixteen buffers a stream, and holding them freezes the stream without an
    error. Exposure and laser state come from this frame's own metadata (a frameset's are those of its first member).
    The laser state of a colour frame is unknown: its exposure does not coincide with the stereo pair's. So is a real
    colour sensor's exposure: its metadata repeats the manual setting, in units of 100 us, while automatic exposure
    runs (librealsense issue 5035).
    """
    rs = realsense_sdk.load()
    profile = sdk_frame.get_profile()
    kind = kind_of(profile)
    if kind is None:
        return None
    pixels = np.array(sdk_frame.get_data(), copy=True, order="C")
    if profile.format() == rs.format.bgr8:
        pixels = np.ascontiguousarray(pixels[:, :, ::-1])
    metadata = rs.frame_metadata_value

    def ask(key: Any) -> int | None:
        return int(sdk_frame.get_frame_metadata(key)) if sdk_frame.supports_frame_metadata(key) else None

    exposure_us, gain, laser = ask(metadata.actual_exposure), ask(metadata.gain_level), None
    if kind is not StreamKind.COLOUR:
        laser = ask(metadata.frame_laser_power_mode)
    elif not facts.simulated:
        exposure_us = None
    domains = {rs.timestamp_domain.hardware_clock: ClockDomain.HARDWARE, rs.timestamp_domain.global_time:
               ClockDomain.GLOBAL, rs.timestamp_domain.system_time: ClockDomain.HOST}
    domain = domains.get(sdk_frame.frame_timestamp_domain)
    if domain is None:
        raise CameraError(f"{kind} frame {sdk_frame.frame_number} of {facts.serial}: timestamp domain "
                          f"{sdk_frame.frame_timestamp_domain} is not known to this build")
    return Frame(
        kind=kind, pixels=pixels, frame_number=int(sdk_frame.frame_number),
        sensor_timestamp_ns=round(sdk_frame.timestamp * 1e6),
        clock_domain=ClockDomain.SIMULATED if facts.simulated else domain, arrival_ns=arrival_ns,
        bit_depth=8 * pixels.dtype.itemsize,
        exposure_us=None if exposure_us is None else float(exposure_us), gain=None if gain is None else float(gain),
        emitter=EmitterState.UNKNOWN if laser is None else EmitterState.ON if laser else EmitterState.OFF,
        spectrum=Spectrum.VISIBLE if kind is StreamKind.COLOUR else infrared_spectrum)


def _intrinsics(profile: Any, place: str) -> Intrinsics:
    model = realsense_sdk.load().distortion
    names = {model.none: DistortionModel.NONE, model.brown_conrady: DistortionModel.BROWN_CONRADY,
             model.inverse_brown_conrady: DistortionModel.INVERSE_BROWN_CONRADY,
             model.modified_brown_conrady: DistortionModel.MODIFIED_BROWN_CONRADY}
    raw = profile.as_video_stream_profile().get_intrinsics()
    if raw.model not in names:
        raise CameraError(f"{place}: distortion model {raw.model} is not supported, only "
                          f"{', '.join(sorted(DistortionModel))}")
    k1, k2, p1, p2, k3 = (float(c) for c in raw.coeffs)
    return Intrinsics(width=raw.width, height=raw.height, fx=raw.fx, fy=raw.fy, cx=raw.ppx, cy=raw.ppy,
                      model=names[raw.model], coefficients=(k1, k2, p1, p2, k3))


def rig_from_profiles(profiles: dict[StreamKind, Any], facts: DeviceFacts, depth_scale_m: float | None) -> Rig:
    """The factory calibration of the streams in use.

    Raises:
        CameraError: an unknown distortion model, or values that are no rig.
    """
    place = f"{facts.name} {facts.serial}"
    to_colour = {StreamKind.COLOUR: Extrinsics.identity()}
    try:
        for kind, profile in profiles.items():
            if kind is not StreamKind.COLOUR:
                raw = profile.get_extrinsics_to(profiles[StreamKind.COLOUR])
                # rs2_extrinsics.rotation is column-major.
                to_colour[kind] = Extrinsics.from_arrays(np.array(raw.rotation, dtype=np.float64).reshape(3, 3).T,
                                                         np.array(raw.translation, dtype=np.float64))
        return Rig(serial=facts.serial, name=facts.name, to_colour=to_colour, depth_scale_m=depth_scale_m,
                   intrinsics={kind: _intrinsics(p, f"{place} {kind}") for kind, p in profiles.items()})
    except (RigError, RuntimeError) as error:
        raise CameraError(f"{place}: its calibration is not usable: {error}") from error


def depth_scale_of(sensor: Any) -> float | None:
    """Metres per depth unit. The SDK keeps it as float32 (0.0010000000475); six digits are what the device set."""
    option = realsense_sdk.load().option.depth_units
    return float(f"{sensor.get_option(option):.6g}") if sensor.supports(option) else None
