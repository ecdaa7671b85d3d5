"""The camera process: frame sets in, observations (always) and bundles (when one face counts) out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from align.conditions import conditions
from align.crop import CropRefused, CropSettings, FaceAligner
from align.face_crop import FaceCrop
from capture.camera import (
    Camera,
    CameraDescription,
    CameraError,
    CorruptStreamError,
    EndOfStreamError,
    FrameTimeoutError,
    NoDeviceError,
    Pace,
)
from capture.frames import FrameSet, StreamKind
from detect.face_finder import FaceFinder
from detect.faces import Detector, DetectorError
from detect.tracking import TrackerSettings
from mmdg_model.stored_inputs import DEFAULT_IMAGE_SIZE
from pipeline import messages
from pipeline.bundle import pack, quality_on_the_wire
from pipeline.channels import DEALER, Endpoints, Poller, Socket, drain, send_now
from pipeline.config import CameraConfig, CropConfig, DetectionConfig
from pipeline.messages import CameraEnded, MessageError, Observation, ObservationAck, ObservedFace
from pipeline.policy import Policy
from pipeline.stage_context import StageContext
from pipeline.stream_integrity import StreamIntegrity

READ_TIMEOUT_S = 0.2
#: In lock-step a camera waits for the score of each set; a crashed worker is answered by the decision process before.
ACKNOWLEDGED_WITHIN_S = 60.0

#: Why a camera ended, from the error that ended it, most specific first.
_END_REASONS: tuple[tuple[type[CameraError], str], ...] = (
    (EndOfStreamError, "end_of_stream"), (CorruptStreamError, "corrupt_stream"), (CameraError, "device_lost"))


@dataclass(frozen=True, kw_only=True)
class CameraStageSettings:
    """What a camera process is started with."""

    camera: CameraConfig
    detection: DetectionConfig
    crop: CropConfig
    #: Side of the crops in pixels: what the model takes (`mmdg_model.stored_inputs`).
    crop_size: int = DEFAULT_IMAGE_SIZE


@dataclass(frozen=True)
class CameraStepResult:
    """What one frame set gave; `bundle` and `crop` are None when no single face counts."""

    observation: Observation
    bundle: list[bytes] | None
    crop: FaceCrop | None


class CameraStep:
    """From one frame set to what it shows: pure but for the tracker's memory and `monotonic_ns` stamps."""

    def __init__(self, name: str, description: CameraDescription, detector: Detector, crop: CropSettings, *,
                 lockstep: bool, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.name = name
        self.description = description
        self.lockstep = lockstep
        self.monotonic_ns = monotonic_ns
        # A track may pause as long as a stream may stall: below that, a busy machine would break every track.
        period_ms = 1e3 / description.frame_rate
        self.finder = FaceFinder(detector, tracking=TrackerSettings(
            lost_after_ms=max(TrackerSettings().lost_after_ms, Policy().stall_frame_periods * period_ms)))
        self.aligner = FaceAligner(description.rig, crop)
        self.integrity = StreamIntegrity(description.serial, period_ms)
        self._subject: int | None = None

    def step(self, frame_set: FrameSet, counters: dict[str, int]) -> CameraStepResult:
        """Detect, track, align and pack one set."""
        stamps = {"arrival": self.monotonic_ns() if self.lockstep else frame_set.arrival_ns}
        suspicious = self.integrity.step(frame_set)
        infrared = frame_set.infrared.pixels if frame_set.infrared is not None else None
        finding = self.finder.step(cast("NDArray[np.uint8]", frame_set.colour.pixels), infrared,
                                   frame_set.arrival_ns)
        stamps["detected"] = self.monotonic_ns()
        crop: FaceCrop | None = None
        refusal: str | None = None
        if finding.subject is not None:
            found = self.aligner.step(frame_set, finding.subject)
            if isinstance(found, CropRefused):
                refusal = found.condition
            else:
                crop = found
        seen = conditions(finding, crop.quality if crop is not None else None, refusal=refusal)
        stamps["cropped"] = self.monotonic_ns()
        subject = finding.subject.track_id if finding.subject is not None else None
        broken = subject is not None and self._subject is not None and subject != self._subject
        self._subject = subject if subject is not None else self._subject
        bundle = None
        if crop is not None:
            stamps["sent"] = self.monotonic_ns()
            bundle = pack(crop, frame_set, camera=self.name, rig_hash=self.description.rig.hash, stamps_ns=stamps,
                          lockstep=self.lockstep)
        observation = Observation(
            camera=self.name, source=frame_set.source, epoch=frame_set.epoch, sequence=frame_set.sequence,
            stamp_ns=frame_set.arrival_ns, frame_period_ms=1e3 / self.description.frame_rate,
            faces=[ObservedFace(track_id=f.track_id, x=f.box.x, y=f.box.y, width=f.box.width, height=f.box.height,
                                score=f.box.score) for f in finding.faces],
            subject=subject, track_broken=broken, conditions=seen,
            quality=quality_on_the_wire(crop) if crop is not None else None, bundle_sent=bundle is not None,
            modalities=["rgb", *(name for name, frame in (("depth", frame_set.depth), ("infrared", frame_set.infrared))
                                 if frame is not None)],
            counters=counters, lockstep=self.lockstep, simulated=self.description.simulated,
            camera_kind=self.description.camera_kind, integrity=suspicious)
        return CameraStepResult(observation, bundle, crop)


class CameraNotPinned(CameraError):  # noqa: N818 - what it is, as `NoDevice`
    """Another camera, or one with another calibration, stands where the configuration pins one."""


def check_pins(config: CameraConfig, description: CameraDescription) -> None:
    """Compare an opened camera with what is pinned.

    Raises:
        CameraNotPinned: names both.
    """
    for what, wanted, found in (("serial", config.serial, description.serial),
                                ("rig_sha256", config.rig_sha256, description.rig.hash)):
        if wanted is not None and wanted != found:
            raise CameraNotPinned(f"camera {config.name!r}: {what} is {found!r}, pinned is {wanted!r}; put the right "
                                  "camera in its place, or calibrate and sign anew (docs/configuration.md)")


def open_step(name: str, settings: CameraStageSettings) -> tuple[Camera, CameraStep, Detector]:
    """Open the camera and everything that looks at its frames.

    Raises:
        CameraError, DetectorError: after which nothing is held.
    """
    from capture.sources import make_camera
    from detect.blazeface import BlazeFaceDetector

    pace = Pace(settings.camera.pace)
    camera = make_camera(settings.camera.spec, pace=pace, seed=settings.camera.seed)
    description = camera.open()
    try:
        check_pins(settings.camera, description)
        detector = BlazeFaceDetector(min_score=settings.detection.min_score)
    except BaseException:
        camera.close()
        raise
    crop = CropSettings(size=settings.crop_size, view=StreamKind(settings.crop.view),
                        face_scale=settings.crop.face_scale)
    return camera, CameraStep(name, description, detector, crop, lockstep=pace is Pace.LOCKSTEP), detector


def run(name: str, endpoints: Endpoints, settings: CameraStageSettings) -> None:
    """Serve until the source ends, is lost, or we are asked to stop."""
    import cv2

    cv2.setNumThreads(1)  # the other cores belong to the network
    context = StageContext(name, endpoints)
    try:
        context.progress("starting", 0)
        try:
            camera, step, detector = open_step(settings.camera.name, settings)
        except (CameraError, DetectorError) as error:
            fatal = {NoDeviceError: "no_device", CorruptStreamError: "corrupt_stream",
                     CameraNotPinned: "release_refused", DetectorError: "no_face_model"}.get(type(error), ""
                                                                                                          "camera_failed")
            context.progress("failed", 0, detail={"error": str(error), "fatal": fatal})
            return
        try:
            _serve(context, camera, step)
        finally:
            camera.close()
            detector.close()
    finally:
        context.close()


def _serve(context: StageContext, camera: Camera, step: CameraStep) -> None:
    # `immediate`: nothing is queued for a hub that is not there, so a restarted hub never sees old frames.
    hub = context.sockets.open(DEALER, context.endpoints.bundles, bind=False, high_water_mark=2, immediate=1)
    decision = context.sockets.open(DEALER, context.endpoints.observations, bind=False)
    detail = {"serial": step.description.serial, "kind": step.description.kind,
              "rig_hash": step.description.rig.hash, **step.description.details}
    context.progress("ready", 0, detail=detail)
    reason, explanation, sequence, stamp_ns = "stopped", "", 0, time.monotonic_ns()
    while not context.stop_requested:
        try:
            frame_set = camera.read(READ_TIMEOUT_S)
        except FrameTimeoutError:
            camera.counters["timeout"] += 1
            context.progress("running", sequence, camera.counters, detail)
            continue
        except CameraError as error:
            reason = next(name for kind, name in _END_REASONS if isinstance(error, kind))
            explanation = str(error)
            break
        result = step.step(frame_set, dict(camera.counters))
        sequence, stamp_ns = frame_set.sequence, frame_set.arrival_ns
        observation = result.observation
        if result.bundle is not None and not _send_bundle(context, hub, result.bundle, wait=step.lockstep):
            camera.counters["hub_unreachable"] += 1
            observation = messages.replace(observation, bundle_sent=False)
        if not send_now(decision, [messages.encode(observation)]):
            camera.counters["decision_unreachable"] += 1
        elif step.lockstep and not _acknowledged(context, decision, observation):
            reason, explanation = "device_lost", f"set {sequence} was not acknowledged by the decision process"
            break
        context.progress("running", sequence, camera.counters, detail)
    send_now(decision, [messages.encode(CameraEnded(
        camera=step.name, source=step.description.serial, epoch=camera.epoch, reason=reason, detail=explanation,
        stamp_ns=stamp_ns, counters=dict(camera.counters)))])
    context.progress("ended", sequence, camera.counters, {"reason": reason, "detail": explanation})
    if reason == "device_lost":
        # In-process recovery has failed or is known to hang: the supervisor starts a clean process.
        raise SystemExit(1)


def _send_bundle(context: StageContext, hub: Socket, bundle: list[bytes], *, wait: bool) -> bool:
    """Send to the hub; in lock-step wait for a hub that is being (re)started, since no set may be lost."""
    deadline = time.monotonic() + (ACKNOWLEDGED_WITHIN_S if wait else 0.0)
    while not send_now(hub, bundle):
        if time.monotonic() >= deadline or context.stop_requested:
            return False
        Poller(hub).wait(20)
    return True


def _acknowledged(context: StageContext, decision: Socket, observation: Observation) -> bool:
    poller = Poller(decision)
    deadline = time.monotonic() + ACKNOWLEDGED_WITHIN_S
    while time.monotonic() < deadline:
        if context.stop_requested:
            return True
        poller.wait(50)
        for frames in drain(decision):
            try:
                acknowledgement = messages.decode(frames[-1], ObservationAck)
            except MessageError as error:
                context.log.warning("dropped: %s", error)
                continue
            if (acknowledgement.epoch, acknowledgement.sequence) == (observation.epoch, observation.sequence):
                return True
        context.progress("running", observation.sequence)
    return False
