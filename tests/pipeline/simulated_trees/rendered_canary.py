"""The rendered canary: what the simulator draws and renders for a few recordings, kept with the format it belongs to.

    python -m tests.pipeline.simulated_trees.rendered_canary            say what differs
    python -m tests.pipeline.simulated_trees.rendered_canary --update   write it anew (a commit of its own)

Trees and films are told apart by a hash of the domain specifications and of `FORMAT`; many numbers that decide pixels
(materials, shares of surroundings, noise) are constants of the simulator's modules, so whoever changes one has to raise
`FORMAT`. The canary notices who forgot. It holds simulated images only, of 20 x 15 cells.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capture.frames import FrameSet
from capture.simulated.catalogue import draw_light, draw_misses
from capture.simulated.formats import draw_format
from capture.simulated.gestures import draw_gesture
from capture.simulated.surroundings import draw_surroundings
from mmdg_model.training.samples import BONA_FIDE, Domain
from pipeline.simulated_benchmark import BenchmarkPlan, plan_benchmark
from pipeline.simulated_sessions.plan import FORMAT as SESSIONS_FORMAT
from pipeline.simulated_trees.domains import FORMAT
from pipeline.simulated_trees.plan import Recording
from pipeline.simulated_trees.presentation import recording_camera

KEPT = Path(__file__).resolve().parents[2] / "data" / "rendered_canary.npz"
#: Formats of trees and of sessions: both film with the same simulator.
FORMATS = f"{FORMAT}, {SESSIONS_FORMAT}"
#: Largest accepted difference of a cell's mean: levels of colour and infrared, per cent of holes, millimetres of depth.
#: Machines differ in the last bits of a float; a pixel here and there then falls to the other side of a threshold.
TOLERANCE = {"colour": 1.0, "infrared": 1.0, "holes": 2.0, "depth": 4.0}
_ROWS, _COLUMNS = 15, 20

_DRAWS: dict[str, Callable[[int], Any]] = {
    "surroundings": draw_surroundings, "format": draw_format, "gesture": draw_gesture, "misses": draw_misses,
    "light": draw_light}


def _plan() -> BenchmarkPlan:
    return plan_benchmark("small", seed=31, domains=tuple(Domain))


def filmed(plan: BenchmarkPlan) -> list[Recording]:
    """Every scene of the domain `L` once, and of each other domain one bona fide recording and one attack."""
    chosen: dict[tuple[Domain, str], Recording] = {}
    for (domain, _), planned in plan.recordings.items():
        for recording in planned:
            what = recording.scene if domain is Domain.LIVE else str(recording.species == BONA_FIDE)
            chosen.setdefault((domain, what), recording)
    return list(chosen.values())


def _cells(plane: NDArray[Any]) -> NDArray[np.float64]:
    """Means (15, 20[, bands]) of 32 x 32 pixels."""
    return np.asarray(plane.astype(np.float64).reshape(_ROWS, 32, _COLUMNS, 32, -1).mean(axis=(1, 3)).squeeze())


def _thumbnails(frame_set: FrameSet) -> dict[str, NDArray[np.float16]]:
    depth = frame_set.depth.pixels.astype(np.float64) * frame_set.depth_scale_m
    hole = depth == 0
    valid = np.maximum(_cells(~hole), 1e-9)
    return {"colour": _cells(frame_set.colour.pixels).astype(np.float16),
            "infrared": _cells(frame_set.infrared.pixels).astype(np.float16),
            "holes": (100 * _cells(hole)).astype(np.float16),
            # A cell of a face's edge is a mean over two distances; beyond 2 m errors are large anyway.
            "depth": (1e3 * np.minimum(_cells(depth) / valid, 2.0)).astype(np.float16)}


def _hash(drawn: Any) -> str:
    """SHA-256 of anything that is drawn; numbers count to six digits."""
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    return hashlib.sha256(repr(plain(drawn)).encode()).hexdigest()[:16]


def drawn() -> dict[str, str]:
    """What is drawn by seed, hashed: circumstances of all planned recordings, and each draw for 400 seeds."""
    plan = _plan()
    sessions = [asdict(recording) for planned in plan.recordings.values() for recording in planned]
    def of(draw: Callable[[int], Any]) -> list[Any]:
        values = [draw(seed) for seed in range(400)]
        return [asdict(each) if hasattr(each, "__dataclass_fields__") else each for each in values]
    return {"planned recordings": _hash(sessions), **{name: _hash(of(draw)) for name, draw in _DRAWS.items()}}


def rendered() -> dict[str, NDArray[np.float16]]:
    """Thumbnails of the first instant of each of the `filmed` recordings, by recording and plane."""
    found = {}
    for recording in filmed(_plan()):
        with recording_camera(recording, frames=1) as camera:
            for plane, cells in _thumbnails(camera.read(1.0)).items():
                found[f"{recording.domain} {recording.scene} {recording.species}/{plane}"] = cells
    return found


def kept() -> dict[str, NDArray[Any]]:
    """What is stored: `formats`, one entry for each draw, thumbnails."""
    with np.load(KEPT) as archive:
        return dict(archive)


def pixel_differences(expected: dict[str, NDArray[Any]], actual: dict[str, NDArray[np.float16]]) -> list[str]:
    """Which thumbnails differ by more than the tolerance in more than 1 % of their cells, and by how much."""
    found = []
    for name, cells in actual.items():
        before = expected.get(name)
        if before is None or before.shape != cells.shape:
            found.append(f"{name}: not kept")
            continue
        apart = np.abs(cells.astype(np.float64) - before.astype(np.float64))
        if (apart > TOLERANCE[name.rpartition("/")[2]]).mean() > 0.01:
            found.append(f"{name}: {apart.mean():.2f} on average, {apart.max():.1f} at most")
    return found + [f"{name}: no longer rendered" for name in expected if "/" in name and name not in actual]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    if parser.parse_args().update:
        draws = {name: np.array(value) for name, value in drawn().items()}
        np.savez_compressed(KEPT, formats=np.array(FORMATS), **draws, **rendered())
        print(f"{KEPT}: {KEPT.stat().st_size / 1e3:.0f} kB, formats {FORMATS}")
        return
    expected = kept()
    print(f"kept of formats {expected['formats']}, the code has {FORMATS}")
    for name, value in drawn().items():
        print(f"{name}: {'as kept' if str(expected[name]) == value else 'differs'}")
    print("\n".join(pixel_differences(expected, rendered())) or "the pixels are as kept")


if __name__ == "__main__":
    main()
