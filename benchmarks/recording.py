"""Can this machine record? Write and read speed of session files against the rate of a camera.

    python benchmarks/recording.py [--sets 60] [--folder DIR]

Frame sets are simulated (smooth ramps with sensor noise, not a face) at a size of a D435: colour, depth and infrared
640x480, 30 a second. Prints one table; the ratios are of this run only.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from capture.camera import CameraDescription
from capture.frames import ClockDomain, Frame, FrameSet, StreamKind
from capture.recording import RecordingReader, RecordingWriter
from capture.rig import Extrinsics, Intrinsics, Rig

WIDTH, HEIGHT, FRAME_RATE = 640, 480, 30.0


def simulated_sets(count):
    rng = np.random.default_rng(0)
    intrinsics = Intrinsics(width=WIDTH, height=HEIGHT, fx=600.0, fy=600.0, cx=319.5, cy=239.5)
    rig = Rig(serial="benchmark", name="simulated noise", intrinsics=dict.fromkeys(StreamKind, intrinsics),
              to_colour=dict.fromkeys(StreamKind, Extrinsics.identity()), depth_scale_m=0.001)
    planes = {  # pictures of a smooth scene with sensor noise of a few grey levels or depth units
        StreamKind.COLOUR: (np.linspace(20, 220, WIDTH)[None, :, None] + rng.normal(0, 3, (HEIGHT, WIDTH, 3))),
        StreamKind.DEPTH: (np.linspace(500, 900, HEIGHT)[:, None] + rng.normal(0, 2, (HEIGHT, WIDTH))),
        StreamKind.INFRARED: (np.linspace(10, 120, WIDTH)[None, :] + rng.normal(0, 4, (HEIGHT, WIDTH))),
    }
    dtypes = {StreamKind.COLOUR: np.uint8, StreamKind.DEPTH: np.uint16, StreamKind.INFRARED: np.uint8}
    for sequence in range(count):
        stamp_ns = round(sequence * 1e9 / FRAME_RATE)
        frames = {kind.value: Frame(kind=kind, pixels=np.roll(plane, sequence, axis=0).astype(dtypes[kind]),
                                    frame_number=sequence, sensor_timestamp_ns=stamp_ns, arrival_ns=stamp_ns,
                                    clock_domain=ClockDomain.SIMULATED) for kind, plane in planes.items()}
        yield rig, FrameSet(source="benchmark", epoch=1, sequence=sequence, depth_scale_m=0.001, **frames)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=60)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path, writer, write_s, raw = Path(folder) / "benchmark.mcap", None, 0.0, 0
        for rig, frames in simulated_sets(arguments.sets):
            if writer is None:
                writer = RecordingWriter(path, CameraDescription(kind="simulated", serial="benchmark", rig=rig,
                                                                 frame_rate=FRAME_RATE, live=False, simulated=True))
            started = time.perf_counter()
            writer.write(frames)
            write_s += time.perf_counter() - started
            raw += sum(frame.pixels.nbytes for frame in frames.frames())
        writer.close()
        size = path.stat().st_size
        started = time.perf_counter()
        with RecordingReader(path) as reader:
            count = sum(1 for _ in reader)
        read_s = time.perf_counter() - started
    period_s = 1 / FRAME_RATE
    print(f"simulated ramps with noise, {count} sets, {raw / count / 1e6:.2f} MB a set, one thread")
    for verb, seconds, note in (("write", write_s, ""), ("read", read_s, ", every plane verified")):
        each_s = seconds / count
        print(f"  {verb:<5}  {each_s * 1e3:6.2f} ms a set = {period_s / each_s:5.1f} x the rate of the camera{note}")
    print(f"  size   {size / raw:6.3f} of the raw planes, {size / count * FRAME_RATE / 1e6:.1f} MB a second")


if __name__ == "__main__":
    main()
