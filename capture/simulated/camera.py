"""`SimulatedCamera`: a scene before simulated sensors, behind the `Camera` contract. All its data is simulated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from capture.camera import (
    Camera,
    CameraDescription,
    CameraError,
    DisconnectedError,
    EndOfStreamError,
    FrameTimeoutError,
    MonotonicNs,
    Pace,
)
from capture.frames import ClockDomain, Frame, FrameSet, Pixels, Spectrum, StreamKind
from capture.rig import Rig
from capture.simulated.catalogue import make_scene
from capture.simulated.profiles import SensorNoise, SensorProfile, sensor_profile
from capture.simulated.scene import Scene
from capture.simulated.sensors import Sensors, simulated_rig
from capture.simulated.truth import SimulatedTruth


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong, by index of the simulated instant; ranges are half open (`range(10, 20)`).

    Attributes:
        stall: no set arrives: `read` runs into its timeout for each of these instants.
        no_infrared, no_depth: the stream is missing, so no complete set arrives; counted as `incomplete`.
        disconnect_at: from here on the device is gone for good.
    """

    stall: range = range(0)
    no_infrared: range = range(0)
    no_depth: range = range(0)
    disconnect_at: int | None = None


class SimulatedCamera(Camera):
    """A D435-like camera before a simulated scene; needs the extra `simulate`.

    Args:
        scene: a name of `capture.simulated.catalogue.SCENES`, or a `Scene` made with `make_scene`.
        seed: of the scene (when named) and of the noise; equal seeds give equal bits in `LOCKSTEP`.
        pace: `REALTIME` follows the clock and leaves out instants that the reader was too late for (counter `late`);
            `LOCKSTEP` gives every instant once, as fast as it is read, with `arrival_ns` in simulated time.
        frame_rate: instants a second. frames: number of instants until `EndOfStreamError`, None = endless.
        profile: kind of camera: a name of `capture.simulated.profiles.SENSOR_PROFILES`, or a `SensorProfile`.
        noise: what the sensors add, by default the profile's. rig: by default the profile's `simulated_rig(size)`.
        serial: of the unit; its fixed-pattern noise and dot pattern follow from it.
        skew_ms: how much later than depth and infrared the colour plane is exposed.
        sleep: called with seconds; with `monotonic_ns` it makes `REALTIME` testable.
        with_truth: put a `SimulatedTruth` on each set.

    `REALTIME` never lags: a set always shows the newest instant that is due.
    """

    def __init__(self, scene: str | Scene = "bona_fide", *, seed: int = 0, pace: Pace = Pace.REALTIME,
                 frame_rate: float = 10.0, frames: int | None = None, profile: str | SensorProfile = "d4xx",
                 noise: SensorNoise | None = None,
                 skew_ms: float = 0.0, size: tuple[int, int] = (640, 480), rig: Rig | None = None,
                 faults: Faults | None = None, serial: str = "SIM-D435-0",
                 monotonic_ns: MonotonicNs = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep,
                 with_truth: bool = False) -> None:
        super().__init__(monotonic_ns=monotonic_ns)
        if not frame_rate > 0:
            raise CameraError(f"simulated camera: frame_rate is {frame_rate}, must be positive")
        if frames is not None and frames < 0:
            raise CameraError(f"simulated camera: frames is {frames}, must be None or at least 0")
        self.pace, self.frame_rate, self.frames, self.skew_ns = pace, frame_rate, frames, round(skew_ms * 1e6)
        self.scene = make_scene(scene, seed=seed) if isinstance(scene, str) else scene
        self.profile = sensor_profile(profile)
        self.rig = rig if rig is not None else simulated_rig(size, serial=serial, profile=self.profile)
        self.noise = self.profile.noise if noise is None else noise
        self.faults = Faults() if faults is None else faults
        self.seed, self.with_truth, self._sleep = seed, with_truth, sleep
        self._sensors: Sensors | None = None
        self._index = self._sequence = self._start_ns = 0

    def open(self) -> CameraDescription:
        sensors = Sensors(self.scene, self.rig, self.noise, self.seed, self.profile)  # says if embreex is missing
        self._sensors, self._index, self._sequence = sensors, 0, 0
        self._start_ns = self.monotonic_ns()
        return self.describe()

    def describe(self) -> CameraDescription:
        """What `open` returns."""
        return CameraDescription(
            kind="simulated", serial=self.rig.serial, rig=self.rig, frame_rate=self.frame_rate,
            live=self.pace is Pace.REALTIME, simulated=True,
            details={"scene": self.scene.name, "seed": str(self.seed), "pace": self.pace.value,
                     "profile": self.profile.name})

    def close(self) -> None:
        self._sensors = None

    def read(self, timeout_s: float) -> FrameSet:
        if self._sensors is None:
            raise CameraError(f"{self.rig.serial}: read before open, or after close")
        deadline_ns = self.monotonic_ns() + round(timeout_s * 1e9)
        while True:
            index = self._next_index(deadline_ns)
            faults = self.faults
            if faults.disconnect_at is not None and index >= faults.disconnect_at:
                raise DisconnectedError(f"{self.rig.serial}: simulated disconnection at instant {index}")
            if self.frames is not None and index >= self.frames:
                raise EndOfStreamError(f"{self.rig.serial}: scene {self.scene.name} ended after {self.frames} instants")
            self._index = index + 1
            if index in faults.stall:
                self._lose("stall", f"simulated stall at instant {index}", deadline_ns)
            elif index in faults.no_infrared or index in faults.no_depth:
                self.counters["incomplete"] += 1
                gone = StreamKind.INFRARED if index in faults.no_infrared else StreamKind.DEPTH
                self._lose(f"missing_{gone}", f"no {gone} at instant {index}", deadline_ns)
            else:
                return self._frame_set(self._sensors, index)

    def _lose(self, cause: str, why: str, deadline_ns: int) -> None:
        """An instant that yields nothing: in lock-step one timeout each, else the wait goes on to the next instant."""
        self.counters[cause] += 1
        if self.pace is Pace.LOCKSTEP or self.monotonic_ns() >= deadline_ns:
            raise FrameTimeoutError(f"{self.rig.serial}: {why}")

    def _instant_ns(self, index: int) -> int:
        return round(index * 1e9 / self.frame_rate)

    def _next_index(self, deadline_ns: int) -> int:
        """The instant to show next; waits for it in `REALTIME`."""
        if self.pace is Pace.LOCKSTEP:
            return self._index
        due_ns = self._start_ns + self._instant_ns(self._index) + max(self.skew_ns, 0)
        now_ns = self.monotonic_ns()
        while now_ns < due_ns:
            if now_ns >= deadline_ns:
                raise FrameTimeoutError(f"{self.rig.serial}: instant {self._index} is not due within the timeout")
            self._sleep((min(due_ns, deadline_ns) - now_ns) * 1e-9)
            now_ns = self.monotonic_ns()
        newest = int((now_ns - self._start_ns - max(self.skew_ns, 0)) * self.frame_rate / 1e9)
        if self.frames is not None:
            newest = min(newest, self.frames)
        missed = max(newest - self._index, 0)
        # The scene's end is not an instant that was missed.
        self.counters["late"] += missed - (1 if missed and newest == self.frames else 0)
        return self._index + missed

    def _frame_set(self, sensors: Sensors, index: int) -> FrameSet:
        instant_ns = self._instant_ns(index)
        colour_ns = instant_ns + self.skew_ns
        time_s, colour_time_s = instant_ns * 1e-9, colour_ns * 1e-9
        planes = sensors.planes(index, time_s, colour_time_s)
        arrival_ns = max(instant_ns, colour_ns) if self.pace is Pace.LOCKSTEP else self.monotonic_ns()

        def frame(kind: StreamKind, pixels: Pixels, stamp_ns: int, bits: int, spectrum: Spectrum) -> Frame:
            return Frame(kind=kind, pixels=pixels, frame_number=index, sensor_timestamp_ns=stamp_ns,
                         clock_domain=ClockDomain.SIMULATED, arrival_ns=arrival_ns, bit_depth=bits,
                         emitter=self.profile.emitter, spectrum=spectrum)

        truth = SimulatedTruth(
            scene=self.scene.name, label=self.scene.label, species=self.scene.species, time_s=time_s,
            colour_time_s=colour_time_s, rig=self.rig, _stage=sensors.stage, _colour_view=sensors.colour_view,
            _depth_view=sensors.depth_view) if self.with_truth else None
        result = FrameSet(
            source=self.rig.serial, epoch=self.epoch, sequence=self._sequence,
            colour=frame(StreamKind.COLOUR, planes.colour, colour_ns, 8, Spectrum.VISIBLE),
            depth=frame(StreamKind.DEPTH, planes.depth, instant_ns, 16, self.profile.spectrum),
            infrared=frame(StreamKind.INFRARED, planes.infrared, instant_ns, 8, self.profile.spectrum),
            depth_scale_m=self.profile.depth_scale_m, truth=truth)
        self._sequence += 1
        return result
