"""`Frame` and `FrameSet`: what a camera hands on.

A `Frame` is one plane of one sensor at one instant. A `FrameSet` is one complete, fresh, time-matched group of frames
of one camera. Both own their pixels: no array here aliases memory of a camera SDK, which reuses its buffers and
freezes streams whose frames are held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


class StreamKind(StrEnum):
    """The three sensors of an RGB-D-IR camera."""

    COLOUR = "colour"
    DEPTH = "depth"
    INFRARED = "infrared"


class ClockDomain(StrEnum):
    """Which clock a sensor timestamp was read from. Stamps of different domains are never compared."""

    HARDWARE = "hardware"  # the camera's own oscillator
    GLOBAL = "global"  # the camera's oscillator fitted to the host's clock by the SDK
    HOST = "host"  # the host, when the frame arrived: jitters by milliseconds
    SIMULATED = "simulated"


class EmitterState(StrEnum):
    ON = "on"
    OFF = "off"
    FLOOD = "flood"
    UNKNOWN = "unknown"


class Spectrum(StrEnum):
    """What light a plane's sensor admits. A D435's infrared imager also sees visible light; a D435f's does not."""

    VISIBLE = "visible"
    NEAR_INFRARED = "near_infrared"
    VISIBLE_AND_NEAR_INFRARED = "visible_and_near_infrared"
    UNKNOWN = "unknown"


class FrameError(ValueError):
    """A frame breaks its contract; the message names the stream and the offending value."""


_ALLOWED: dict[StreamKind, tuple[int, tuple[type, ...]]] = {
    StreamKind.COLOUR: (3, (np.uint8,)),
    StreamKind.DEPTH: (2, (np.uint16,)),
    StreamKind.INFRARED: (2, (np.uint8, np.uint16)),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One plane of one sensor.

    Attributes:
        kind: which sensor.
        pixels: colour `uint8 HxWx3` in RGB order; depth `uint16 HxW` in units of the set's `depth_scale_m`, 0 = no
            measurement; infrared `uint8` or `uint16 HxW`. C-contiguous and owned.
        frame_number: the sensor's own counter, or None where the source has none.
        sensor_timestamp_ns: when the sensor says the frame was taken, in the clock of `clock_domain`.
        arrival_ns: host `CLOCK_MONOTONIC` when the frame reached this process (in replay: as recorded).
        bit_depth: significant bits per sample (8, 10, 12 or 16).
        exposure_us, gain: as the sensor reported them for this frame, None where it does not.
        emitter, spectrum: state of the projector during this frame, and what light the sensor admits.

    Raises:
        FrameError: wrong dtype, wrong number of dimensions, or an empty plane.
    """

    kind: StreamKind
    pixels: Pixels
    frame_number: int | None
    sensor_timestamp_ns: int
    clock_domain: ClockDomain
    arrival_ns: int
    bit_depth: int = 8
    exposure_us: float | None = None
    gain: float | None = None
    emitter: EmitterState = EmitterState.UNKNOWN
    spectrum: Spectrum = Spectrum.UNKNOWN

    def __post_init__(self) -> None:
        dimensions, dtypes = _ALLOWED[self.kind]
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype.type not in dtypes:
            raise FrameError(f"{self.kind} frame {self.frame_number}: dtype {dtype}, expected one of "
                             f"{', '.join(d.__name__ for d in dtypes)}")
        if len(shape) != dimensions or (dimensions == 3 and shape[2] != 3) or 0 in shape:
            expected = "HxWx3" if dimensions == 3 else "HxW"
            raise FrameError(f"{self.kind} frame {self.frame_number}: shape {shape}, expected {expected}")
        if not self.pixels.flags.c_contiguous:
            raise FrameError(f"{self.kind} frame {self.frame_number}: pixels are a strided view, copy them first")

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSet:
    """One complete group of frames of one camera, taken at (nearly) one instant.

    Attributes:
        source: serial number of the camera, or a stable name for a source without one.
        epoch: random number drawn when the source was opened; a restarted source never continues an old epoch.
        sequence: counts from 0 within an epoch, without gaps of our own making.
        colour: always present.
        depth, infrared: None when the source has no such sensor.
        depth_scale_m: metres per depth unit; required with `depth`.
        truth: ground truth of a simulated source, None for every real one. Never leaves the process that made it.

    Raises:
        FrameError: a frame under the wrong name, or depth without a positive scale.
    """

    source: str
    epoch: int
    sequence: int
    colour: Frame
    depth: Frame | None = None
    infrared: Frame | None = None
    depth_scale_m: float | None = None
    truth: object | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for kind, frame in ((StreamKind.COLOUR, self.colour), (StreamKind.DEPTH, self.depth),
                            (StreamKind.INFRARED, self.infrared)):
            if frame is not None and frame.kind is not kind:
                raise FrameError(f"set {self.sequence} of {self.source}: a {frame.kind} frame in the place of {kind}")
        if self.depth is not None and not (self.depth_scale_m and self.depth_scale_m > 0):
            raise FrameError(f"set {self.sequence} of {self.source}: depth_scale_m is {self.depth_scale_m!r}, "
                             "depth needs a positive number of metres per unit")

    def frames(self) -> Iterator[Frame]:
        """The present frames: colour, depth, infrared."""
        for frame in (self.colour, self.depth, self.infrared):
            if frame is not None:
                yield frame

    @property
    def skew_ns(self) -> int:
        """Largest difference of sensor timestamps within the set."""
        stamps = [frame.sensor_timestamp_ns for frame in self.frames()]
        return max(stamps) - min(stamps)

    @property
    def arrival_ns(self) -> int:
        """When the set became complete: the latest arrival of its frames."""
        return max(frame.arrival_ns for frame in self.frames())
