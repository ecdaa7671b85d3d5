"""Is the camera there? Asked before anything heavy loads, so that a missing camera is told within seconds.

RealSense devices are queried in a process of their own: the SDK can hang or crash on a sick USB bus.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from capture.camera import CameraError, NoDeviceError
from capture.sources import parse_camera

QUERY_WITHIN_S = 4.0


def _query(serial: str | None, answer: Connection) -> None:
    from capture.realsense_device import HardwareDevices

    try:
        HardwareDevices().find(serial)
    except CameraError as error:
        answer.send(str(error))
    else:
        answer.send(None)


def probe_realsense(serial: str | None) -> None:
    """Look for the device.

    Raises:
        NoDeviceError: with what was found instead, or that the SDK did not answer within 4 s.
    """
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_query, args=(serial, sending), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(QUERY_WITHIN_S):
            raise NoDeviceError(f"the RealSense SDK did not answer within {QUERY_WITHIN_S:g} s; unplug the camera and "
                                "plug it in again, and run `mmdg doctor`")
        error = receiving.recv()
    except EOFError:
        raise NoDeviceError(f"the RealSense SDK crashed while looking for devices (exit code {process.exitcode}); "
                            "run `mmdg doctor`") from None
    finally:
        process.kill()
        process.join()
        receiving.close()
    if error is not None:
        raise NoDeviceError(error)


def probe(spec: str) -> None:
    """Check a camera specification as far as that is quick.

    Raises:
        CameraError: no such device, file or scene.
        CameraSpecificationError: not a camera specification.
    """
    camera = parse_camera(spec)
    if camera.kind == "realsense":
        probe_realsense(camera.argument or None)
    elif camera.kind == "simulated" and camera.argument:
        from capture.simulated.catalogue import SCENES, UnknownSceneError

        if camera.argument not in SCENES:
            raise UnknownSceneError(f"no simulated scene {camera.argument!r}; there are: {', '.join(SCENES)}")
    elif camera.kind in ("replay", "webcam") and camera.argument and not camera.argument.isdecimal() \
            and not Path(camera.argument).is_file():
        raise NoDeviceError(f"{spec}: no file at {camera.argument}; check the path")


def is_simulated(spec: str) -> bool:
    """Whether a camera shows nothing but simulations: a simulated scene, or a recording whose manifest says so.

    Only for what is said and chosen before the start. What decides is what each observation carries. False in doubt.
    """
    camera = parse_camera(spec)
    if camera.kind != "replay" or not camera.argument.endswith(".mcap"):
        return camera.kind == "simulated"
    from capture.recording import RecordingReader

    try:
        with contextlib.closing(RecordingReader(Path(camera.argument))) as recording:
            return recording.manifest.simulated
    except (CameraError, OSError):
        return False
