"""What the integrity check of a frame set and a record of the audit log cost.

    python benchmarks/stream_integrity.py

Frame sets are random numbers of a RealSense's size (640 x 480); the log lies in the folder given by `--folder`, since a
flush costs what its disk costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from capture.frames import ClockDomain, Frame, FrameSet, StreamKind
from pipeline.audit_check import verify
from pipeline.audit_log import AuditLog
from pipeline.stream_integrity import StreamIntegrity

PERIOD_NS = 33_000_000


def frame_sets(count: int) -> list[FrameSet]:
    """Sets of noise, as unlike as a sensor's."""
    noise = np.random.default_rng(1)

    def frame(kind: StreamKind, index: int) -> Frame:
        shape, dtype = ((480, 640, 3), np.uint8) if kind is StreamKind.COLOUR else (
            (480, 640), np.uint16 if kind is StreamKind.DEPTH else np.uint8)
        return Frame(kind=kind, pixels=noise.integers(0, 255, shape).astype(dtype), frame_number=index,
                     sensor_timestamp_ns=index * PERIOD_NS, clock_domain=ClockDomain.HARDWARE,
                     arrival_ns=index * PERIOD_NS)

    return [FrameSet(source="one", epoch=1, sequence=i, depth_scale_m=1e-3, colour=frame(StreamKind.COLOUR, i),
                     depth=frame(StreamKind.DEPTH, i), infrared=frame(StreamKind.INFRARED, i)) for i in range(count)]


def timed_ms(step: Callable[[int], object], count: int) -> tuple[float, float]:
    """Median and 99th percentile of `step(0..count-1)` in milliseconds."""
    times = []
    for number in range(count):
        started = time.perf_counter()
        step(number)
        times.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times)), float(np.percentile(times, 99))


def main() -> None:
    """Print one row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where the log is written; default: a temporary folder")
    arguments = parser.parse_args()
    sets = frame_sets(arguments.sets)
    integrity = StreamIntegrity("one", PERIOD_NS / 1e6)
    rows = {"integrity of a 640 x 480 set": timed_ms(lambda i: integrity.step(sets[i]), len(sets))}
    content = {"session_id": "ab" * 16, "camera": "door", "verdict": "undecided", "reason": "deadline"}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for urgent in (False, True):
            path = Path(folder) / f"{'flushed' if urgent else 'plain'}.jsonl"
            with AuditLog(path) as log:
                rows[f"audit record{', flushed to the disk' if urgent else ''}"] = timed_ms(
                    lambda _, log=log, urgent=urgent: log.record("session.decided", content, urgent=urgent),
                    arguments.records)
        started = time.perf_counter()
        verify(path)
        rows["verifying a record"] = ((time.perf_counter() - started) * 1e3 / arguments.records,) * 2
    print(f"{'':34}{'median':>10}{'p99':>10}  of a 33 ms frame period")
    for name, (median, high) in rows.items():
        print(f"{name:34}{median:8.3f}ms{high:8.3f}ms  {median / (PERIOD_NS / 1e6):.1%}")


if __name__ == "__main__":
    main()
