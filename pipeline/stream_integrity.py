"""What no honest stream does: pictures that repeat bit for bit, clocks that jump, another camera's frames. Pure.

A real sensor never gives the same plane twice: its noise sees to that. A frozen driver, a looped recording, one that
is fed in for a single modality, do. What this cannot see: a recording that is played once, or whose planes are changed
by as little as one level; that is what the network and three agreeing sensors are for.

Only booleans leave: the keyed hashes of the planes stay in the process that made them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from capture.frames import ClockDomain, Frame, FrameSet, Pixels, StreamKind
from pipeline.verdict import Reason

#: Code without the sensor behind it (`frozen_infrared`) -> why a session ends.
_REASONS = {"frozen": Reason.STREAM_REPEATED, "repeated": Reason.STREAM_REPEATED, "timestamp": Reason.CLOCK_JUMP,
            "skew": Reason.CLOCK_JUMP, "drift": Reason.CLOCK_JUMP, "domain": Reason.CLOCK_JUMP,
            "camera": Reason.CAMERA_CHANGED}

_NS_PER_MS = 1_000_000
#: A clock that runs ahead is looked for between now and the oldest so many seconds of the window, at least so long ago.
_LEAD_SECONDS, _LEAD_AFTER_S = 3, 2


def reason_of(codes: Iterable[str]) -> Reason:
    """Why a session ends on these codes; one that is unknown here counts as a camera that cannot be trusted."""
    return next((_REASONS.get(code.partition("_")[0], Reason.CAMERA_CHANGED) for code in codes), Reason.CAMERA_CHANGED)


@dataclass(frozen=True, kw_only=True)
class IntegrityLimits:
    """What is still taken for an honest stream.

    Attributes:
        remembered: planes of each sensor whose repetition is seen; 9,000 are five minutes at 30 a second.
        row_stride: each how many rows are hashed.
        least_texture: share of sampled pixels at neither end of the plane's range, below which it may repeat honestly:
            a covered lens, a saturated sensor, a depth plane without a measurement. Such planes fail the quality gates.
        skew_periods: sensor stamps within a set may differ by this many frame periods; pairing keeps half a one.
        lag_ms, lead_ms: a sensor's clock may fall behind the host's, or run ahead of it, by this much within
            `drift_window_s`. Wide, so that a busy host is no alarm: half speed crosses it in four seconds.
    """

    remembered: int = 9_000
    row_stride: int = 4
    least_texture: float = 0.05
    skew_periods: float = 1.0
    lag_ms: float = 2_000.0
    lead_ms: float = 1_000.0
    drift_window_s: float = 30.0


@dataclass
class _Sensor:
    """What is kept of one sensor."""

    last_hash: bytes | None = None
    seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    stamp_ns: int | None = None
    domain: ClockDomain | None = None
    frame_number: int | None = None
    offsets: deque[tuple[int, int]] = field(default_factory=deque)  # (second of arrival, least arrival - stamp in it)


class StreamIntegrity:
    """Feed it every set of one camera, in order.

    Args:
        serial: of the camera that was opened; sets of any other are `camera_serial`.
        frame_period_ms: nominal. limits: see there.
    """

    def __init__(self, serial: str, frame_period_ms: float, limits: IntegrityLimits | None = None) -> None:
        self.serial, self.frame_period_ms = serial, frame_period_ms
        self.limits = limits or IntegrityLimits()
        self._key = secrets.token_bytes(16)
        self._sensors: dict[StreamKind, _Sensor] = {}
        self._epoch: int | None = None

    def step(self, frame_set: FrameSet) -> list[str]:
        """Codes of what is wrong with this set, `[]` for an honest one.

        `frozen_<stream>`: the plane of the set before; `repeated_<stream>`: an earlier one;
        `timestamp_<stream>`: a stamp or frame number that does not advance; `drift_<stream>`: its clock and the host's
        part; `skew`: stamps within the set differ too much; `domain`: they cannot be compared;
        `camera_serial`: another camera.
        """
        codes = [] if frame_set.source == self.serial else ["camera_serial"]
        if frame_set.epoch != self._epoch:
            # A restarted camera numbers and stamps anew. Its pictures must differ from the old ones all the same.
            for sensor in self._sensors.values():
                sensor.stamp_ns = sensor.domain = sensor.frame_number = None
                sensor.offsets.clear()
            self._epoch = frame_set.epoch
        frames = list(frame_set.frames())
        if len({frame.clock_domain for frame in frames}) > 1:
            codes.append("domain")
        elif frame_set.skew_ns > self.limits.skew_periods * self.frame_period_ms * _NS_PER_MS:
            codes.append("skew")
        for frame in frames:
            sensor = self._sensors.setdefault(frame.kind, _Sensor())
            codes += [f"{code}_{frame.kind}" for code in (self._picture(sensor, frame.pixels),
                                                          self._stamps(sensor, frame)) if code is not None]
        return codes

    def _picture(self, sensor: _Sensor, pixels: Pixels) -> str | None:
        """Hash each fourth row: a repeated plane repeats there, too, and it costs a quarter of the time."""
        if not _textured(pixels, self.limits.least_texture):
            sensor.last_hash = None
            return None
        rows = np.ascontiguousarray(pixels[::self.limits.row_stride])
        found = hashlib.blake2b(rows.data, digest_size=16, key=self._key).digest()
        code = None
        if found == sensor.last_hash:
            code = "frozen"
        elif found in sensor.seen:
            code = "repeated"
        sensor.last_hash = found
        sensor.seen[found] = None
        sensor.seen.move_to_end(found)
        if len(sensor.seen) > self.limits.remembered:
            sensor.seen.popitem(last=False)
        return code

    def _stamps(self, sensor: _Sensor, frame: Frame) -> str | None:
        before, number, domain = sensor.stamp_ns, sensor.frame_number, sensor.domain
        sensor.stamp_ns, sensor.frame_number, sensor.domain = (frame.sensor_timestamp_ns, frame.frame_number,
                                                               frame.clock_domain)
        if domain is not None and frame.clock_domain is not domain:
            sensor.offsets.clear()
            return "domain"
        if before is not None and frame.sensor_timestamp_ns <= before:
            return "timestamp"
        if number is not None and frame.frame_number is not None and frame.frame_number <= number:
            return "timestamp"
        return "drift" if self._drifts(sensor, frame) else None

    def _drifts(self, sensor: _Sensor, frame: Frame) -> bool:
        """Compare arrival less stamp with its least value within the window.

        The least is the transfer without waiting, so that a busy host does not look like a slow clock. A clock that
        runs
        ahead lowers it with every frame: it is compared with what it was some seconds ago.
        """
        offset_ns = frame.arrival_ns - frame.sensor_timestamp_ns
        second = frame.arrival_ns // 1_000_000_000
        offsets = sensor.offsets
        while offsets and second - offsets[0][0] > self.limits.drift_window_s:
            offsets.popleft()
        all_ns = [least for _, least in offsets]
        past_ns = [least for at, least in offsets if second - at > _LEAD_AFTER_S]
        wrong = bool(all_ns) and offset_ns - min(all_ns) > self.limits.lag_ms * _NS_PER_MS
        if len(past_ns) >= _LEAD_SECONDS:
            wrong |= min(past_ns[:_LEAD_SECONDS]) - offset_ns > self.limits.lead_ms * _NS_PER_MS
        if offsets and offsets[-1][0] == second:
            offsets[-1] = (second, min(offsets[-1][1], offset_ns))
        else:
            offsets.append((second, offset_ns))
        return wrong


def _textured(pixels: Pixels, least: float) -> bool:
    """Whether enough of a plane lies between its ends; sampled at one pixel in 256."""
    sample = pixels[8::16, 8::16]
    if not sample.size:
        return True
    low, high = int(sample.min()), int(sample.max())
    return bool(((sample > low) & (sample < high)).mean() >= least)
