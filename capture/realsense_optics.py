"""Settings of a live RealSense, and the one guarded way in which options reach a sensor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from capture import realsense_sdk
from capture.frames import Spectrum, StreamKind

EVERY_STREAM = (StreamKind.COLOUR, StreamKind.DEPTH, StreamKind.INFRARED)


class EmitterMode(StrEnum):
    """The dot projector. `ALTERNATING` lights every other frame (`emitter_on_off`; global-shutter models only)."""

    ON = "on"
    OFF = "off"
    ALTERNATING = "alternating"


@dataclass(frozen=True, kw_only=True)
class RealSenseSettings:
    """Modes and optics of a live camera.

    Attributes:
        streams: required streams; colour always.
        stereo_width, stereo_height: one mode for depth and infrared, which come from one pair of imagers. 848x480 is
            the vendor's starting point for a D435 or D455; a D415 is better at 1280x720.
        colour_width, colour_height: colour mode. frame_rate: of every stream, a second.
        max_skew_ms: largest difference of sensor timestamps within a set, None for half a frame period.
        emitter: projector mode. laser_power: 0 to 360 mW on most models, None to leave the preset's.
        exposure_us: fixed exposure of depth and infrared in microseconds, None for automatic.
        colour_exposure: fixed exposure of colour in the sensor's own option unit (100 us on a D400, librealsense issue
            8243), None for automatic.
        gain: fixed gain of depth and infrared; only with a fixed exposure.
        depth_preset: a name of `rs.rs400_visual_preset`, for example `high_accuracy`; None leaves the device's.
        infrared_spectrum: what the infrared imagers really admit, where the operator knows better than the model
            table (a filter was fitted); None to go by the model.
        queue_size: frames held between two reads.

    Raises:
        ValueError: a value that cannot be meant; the message quotes it.
    """

    streams: tuple[StreamKind, ...] = EVERY_STREAM
    stereo_width: int = 848
    stereo_height: int = 480
    colour_width: int = 640
    colour_height: int = 480
    frame_rate: int = 30
    max_skew_ms: float | None = None
    emitter: EmitterMode = EmitterMode.ON
    laser_power: float | None = None
    exposure_us: float | None = None
    colour_exposure: float | None = None
    gain: float | None = None
    depth_preset: str | None = None
    infrared_spectrum: Spectrum | None = None
    queue_size: int = 32

    def __post_init__(self) -> None:
        if StreamKind.COLOUR not in self.streams:
            raise ValueError(f"RealSense settings: streams are {list(self.streams)}, colour is required")
        for name in ("stereo_width", "stereo_height", "colour_width", "colour_height", "frame_rate", "queue_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"RealSense settings: {name} is {getattr(self, name)}, must be positive")
        if self.max_skew_ms is not None and not self.max_skew_ms >= 0:
            raise ValueError(f"RealSense settings: max_skew_ms is {self.max_skew_ms}, must not be negative")
        if self.gain is not None and self.exposure_us is None:
            raise ValueError(f"RealSense settings: gain {self.gain} needs exposure_us, automatic exposure moves it")

    def resolution(self, kind: StreamKind) -> tuple[int, int]:
        if kind is StreamKind.COLOUR:
            return self.colour_width, self.colour_height
        return self.stereo_width, self.stereo_height


def set_option(sensor: Any, option: Any, asked: float) -> str:
    """Set one option if the sensor lets us; the answer says what was asked and what the device then reports."""
    if not sensor.supports(option):
        return f"asked {asked:g}, not supported"
    if sensor.is_option_read_only(option):
        return f"asked {asked:g}, read-only, is {sensor.get_option(option):g}"
    limits = sensor.get_option_range(option)
    if not limits.min <= asked <= limits.max:
        return f"asked {asked:g}, outside {limits.min:g} to {limits.max:g}, is {sensor.get_option(option):g}"
    try:
        sensor.set_option(option, asked)
    except RuntimeError as error:
        return f"asked {asked:g}, refused ({error}), is {sensor.get_option(option):g}"
    return f"asked {asked:g}, got {sensor.get_option(option):g}"


def apply_optics(stereo: Any | None, colour: Any, settings: RealSenseSettings) -> dict[str, str]:
    """Set every option of `settings`, preset first because it changes the others. Returns asked/got for the manifest.

    Auto-exposure priority of colour is always off: on, the sensor lowers its frame rate in the dark and drifts out of
    step with depth.

    Raises:
        ValueError: an unknown preset name; the message lists the known ones.
    """
    option = realsense_sdk.load().option
    results: dict[str, str] = {}

    def put(place: str, sensor: Any, name: str, asked: float) -> None:
        results[f"{place}.{name}"] = set_option(sensor, getattr(option, name), asked)

    if stereo is not None:
        if settings.depth_preset is not None:
            presets = realsense_sdk.load().rs400_visual_preset.__members__
            if settings.depth_preset not in presets:
                raise ValueError(f"RealSense settings: depth_preset {settings.depth_preset!r} is not one of "
                                 f"{', '.join(sorted(presets))}")
            put("depth", stereo, "visual_preset", float(int(presets[settings.depth_preset])))
        put("depth", stereo, "emitter_enabled", 0.0 if settings.emitter is EmitterMode.OFF else 1.0)
        put("depth", stereo, "emitter_on_off", 1.0 if settings.emitter is EmitterMode.ALTERNATING else 0.0)
        if settings.laser_power is not None:
            put("depth", stereo, "laser_power", settings.laser_power)
        put("depth", stereo, "enable_auto_exposure", 1.0 if settings.exposure_us is None else 0.0)
        if settings.exposure_us is not None:
            put("depth", stereo, "exposure", settings.exposure_us)
        if settings.gain is not None:
            put("depth", stereo, "gain", settings.gain)
    put("colour", colour, "auto_exposure_priority", 0.0)
    put("colour", colour, "enable_auto_exposure", 1.0 if settings.colour_exposure is None else 0.0)
    if settings.colour_exposure is not None:
        put("colour", colour, "exposure", settings.colour_exposure)
    return results
