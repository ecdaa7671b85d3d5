"""Cameras by name: `realsense[:SERIAL] | replay:FILE | webcam[:INDEX|FILE] | simulated[:SCENE]`."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from capture.camera import Camera, CameraError, MonotonicNs, Pace

KINDS = {
    "realsense": "realsense[:SERIAL]",
    "replay": "replay:FILE (.mcap of `mmdg record`; .db3 or .bag of the RealSense SDK)",
    "webcam": "webcam[:INDEX or video FILE]",
    "simulated": "simulated[:SCENE]",
}
REALSENSE_FILES = (".db3", ".bag")


class CameraSpecificationError(ValueError):
    """A camera's name cannot be understood; the message lists what can."""


@dataclass(frozen=True)
class CameraSpecification:
    """A parsed camera name. `argument` is what follows the colon, "" without one."""

    kind: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


def parse_camera(spec: str) -> CameraSpecification:
    """Read a camera's name, as given on the command line or in a configuration.

    Raises:
        CameraSpecificationError: unknown kind, or a kind that needs an argument without one.
    """
    kind, colon, argument = spec.strip().partition(":")
    known = "; known are " + ", ".join(KINDS.values())
    if kind not in KINDS:
        if Path(spec).suffix in (".mcap", *REALSENSE_FILES):
            raise CameraSpecificationError(f"camera {spec!r}: did you mean 'replay:{spec}'?{known[1:]}")
        guess = difflib.get_close_matches(kind.lower(), KINDS, n=1, cutoff=0.5)
        hint = f", did you mean {guess[0]!r}?" if guess else ""
        raise CameraSpecificationError(f"camera {spec!r}: unknown kind {kind!r}{hint}{known}")
    if colon and not argument:
        raise CameraSpecificationError(f"camera {spec!r}: nothing follows the colon{known}")
    if kind == "replay" and not argument:
        raise CameraSpecificationError(f"camera {spec!r}: a replay needs a file, as in replay:session.mcap")
    return CameraSpecification(kind, argument)


def make_camera(spec: CameraSpecification | str, *, pace: Pace = Pace.REALTIME, seed: int = 0,
                monotonic_ns: MonotonicNs = time.monotonic_ns) -> Camera:
    """The camera of that name, not yet opened.

    Args:
        spec: a name or what `parse_camera` made of it. pace: for files and simulated scenes; a live camera is always
            `REALTIME`. seed: for simulated scenes. monotonic_ns: the host's clock.

    Raises:
        CameraSpecificationError: unknown kind or file type. CameraError: this installation lacks the camera's SDK, or
            lock-step was asked of a live camera.
    """
    specification = parse_camera(spec) if isinstance(spec, str) else spec
    kind, argument = specification.kind, specification.argument
    if kind == "replay":
        return _make_replay(Path(argument), pace, monotonic_ns)
    if kind == "webcam":
        source: int | Path = int(argument or "0") if (argument or "0").isdecimal() else Path(argument)
        return _make("capture.webcam", "WebcamCamera", source, pace=pace, monotonic_ns=monotonic_ns)
    if kind == "simulated":
        return _make("capture.simulated.camera", "SimulatedCamera", *([argument] if argument else []), seed=seed,
                     pace=pace, monotonic_ns=monotonic_ns)
    if kind == "realsense":
        if pace is Pace.LOCKSTEP:
            raise CameraError(f"{specification}: a live camera cannot run in lock-step; record it and replay the file")
        return _make("capture.realsense", "RealSenseCamera", argument or None, monotonic_ns=monotonic_ns)
    raise CameraSpecificationError(f"unknown kind of camera {kind!r}; known are {', '.join(KINDS.values())}")


def _make_replay(path: Path, pace: Pace, monotonic_ns: MonotonicNs) -> Camera:
    if path.suffix == ".mcap":
        return _make("capture.replay", "ReplayCamera", path, pace=pace, monotonic_ns=monotonic_ns)
    if path.suffix in REALSENSE_FILES:
        return _make("capture.realsense_file", "RealSenseFileCamera", path, pace=pace, monotonic_ns=monotonic_ns)
    if path.suffix == ".partial":
        raise CameraSpecificationError(f"replay:{path}: still being recorded, or cut short: try "
                                       f"`mmdg sessions recover {path}`")
    raise CameraSpecificationError(f"replay:{path}: unknown file type {path.suffix!r}; known are .mcap, "
                                   f"{', '.join(REALSENSE_FILES)} (a video file is webcam:{path})")


def _make(module: str, name: str, *arguments: Any, **keywords: Any) -> Camera:
    """Import late: each of these modules may load a heavy SDK, or lack it."""
    try:
        camera: Camera = getattr(import_module(module), name)(*arguments, **keywords)
    except ModuleNotFoundError as error:
        raise CameraError(f"{name} is not available in this installation: {error}") from error
    return camera
