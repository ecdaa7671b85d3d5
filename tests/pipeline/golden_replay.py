"""The golden replay: a short stored simulated session, and what the real pipeline makes of it.

    python -m tests.pipeline.golden_replay            compare, and say what differs
    python -m tests.pipeline.golden_replay --update   write the expected lines anew (a commit of its own)
    python -m tests.pipeline.golden_replay --record   record the simulated session anew, too

The session is simulated and without sensor noise, so that it stays small; the checkpoint is the untrained test
checkpoint. Ignored, because they are wall-clock times: `IGNORED`. Ignored as well: `model_hash`, which belongs to the
machine that made the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from tests.pipeline.live_run import live_run

DATA = Path(__file__).resolve().parents[1] / "data"
SESSION = DATA / "golden_simulated_session.mcap"
EXPECTED = DATA / "golden_replay.json"
IGNORED = ("stamps_ns", "durations_ms", "model_hash")
#: Largest accepted difference of a logit, relative to the larger of 1 and its own size.
LOGIT_TOLERANCE = 1e-4
SETS = 14


def record() -> None:
    """Record the session: one bona fide face, 320 x 240, simulated, no sensor noise."""
    from capture.camera import Pace
    from capture.recording import RecordingWriter
    from capture.simulated.camera import SimulatedCamera
    from capture.simulated.sensors import SensorNoise

    SESSION.unlink(missing_ok=True)
    camera = SimulatedCamera("bona_fide", seed=5, pace=Pace.LOCKSTEP, frames=SETS, size=(320, 240),
                             noise=SensorNoise.none())
    description = camera.open()
    writer = RecordingWriter(SESSION, description, label="bona_fide", notes="simulated; for the golden replay test")
    for _ in range(SETS):
        writer.write(camera.read(1.0))
    writer.close()
    camera.close()


def replay(spec: str) -> list[dict[str, Any]]:
    """The lines of one lock-step run of the real processes over a recording, without the ignored fields."""
    with live_run("--camera", spec, "--pace", "lockstep") as run:
        code = run.wait(120)
        assert code == 0, run.transcript()
    return [{key: value for key, value in event.items() if key not in IGNORED} for event in run.events]


def differences(expected: Any, actual: Any, place: str = "$") -> list[str]:
    """Where two runs differ, numbers within tolerance excepted."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return [f"{place}: keys {sorted(expected)} against {sorted(actual)}"]
        return [d for key in expected for d in differences(expected[key], actual[key], f"{place}.{key}")]
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return [f"{place}: {len(expected)} entries against {len(actual)}"]
        return [d for i, pair in enumerate(zip(expected, actual, strict=True))
                for d in differences(*pair, f"{place}[{i}]")]
    if isinstance(expected, float) and isinstance(actual, float):
        same = math.isclose(expected, actual, rel_tol=LOGIT_TOLERANCE, abs_tol=LOGIT_TOLERANCE)
        return [] if same else [f"{place}: {expected!r} against {actual!r}"]
    return [] if expected == actual else [f"{place}: {expected!r} against {actual!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.record:
        record()
    lines = replay(f"replay:{SESSION}")
    if arguments.update or arguments.record:
        EXPECTED.write_text(json.dumps(lines, indent=1) + "\n")
        print(f"{EXPECTED}: {len(lines)} lines; session {SESSION.stat().st_size} bytes")
        return
    found = differences(json.loads(EXPECTED.read_text()), lines)
    print("\n".join(found) or "no difference")


if __name__ == "__main__":
    main()
