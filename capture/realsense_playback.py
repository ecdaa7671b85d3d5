"""The child process that plays one `.db3` through the SDK, and the wire format to its parent.

The SDK runs in a child because some damaged files make it spin for ever with Python's lock held, where no timeout of
the same process can fire. `python -m capture.realsense_playback FD PARENT PATH` writes messages to the pipe FD:

    4 bytes: length of the header, little-endian | header: MessagePack of one `PlaybackMessage` | `pixel_bytes` bytes

Playing is by sensor, without `rs.pipeline` (its syncer duplicates and mixes frames), and not in real time. Playback is
paused while the sensors start, because the first one's frames would otherwise fill the hand-over queue while the
second one's `start` waits with Python's lock held. The hand-over is a Python queue and not an `rs.frame_queue`: in
blocking mode the latter waits for room with Python's lock held, which no reader can then make.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from capture import realsense_sdk
from capture.camera import CameraError
from capture.frames import Frame, StreamKind
from capture.realsense_frames import DeviceFacts, depth_scale_of, formats_of, frame_from_sdk, kind_of, rig_from_profiles

#: SDK frames held between its thread and ours; the SDK owns sixteen a stream.
_HANDOVER_FRAMES = 6
#: Silence after the SDK says "stopped" that means nothing more will come.
_DRAIN_S = 0.3
_PR_SET_PDEATHSIG = 1


class Opened(msgspec.Struct, tag="opened", kw_only=True, forbid_unknown_fields=True):
    rig: dict[str, Any]
    frame_rate: float
    simulated: bool
    details: dict[str, str]


class Played(msgspec.Struct, tag="frame", kw_only=True, forbid_unknown_fields=True):
    """One frame; its pixels follow the header."""

    kind: str
    dtype: str
    shape: list[int]
    frame_number: int
    sensor_timestamp_ns: int
    clock_domain: str
    bit_depth: int
    exposure_us: float | None
    gain: float | None
    emitter: str
    spectrum: str
    pixel_bytes: int


class Ended(msgspec.Struct, tag="ended", kw_only=True, forbid_unknown_fields=True):
    delivered: dict[str, int]


class Failed(msgspec.Struct, tag="failed", kw_only=True, forbid_unknown_fields=True):
    reason: str


PlaybackMessage = Opened | Played | Ended | Failed


def played(frame: Frame) -> Played:
    assert frame.frame_number is not None
    return Played(kind=frame.kind, dtype=frame.pixels.dtype.name, shape=list(frame.pixels.shape),
                  frame_number=frame.frame_number, sensor_timestamp_ns=frame.sensor_timestamp_ns,
                  clock_domain=frame.clock_domain, bit_depth=frame.bit_depth, exposure_us=frame.exposure_us,
                  gain=frame.gain, emitter=frame.emitter, spectrum=frame.spectrum, pixel_bytes=frame.pixels.nbytes)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent goes, even while the SDK spins with Python's lock held."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)


class _Pipe:
    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)

    def send(self, message: PlaybackMessage, pixels: np.ndarray[Any, Any] | None = None) -> None:
        header = msgspec.msgpack.encode(message)
        self._file.write(len(header).to_bytes(4, "little"))
        self._file.write(header)
        if pixels is not None:
            self._file.write(pixels.data)
        self._file.flush()


def play(path: Path, pipe: _Pipe) -> None:
    """Play every depth, left infrared and colour frame into the pipe, then say how many there were."""
    rs = realsense_sdk.load()
    context = rs.context()
    device = context.load_device(str(path))
    playback = device.as_playback()
    playback.set_real_time(False)
    facts = DeviceFacts.of(device)
    profiles: dict[StreamKind, Any] = {}
    sensors = []
    scale, frame_rate = None, 0.0
    for sensor in playback.query_sensors():
        chosen = []
        for profile in sensor.get_stream_profiles():
            kind = kind_of(profile)
            if kind is not None and kind not in profiles and profile.format() in formats_of(kind):
                profiles[kind] = profile
                chosen.append(profile)
                frame_rate = max(frame_rate, float(profile.fps()))
                if kind is StreamKind.DEPTH:
                    scale = depth_scale_of(sensor)
        if chosen:
            sensors.append((sensor, chosen))
    if StreamKind.COLOUR not in profiles:
        pipe.send(Failed(reason="no colour stream in a format that can be read (rgb8, bgr8)"))
        return
    rig = rig_from_profiles(profiles, facts, scale)
    pipe.send(Opened(rig=rig.to_dict(), frame_rate=frame_rate, simulated=facts.simulated,
                     details={"name": facts.name, "product_id": facts.product_id, "firmware": facts.firmware,
                              "usb_type": facts.usb_type, "sdk": realsense_sdk.version(),
                              "infrared_spectrum": str(facts.infrared_spectrum)}))
    handover: queue.Queue[Any] = queue.Queue(_HANDOVER_FRAMES)
    playback.pause()
    for sensor, chosen in sensors:
        sensor.open(chosen)
    for sensor, _ in sensors:
        sensor.start(handover.put)
    # Frames flow before `resume` returns, so somebody else must be reading already: in this thread it would wait for
    # room in the queue for ever (seen in 2 of 25 runs).
    threading.Thread(target=playback.resume, daemon=True).start()
    delivered: Counter[str] = Counter()
    while True:
        try:
            sdk_frame = handover.get(timeout=_DRAIN_S)
        except queue.Empty:
            if playback.current_status() == rs.playback_status.stopped and handover.empty():
                break
            continue
        frame = frame_from_sdk(sdk_frame, facts, facts.infrared_spectrum, time.monotonic_ns())
        del sdk_frame
        if frame is not None:
            delivered[frame.kind] += 1
            pipe.send(played(frame), frame.pixels)
    pipe.send(Ended(delivered=dict(delivered)))


def main(arguments: list[str]) -> int:
    """Exit codes: 0 the file was played or the pipe says why not, 1 the parent has gone."""
    descriptor, parent, path = int(arguments[0]), int(arguments[1]), Path(arguments[2])
    die_with(parent)
    # The SDK writes its usage report below HOME; a replay on someone's machine leaves none.
    os.environ["HOME"] = "/nonexistent"
    pipe = _Pipe(descriptor)
    try:
        if path.suffix == ".bag":
            target = arguments[3]
            realsense_sdk.load().context().convert_bag_to_db3(str(path), target)
            pipe.send(Ended(delivered={}))
        else:
            play(path, pipe)
    except (CameraError, RuntimeError, ValueError) as error:
        pipe.send(Failed(reason=f"{type(error).__name__}: {error}"))
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    # Leave without finalisers: the SDK aborts the process when one of its threads is inside a Python callback then.
    os._exit(main(sys.argv[1:]))
